"""A CT that follows an organ's surface: the surface's motion spread smoothly through the volume.

    warped(y) = volume(y + d(y))            d: backward displacement, mm, known at the moved vertices
    d(y) = e(y) sum_k w_k (before_k - after_k) / sum_k w_k         the k nearest of the moved vertices
    w_k = 1 / (|y - after_k|^2 + r^2),      e(y) = cos^2(pi/2 min(1, outside(y) / reach))

outside(y) is the distance to the moved organ, 0 within it: skin and spine beyond `reach` stay where
they are. d lives on a coarse lattice and is interpolated linearly to the voxels.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from scipy import ndimage
from scipy.spatial import cKDTree

from jxrecon.geometry import Grid
from jxrecon.mesh.quality import vertex_normals
from jxrecon.mesh.topology import Faces, Vertices

REACH_MM = 60.0
"""Distance from the organ at which nothing moves any more."""

LATTICE_MM = 8.0
"""Spacing of the lattice that carries the displacement."""

_NEAREST = 6  # vertices that a place listens to
_SOFT_MM = 3.0  # r: else d would be torn at the vertices


def lattice(grid: Grid, spacing_mm: float = LATTICE_MM) -> Grid:
    """The coarse nodes for a grid: the same axes, about this spacing, from corner voxel to corner voxel."""
    last = np.array(grid.shape) - 1
    counts = np.maximum(np.ceil(last * grid.spacing_mm / spacing_mm).astype(int), 1) + 1
    return lattice_of(grid, tuple(counts.tolist()))


def lattice_of(grid: Grid, counts: tuple[int, ...]) -> Grid:
    """The lattice of so many nodes along each axis, from corner voxel to corner voxel of a grid."""
    affine = grid.affine.copy()
    affine[:3, :3] *= (np.array(grid.shape) - 1) / (np.array(counts) - 1)
    return Grid((counts[0], counts[1], counts[2]), affine)


def places(grid: Grid) -> Float[np.ndarray, "x y z 3"]:
    """World position of every voxel's centre, mm, float32."""
    i, j, k = (np.arange(n, dtype=np.float32)[:, None] for n in grid.shape)
    columns = grid.affine[:3].T.astype(np.float32)
    return (
        (i * columns[0])[:, None, None]
        + (j * columns[1])[None, :, None]
        + (k * columns[2] + columns[3])[None, None]
    )


def surface_field(
    nodes: Grid, before: Vertices, after: Vertices, faces: Faces, reach_mm: float = REACH_MM
) -> Float[np.ndarray, "x y z 3"]:
    """d at the nodes of a lattice, mm: from places of the warped volume to those they come from.

    Args:
        nodes: lattice, see `lattice`.
        before: vertices of the organ in the volume, world mm.
        after: where they are to be.
        faces: triangles, counter-clockwise seen from outside.
        reach_mm: where the motion has faded out. It has to be well above the largest motion (about 1.6
            times), or space folds.
    """
    points = places(nodes).reshape(-1, 3)
    field = np.zeros((len(points), 3), np.float32)
    low, high = after.min(0) - reach_mm, after.max(0) + reach_mm
    near = np.flatnonzero(((points > low) & (points < high)).all(1))
    near_points = points[near]
    distance, index = cKDTree(after).query(near_points, k=min(_NEAREST, len(after)))
    closest = index[:, 0]
    normals = vertex_normals(after, faces)[closest]
    beyond = np.einsum("pc,pc->p", near_points - after[closest], normals)
    outside = np.where(beyond > 0, distance[:, 0], 0.0)
    weight = 1.0 / (distance**2 + _SOFT_MM**2)
    weight /= weight.sum(1, keepdims=True)
    moved = np.einsum("pk,pkc->pc", weight, (before - after)[index])
    fading = np.cos(np.pi / 2 * np.clip(outside / reach_mm, 0.0, 1.0)) ** 2  # e
    field[near] = moved * fading[:, None]
    return field.reshape(*nodes.shape, 3)


def at_places(
    values: Shaped[np.ndarray, "x y z *c"], grid: Grid, points_mm: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "..."]:
    """Linear interpolation of values on a grid at world places; beyond it the nearest value.

    Returns:
        [*n], or [*n, c] of values [x, y, z, c].
    """
    inverse = np.linalg.inv(grid.affine).astype(np.float32)
    index = np.moveaxis(points_mm @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)

    def one(channel: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(channel, index, np.float32, order=1, mode="nearest")

    if values.ndim == 3:
        return one(values)
    return np.stack([one(values[..., n]) for n in range(values.shape[3])], axis=-1)


def upsampled(
    values: Float[np.ndarray, "i j k c"], shape: tuple[int, int, int]
) -> Float[np.ndarray, "c x y z"]:
    """Values at a lattice's nodes -> at the voxels of the grid it was made for, linearly."""
    along_x, along_y, along_z = map(linear_weights, values.shape[:3], shape)
    fine = along_y @ (np.moveaxis(values, -1, 0) @ along_z.T)  # [c, i, y, z]
    channels, nodes, *plane = fine.shape
    return (along_x @ fine.reshape(channels, nodes, -1)).reshape(channels, -1, *plane)


def at_voxels(
    values: Float[Array, "c i j k"], shape: tuple[int, int, int]
) -> Float[Array, "c x y z"]:
    """`upsampled` for JAX, channels first: pure and differentiable."""
    for axis, count in enumerate(shape, 1):
        weights = jnp.asarray(linear_weights(values.shape[axis], count))
        fine = jnp.tensordot(weights, values, (1, axis), precision="highest")
        values = jnp.moveaxis(fine, 0, axis)
    return values


def linear_weights(nodes: int, count: int) -> Float[np.ndarray, "count nodes"]:
    """The matrix of linear interpolation from nodes to voxels, first on first and last on last."""
    place = np.linspace(0.0, nodes - 1, count)[:, None]
    return np.maximum(1.0 - np.abs(place - np.arange(nodes)), 0.0).astype(np.float32)


def pulled_back(
    volume: Shaped[np.ndarray, "x y z"],
    source: Grid,
    grid: Grid,
    field: Float[np.ndarray, "i j k 3"],
) -> Float[np.ndarray, "a b c"]:
    """volume(y + d(y)) for every voxel y of a grid; beyond the volume its nearest value.

    Args:
        volume: values on `source`.
        source: where they lie.
        grid: where the result lies.
        field: d at the nodes of `lattice(grid)`, mm.
    """
    # y + d(y) in voxels of the source is made on the lattice: both summands are linear between nodes
    nodes = lattice_of(grid, field.shape[:3])
    inverse = np.linalg.inv(source.affine).astype(np.float32)
    index = (places(nodes) + field) @ inverse[:3, :3].T + inverse[:3, 3]
    fine = upsampled(index, grid.shape)
    return ndimage.map_coordinates(volume, fine, np.float32, order=1, mode="nearest")
