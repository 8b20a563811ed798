"""Fast line integrals for whole images: separable sums over slices, and for oblique views one warp.

A line integral depends on the ray only. `aligned` sums onto a detector that lies along the volume's
axes; `shear_warp` sums onto a virtual one, parallel to the slices and through the middle of the
volume, and warps that image to the real detector (Lacroute & Levoy, SIGGRAPH 1994, in its
perspective form). What is fixed when a program is compiled is a `Plan`; where pixels lie is computed
from the camera, in NumPy if it is known and in JAX, with gradients, if it is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.drr.rays import ORDERS, STEEPEST, Rays, axis_first, image_axis, walk_along
from jxrecon.drr.separable import Comb, Form, comb, made, sum_of_slices
from jxrecon.types import InputError

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
        taps: pixels that a voxel gathers from along each of them; in a loop any that a camera adds.
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


def _crosses(rays: Rays, size: Any) -> Any:
    """Whether all integrals run through all slices of the first axis, from end to end."""
    if rays.parallel:
        return True
    xp = rays.xp
    source = rays.origin.corner[0]
    low, high = -0.5, size - 0.5
    before, after = source <= low, source >= high
    if rays.whole_line:
        return before | after
    pixels = xp.stack([source + d[0] for d in rays.direction.corners(rays.shape)])
    return (before & (pixels.min() >= high)) | (after & (pixels.max() <= low))


def crossed_axis(rays: Rays, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The axis for the slices, and whether all rays cross them from end to end and none too steeply."""
    axis, worst = image_axis(rays)
    turned, sizes = axis_first(axis, rays, shape)
    return axis, (worst <= STEEPEST) & _crosses(turned, sizes[0])


def plan_aligned(rays: Rays, shape: tuple[int, ...]) -> Plan | None:
    """The plan for a detector along the index axes with the volume between source and detector.

    None if the camera is not of this kind (see `drr.choose`).
    """
    axis, through = crossed_axis(rays, shape)
    if not through:
        return None
    _, q, z = ORDERS[axis]
    fan = rays.origin if rays.parallel else rays.direction
    u_edge, v_edge = np.abs(fan.u) * rays.shape[1], np.abs(fan.v) * rays.shape[0]
    for of_u, of_v in ((q, z), (z, q)):
        stray_u, stray_v = np.delete(u_edge, of_u), np.delete(v_edge, of_v)
        if max(stray_u.max(), stray_v.max()) <= ALIGNED_WITHIN:
            plan = Plan("aligned", int(axis), rows_along_z=bool(of_u == q))
            lines = _aligned_lines(rays, plan, shape)
            taps = tuple(int(np.ceil(2.0 / np.abs(step).min())) for _, step, _ in lines)
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
        for n, (o_step, d_step, pixels) in zip(ORDERS[axis][1:], edges)
    ]


def plan_shear_warp(rays: Rays, shape: tuple[int, ...], sampling: float = SAMPLING) -> Plan | None:
    """The plan for any pose whose rays cross all slices of one axis; None for others.

    The virtual detector covers what both the real one and the volume cover.
    """
    axis, through = crossed_axis(rays, shape)
    if not through:
        return None
    needed = needs(*axis_first(axis, rays, shape), sampling)
    pixels = tuple(whole_fours(each.pixels) for each in needed)
    pitch, taps = tuple(float(each.pitch) for each in needed), tuple(int(n.taps) for n in needed)
    return Plan("shear_warp", int(axis), True, pixels, pitch, taps) if fine(needed) else None


class Need(NamedTuple):
    """Of the virtual detector along one axis: its pitch in voxels, its pixels, and a voxel's taps."""

    pitch: Any
    pixels: Any
    taps: Any


