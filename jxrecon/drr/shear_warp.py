"""Fast line integrals for whole images: separable sums over slices, and for oblique views one warp.

A line integral depends on the ray only. `aligned` sums onto a detector that lies along the volume's
axes; `shear_warp` sums onto a virtual one, parallel to the slices and through the middle of the
volume, and warps that image to the real detector (Lacroute & Levoy, SIGGRAPH 1994, in its
perspective form). What is fixed when a program is compiled is a `Plan`; where pixels lie is computed
from the camera, in NumPy if it is known and in JAX, with gradients, if it is traced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.drr.rays import STEEPEST, Rays, image_axis, walk_along
from jxrecon.drr.separable import Comb, Form, comb, sum_of_slices

SAMPLING = 1.0
"""Virtual pixels per detector pixel, each way, unless a plan asks for more.

Against Joseph on a torso of sharp ellipsoids, 128^3 to 128^2 (relative L2): 5e-3 to 7e-3 at 1, 4e-3 at
1.25, 3e-3 at 1.5, where time doubles; the model of a voxel makes 1.1e-2.
"""

FINEST_PITCH = 0.25
"""Virtual pixels are no finer than this many voxels: the projection has no detail below."""

COARSEST_PITCH = 1.1
"""And no coarser, however coarse the detector: the warp cannot follow detail between them."""

MOST_TAPS = 16
"""Most pixels a voxel may gather from along one axis; finer detectors or nearer sources go elsewhere."""

ALIGNED_WITHIN = 1e-3
"""Voxels that a detector's edge may stray from an index axis and still count as along it."""

SLACK = 1.05
"""How much denser than planned a moved camera's pixels may lie before the virtual ones are widened."""

MARGIN = 3.5
"""Virtual pixels around what is needed: the warp reads three, snapping takes half a one."""


class Plan(NamedTuple):
    """What is fixed when a program is compiled: static, hashable, made from one camera for many.

    Attributes:
        method: "aligned", "shear_warp", "joseph" or "siddon".
        axis: index axis of the slices, for the first two.
        rows_along_z: aligned: rows of the detector run along the second other axis.
        pixels: shear-warp: size of the virtual detector along the two other axes.
        pitch: shear-warp: its pixel pitch along them in voxels; wider only if a camera needs it.
        taps: most pixels that a voxel gathers from along each of them.
    """

    method: str
    axis: int = 0
    rows_along_z: bool = True
    pixels: tuple[int, ...] = (0, 0)
    pitch: tuple[float, ...] = (1.0, 1.0)
    taps: tuple[int, ...] = (0, 0)

    def at_pitch(self, pitch: tuple[float, ...]) -> Plan:
        """The same virtual detector with other pixels."""
        ratio = [mine / new for mine, new in zip(self.pitch, pitch)]
        pixels = tuple(_whole_fours(n * x) for n, x in zip(self.pixels, ratio))
        taps = tuple(int(np.ceil(n * x)) for n, x in zip(self.taps, ratio))
        return self._replace(pitch=pitch, pixels=pixels, taps=taps)

    def including(self, other: Plan) -> Plan:
        """A plan for the cameras of both, which are of one kind: the finer pitch, the larger size."""
        pitch = tuple(map(min, self.pitch, other.pitch))
        mine, its = self.at_pitch(pitch), other.at_pitch(pitch)
        pixels = tuple(map(max, mine.pixels, its.pixels))
        return mine._replace(pixels=pixels, taps=tuple(map(max, mine.taps, its.taps)))


def _whole_fours(pixels: float) -> int:
    """Sizes in steps of four, so that cameras near by make the same program; even, for `shear_warp`."""
    return 4 * int(np.ceil(pixels / 4))


def _others(axis: int) -> tuple[int, int]:
    first, second = (other for other in range(3) if other != axis)
    return first, second


def _crosses(rays: Rays, axis: Any, size: Any) -> Any:
    """Whether all integrals run through all slices of the axis, from end to end."""
    if rays.parallel:
        return True
    xp = rays.xp
    source = rays.origin.corner[axis]
    low, high = -0.5, size - 0.5
    before, after = source <= low, source >= high
    if rays.whole_line:
        return before | after
    pixels = xp.stack([source + d[axis] for d in rays.direction.corners(rays.shape)])
    return (before & (pixels.min() >= high)) | (after & (pixels.max() <= low))


def _slice_axis(rays: Rays, shape: tuple[int, ...]) -> int | None:
    """The axis whose slices all rays cross from end to end, none too steeply; None if there is none."""
    axis, worst = image_axis(rays)
    through = worst <= STEEPEST and _crosses(rays, axis, shape[axis])
    return int(axis) if through else None


def _taps(step: np.ndarray, slack: float = 1.0) -> int:
    """Most positions of any comb within a voxel of a voxel."""
    return int(np.ceil(2.0 * slack / np.abs(step).min()))


