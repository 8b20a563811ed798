"""X-rays of scenes: one compiled program for all cases, at the poses and with the noise of the step.

Scenes of a set have one shape and an affine each, and affine and cameras may be traced: a case that is
turned, shifted, scaled or mirrored is the same voxels with another affine, projected anew. The projector is
Siddon's exact one on the scene's own voxels: interpolating ones are off by 2 % on voxels of 4 mm, and no
gradient is wanted. With the axis that rays are walked along fixed beforehand it is one scan over slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, Int16

from jxrecon.data.machine import IDEAL, developed, exposure_of
from jxrecon.deformation.warp import at_voxels
from jxrecon.drr.rays import Rays, rays_of
from jxrecon.drr.siddon import siddon, siddon_along
from jxrecon.experiment import Machine, Variety
from jxrecon.geometry import AnyCamera, Camera, Grid
from jxrecon.pose import Pose
from jxrecon.types import Key
from jxrecon.units import HU_AIR

STEEPEST = 0.8
"""Slope up to which an image is walked along one axis; 1 is the most that Siddon's slabs allow."""

Images = tuple[Float[Array, "rows columns"], ...]
Axes = tuple[int | None, ...]
"""The index axis that each camera's rays are walked along; None: each ray's own."""


def axes_of(affines: Sequence[Float[np.ndarray, "4 4"]], cameras: Sequence[AnyCamera]) -> Axes:
    """The axis of every camera that suits all these affines, and scenes and cameras moved a little."""
    found = []
    for camera in cameras:
        rays = [rays_of(np.asarray(affine, np.float64), camera) for affine in affines]
        slopes = np.max([_slopes(one) for one in rays], 0)
        axis = int(slopes.argmin())
        found.append(axis if slopes[axis] <= STEEPEST else None)
    return tuple(found)


def _slopes(rays: Rays) -> Float[np.ndarray, "3"]:
    """The steepest slope of any ray against each index axis, in voxels a slice."""
    d = np.abs(np.stack(rays.direction.corners(rays.shape)))
    others = np.stack([np.delete(d, axis, 1).max(1) for axis in range(3)], 1)
    return (others / np.maximum(d, 1e-9)).max(0)


def xrays_of(
    hu: Float[Array, "i j k"] | Int16[Array, "i j k"],
    affine: Float[Array, "4 4"],
    cameras: Sequence[AnyCamera],
    axes: Axes,
    machine: Machine = IDEAL,
) -> Images:
    """X-rays of a scene, one image a camera, without noise: line integrals as the machine has them.

    Pure, for jit and vmap over all but the axes and the machine.
    """
    parts = exposure_of(machine).volumes(hu.astype(jnp.float32))
    return tuple(
        developed(line_integrals_along(axis, parts, affine, camera), camera, machine)
        for camera, axis in zip(cameras, axes, strict=True)
    )


def line_integrals_along(
    axis: int | None,
    parts: Float[Array, "part i j k"],
    affine: Float[Array, "4 4"],
    camera: AnyCamera,
) -> Float[Array, "part rows columns"]:
    """Exact line integrals of each part of a scene in one view; the axis is of `axes_of`."""
    rays = rays_of(affine, camera, jnp.float32)
    way = siddon if axis is None else partial(siddon_along, axis)
    return jnp.stack([way(part, rays) for part in parts])


def field_of(
    hu: Float[Array, "i j k"] | Int16[Array, "i j k"],
    affine: Float[Array, "4 4"],
    grid: Grid,
    warp: Float[Array, "3 a b c"] | None = None,
    samples: tuple[int, int, int] = (1, 1, 1),
    outside: float = HU_AIR,
) -> Float[Array, "x y z"]:
    """The field as `volumes.load` cuts it: linear interpolation, air outside, HU.

    Args:
        hu: of the scene.
        affine: index -> the grid's world, mm.
        grid: of the field.
        warp: displacement of the scene at the nodes of a lattice over it, voxels; None: none.
        samples: evenly spaced points along each axis of a voxel whose mean it is.
        outside: what lies about the scene.
    """
    if samples != (1, 1, 1):
        fine = field_of(hu, affine, refined(grid, samples), warp, outside=outside)
        (x, y, z), (a, b, c) = grid.shape, samples
        return fine.reshape(x, a, y, b, z, c).mean((1, 3, 5))
    to_scene = jnp.matmul(
        jnp.linalg.inv(affine), jnp.asarray(grid.affine, jnp.float32), precision="highest"
    )
    i, j, k = (jnp.arange(n, dtype=jnp.float32) for n in grid.shape)
    index = [
        (row[0] * i)[:, None, None]
        + (row[1] * j)[None, :, None]
        + (row[2] * k + row[3])[None, None]
        for row in to_scene[:3]
    ]
    if warp is not None:
        steps = [(n - 1) / (m - 1) for n, m in zip(hu.shape, warp.shape[1:])]
        nodes = [x / step for x, step in zip(index, steps)]
        index = [x + map_coordinates(d, nodes, 1, "nearest") for x, d in zip(index, warp)]
    return map_coordinates(hu.astype(jnp.float32), index, 1, "constant", outside)


