"""Sums over a volume's slices, each resampled by hat weights that factor into rows and columns.

image[p, r] = sum_k sum_q sum_z hat(q_k(p) - q) hat(z_k(r) - z) V[k, q, z],   hat(x) = max(0, 1 - |x|)

On CPUs forward, adjoint and position gradient only gather: each voxel collects the few pixels whose
hats cover it, so nothing scatters, and extra memory is a few slices. Elsewhere the hats are small
dense matrices, the form of tensor units. Differentiable in volume and positions to any order.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.types import AnyArray


class Comb(NamedTuple):
    """Where the pixels lie along one volume axis in every slice, in voxels: `start + step p`.

    `at` is what counts, and what is differentiated; start and step only find the pixels near a voxel.
    """

    at: Float[AnyArray, "slices pixels"]
    start: Float[AnyArray, " slices"]
    step: Float[AnyArray, " slices"]


class Form(NamedTuple):
    """What is fixed when a program is compiled.

    Attributes:
        axis: volume axis of the slices, 0 or 1; z is the last axis, q the other one.
        shape: voxels along the volume's axes.
        taps: most pixels within a voxel of any voxel, along q and along z.
        moves: whether positions may be differentiated; known ones need not be.
    """

    axis: int
    shape: tuple[int, ...]
    taps: tuple[int, ...]
    moves: bool

    @property
    def sizes(self) -> tuple[int, int]:
        """Voxels along q and z."""
        return self.shape[1 - self.axis], self.shape[2]


def comb(start: Any, step: Any, pixels: int) -> Comb:
    """The comb of that many pixels, each position rounded once.

    A compiler that computes a traced position twice, for a voxel and for its weight, may round it to
    either side of an integer: a loop's output it computes once.
    """
    if isinstance(start, np.ndarray):
        return Comb(start[:, None] + step[:, None] * np.arange(pixels), start, step)
    index = jnp.arange(pixels, dtype=start.dtype)
    at = lax.map(lambda line: line[0] + line[1] * index, (start, step))
    return Comb(at, start, step)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sum_of_slices(
    volume: Float[Array, "a b z"], q: Comb, z: Comb, form: Form
) -> Float[Array, "p r"]:
    """The image: the sum over slices of their resampled pixels."""
    return _project(volume, q, z, axis=form.axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def spread_to_slices(
    image: Float[Array, "p r"], q: Comb, z: Comb, form: Form
) -> Float[Array, "a b z"]:
    """The adjoint of `sum_of_slices` in the volume: every slice collects the image's pixels."""
    return _backproject(image, q, z, form=form)


def _rules(function, adjoint, of_volume):
    """<V, A' y> = <A V, y> is one bilinear form: adjoint to each other, one gradient by the positions."""

    def forward(x, q, z, form):
        return function(x, q, z, form), (x if form.moves else None, q, z)

    def backward(form, saved, y):
        x, q, z = saved
        volume, image = (x, y) if of_volume else (y, x)
        moved = _position_gradient(volume, q, z, image, form=form) if form.moves else (None, None)
        return adjoint(y, q, z, form), *moved

    return forward, backward


sum_of_slices.defvjp(*_rules(sum_of_slices, spread_to_slices, of_volume=True))
spread_to_slices.defvjp(*_rules(spread_to_slices, sum_of_slices, of_volume=False))


def _by_platform(by_gathers, by_matrices, *arrays, **fixed):
    gathers, matrices = (functools.partial(form, **fixed) for form in (by_gathers, by_matrices))
    return lax.platform_dependent(*arrays, cpu=gathers, default=matrices)


@functools.partial(jax.jit, static_argnames="axis")
def _project(volume, q, z, axis):
    # Known positions are constants: the barrier keeps XLA from folding what is made of them.
    at_q, at_z = lax.optimization_barrier((q.at, z.at))
    return _by_platform(project_by_gathers, project_by_matrices, volume, at_q, at_z, axis=axis)


@functools.partial(jax.jit, static_argnames="form")
def _backproject(image, q, z, form):
    q, z = lax.optimization_barrier((q, z))
    return _by_platform(backproject_by_gathers, backproject_by_matrices, image, q, z, form=form)