def plan_aligned(rays: Rays, shape: tuple[int, ...]) -> Plan | None:
    """The plan for a detector along the index axes with the volume between source and detector.

    None if the camera is not of this kind (see `drr.choose`).
    """
    axis = _slice_axis(rays, shape)
    if axis is None:
        return None
    q, z = _others(axis)
    fan = rays.origin if rays.parallel else rays.direction
    u_edge, v_edge = np.abs(fan.u) * rays.shape[1], np.abs(fan.v) * rays.shape[0]
    for of_u, of_v in ((q, z), (z, q)):
        stray_u, stray_v = np.delete(u_edge, of_u), np.delete(v_edge, of_v)
        if max(stray_u.max(), stray_v.max()) <= ALIGNED_WITHIN:
            plan = Plan("aligned", axis, rows_along_z=of_u == q)
            taps = tuple(_taps(step) for _, step, _ in _aligned_lines(rays, plan, shape))
            return plan._replace(taps=taps) if max(taps) <= MOST_TAPS else None
    return None


def _aligned_lines(rays: Rays, plan: Plan, shape: tuple[int, ...]) -> list[Any]:
    """(start, step, pixels) of the detector's pixels in every slice, along the two other axes."""
    axis = plan.axis
    (o, ou, ov), (d, du, dv) = rays.origin, rays.direction
    t = (rays.xp.arange(shape[axis], dtype=d.dtype) - o[axis]) / d[axis]
    rows, columns = rays.shape
    edges = [(ou, du, columns), (ov, dv, rows)][:: 1 if plan.rows_along_z else -1]
    return [
        (o[n] + t * d[n], o_step[n] + t * d_step[n], pixels)
        for n, (o_step, d_step, pixels) in zip(_others(axis), edges)
    ]


def plan_shear_warp(rays: Rays, shape: tuple[int, ...], sampling: float = SAMPLING) -> Plan | None:
    """The plan for any pose whose rays cross all slices of one axis; None for others.

    The virtual detector covers what both the real one and the volume cover.
    """
    axis = _slice_axis(rays, shape)
    if axis is None:
        return None
    scale, _ = _shear(rays, axis, shape)
    sizes = []
    for low, high, step in _shadow(rays, axis, shape):
        pitch = _snapped(np, np.clip(step / sampling, FINEST_PITCH, COARSEST_PITCH), np.floor)
        pixels = _whole_fours(max(high - low, 0.0) / pitch + 1 + 2 * MARGIN)
        sizes.append((pixels, float(pitch), _taps(pitch * scale, SLACK)))
    found = Plan("shear_warp", axis, True, *zip(*sizes))
    return found if max(found.taps) <= MOST_TAPS else None


