"""Cameras as vectors: rows of ASTRA's geometries, and the places and unit vectors of RTK and LEAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jxrecon.geometry import AnyCamera, Camera, Grid, ParallelCamera, finite, pixel_mm, vectors
from jxrecon.interop.checks import Three, cone, pitches, pixels
from jxrecon.types import InputError


def to_astra(camera: AnyCamera, grid: Grid) -> Float[np.ndarray, "12"]:
    """The row of ASTRA's `cone_vec` or, for parallel rays, `parallel3d_vec` that is this view.

    (source or ray direction, detector centre, u, v), places p as S p with S p = A^-1 p - (N - 1) / 2
    for any affine A and shape N of the grid, directions by A^-1 alone: ASTRA's voxels have edge 1 and
    are centred. Stack the rows of several views. Its volume is `astra.create_vol_geom(Ny, Nx, Nz)` with
    data [z, y, x], our mu transposed by (2, 1, 0), and its projections are [row, view, column].
    ASTRA's line integrals are in voxels: multiply them by `astra_voxel_mm(camera, grid)` for those of
    `jxrecon.drr`. Read in ASTRA's documentation; ASTRA itself was not run.
    """
    inverse, middle = _to_voxels(grid), grid.centre_mm
    first, centre, u, v = vectors(camera)
    first = first if isinstance(camera, ParallelCamera) else first - middle
    return np.concatenate([inverse @ first, inverse @ (centre - middle), inverse @ u, inverse @ v])


def from_astra(
    row: Sequence[float] | np.ndarray, grid: Grid, shape: tuple[int, int], kind: str
) -> AnyCamera:
    """The view of a row of ASTRA's `cone_vec` or `parallel3d_vec`: the inverse of `to_astra`.

    Args:
        row: 12 numbers: source (or ray direction), detector centre, u, v in ASTRA's units.
        grid: the volume's grid; for ASTRA's own world take
            `centred_grid((Nx, Ny, Nz), (1.0, 1.0, 1.0))`.
        shape: (rows, columns) of the detector.
        kind: "cone_vec" or "parallel3d_vec".

    Raises:
        InputError: not 12 finite numbers, or another kind.
    """
    numbers = np.asarray(row, np.float64)
    if numbers.shape != (12,) or not np.isfinite(numbers).all():
        raise InputError(f"ASTRA row has the shape {numbers.shape}, expected 12 finite numbers")
    if kind not in ("cone_vec", "parallel3d_vec"):
        raise InputError(f"ASTRA geometry is {kind!r}, expected cone_vec or parallel3d_vec")
    middle = grid.centre_mm
    first, centre, u, v = (grid.affine[:3, :3] @ part for part in numbers.reshape(4, 3))
    detector: dict[str, Any] = {"centre": centre + middle, "u": u, "v": v, "shape": pixels(shape)}
    if kind == "cone_vec":
        return cone(source=first + middle, **detector)
    return ParallelCamera(**detector | {"direction": first})


def astra_voxel_mm(camera: AnyCamera, grid: Grid) -> Float[np.ndarray, "rows columns"]:
    """Millimetres of one unit of ASTRA's length along every pixel's ray: |d| / |A^-1 d|.

    On isotropic voxels it is their edge for every ray.
    """
    rows, columns = camera.shape
    first, centre, u, v = vectors(camera)
    if isinstance(camera, ParallelCamera):
        rays = np.broadcast_to(first, (rows, columns, 3))
    else:
        r = (np.arange(rows) - (rows - 1) / 2)[:, None, None]
        c = (np.arange(columns) - (columns - 1) / 2)[None, :, None]
        rays = centre + r * v + c * u - first
    return np.linalg.norm(rays, axis=-1) / np.linalg.norm(rays @ _to_voxels(grid).T, axis=-1)


def from_modular(
    source_mm: Three,
    centre_mm: Three,
    u: Three,
    v: Three,
    pitch_mm: float | tuple[float, float],
    shape: tuple[int, int],
) -> Camera:
    """The camera of places, unit vectors and pitches: RTK's, LEAP's modular beam, diffct's.

    u = pitch_mm[1] u, v = pitch_mm[0] v; places as they are.

    | here | RTK AddProjection | LEAP set_modularbeam |
    |---|---|---|
    | source_mm | sourcePosition | sourcePositions |
    | centre_mm | detectorPosition (where the projection's origin is its centre) | moduleCenters |
    | u, across columns | detectorRowVector | colVectors |
    | v, across rows | detectorColumnVector | rowVectors |
    | pitch_mm | the projections' spacing | pixelHeight, pixelWidth |

    The names of both packages were read in their documentation, not run.

    Args:
        source_mm, centre_mm: X-ray source, centre of the detector.
        u, v: unit vectors from one column, one row to the next.
        pitch_mm: one number or (between rows, between columns).
        shape: (rows, columns).

    Raises:
        InputError: u or v is no unit vector, or a number that cannot be.
    """
    u, v = finite(u, 3, "u"), finite(v, 3, "v")
    for name, vector in (("u", u), ("v", v)):
        length = np.linalg.norm(vector)
        if abs(length - 1) > 1e-5:
            raise InputError(f"{name} has the length {length:.6g}, expected a unit vector")
    row_mm, column_mm = pitches(pitch_mm, "pitch_mm")
    source, centre = finite(source_mm, 3, "source_mm"), finite(centre_mm, 3, "centre_mm")
    return cone(source=source, centre=centre, u=u * column_mm, v=v * row_mm, shape=pixels(shape))


def to_modular(camera: AnyCamera) -> dict[str, Any]:
    """The keyword arguments of `from_modular` that give this camera; u and v of any angle.

    Raises:
        InputError: parallel rays. RTK itself refuses u and v that are not at right angles.
    """
    if not isinstance(camera, Camera):
        raise InputError("a modular beam has a source, expected a Camera and no ParallelCamera")
    source, centre, u, v = vectors(camera)
    pitch = pixel_mm(camera)
    return {
        "source_mm": source,
        "centre_mm": centre,
        "u": u / pitch[1],
        "v": v / pitch[0],
        "pitch_mm": pitch,
        "shape": camera.shape,
    }


def _to_voxels(grid: Grid) -> Float[np.ndarray, "3 3"]:
    """Directions in world mm -> in voxels."""
    return np.linalg.inv(np.asarray(grid.affine, np.float64)[:3, :3])
