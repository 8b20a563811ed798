"""Fast line integrals: slices resampled by rows and columns separately onto a plane facing the volume.

For detectors along the index axes, what pixel (q, z) sees of slice k is a product of two 1-D hats:

    image[q, z] = sum_k sum_{i,j} hat(Q[k, q] - i) hat(Z[k, z] - j) V[k, i, j],

with positions Q, Z affine in the pixel (Joseph's sum, factored). `aligned` uses this as it is.
`shear_warp` sums onto a virtual detector parallel to the slices, through the middle of the volume,
and warps that image to the real one: a line integral depends on the ray only
(Lacroute & Levoy, SIGGRAPH 1994, in its perspective form).

The adjoint is written by hand: each voxel gathers the few pixels whose hats cover it, so neither way
scatters, and extra memory is a few slices. Cameras are planned in NumPy and take no gradient here.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.drr.rays import STEEPEST, Rays, image_axis

VIRTUAL_SAMPLING = 1.5
"""Virtual pixels per detector pixel, each way: interpolation error 3e-3 instead of 7e-3 at 1."""

FINEST_PITCH = 0.25
"""Virtual pixels are no finer than this many voxels: the projection has no detail below."""

MOST_TAPS = 16
"""Most pixels a voxel may gather from along one axis; finer detectors or nearer sources go elsewhere."""

ALIGNED_WITHIN = 1e-3
"""Voxels that a detector's edge may stray from an index axis and still count as along it."""

_MARGIN = 3  # empty virtual pixels around what is needed: the warp reaches two