@functools.partial(jax.jit, static_argnames="form")
def _position_gradient(volume, q, z, image, form):
    """Gradients of <image, sum_of_slices(volume)> by the positions of q and of z."""
    q, z = lax.optimization_barrier((q, z))
    forms = position_gradient_by_gathers, position_gradient_by_matrices
    at_q, at_z = _by_platform(*forms, volume, q, z, image, form=form)
    none_q, none_z = jax.tree.map(jnp.zeros_like, (q, z))
    return none_q._replace(at=at_q), none_z._replace(at=at_z)


def _pairs(at, size):
    """The two of `size` voxels about each position, their hat weights, and the weights' slopes.

    Voxels outside are read at the edge with weight and slope 0.
    """
    below = jnp.floor(at)
    inside = (below >= 0) & (below < size), (below >= -1) & (below < size - 1)
    voxels = (jnp.clip(below + n, 0, size - 1).astype(jnp.int32) for n in (0, 1))
    first = jnp.where(inside[0], 1.0 - (at - below), 0.0)
    second = jnp.where(inside[1], at - below, 0.0)
    falling = jnp.where(inside[0], -1.0, 0.0).astype(at.dtype)
    rising = jnp.where(inside[1], 1.0, 0.0).astype(at.dtype)
    return *voxels, first, second, falling, rising


def _covers(comb, size, taps):
    """The pixels within a voxel of each of `size` voxels and their weights, [slices, taps, size]."""
    voxel = jnp.arange(size, dtype=comb.at.dtype)
    start, step = comb.start[:, None], comb.step[:, None]
    ends = (voxel[None] - 1 - start) / step, (voxel[None] + 1 - start) / step
    first = (jnp.floor(jnp.minimum(*ends)) + 1).astype(jnp.int32)
    pixel = first[:, None] + jnp.arange(taps, dtype=jnp.int32)[None, :, None]
    pixels = comb.at.shape[1]
    inside = (pixel >= 0) & (pixel < pixels)
    pixel = jnp.clip(pixel, 0, pixels - 1)
    at = jax.vmap(_take)(comb.at, pixel)
    weight = jnp.maximum(1.0 - jnp.abs(at - voxel[None, None]), 0.0)
    return pixel, jnp.where(inside, weight, 0.0)


def _take(rows, index):
    return rows.at[index].get(mode="promise_in_bounds")


def _line_pairs(at_q, axis, shape):
    """`_pairs` along q, counted among all lines of the volume along z below each other."""
    slice_stride, q_stride = (shape[1], 1) if axis == 0 else (1, shape[1])
    i0, i1, *weights = _pairs(at_q, shape[1 - axis])
    first_row = (jnp.arange(len(at_q), dtype=jnp.int32) * slice_stride)[:, None]
    return i0 * q_stride + first_row, i1 * q_stride + first_row, *weights


def _along_z(lines, j0, j1, b0, b1):
    """Each line interpolated at its pixels: two weighted voxels a pixel."""
    columns, depth = lines.shape
    line_start = (jnp.arange(columns, dtype=jnp.int32) * depth)[:, None]
    flat = lines.reshape(-1)
    first, second = (_take(flat, line_start + j[None]) for j in (j0, j1))
    return b0[None] * first + b1[None] * second


def _collect(lines, index, weight):
    """Weighted sum over the taps of the lines at `index`."""
    return sum(w[:, None] * _take(lines, n) for n, w in zip(index, weight))


def _ahead(x, by):
    """The values `by` slices later, the last ones repeated."""
    return jnp.concatenate([x[by:], *[x[-1:]] * min(by, len(x))])


def project_by_gathers(volume, at_q, at_z, axis):
    """`sum_of_slices` for CPUs."""
    flat = volume.reshape(-1, volume.shape[2])
    i0, i1, a0, a1, _, _ = _line_pairs(at_q, axis, volume.shape)
    pairs_z = _pairs(at_z, volume.shape[2])[:4]

    # The resampled lines of a slice wait in the carry for one step: that keeps XLA:CPU from fusing
    # the two stages and computing the lines anew for every pixel.
    def add_slice(carry, step):
        total, lines, pairs = carry
        r0, r1, w0, w1, next_pairs = step
        total += _along_z(lines, *pairs)
        lines = w0[:, None] * _take(flat, r0) + w1[:, None] * _take(flat, r1)
        return (total, lines, next_pairs), None

    columns, rows = at_q.shape[1], at_z.shape[1]
    empty = jnp.zeros((columns, volume.shape[2]), volume.dtype)
    nothing = tuple(jnp.zeros_like(x[0]) for x in pairs_z)
    start = (jnp.zeros((columns, rows), volume.dtype), empty, nothing)
    (total, lines, pairs), _ = lax.scan(add_slice, start, (i0, i1, a0, a1, pairs_z))
    return total + _along_z(lines, *pairs)