def needs(rays: Rays, sizes: Any, sampling: float = SAMPLING) -> list[Need]:
    """What the rays' virtual detector needs along both axes but the first, which they cross."""
    xp, found = rays.xp, []
    least = xp.minimum(*(abs(_scale(rays, sizes, k)) for k in (0.0, sizes[0] - 1.0)))
    for low, high, step in _shadow(rays, sizes):
        pitch = _snapped(xp, xp.clip(step / sampling, FINEST_PITCH, COARSEST_PITCH), xp.floor)
        pixels = xp.maximum(high - low, 0.0) / pitch + 1 + 2 * MARGIN
        found.append(Need(pitch, pixels, xp.ceil(2.0 / (pitch * least))))
    return found


def fine(needed: list[Need]) -> Any:
    """Whether no voxel gathers from more than `MOST_TAPS` pixels."""
    q, z = (each.taps <= MOST_TAPS for each in needed)
    return q & z


def _scale(rays: Rays, sizes: Any, k: Any) -> Any:
    """Distance of rays from each other on slice k, in terms of that on the middle slice."""
    if rays.parallel:
        return rays.xp.ones_like(k * rays.direction.corner[0])
    return 1.0 - _from_source(rays, sizes, k)


def _from_source(rays: Rays, sizes: Any, k: Any) -> Any:
    middle = (sizes[0] - 1) / 2
    return (k - middle) / (rays.origin.corner[0] - middle)


def _shear(rays: Rays, sizes: Any, k: Any) -> tuple[Any, list[Any]]:
    """x on slice k = scale (x on the middle slice) + shift, along both other axes, of any ray."""
    if rays.parallel:
        d, from_middle = rays.direction.corner, k - (sizes[0] - 1) / 2
        shifts = [from_middle * (d[n] / d[0]) for n in (1, 2)]
    else:
        shifts = [rays.origin.corner[n] * _from_source(rays, sizes, k) for n in (1, 2)]
    return _scale(rays, sizes, k), shifts


def _shadow(rays: Rays, sizes: Any) -> list[tuple[Any, Any, Any]]:
    """(lowest, highest, widest step) of the pixels on the middle slice along each other axis, in voxels.

    Lowest and highest where the detector sees the volume.
    """
    xp, dtype = rays.xp, rays.direction.corner.dtype
    walk = walk_along(0, rays, sizes[0], None, dtype)
    scale, shifts = _shear(rays, sizes, xp.stack([-1.0 + 0.0 * sizes[0], sizes[0]]))
    places = []
    for seen, shift, size in zip(walk.at, shifts, sizes[1:]):
        edges = xp.stack([-1.0 + 0.0 * size, size])
        faces = (edges[:, None] - shift[None]) / scale[None]
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


@jax.custom_vjp
def _standing(rays):
    """The rays of a camera that must not be differentiated."""
    return rays


def _refused(_, cotangent):
    raise InputError(
        "method 'aligned' has no gradient by the camera, expected 'auto' or 'shear_warp'"
    )


_standing.defvjp(lambda rays: (rays, None), _refused)


