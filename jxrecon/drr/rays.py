"""Rays from source to pixels in a volume's index space, and which index axis each is walked along.

A ray is a function of the coordinate k along its axis: one step of k is one slice of the volume.
If affine and camera are known, positions are planned in float64 NumPy, so that float32 enters only
where rays are spread over the detector; if either is traced, all of it is JAX.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int

from jxrecon.geometry import AnyCamera, ParallelCamera
from jxrecon.types import AnyArray

STEEPEST = 1.5
"""Largest slope against the walking axis at which a whole image is walked along one axis."""


class Fan(NamedTuple):
    """A vector for every pixel: `corner + r v + c u` for row r and column c, [3] each."""

    corner: Any
    u: Any
    v: Any

    def spread(self, shape: tuple[int, int]) -> Float[AnyArray, "rows columns 3"]:
        """The vector of every pixel: NumPy or JAX as the fan is."""
        xp, dtype = (np if isinstance(self.corner, np.ndarray) else jnp), self.corner.dtype
        r = xp.arange(shape[0], dtype=dtype)[:, None, None]
        c = xp.arange(shape[1], dtype=dtype)[None, :, None]
        return self.corner[None, None] + r * self.v[None, None] + c * self.u[None, None]

    def corners(self, shape: tuple[int, int]) -> list[Any]:
        """Vectors of the four corner pixels: extremes of all that is affine in the pixel."""
        rows, columns = shape[0] - 1, shape[1] - 1
        return [self.corner + r * self.v + c * self.u for r in (0, rows) for c in (0, columns)]


@struct.dataclass
class Rays:
    """All rays of one image: `origin + t direction`, with the pixel at t = 1, or at 0 if parallel.

    Attributes:
        origin: a point of every ray in voxels: the source, or the pixel if parallel.
        direction: the rays' directions in voxels: to the pixel from the source, or all the same.
        world: the same directions in mm.
        shape: (rows, columns), static.
        parallel: whether all directions are the same, static.
        whole_line: the integral runs along the straight line, not from source to pixel, static.
    """

    origin: Fan
    direction: Fan
    world: Fan
    shape: tuple[int, int] = struct.field(pytree_node=False)
    parallel: bool = struct.field(pytree_node=False)
    whole_line: bool = struct.field(pytree_node=False)

    @property
    def concrete(self) -> bool:
        """Known now, as float64 NumPy arrays."""
        return isinstance(self.origin.corner, np.ndarray)

    @property
    def xp(self) -> Any:
        """numpy or jax.numpy."""
        return np if self.concrete else jnp

    @property
    def length_mm(self) -> Float[AnyArray, "rows columns"]:
        """Length of every direction: the distance from the source to the pixel."""
        return ((self.world.spread(self.shape) ** 2).sum(-1)) ** 0.5


def is_concrete(affine: Any, camera: Any) -> bool:
    """Whether all numbers are known now: nothing is traced by jit, vmap or grad."""
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((affine, camera)))


def known(affine: Any, camera: AnyCamera) -> tuple[Any, AnyCamera] | None:
    """The numbers as NumPy where they have values: also under grad, not under jit or vmap."""

    def value(x: Any) -> np.ndarray:
        x = lax.stop_gradient(x) if isinstance(x, jax.core.Tracer) else x
        return np.asarray(x, np.float64)

    try:
        return jax.tree.map(value, (affine, camera))
    except jax.errors.TracerArrayConversionError:
        return None


def rays_of(
    affine: Any, camera: AnyCamera, dtype: Any = np.float64, extent: str = "segment"
) -> Rays:
    """Rays of `camera` in the index space of `affine` (index -> world mm); `dtype` where traced."""
    planned = functools.partial(np.asarray, dtype=np.float64)
    traced = functools.partial(jnp.asarray, dtype=dtype)
    as_array: Any = planned if is_concrete(affine, camera) else traced
    if isinstance(affine, jax.core.Tracer):
        inverse = jnp.linalg.inv(traced(affine))
    else:
        inverse = as_array(np.linalg.inv(planned(affine)))
    centre, u, v = map(as_array, (camera.centre, camera.u, camera.v))
    rows, columns = camera.shape
    first = centre - (columns - 1) / 2 * u - (rows - 1) / 2 * v
    nothing = 0.0 * u

    def turned(vector: Any) -> Any:  # elementwise: accelerators round matrix products
        return (inverse[:3, :3] * vector[None]).sum(1)

    if parallel := isinstance(camera, ParallelCamera):
        world = Fan(as_array(camera.direction), nothing, nothing)
        origin = Fan(*map(turned, (first, u, v)))
    else:
        source = as_array(camera.source)
        world = Fan(first - source, u, v)
        origin = Fan(turned(source), nothing, nothing)
    origin = origin._replace(corner=origin.corner + inverse[:3, 3])
    direction, whole_line = Fan(*map(turned, world)), parallel or extent == "line"
    return Rays(origin, direction, world, (rows, columns), parallel, whole_line)


ORDERS = np.array([(0, 1, 2), (1, 0, 2), (2, 0, 1)])
"""An index axis and the two others in their order, for every axis."""


def axis_first(axis: Any, rays: Rays, shape: tuple[int, ...]) -> tuple[Rays, Any]:
    """The rays, and the volume's shape, with that axis first and the two others in their order.

    The axis may be traced; then the shape is an array.
    """
    xp = jnp if isinstance(axis, jax.Array) else np
    order = xp.asarray(ORDERS)[axis]
    turned = jax.tree.map(lambda vector: vector[order], (rays.origin, rays.direction))
    sizes = xp.asarray(shape, rays.direction.corner.dtype)[order]
    return dataclasses.replace(rays, origin=turned[0], direction=turned[1]), sizes


def image_axis(rays: Rays) -> tuple[Any, Any]:
    """The index axis whose slices the rays cross most directly, and their steepest slope against it.

    Slopes are in voxels per slice at the worst corner of the detector; infinite if rays of one image
    run both ways along the axis.
    """
    xp = rays.xp
    d = xp.stack(rays.direction.corners(rays.shape))
    one_way = (d > 0).all(0) | (d < 0).all(0)
    along = xp.where(one_way[None], xp.abs(d), 1.0)
    worst = (xp.abs(d).max(1)[:, None] / along).max(0)
    worst = xp.where(one_way, worst, xp.inf)
    return worst.argmin(), worst.min()


def steepest_axes(rays: Rays) -> Any:
    """For every ray the index axis it crosses fastest, [rows, columns]; ties go to the lower axis."""
    return rays.xp.abs(rays.direction.spread(rays.shape)).argmax(-1)


def walking_axes(rays: Rays) -> Any:
    """One axis for the whole image where no slope exceeds `STEEPEST`, else one a ray, [rows, columns]."""
    axis, worst = image_axis(rays)
    if rays.concrete:
        return np.full(rays.shape, axis) if worst <= STEEPEST else steepest_axes(rays)
    return jnp.where(worst <= STEEPEST, axis, steepest_axes(rays))


class Walk(NamedTuple):
    """Rays as functions of the coordinate k along one index axis; [rows, columns] each.

    Attributes:
        at: where the ray is on the two other axes (in index order) in the volume's middle slice.
        slope: its steps on them per step of k.
        near: k at which the integral begins.
        far: k at which it ends; both infinite for whole lines.
        mm: length in mm per step of k; 0 for rays that are walked along another axis.
    """

    at: tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]
    slope: tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]
    near: Float[Array, "rows columns"]
    far: Float[Array, "rows columns"]
    mm: Float[Array, "rows columns"]


def walk_along(axis: int, rays: Rays, voxels: Any, mine: Any, dtype: Any) -> Walk:
    """The rays along `axis` of a volume with `voxels` slices; `mine` marks those walked here or None."""
    xp = rays.xp
    s, d = rays.origin.spread(rays.shape), rays.direction.spread(rays.shape)
    along = d[..., axis]
    used = along != 0 if mine is None else (along != 0) & mine
    along = xp.where(used, along, 1.0)
    others = [other for other in range(3) if other != axis]
    slope = tuple(d[..., other] / along for other in others)
    to_middle = (voxels - 1) / 2 - s[..., axis]
    at = tuple(s[..., other] + to_middle * m for other, m in zip(others, slope))
    if rays.whole_line:
        near, far = xp.full(rays.shape, -xp.inf), xp.full(rays.shape, xp.inf)
    else:
        end = s[..., axis] + d[..., axis]
        near, far = xp.minimum(s[..., axis], end), xp.maximum(s[..., axis], end)
    walk = Walk(at, slope, near, far, xp.where(used, rays.length_mm / abs(along), 0.0))
    return jax.tree.map(lambda x: x.astype(dtype), walk)


def sum_over_axes(
    integrate: Callable[[Float[Array, "k a b"], Walk], Float[Array, "rows columns"]],
    mu: Float[Array, "x y z"],
    rays: Rays,
    axes: Int[AnyArray, "rows columns"],
) -> Float[Array, "rows columns"]:
    """Sum of `integrate(slices, walk)` over the axes that occur in `axes`, each for its own rays.

    Traced axes cost three branches of which those without rays are skipped at run time (but not
    under vmap over cameras).
    """

    def along(axis, mine):
        slices = jnp.moveaxis(mu, axis, 0)
        return integrate(slices, walk_along(axis, rays, mu.shape[axis], mine, mu.dtype))

    if isinstance(axes, np.ndarray):
        present = np.unique(axes).tolist()
        if len(present) == 1:
            return along(present[0], None)
        return sum(along(axis, axes == axis) for axis in present)
    none = jnp.zeros(rays.shape, mu.dtype)
    total = none
    for axis in range(3):
        mine = axes == axis
        total += lax.cond(mine.any(), functools.partial(along, axis, mine), lambda: none)
    return total