class Comb(NamedTuple):
    """Sample positions along one volume axis: `start[k] + step[k] p` voxels for slice k, pixel p."""

    start: np.ndarray
    step: np.ndarray
    pixels: int

    def pairs(self, size: int) -> tuple[np.ndarray, ...]:
        """The two of `size` voxels about each position and their hat weights, [slices, pixels] each.

        Voxels outside are read at the edge with weight 0.
        """
        x = self.start[:, None] + self.step[:, None] * np.arange(self.pixels)
        i = np.floor(x)
        first = np.where((i >= 0) & (i < size), 1.0 - (x - i), 0.0)
        second = np.where((i >= -1) & (i < size - 1), x - i, 0.0)
        voxels = (np.clip(i + n, 0, size - 1).astype(np.int32) for n in (0, 1))
        return *voxels, first, second

    def covers(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The pixels within a voxel of each of `size` voxels and their weights, [slices, taps, size]."""
        start, step = self.start[:, None], self.step[:, None]
        voxel = np.arange(size)
        taps = int(np.ceil(2.0 / np.abs(step).min()))
        first = np.floor(np.minimum((voxel - 1 - start) / step, (voxel + 1 - start) / step)) + 1
        pixel = first[:, None] + np.arange(taps)[:, None]
        weight = 1.0 - np.abs(start[..., None] + step[..., None] * pixel - voxel)
        weight = np.where((pixel >= 0) & (pixel < self.pixels), np.maximum(weight, 0.0), 0.0)
        return np.clip(pixel, 0, self.pixels - 1).astype(np.int32), weight


class Plan(NamedTuple):
    """How an image is computed, known before the volume is.

    Attributes:
        axis: index axis of the slices.
        comb_q: pixel positions along the first other axis.
        comb_z: pixel positions along the second.
        rows_along_z: aligned: rows of the detector run along the second other axis.
        origin: shear-warp: (slice coordinate, first q, first z) of the virtual detector, in voxels.
        pitch: shear-warp: its pixel pitch along q and z, in voxels.
    """

    axis: int
    comb_q: Comb
    comb_z: Comb
    rows_along_z: bool = True
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pitch: tuple[float, float] = (1.0, 1.0)


def _others(axis: int) -> tuple[int, int]:
    first, second = (other for other in range(3) if other != axis)
    return first, second


def _slice_axis(rays: Rays, shape: tuple[int, int, int]) -> int | None:
    """The axis whose slices all rays cross from end to end, none too steeply; None if there is none."""
    axis, worst = image_axis(rays)
    source = rays.source[axis]
    pixels = [source + d[axis] for d in rays.index.corners(rays.shape)]
    low, high = -0.5, shape[axis] - 0.5
    through = (source <= low and min(pixels) >= high) or (source >= high and max(pixels) <= low)
    return int(axis) if through and worst <= STEEPEST else None


def _within_taps(plan: Plan) -> Plan | None:
    pitches = np.abs(np.stack([plan.comb_q.step, plan.comb_z.step]))
    return plan if pitches.min() * MOST_TAPS >= 2.0 else None


def plan_aligned(rays: Rays, shape: tuple[int, int, int]) -> Plan | None:
    """The plan for a detector along the index axes with the volume between source and detector.

    None if the camera is not of this kind (see `drr.choose`).
    """
    axis = _slice_axis(rays, shape)
    if axis is None:
        return None
    q, z = _others(axis)
    s, (corner, u, v) = rays.source, rays.index
    u_edge, v_edge = np.abs(u) * rays.shape[1], np.abs(v) * rays.shape[0]
    for of_u, of_v in ((q, z), (z, q)):
        stray_u, stray_v = np.delete(u_edge, of_u), np.delete(v_edge, of_v)
        if max(stray_u.max(), stray_v.max()) <= ALIGNED_WITHIN:
            t = (np.arange(shape[axis]) - s[axis]) / corner[axis]
            columns = Comb(s[of_u] + t * corner[of_u], t * u[of_u], rays.shape[1])
            rows = Comb(s[of_v] + t * corner[of_v], t * v[of_v], rays.shape[0])
            comb_q, comb_z = (columns, rows) if of_u == q else (rows, columns)
            return _within_taps(Plan(axis, comb_q, comb_z, rows_along_z=of_u == q))
    return None


def plan_shear_warp(rays: Rays, shape: tuple[int, int, int]) -> Plan | None:
    """The plan for any pose whose rays cross all slices of one axis; None for others.

    The virtual detector covers what both the real one and the volume cover.
    """
    axis = _slice_axis(rays, shape)
    if axis is None:
        return None
    s, middle = rays.source, (shape[axis] - 1) / 2
    d = rays.index.spread(rays.shape)
    reach = (middle - s[axis]) / d[..., axis]
    ends = (middle - s[axis]) / (np.array([-1.0, shape[axis]]) - s[axis])
    t = (np.arange(shape[axis]) - s[axis]) / (middle - s[axis])
    first, pitch, combs = [], [], []
    for other in _others(axis):
        seen = s[other] + reach * d[..., other]
        steps = [np.abs(np.diff(seen, axis=way)).max() for way in (0, 1) if seen.shape[way] > 1]
        h = max(max(steps, default=1.0) / VIRTUAL_SAMPLING, FINEST_PITCH)
        low = max(seen.min(), (s[other] + ends * (-1.0 - s[other])).min())
        high = min(seen.max(), (s[other] + ends * (shape[other] - s[other])).max())
        pixels = int(np.ceil(max(high - low, 0.0) / h)) + 1 + 2 * _MARGIN
        first.append(float(low + high - (pixels - 1) * h) / 2)
        pitch.append(float(h))
        combs.append(Comb(s[other] + t * (first[-1] - s[other]), t * h, pixels))
    (comb_q, comb_z), (pitch_q, pitch_z), (first_q, first_z) = combs, pitch, first
    origin = (middle, first_q, first_z)
    return _within_taps(Plan(axis, comb_q, comb_z, origin=origin, pitch=(pitch_q, pitch_z)))


def aligned(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel of a detector along the index axes."""
    image = sum_of_slices(mu, plan)
    image = image.T if plan.rows_along_z else image
    return image * _cast(mu.dtype, rays.length_mm / abs(rays.index.corner[plan.axis]))


def shear_warp(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel, through a virtual detector.

    Differs from `joseph` by the cubic interpolation of one smooth image; within two pixels of a
    shadow's edge it may be slightly negative.
    """
    d = rays.index.spread(rays.shape)
    middle, *first = plan.origin
    reach = (middle - rays.source[plan.axis]) / d[..., plan.axis]
    q, z = (
        (rays.source[other] + reach * d[..., other] - start) / h
        for other, start, h in zip(_others(plan.axis), first, plan.pitch)
    )
    mm = rays.length_mm / np.abs(d[..., plan.axis])
    corners, parts = zip(
        *(_cell(x, comb.pixels) for x, comb in ((q, plan.comb_q), (z, plan.comb_z)))
    )
    planned = (_cast(mu.dtype, x) for x in (*corners, *parts, mm))
    return _warp(sum_of_slices(mu, plan), *planned)


def _cell(x, pixels):
    """The pixel at or below each position and how far the position is beyond it, in [0, 1).

    Positions in the margin and outside of it, where all is zero, read the margin.
    """
    whole = np.floor(x)
    return np.clip(whole, 1, pixels - 3).astype(np.int32), x - whole


@jax.jit
def _warp(image, j, i, part_q, part_z, mm):
    """Catmull-Rom interpolation of `image` at (j + part_q, i + part_z), times mm."""
    flat, width = image.reshape(-1), image.shape[1]
    total, weights_z = jnp.zeros_like(mm), _catmull_rom(part_z)
    for row, weight_q in enumerate(_catmull_rom(part_q), -1):
        line = jnp.zeros_like(mm)
        for column, weight_z in enumerate(weights_z, -1):
            line += weight_z * _take(flat, (j + row) * width + i + column)
        total += weight_q * line
    return total * mm


def _catmull_rom(f):
    """Weights of the pixels at -1, 0, 1, 2 for a point at f in [0, 1)."""
    f2, f3 = f * f, f * f * f
    return (
        -0.5 * f + f2 - 0.5 * f3,
        1.0 - 2.5 * f2 + 1.5 * f3,
        0.5 * f + 2.0 * f2 - 1.5 * f3,
        -0.5 * f2 + 0.5 * f3,
    )


def sum_of_slices(mu: Float[Array, "x y z"], plan: Plan) -> Float[Array, "q z"]:
    """The factored sum over the slices of any axis, without lengths; its adjoint only gathers.

    All positions are rounded once, in NumPy: a compiler that computes a position twice, for a voxel
    and for its weight, may round it to either side of an integer.
    """
    if plan.axis == 2:  # the contiguous axis stays the last one where it can
        mu = jnp.moveaxis(mu, 2, 0)
    axis = 0 if plan.axis == 2 else plan.axis
    shape, combs = mu.shape, (plan.comb_q, plan.comb_z)
    sizes = shape[1 - axis], shape[2]
    cast = functools.partial(_cast, mu.dtype)
    pairs = [jax.tree.map(cast, comb.pairs(size)) for comb, size in zip(combs, sizes)]

    @jax.custom_vjp
    def project(volume):
        return _project(volume, *pairs, axis=axis)

    def backproject(_, image):
        covers = [jax.tree.map(cast, comb.covers(size)) for comb, size in zip(combs, sizes)]
        return (_backproject(image, *covers, axis=axis),)

    project.defvjp(lambda volume: (project(volume), None), backproject)
    return project(mu)


@functools.partial(jax.jit, static_argnames="axis")
def _project(volume, pairs_q, pairs_z, axis):
    """image[q, z] of slices along `axis` (0 or 1); z is the last axis, q the other one."""
    n0, n1, depth = volume.shape
    flat = volume.reshape(n0 * n1, depth)
    slice_stride, q_stride = (n1, 1) if axis == 0 else (1, n1)
    i0, i1, a0, a1 = pairs_q
    slices, columns = i0.shape
    first_row = (jnp.arange(slices, dtype=jnp.int32) * slice_stride)[:, None]
    i0, i1 = i0 * q_stride + first_row, i1 * q_stride + first_row
    line_start = (jnp.arange(columns, dtype=jnp.int32) * depth)[:, None]

    def at_z(lines, j0, j1, b0, b1):
        line = lines.reshape(-1)
        first, second = (_take(line, line_start + j[None]) for j in (j0, j1))
        return b0[None] * first + b1[None] * second

    # The resampled lines of a slice wait in the carry for one step: that keeps XLA:CPU from fusing
    # the two stages and computing the lines anew for every pixel.
    def add_slice(carry, step):
        total, lines, pairs = carry
        r0, r1, w0, w1, next_pairs = step
        total += at_z(lines, *pairs)
        lines = w0[:, None] * _take(flat, r0) + w1[:, None] * _take(flat, r1)
        return (total, lines, next_pairs), None

    empty = jnp.zeros((columns, depth), volume.dtype)
    nothing = tuple(jnp.zeros_like(x[0]) for x in pairs_z)
    start = (jnp.zeros((columns, pairs_z[0].shape[1]), volume.dtype), empty, nothing)
    (total, lines, pairs), _ = lax.scan(add_slice, start, (i0, i1, a0, a1, pairs_z))
    return total + at_z(lines, *pairs)


@functools.partial(jax.jit, static_argnames="axis")
def _backproject(image, covers_q, covers_z, axis):
    """dV[k, q, z]: the sum over the pixels whose hats cover the voxel."""
    (i, a), (j, b) = covers_q, covers_z
    by_rows = image.T

    def collect(lines, index, weight):
        return sum(w[:, None] * _take(lines, n) for n, w in zip(index, weight))

    # Two stages and a transpose between, each a step behind the one before, for the same reason.
    def make_slice(carry, step):
        ahead, lines = carry
        i, a, j, b = step
        return (collect(by_rows, j, b), ahead.T), collect(lines, i, a)

    def two_ahead(x):
        return jnp.concatenate([x[1:], x[-1:], x[-1:]])[1:]

    second = min(1, len(j) - 1)
    start = collect(by_rows, j[second], b[second]), collect(by_rows, j[0], b[0]).T
    _, volume = lax.scan(make_slice, start, (i, a, two_ahead(j), two_ahead(b)))
    return volume if axis == 0 else volume.transpose(1, 0, 2)


def _cast(dtype, x):
    """A planned array, floats as `dtype`, still in NumPy: what a custom_vjp closes over stays concrete."""
    return x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x


def _take(rows, index):
    return rows.at[index].get(mode="promise_in_bounds")
