"""A surface as voxels or pixels: what lies inside it, its silhouette on a detector and the outline of that.

All rest on one exact step: which integer places of a plane a projected triangle covers. Corners are
snapped to whole numbers so fine that the products of int64 do not overflow (2^-18 of a voxel for 2,000
voxels), and a place on an edge or a corner is taken a little further along both axes (simulation of
simplicity), so that of all triangles around it exactly the right ones cover it.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from skimage.measure import find_contours

from jxrecon.geometry import AnyCamera, Camera, Grid, depth_of, vectors
from jxrecon.mesh.topology import Faces, Mesh, Template, edges_of, numbers_of, sides_of
from jxrecon.types import InputError

AT_ONCE = 1 << 22
"""Places tried at a time, which bounds the memory."""


def rasterise(mesh: Mesh | Template, grid: Grid) -> Bool[np.ndarray, "x y z"]:
    """Which voxels' centres lie inside the surface.

    A ray along an index axis counts the faces it leaves through minus those it enters by: the winding
    number. A closed surface needs one ray a column. With holes all six directions count: their mean
    stands for the generalised winding number, and what exceeds one half in size is inside, so that a
    hole misleads one ray in six. Where the surface overlaps itself, or looks inwards, inside is where
    the number is not 0. A centre exactly on the surface belongs to the side that lies further along
    the index axes: a box from index 2 to 5 holds 2, 3, 4.

    Args:
        mesh: vertices in world mm.
        grid: any voxel grid; it may be oblique and need not contain the mesh.

    Raises:
        InputError: a coordinate is not finite.
    """
    vertices, faces = _finite(mesh)
    inverse = np.linalg.inv(np.asarray(grid.affine, np.float64))
    places = vertices @ inverse[:3, :3].T + inverse[:3, 3]
    if is_closed(faces):
        return _winding(places, faces, grid.shape, 2)[0] != 0
    total = np.zeros(grid.shape, np.int32)
    for axis in range(3):
        total += sum(_winding(places, faces, grid.shape, axis))
    return np.abs(total) > 3


def is_closed(faces: Faces) -> bool:
    """Whether every edge is run through as often in one direction as in the other."""
    sides = sides_of(faces)
    edge = numbers_of(sides, edges_of(faces))
    return not np.bincount(edge, np.where(sides[:, 0] < sides[:, 1], 1, -1)).any()


def silhouette(mesh: Mesh | Template, camera: AnyCamera) -> Bool[np.ndarray, "rows columns"]:
    """Which pixels' rays (through their centres) meet the surface; nowhere true if it is out of sight.

    Raises:
        InputError: a coordinate is not finite, or a vertex is not in front of the source.
    """
    vertices, faces = _finite(mesh)
    if isinstance(camera, Camera):
        depth = depth_of(camera, vertices)
        if depth.min() <= 0:
            bad = int(depth.argmin())
            raise InputError(
                f"vertex {bad} at {vertices[bad].round(1).tolist()} mm lies behind the X-ray source at "
                f"{vectors(camera)[0].round(1).tolist()} mm, expected the surface in front of it"
            )
    places = np.asarray(camera.place_of(jnp.asarray(vertices, jnp.float32)), np.float64)
    image = np.zeros(camera.shape, bool)
    for _, row, column, _, _ in _covered(places, faces, camera.shape):
        image[row, column] = True
    return image


def outline(mask: Bool[np.ndarray, "rows columns"]) -> list[Float[np.ndarray, "n 2"]]:
    """The rims of a silhouette as closed lines of (row, column), half way between pixels in and out.

    At the detector's border the line runs half a pixel outside.
    """
    padded = np.pad(np.asarray(mask, np.float64), 1)
    return [line - 1 for line in find_contours(padded, 0.5)]


def _finite(mesh: Mesh | Template) -> tuple[np.ndarray, np.ndarray]:
    vertices = np.asarray(mesh.vertices, np.float64)
    if not np.isfinite(vertices).all():
        bad = int(np.flatnonzero(~np.isfinite(vertices).all(1))[0])
        raise InputError(f"vertex {bad} is {vertices[bad].tolist()}, expected finite millimetres")
    return vertices, np.asarray(mesh.faces)


def _winding(
    places: np.ndarray, faces: np.ndarray, shape: tuple[int, ...], axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """[x, y, z] of the winding number, by the rays that come from below and above along an axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    plane, depth = (shape[first], shape[second]), shape[axis]
    steps = np.zeros(plane[0] * plane[1] * (depth + 1), np.int32)
    for face, row, column, sign, shares in _covered(places[:, [first, second]], faces, plane):
        crossing = np.sum(shares * places[faces[face], axis], axis=1)
        crossing = np.rint(crossing * 2.0**18) / 2.0**18  # flat faces at their own depth again
        above = np.clip(np.ceil(crossing), 0, depth).astype(np.int64)
        index = (row * plane[1] + column) * (depth + 1) + above
        np.subtract.at(steps, index, sign.astype(np.int32))
    below = np.cumsum(steps.reshape(*plane, depth + 1), axis=2, dtype=np.int32)
    above = below[:, :, :depth] - below[:, :, depth:]
    one, other = (np.moveaxis(part, (0, 1, 2), (first, second, axis)) for part in (below, above))
    return one[tuple(slice(n) for n in shape)], other


