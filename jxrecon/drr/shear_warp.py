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
from jxrecon.drr.separable import Comb, Form, comb, slope_gradient, sum_of_slices

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
        method: "aligned", "shear_warp", "joseph", "siddon", or "auto" for a camera that is traced.
        axis: index axis of the slices, for the first two.
        rows_along_z: aligned: rows of the detector run along the second other axis.
        pixels: shear-warp: size of the virtual detector along the two other axes.
        pitch: shear-warp: its pixel pitch along them in voxels; wider only if a camera needs it.
        taps: most pixels that a voxel gathers from along each of them.
        branches: auto: the plans among which a traced camera is shared out at run time.
    """

    method: str
    axis: int = 0
    rows_along_z: bool = True
    pixels: tuple[int, ...] = (0, 0)
    pitch: tuple[float, ...] = (1.0, 1.0)
    taps: tuple[int, ...] = (0, 0)
    branches: tuple[Plan, ...] = ()

    def at_pitch(self, pitch: tuple[float, ...]) -> Plan:
        """The same virtual detector with other pixels."""
        ratio = [mine / new for mine, new in zip(self.pitch, pitch)]
        pixels = tuple(whole_fours(n * x) for n, x in zip(self.pixels, ratio))
        taps = tuple(int(np.ceil(n * x)) for n, x in zip(self.taps, ratio))
        return self._replace(pitch=pitch, pixels=pixels, taps=taps)

    def including(self, other: Plan) -> Plan:
        """A plan for the cameras of both, which are of one kind: the finer pitch, the larger size."""
        pitch = tuple(map(min, self.pitch, other.pitch))
        mine, its = self.at_pitch(pitch), other.at_pitch(pitch)
        pixels = tuple(map(max, mine.pixels, its.pixels))
        return mine._replace(pixels=pixels, taps=tuple(map(max, mine.taps, its.taps)))


def whole_fours(pixels: float) -> int:
    """Sizes in steps of four, so that cameras near by make the same program; even, for `shear_warp`."""
    return 4 * int(np.ceil(pixels / 4))


def others_of(axis: int) -> tuple[int, int]:
    first, second = (other for other in range(3) if other != axis)
    return first, second


def crosses(rays: Rays, axis: Any, size: Any) -> Any:
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
    through = worst <= STEEPEST and crosses(rays, axis, shape[axis])
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
    q, z = others_of(axis)
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
        for n, (o_step, d_step, pixels) in zip(others_of(axis), edges)
    ]


def plan_shear_warp(rays: Rays, shape: tuple[int, ...], sampling: float = SAMPLING) -> Plan | None:
    """The plan for any pose whose rays cross all slices of one axis; None for others.

    The virtual detector covers what both the real one and the volume cover.
    """
    axis = _slice_axis(rays, shape)
    if axis is None:
        return None
    least = least_scale(rays, axis, shape)
    sizes = []
    for low, high, step in shadow(rays, axis, shape):
        pitch = pitch_for(np, step / sampling)
        pixels = whole_fours(pixels_for(np, low, high, pitch))
        sizes.append((pixels, float(pitch), _taps(pitch * least, SLACK)))
    found = Plan("shear_warp", axis, True, *zip(*sizes))
    return found if max(found.taps) <= MOST_TAPS else None


def pitch_for(xp: Any, step: Any) -> Any:
    """The pitch of the virtual pixels, in voxels, for pixels that lie `step` apart on the middle slice."""
    return snapped(xp, xp.clip(step, FINEST_PITCH, COARSEST_PITCH), xp.floor)


def pixels_for(xp: Any, low: Any, high: Any, pitch: Any) -> Any:
    """How many virtual pixels a shadow from `low` to `high` takes, with their margin."""
    return xp.maximum(high - low, 0.0) / pitch + 1 + 2 * MARGIN


def shear(rays: Rays, axis: int, shape: Any, slices: int) -> tuple[Any, Any]:
    """x on slice k = scale[k] (x on the middle slice) + shift[k], for both other axes, of any ray."""
    k = rays.xp.arange(slices, dtype=rays.direction.corner.dtype)
    middle = (shape[axis] - 1) / 2
    others = others_of(axis)
    if rays.parallel:
        d = rays.direction.corner
        return rays.xp.ones_like(k), [(k - middle) * (d[other] / d[axis]) for other in others]
    s = rays.origin.corner
    scale = (k - s[axis]) / (middle - s[axis])
    return scale, [s[other] * (1.0 - scale) for other in others]


def least_scale(rays: Rays, axis: int, shape: Any) -> Any:
    """The smallest scale of `shear`: on the slice nearest to the source."""
    xp, one = rays.xp, rays.xp.ones_like(rays.direction.corner[axis])
    if rays.parallel:
        return one
    source, last = rays.origin.corner[axis], shape[axis] - 1
    return xp.minimum(abs(0.0 - source), abs(last - source)) / abs(last / 2 - source)


def shadow(rays: Rays, axis: int, shape: Any) -> list[tuple[Any, Any, Any]]:
    """(lowest, highest, widest step) of the pixels on the middle slice along each other axis, in voxels.

    Lowest and highest where the detector sees the volume.
    """
    xp, dtype = rays.xp, rays.direction.corner.dtype
    middle = (shape[axis] - 1) / 2
    walk = walk_along(axis, rays, shape[axis], None, dtype)
    ends = xp.asarray([-1.0, shape[axis]], dtype)
    places = []
    for n, other in enumerate(others_of(axis)):
        seen, edges = walk.at[n], xp.asarray([-1.0, shape[other]], dtype)
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


def snapped(xp: Any, pitch: Any, rounded: Any) -> Any:
    """The next of the pitches 2^(n/32): below with xp.floor, above with xp.ceil.

    The virtual detector snaps to such pitches and to whole pixels: as the camera moves it stays,
    then jumps, so that its place is no function of the pose to differentiate.
    """
    return xp.exp2(rounded(32.0 * xp.log2(pitch)) / 32.0)


def aligned(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel of a detector along the index axes."""
    q, z = (comb(*line) for line in _aligned_lines(rays, plan, mu.shape))
    image = sum_along(mu, (q, z), plan)
    image = image.T if plan.rows_along_z else image
    return image * (rays.length_mm / abs(rays.direction.corner[plan.axis])).astype(mu.dtype)


