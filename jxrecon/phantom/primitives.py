"""Ellipsoids, elliptic cylinders and boxes: where they are, and what a ray through them integrates to.

SYNTHETIC objects only. A primitive fills the points whose local coordinates q = R^T (x - c) satisfy

    sum over round axes (q_i / a_i)^2 <= 1   and   |q_i| <= a_i on every flat axis

so an ellipsoid has no flat axis, an elliptic cylinder one, a box three. A line meets such a body in one
interval, the intersection of a quadric's interval with slabs: scenes that add up have exact projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.geometry import Camera, Grid, rotation_about
from jxrecon.types import AnyArray, InputError

Vector: TypeAlias = Sequence[float] | np.ndarray

_FAR = 1e6  # mm; stands for "no bound" in float32


class Primitives(NamedTuple):
    """SYNTHETIC bodies, stacked along the leading axes of every leaf.

    Attributes:
        centre: [n, 3] world mm.
        axes: [n, 3] semi-axes in mm along the columns of `rotation`.
        rotation: [n, 3, 3], local -> world.
        flat: [n, 3], 1 where the axis is bounded by two planes, 0 where it belongs to the ellipsoid.
        value: [n], what a body adds: attenuation in 1/mm in a scene that adds up, HU in a painting.
    """

    centre: Float[AnyArray, "*n 3"]
    axes: Float[AnyArray, "*n 3"]
    rotation: Float[AnyArray, "*n 3 3"]
    flat: Float[AnyArray, "*n 3"]
    value: Float[AnyArray, "*n"]


def ellipsoid(
    centre: Vector, axes: Vector, value: float, rotation: np.ndarray | None = None
) -> Primitives:
    """One SYNTHETIC ellipsoid: centre and semi-axes in mm, its value, local -> world rotation [3, 3].

    Raises:
        InputError: a semi-axis is not positive.
    """
    return _one(centre, axes, value, rotation, (0, 0, 0))


def cylinder(
    centre: Vector, axes: Vector, value: float, rotation: np.ndarray | None = None
) -> Primitives:
    """One SYNTHETIC elliptic cylinder along its local z, half as long as axes[2]. As `ellipsoid`."""
    return _one(centre, axes, value, rotation, (0, 0, 1))


def box(
    centre: Vector, axes: Vector, value: float, rotation: np.ndarray | None = None
) -> Primitives:
    """One SYNTHETIC box of half-edges `axes`. As `ellipsoid`."""
    return _one(centre, axes, value, rotation, (1, 1, 1))


def _one(
    centre: Vector, axes: Vector, value: float, rotation: np.ndarray | None, flat: Vector
) -> Primitives:
    if not (np.shape(axes) == (3,) and np.all(np.asarray(axes) > 0)):
        raise InputError(f"semi-axes are {axes!r}, expected three positive numbers in mm")
    leaves = (centre, axes, np.eye(3) if rotation is None else rotation, flat, value)
    return Primitives(*(np.asarray(leaf, np.float32)[None] for leaf in leaves))


def turned(degrees: float, axis: str) -> np.ndarray:
    """Rotation [3, 3] about the world's x, y or z."""
    return rotation_about(axis, np.deg2rad(degrees))


def stack(primitives: Sequence[Primitives]) -> Primitives:
    """The SYNTHETIC bodies of all these stacks, in order, as one stack of NumPy leaves."""
    return Primitives(*(np.concatenate(leaves) for leaves in zip(*primitives)))


def distance_mm(
    axes: Float[AnyArray, "3"], flat: Float[AnyArray, "3"], q: Sequence[Float[Array, "..."]]
) -> Float[Array, "..."]:
    """Distance of local points to the surface of a SYNTHETIC body in mm, negative inside.

    Its sign is exact; its size is exact for planes and of first order, |q/a| (|q/a| - 1) / |q/a^2|,
    for ellipsoids: right near the surface, which is all that an anti-aliased edge asks for. `axes` and
    `flat` as of `Primitives`; q: local coordinates in mm, three arrays.
    """
    inverse = (1.0 - flat) / axes
    squares = [(x * inverse[i]) ** 2 for i, x in enumerate(q)]
    level = jnp.sqrt(squares[0] + squares[1] + squares[2])
    slope = jnp.sqrt(sum(s * inverse[i] ** 2 for i, s in enumerate(squares)))
    across = jnp.where(slope > 0, level / jnp.where(slope > 0, slope, 1.0), _FAR)
    bound = jnp.where(flat > 0, axes, _FAR)
    planes = reduce(jnp.maximum, (jnp.abs(x) - bound[i] for i, x in enumerate(q)))
    return jnp.maximum((level - 1.0) * across, planes)