def aligned(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel of a detector along the index axes."""
    rays = rays if rays.concrete else _standing(rays)
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
    turned, sizes = axis_first(plan.axis, rays, mu.shape)
    lattice = virtual_pixels(turned, sizes, plan.pitch, plan.pixels)
    combs = combs_of(turned, sizes, lattice, plan.pixels, mu.shape[plan.axis])
    image = to_detector(sum_along(mu, combs, plan), turned, sizes, lattice)
    if rays.concrete:
        return image
    _, worst = image_axis(rays)
    fits = jnp.isfinite(worst) & _crosses(turned, sizes[0])
    return jnp.where(fits, image, jnp.nan)


def virtual_pixels(
    rays: Rays, sizes: Any, pitch: Sequence[Any], pixels: Sequence[Any]
) -> tuple[Any, Any]:
    """The first virtual pixel on the middle slice and the pitch, in voxels along both other axes.

    The pitch is wider than told where the pixels would not show all.
    """
    xp, places = rays.xp, []
    for n, (low, high, _) in enumerate(_shadow(rays, sizes)):
        centre, count = (sizes[n + 1] - 1) / 2, pixels[n]
        widest = xp.maximum(high - low, 0.0) / xp.maximum(count - 1 - 2 * MARGIN, 1.0)
        wide = xp.maximum(pitch[n], _snapped(xp, xp.maximum(widest, FINEST_PITCH), xp.ceil))
        middle = xp.round(((low + high) / 2 - centre) / wide)
        places.append((centre + (middle - (count - 1) / 2) * wide, wide))
    first, pitch = (xp.stack(x) for x in zip(*places))
    return first, pitch


def combs_of(
    rays: Rays, sizes: Any, lattice: tuple[Any, Any], pixels: tuple[int, ...], slices: int
) -> tuple[Comb, Comb]:
    """Where the virtual pixels lie in the first slices, along both other axes."""
    k = rays.xp.arange(slices, dtype=rays.direction.corner.dtype)
    scale, shifts = _shear(rays, sizes, k)
    q, z = (
        comb(shift + scale * first, scale * pitch, count)
        for shift, first, pitch, count in zip(shifts, *lattice, pixels)
    )
    return q, z


def to_detector(
    image: Float[Array, "qs zs"], rays: Rays, sizes: Any, lattice: tuple[Any, Any]
) -> Float[Array, "rows columns"]:
    """The virtual image, interpolated where rays cross the middle slice, times mm a slice."""
    walk = walk_along(0, rays, sizes[0], None, image.dtype)
    first, pitch = (x.astype(image.dtype) for x in lattice)
    return _warp(image, *walk.at, first, pitch, walk.mm)


def sum_along(
    mu: Float[Array, "x y z"],
    combs: Iterable[Comb],
    plan: Plan,
    kernel: Callable[..., Any] = sum_of_slices,
) -> Any:
    """The sum over slices along the plan's axis; or with `sum_and_slopes` as the kernel, what that gives."""
    if plan.axis == 2:  # the contiguous axis stays the last one where it can
        mu = jnp.moveaxis(mu, 2, 0)
    q, z = jax.tree.map(lambda x: x.astype(mu.dtype), tuple(combs))
    return kernel(mu, q, z, Form(plan.axis % 2, mu.shape, plan.taps))


@jax.jit
def _warp(image, at_q, at_z, first, pitch, mm):
    """Catmull-Rom interpolation of `image` at the places ((at_q, at_z) - first) / pitch, times mm."""
    at_q, at_z, first, pitch = lax.optimization_barrier((at_q, at_z, first, pitch))
    # Every place is rounded once, for its pixel and for its weight: see `separable.comb`.
    q, z = (
        made((at - first[n]) / pitch[n], jnp.isnan(first[n])) for n, at in enumerate((at_q, at_z))
    )
    (j, part_q), (i, part_z) = (_cell(x, size) for x, size in zip((q, z), image.shape))
    width = image.shape[1]
    near = jnp.arange(-1, 3, dtype=jnp.int32)
    pixel = (j * width + i)[None, None] + (near[:, None] * width + near[None])[..., None, None]
    # All sixteen in one gather, whose transpose is one scatter.
    values = image.reshape(-1).at[pixel].get(mode="promise_in_bounds")
    lines = (_catmull_rom(part_z)[None] * values).sum(1)
    return (_catmull_rom(part_q) * lines).sum(0) * mm


def _cell(x, pixels):
    """The pixel at or below each position and how far the position is beyond it, in [0, 1).

    Positions in the margin and outside of it, where all is zero, read the margin.
    """
    whole = lax.stop_gradient(jnp.floor(x))
    return jnp.clip(whole, 1, pixels - 3).astype(jnp.int32), x - whole


def _catmull_rom(f):
    """Weights of the pixels at -1, 0, 1, 2 for a point at f in [0, 1)."""
    f2, f3 = f * f, f * f * f
    return jnp.stack(
        [
            -0.5 * f + f2 - 0.5 * f3,
            1.0 - 2.5 * f2 + 1.5 * f3,
            0.5 * f + 2.0 * f2 - 1.5 * f3,
            -0.5 * f2 + 0.5 * f3,
        ]
    )