def shear_warp(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel, through a virtual detector.

    Differs from `joseph` by the cubic interpolation of one smooth image; within two pixels of a
    shadow's edge it may be slightly negative. A traced camera that has moved out of what the plan
    can show (a source inside the volume's slab, rays both ways along the axis) gives NaN.
    """
    first, pitch = virtual_pixels(rays, plan.axis, mu.shape, plan)
    q, z = combs_of(rays, plan.axis, mu.shape, (first, pitch), plan.pixels)
    image = to_detector(sum_along(mu, (q, z), plan), rays, plan.axis, mu.shape, (first, pitch))
    if rays.concrete:
        return image
    _, worst = image_axis(rays)
    fits = jnp.isfinite(worst) & crosses(rays, plan.axis, mu.shape[plan.axis])
    return jnp.where(fits, image, jnp.nan)


def virtual_pixels(rays: Rays, axis: int, shape: Any, plan: Plan) -> tuple[Any, Any]:
    """The first virtual pixel on the middle slice and the pitch, in voxels along both other axes.

    The plan's pitch, wider where the pixels would not show all or a voxel would miss some.
    """
    xp, least, places = rays.xp, least_scale(rays, axis, shape), []
    for n, (low, high, _) in enumerate(shadow(rays, axis, shape)):
        centre, pixels = (shape[others_of(axis)[n]] - 1) / 2, plan.pixels[n]
        widest = xp.maximum(high - low, 0.0) / xp.maximum(pixels - 1 - 2 * MARGIN, 1.0)
        sparsest = xp.maximum(widest, 2.0 / (plan.taps[n] * least))
        pitch = xp.maximum(plan.pitch[n], snapped(xp, sparsest, xp.ceil))
        middle = xp.round(((low + high) / 2 - centre) / pitch)
        places.append((centre + (middle - (pixels - 1) / 2) * pitch, pitch))
    first, pitch = (xp.stack(x) for x in zip(*places))
    return first, pitch


def combs_of(
    rays: Rays,
    axis: int,
    shape: Any,
    lattice: tuple[Any, Any],
    pixels: tuple[int, ...],
    slices: int = 0,
) -> tuple[Comb, Comb]:
    """Where the virtual pixels lie in every slice, along both other axes."""
    scale, shifts = shear(rays, axis, shape, slices or shape[axis])
    q, z = (
        comb(shift + scale * first, scale * pitch, count)
        for shift, first, pitch, count in zip(shifts, *lattice, pixels)
    )
    return q, z


def slopes_of(
    rays: Rays, axis: int, shape: Any, lattice: tuple[Any, Any], pixels: tuple[int, ...]
) -> tuple[Any, Any]:
    """Slopes of the rays through the virtual pixels against the axis, along both other axes."""
    source, direction = rays.origin.corner, rays.direction.corner
    q, z = (
        jnp.full(count, direction[other] / direction[axis])
        if rays.parallel
        else (first + pitch * jnp.arange(count, dtype=direction.dtype) - source[other])
        / ((shape[axis] - 1) / 2 - source[axis])
        for other, first, pitch, count in zip(others_of(axis), *lattice, pixels)
    )
    return q, z


def to_detector(
    image: Float[Array, "qs zs"], rays: Rays, axis: int, shape: Any, lattice: tuple[Any, Any]
) -> Float[Array, "rows columns"]:
    """The virtual image, interpolated where rays cross the middle slice, times mm a slice."""
    walk = walk_along(axis, rays, shape[axis], None, image.dtype)
    first, pitch = (x.astype(image.dtype) for x in lattice)
    return _warp(image, *walk.at, first, pitch, walk.mm)


def sum_along(
    mu: Float[Array, "x y z"], combs: tuple[Comb, Comb], plan: Plan
) -> Float[Array, "qs zs"]:
    """The sum over slices along the plan's axis."""
    return sum_of_slices(*_form(mu, combs, plan))


def slope_gradient_along(
    mu: Float[Array, "x y z"], combs: tuple[Comb, Comb], image: Float[Array, "qs zs"], plan: Plan
) -> tuple[Float[Array, " qs"], Float[Array, " zs"]]:
    """Gradients of <image, sum_along(mu)> by the slopes of the rays through the combs' pixels."""
    mu, q, z, form = _form(mu, combs, plan)
    return slope_gradient(mu, q, z, image, form)


def _form(mu, combs, plan):
    """The arguments of `sum_of_slices`: the contiguous axis stays the last one where it can."""
    if plan.axis == 2:
        mu = jnp.moveaxis(mu, 2, 0)
    axis = 0 if plan.axis == 2 else plan.axis
    moves = not isinstance(combs[0].at, np.ndarray)
    q, z = jax.tree.map(lambda x: x.astype(mu.dtype), combs)
    return mu, q, z, Form(axis, mu.shape, plan.taps, moves)


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