def _covered(
    places: np.ndarray, faces: np.ndarray, shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, ...]]:
    """All pairs of a face and an integer place of [0, shape) that lies within it, many at a time.

    As (face; row and column of the place; sign, +1 where the corners turn from the first axis to the
    second and -1 the other way; barycentric coordinates [n, 3]).
    """
    reach = max(float(np.abs(places).max(initial=0)), *shape) + 1
    scale = 2 ** max(30 - int(np.ceil(np.log2(reach))), 0)
    if reach > 2**30:
        raise InputError(f"a vertex falls {reach:.1e} pixels away, expected it near the detector")
    snapped = np.rint(places * scale).astype(np.int64)
    corners = snapped[faces]
    low = np.maximum(-(-corners.min(1) // scale), 0)
    high = np.minimum(corners.max(1) // scale, np.array(shape) - 1)
    width = np.maximum(high - low + 1, 0)
    count = width[:, 0] * width[:, 1]
    ends, start = np.cumsum(count), 0
    while start < len(faces):  # whole faces, about AT_ONCE places together
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + AT_ONCE, side="right")), start + 1)
        face = np.repeat(np.arange(start, stop), count[start:stop])
        before = ends[start:stop] - count[start:stop] - done
        within = np.arange(len(face)) - np.repeat(before, count[start:stop])
        row = low[face, 0] + within // np.maximum(width[face, 1], 1)
        column = low[face, 1] + within % np.maximum(width[face, 1], 1)
        yield _inside(snapped, faces, face, row, column, scale)
        start = stop


def _inside(
    snapped: np.ndarray,
    faces: np.ndarray,
    face: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    scale: int,
) -> tuple[np.ndarray, ...]:
    areas, signs = [], []
    for n in range(3):  # the edge that faces corner n
        one, two = faces[face, (n + 1) % 3], faces[face, (n + 2) % 3]
        turned = np.where(one < two, 1, -1)  # both faces of an edge compute the same number
        p, q = snapped[np.minimum(one, two)], snapped[np.maximum(one, two)]
        along = q - p
        area = along[:, 0] * (column * scale - p[:, 1]) - along[:, 1] * (row * scale - p[:, 0])
        # nearly 0 further along both axes, first along rows: the sign of what the step adds
        step = np.where(along[:, 1] != 0, -along[:, 1], along[:, 0])
        areas.append(area * turned)
        signs.append(np.sign(np.where(area != 0, area, step)) * turned)
    same = (signs[0] == signs[1]) & (signs[1] == signs[2]) & (signs[0] != 0)
    shares = np.stack([area[same] for area in areas], axis=1).astype(np.float64)
    total = shares.sum(1, keepdims=True)
    shares = np.divide(shares, total, out=np.full_like(shares, 1 / 3), where=total != 0)
    return face[same], row[same], column[same], signs[0][same], shares