def backproject_by_gathers(image, q, z, form):
    """`spread_to_slices` for CPUs."""
    (size_q, size_z), (taps_q, taps_z) = form.sizes, form.taps
    (i, a), (j, b) = _covers(q, size_q, taps_q), _covers(z, size_z, taps_z)
    by_rows = image.T

    # Two stages and a transpose between, each a step behind the one before, for the same reason.
    def make_slice(carry, step):
        ahead, lines = carry
        i, a, j, b = step
        return (_collect(by_rows, j, b), ahead.T), _collect(lines, i, a)

    second = min(1, len(j) - 1)
    start = _collect(by_rows, j[second], b[second]), _collect(by_rows, j[0], b[0]).T
    _, volume = lax.scan(make_slice, start, (i, a, _ahead(j, 2), _ahead(b, 2)))
    return volume if form.axis == 0 else volume.transpose(1, 0, 2)


def position_gradient_by_gathers(volume, q, z, image, form):
    """Gradients of <image, sum_of_slices(volume)> by `q.at` and `z.at`, for CPUs."""
    flat = volume.reshape(-1, volume.shape[2])
    by_rows = image.T
    j, b = _covers(z, form.sizes[1], form.taps[1])
    j0, j1, _, _, e0, e1 = _pairs(z.at, form.sizes[1])
    lines_of_q = _line_pairs(q.at, form.axis, form.shape)

    def resampled(r0, r1, w0, w1, d0, d1):
        first, second = _take(flat, r0), _take(flat, r1)
        value = w0[:, None] * first + w1[:, None] * second
        return value, d0[:, None] * first + d1[:, None] * second

    # As in the two above: lines wait a step, the image's columns are collected two steps ahead.
    def slopes(carry, step):
        lines, line_slopes, ahead, collected = carry
        pairs_z, next_lines, j, b = step
        by_z = _along_z(lines, *pairs_z)
        out = (collected * line_slopes).sum(1), (by_z * image).sum(0)
        return (*resampled(*next_lines), _collect(by_rows, j, b), ahead.T), out

    second = min(1, len(j) - 1)
    start = (
        *resampled(*(x[0] for x in lines_of_q)),
        _collect(by_rows, j[second], b[second]),
        _collect(by_rows, j[0], b[0]).T,
    )
    steps = ((j0, j1, e0, e1), tuple(_ahead(x, 1) for x in lines_of_q), _ahead(j, 2), _ahead(b, 2))
    _, (by_q, by_z) = lax.scan(slopes, start, steps)
    return by_q, by_z


def _hats(at, size):
    """hat(at - voxel), [slices, pixels, size]."""
    voxel = jnp.arange(size, dtype=at.dtype)
    return jnp.maximum(1.0 - jnp.abs(at[..., None] - voxel[None, None]), 0.0)


def project_by_matrices(volume, at_q, at_z, axis):
    """`sum_of_slices` for tensor units: two batches of small matrix products."""
    slices = jnp.moveaxis(volume, axis, 0)
    hats_q, hats_z = _hats(at_q, slices.shape[1]), _hats(at_z, slices.shape[2])
    lines = jnp.einsum("kpq,kqz->kpz", hats_q, slices, precision="highest")
    return jnp.einsum("kpz,krz->pr", lines, hats_z, precision="highest")


def backproject_by_matrices(image, q, z, form):
    """`spread_to_slices` for tensor units."""
    hats_q, hats_z = _hats(q.at, form.sizes[0]), _hats(z.at, form.sizes[1])
    lines = jnp.einsum("pr,krz->kpz", image, hats_z, precision="highest")
    slices = jnp.einsum("kpq,kpz->kqz", hats_q, lines, precision="highest")
    return jnp.moveaxis(slices, 0, form.axis)


def position_gradient_by_matrices(volume, q, z, image, form):
    """Gradients of <image, sum_of_slices(volume)> by `q.at` and `z.at`, for tensor units."""

    def product(at_q, at_z):
        return (image * project_by_matrices(volume, at_q, at_z, form.axis)).sum()

    return jax.grad(product, argnums=(0, 1))(q.at, z.at)