def samples_in(
    voxel_mm: Float[np.ndarray, "3"] | float, scene_mm: Float[np.ndarray, "3"]
) -> tuple[int, int, int]:
    """Points along each axis of a voxel, one for about every voxel of the scene, for `field_of`."""
    x, y, z = np.maximum(1, np.rint(voxel_mm / scene_mm)).astype(int).tolist()
    return x, y, z


def refined(grid: Grid, samples: tuple[int, int, int]) -> Grid:
    """The grid whose blocks of so many voxels are the voxels of this one."""
    affine = grid.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ ((1.0 - 1.0 / np.array(samples)) / 2.0)
    affine[:3, :3] /= samples
    x, y, z = (n * p for n, p in zip(grid.shape, samples))
    return Grid((x, y, z), affine)


def warped(
    hu: Float[Array, "i j k"] | Int16[Array, "i j k"], warp: Float[Array, "3 a b c"]
) -> Float[Array, "i j k"]:
    """The scene moved by a displacement at the nodes of a lattice from its first to its last voxels."""
    here = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in hu.shape), indexing="ij")
    i, j, k = hu.shape
    index = [x + d for x, d in zip(here, at_voxels(warp, (i, j, k)))]
    return map_coordinates(hu.astype(jnp.float32), index, 1, "constant", HU_AIR)


NODES = 7
"""Of the lattice of a warp, along each axis: about 80 mm apart in a scene of half a metre."""


class Case(NamedTuple):
    """A case as a step sees it.

    Attributes:
        images: its X-rays.
        hu: the field.
        mirrored: 1 if left and right have been exchanged, else 0.
    """

    images: Images
    hu: Float[Array, "x y z"]
    mirrored: Int[Array, ""]


def varied(
    hu: Int16[Array, "i j k"],
    affine: Float[Array, "4 4"],
    key: Key,
    cameras: Sequence[Camera],
    take: Callable[..., Images],
    variety: Variety,
    cut: Callable[..., Float[Array, "x y z"]],
) -> Case:
    """The case lying otherwise, projected anew by cameras that stand a little wrong, without noise.

    How far it is moved is drawn first, evenly from nothing to all of the variety: so the data as they are
    stay among the cases.

    Args:
        hu: of the scene.
        affine: of the scene, index -> world mm.
        key: of all that is random.
        cameras: where they are believed to stand.
        take: (hu, affine, cameras) of the scene -> its X-rays, as `xrays_of`.
        variety: how far.
        cut: (hu, affine, warp) of the scene -> the field, as `field_of`.
    """
    keys = jax.random.split(key, 4)
    strength, choice = jax.random.uniform(keys[0], (2,), jnp.float32)
    strength *= variety.amount
    moved, mirror = motion(variety, strength, keys[1])
    affine = jnp.matmul(moved, affine, precision="highest")
    spacing = jnp.linalg.norm(affine[:3, :3], axis=0)
    nodes = jax.random.normal(keys[2], (3, NODES, NODES, NODES), jnp.float32)
    warp = variety.warp_mm * strength * nodes / spacing[:, None, None, None]

    def still(hu: Array) -> tuple[Array, Array]:
        return hu.astype(jnp.float32), cut(hu, affine, warp=None)

    def bent(hu: Array) -> tuple[Array, Array]:
        return warped(hu, warp), cut(hu, affine, warp=warp)

    scene, field = jax.lax.cond(choice < variety.warped, bent, still, hu)
    seen = [
        misplaced(variety, strength, camera, jax.random.fold_in(keys[3], n))
        for n, camera in enumerate(cameras)
    ]
    return Case(take(scene, affine, seen), field, mirror)


def motion(
    variety: Variety, strength: Float[Array, ""], key: Key
) -> tuple[Float[Array, "4 4"], Int[Array, ""]]:
    """(world -> world of a patient who lies otherwise, 1 if mirrored)."""
    normal = strength * jax.random.normal(key, (10,), jnp.float32)
    pose = Pose(jnp.deg2rad(variety.rotation_deg) * normal[:3], variety.shift_mm * normal[3:6])
    mirror = jax.random.bernoulli(jax.random.fold_in(key, 1)).astype(jnp.int32)
    sizes = jnp.exp(variety.scale * (normal[6] + normal[7:10]))
    sizes = sizes.at[0].multiply(1.0 - 2.0 * mirror.astype(jnp.float32))
    moved = jnp.eye(4, dtype=jnp.float32).at[:3, :3].set(pose.matrix() * sizes[None])
    return moved.at[:3, 3].set(pose.translation_mm), mirror


def misplaced(variety: Variety, strength: Float[Array, ""], camera: Camera, key: Key) -> Camera:
    """The camera where the machine really stood: turned about the isocentre, its source nearer or farther."""
    normal = strength * jax.random.normal(key, (4,), jnp.float32)
    nothing = jnp.zeros(3, jnp.float32)
    turned = Pose(jnp.deg2rad(variety.pose_error_deg) * normal[:3], nothing).apply(camera)
    away = turned.source / jnp.linalg.norm(turned.source)
    return turned.replace(source=turned.source + variety.distance_mm * normal[3] * away)