def _shear(rays: Rays, axis: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """x on slice k = scale[k] (x on the middle slice) + shift[k], for both other axes, of any ray."""
    k = rays.xp.arange(shape[axis], dtype=rays.direction.corner.dtype)
    middle = (shape[axis] - 1) / 2
    others = _others(axis)
    if rays.parallel:
        d = rays.direction.corner
        return rays.xp.ones_like(k), [(k - middle) * (d[other] / d[axis]) for other in others]
    s = rays.origin.corner
    scale = (k - s[axis]) / (middle - s[axis])
    return scale, [s[other] * (1.0 - scale) for other in others]


def _shadow(rays: Rays, axis: int, shape: tuple[int, ...]) -> list[tuple[Any, Any, Any]]:
    """(lowest, highest, widest step) of the pixels on the middle slice along each other axis, in voxels.

    Lowest and highest where the detector sees the volume.
    """
    xp, middle = rays.xp, (shape[axis] - 1) / 2
    walk = walk_along(axis, rays, shape[axis], None, rays.direction.corner.dtype)
    ends = np.array([-1.0, shape[axis]])
    places = []
    for n, other in enumerate(_others(axis)):
        seen, edges = walk.at[n], np.array([-1.0, float(shape[other])])
        if rays.parallel:
            lean = (ends - middle) * (rays.direction.corner[other] / rays.direction.corner[axis])
            faces = edges[:, None] - lean[None]
        else:
            s = rays.origin.corner
            reach = (middle - s[axis]) / (ends - s[axis])
            faces = s[other] + reach[None] * (edges[:, None] - s[other])
        steps = [xp.abs(xp.diff(seen, axis=way)).max() for way in (0, 1) if seen.shape[way] > 1]
        widest = xp.stack(steps).max() if steps else xp.ones_like(seen[0, 0])
        low, high = xp.maximum(seen.min(), faces.min()), xp.minimum(seen.max(), faces.max())
        places.append((low, high, widest))
    return places


def _snapped(xp: Any, pitch: Any, rounded: Any) -> Any:
    """The next of the pitches 2^(n/32): below with xp.floor, above with xp.ceil.

    The virtual detector snaps to such pitches and to whole pixels: as the camera moves it stays,
    then jumps, so that its place is no function of the pose to differentiate.
    """
    return xp.exp2(rounded(32.0 * xp.log2(pitch)) / 32.0)


def aligned(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel of a detector along the index axes."""
    combs = [comb(*line) for line in _aligned_lines(rays, plan, mu.shape)]
    image = _sum(mu, combs, plan)
    image = image.T if plan.rows_along_z else image
    return image * (rays.length_mm / abs(rays.direction.corner[plan.axis])).astype(mu.dtype)


def shear_warp(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel, through a virtual detector.

    Differs from `joseph` by the cubic interpolation of one smooth image; within two pixels of a
    shadow's edge it may be slightly negative. A traced camera that has moved out of what the plan
    can show (a source inside the volume's slab, rays both ways along the axis) gives NaN.
    """
    xp = rays.xp
    walk = walk_along(plan.axis, rays, mu.shape[plan.axis], None, mu.dtype)
    scale, shifts = _shear(rays, plan.axis, mu.shape)
    combs, places = [], []
    centres = [(mu.shape[other] - 1) / 2 for other in _others(plan.axis)]
    for n, (low, high, _) in enumerate(_shadow(rays, plan.axis, mu.shape)):
        centre, pixels = centres[n], plan.pixels[n]
        widest = xp.maximum(high - low, 0.0) / max(pixels - 1 - 2 * MARGIN, 1.0)
        sparsest = xp.maximum(widest, 2.0 / (plan.taps[n] * abs(scale).min()))
        pitch = xp.maximum(plan.pitch[n], _snapped(xp, sparsest, xp.ceil))
        snapped = xp.round(((low + high) / 2 - centre) / pitch)
        first = centre + (snapped - (pixels - 1) / 2) * pitch
        combs.append(comb(shifts[n] + scale * first, scale * pitch, pixels))
        places.append((first, pitch))
    image = _sum(mu, combs, plan)
    first, pitch = (xp.stack(x).astype(mu.dtype) for x in zip(*places))
    image = _warp(image, *walk.at, first, pitch, walk.mm)
    if rays.concrete:
        return image
    _, worst = image_axis(rays)
    fits = jnp.isfinite(worst) & _crosses(rays, plan.axis, mu.shape[plan.axis])
    return jnp.where(fits, image, jnp.nan)


def _sum(mu: Float[Array, "x y z"], combs: list[Comb], plan: Plan) -> Float[Array, "qs zs"]:
    if plan.axis == 2:  # the contiguous axis stays the last one where it can
        mu = jnp.moveaxis(mu, 2, 0)
    axis = 0 if plan.axis == 2 else plan.axis
    moves = not isinstance(combs[0].at, np.ndarray)
    q, z = jax.tree.map(lambda x: x.astype(mu.dtype), combs)
    return sum_of_slices(mu, q, z, Form(axis, mu.shape, plan.taps, moves))


@jax.jit
def _warp(image, at_q, at_z, first, pitch, mm):
    """Catmull-Rom interpolation of `image` at the places ((at_q, at_z) - first) / pitch, times mm."""
    at_q, at_z, first, pitch = lax.optimization_barrier((at_q, at_z, first, pitch))
    # The loop rounds every place once, for its pixel and for its weight: see `separable.comb`.
    q, z = lax.map(lambda row: tuple((row[n] - first[n]) / pitch[n] for n in (0, 1)), (at_q, at_z))
    (j, part_q), (i, part_z) = (_cell(x, size) for x, size in zip((q, z), image.shape))
    flat, width = image.reshape(-1), image.shape[1]
    total, weights_z = jnp.zeros_like(mm), _catmull_rom(part_z)
    for row, weight_q in enumerate(_catmull_rom(part_q), -1):
        line = jnp.zeros_like(mm)
        for column, weight_z in enumerate(weights_z, -1):
            pixel = (j + row) * width + i + column
            line += weight_z * flat.at[pixel].get(mode="promise_in_bounds")
        total += weight_q * line
    return total * mm


def _cell(x, pixels):
    """The pixel at or below each position and how far the position is beyond it, in [0, 1).

    Positions in the margin and outside of it, where all is zero, read the margin.
    """
    whole = lax.stop_gradient(jnp.floor(x))
    return jnp.clip(whole, 1, pixels - 3).astype(jnp.int32), x - whole


def _catmull_rom(f):
    """Weights of the pixels at -1, 0, 1, 2 for a point at f in [0, 1)."""
    f2, f3 = f * f, f * f * f
    return (
        -0.5 * f + f2 - 0.5 * f3,
        1.0 - 2.5 * f2 + 1.5 * f3,
        0.5 * f + 2.0 * f2 - 1.5 * f3,
        -0.5 * f2 + 0.5 * f3,
    )