def line_integrals(primitives: Primitives, camera: Camera) -> Float[Array, "rows columns"]:
    """Exact projection of a SYNTHETIC scene that adds up, from the source to each pixel's centre.

    The sum over bodies of value times the length of the ray inside, each length in closed form: with
    local origin o and direction d over the round axes in units of the semi-axes, the quadric's
    interval is t0 +- sqrt((1 - |o + t0 d|^2) / |d|^2) about the nearest point t0 = -o.d / |d|^2.

    Args:
        primitives: n bodies; `value` in 1/mm.
        camera: one view.

    Returns:
        [rows, columns], dimensionless.
    """
    ray = camera.pixels() - camera.source[None, None]
    length = jnp.linalg.norm(ray, axis=-1)
    ray = ray / length[..., None]
    high = jax.lax.Precision.HIGHEST

    def add(total: Array, body: Primitives) -> tuple[Array, None]:
        to_centre = body.centre - camera.source
        middle = jnp.matmul(ray, to_centre, precision=high)
        # From the point nearest the centre, so that a source a metre away costs no digits.
        start = middle[..., None] * ray - to_centre[None, None]
        start = jnp.matmul(start, body.rotation, precision=high)
        along = jnp.matmul(ray, body.rotation, precision=high)
        axes, flat = body.axes[None, None], body.flat[None, None]
        o, d = start * (1.0 - flat) / axes, along * (1.0 - flat) / axes
        dd = jnp.sum(d * d, -1)
        moves = dd > 1e-12
        dd = jnp.where(moves, dd, 1.0)
        nearest = jnp.where(moves, -jnp.sum(o * d, -1) / dd, 0.0)
        gap = o + nearest[..., None] * d
        inside = 1.0 - jnp.sum(gap * gap, -1)
        half = jnp.where(moves, jnp.sqrt(jnp.maximum(inside, 0.0) / dd), _FAR)
        half = jnp.where(inside > 0, half, -_FAR)
        crosses = jnp.abs(along) > 1e-7
        speed = jnp.where(crosses, along, 1.0)
        offset = jnp.where(crosses, -start / speed, 0.0)
        between = jnp.where(jnp.abs(start) <= axes, _FAR, -_FAR)
        width = jnp.where(crosses, axes / jnp.abs(speed), between)
        enter = jnp.max(jnp.where(flat > 0, offset - width, -_FAR), -1)
        leave = jnp.min(jnp.where(flat > 0, offset + width, _FAR), -1)
        enter = jnp.maximum(jnp.maximum(enter, nearest - half), -middle)
        leave = jnp.minimum(jnp.minimum(leave, nearest + half), length - middle)
        return total + body.value * jnp.maximum(leave - enter, 0.0), None

    bodies = jax.tree.map(jnp.asarray, primitives)
    return jax.lax.scan(add, jnp.zeros(camera.shape, length.dtype), bodies)[0]


def rasterise(primitives: Primitives, grid: Grid, supersample: int = 1) -> Float[Array, "x y z"]:
    """The SYNTHETIC scene that adds up, on a grid: the mean over supersample^3 points a voxel.

    Args:
        primitives: n bodies; `value` in 1/mm.
        grid: where to sample, world mm.
        supersample: points per voxel edge; 1 takes the voxel's centre.

    Raises:
        InputError: supersample is not positive.
    """
    if supersample < 1:
        raise InputError(f"supersample is {supersample}, expected a positive integer")
    steps = (np.arange(supersample) + 0.5) / supersample - 0.5
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    bodies = jax.tree.map(jnp.asarray, primitives)
    affine = jnp.asarray(grid.affine, jnp.float32)

    def one_offset(total: Array, offset: Float[Array, "3"]) -> tuple[Array, None]:
        def add(volume: Array, body: Primitives) -> tuple[Array, None]:
            q = local_coordinates(body, affine, offset, grid.shape)
            inside = distance_mm(body.axes, body.flat, q) <= 0
            return volume + body.value * inside.astype(volume.dtype), None

        return jax.lax.scan(add, total, bodies)[0], None

    total = jax.lax.scan(one_offset, jnp.zeros(grid.shape), jnp.asarray(offsets, jnp.float32))[0]
    return total / len(offsets)


def local_coordinates(
    body: Primitives,
    affine: Float[Array, "4 4"],
    start: Float[Array, "3"],
    shape: tuple[int, int, int],
) -> list[Float[Array, "x y z"]]:
    """Local coordinates in mm of the voxels start, start + 1, ... of a grid, for one SYNTHETIC body."""
    high = jax.lax.Precision.HIGHEST
    step = jnp.matmul(body.rotation.T, affine[:3, :3], precision=high)
    origin = jnp.matmul(affine[:3, :3], start, precision=high) + affine[:3, 3] - body.centre
    origin = jnp.matmul(body.rotation.T, origin, precision=high)
    numbers = (jnp.arange(n, dtype=jnp.float32) for n in shape)
    i, j, k = jnp.meshgrid(*numbers, indexing="ij", sparse=True)
    return [step[a, 0] * i + step[a, 1] * j + step[a, 2] * k + origin[a] for a in range(3)]
