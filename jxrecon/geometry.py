"""Frames and cameras: the world is RAS in millimetres, a volume is [x, y, z] with a 4x4 affine.

World axes: +x to the patient's right, +y to the front (anterior), +z to the head (superior): nibabel's
canonical RAS. A voxel's centre lies at integer index; `affine @ (i, j, k, 1)` is its place in mm.
LPS exists only where DICOM or ITK files are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jxrecon.types import AnyArray, InputError, shown


class Grid(NamedTuple):
    """A voxel grid in the world: how many voxels there are and where they lie.

    Attributes:
        shape: voxels along x, y, z.
        affine: 4x4 NumPy matrix, index -> world mm, voxel centres at integers.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between neighbouring voxel centres along each index axis, [3]."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def centre_mm(self) -> np.ndarray:
        """World position of the middle of the grid, [3]."""
        return self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]

    @property
    def extent_mm(self) -> np.ndarray:
        """Edge lengths of the box that the voxels fill, [3]."""
        return self.spacing_mm * np.array(self.shape)

    @property
    def corners_mm(self) -> np.ndarray:
        """Corners of that box in the world, [8, 3], the last axis changing first."""
        return box_corners_mm([(-0.5, n - 0.5) for n in self.shape], self.affine)


def box_corners_mm(
    ends: Sequence[tuple[float, float]], affine: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "8 3"]:
    """World positions of the corners of a box from index `low` to `high` along each axis."""
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    return corners @ affine[:3, :3].T + affine[:3, 3]


def centred_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """The axis-aligned RAS grid of this shape and spacing whose middle lies at `centre_mm`."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = np.array(centre_mm) - (np.array(shape) - 1) / 2 * np.array(spacing_mm)
    return Grid((shape[0], shape[1], shape[2]), affine)


AnyKind = TypeVar("AnyKind", bound="_Detector")

_DETECTOR = ("centre_mm", "u_mm", "v_mm")  # as JSON names them


class _Detector:
    """What both kinds of camera do with their flat detector: centre, u, v and shape."""

    centre: Float[Array, "*batch 3"]
    u: Float[Array, "*batch 3"]
    v: Float[Array, "*batch 3"]
    shape: tuple[int, int]
    replace: Callable[..., Any]

    def pixels(self) -> Float[Array, "rows columns 3"]:
        """World position of every pixel centre in mm."""
        rows, columns = self.shape
        r = (jnp.arange(rows, dtype=jnp.float32) - (rows - 1) / 2)[:, None, None]
        c = (jnp.arange(columns, dtype=jnp.float32) - (columns - 1) / 2)[None, :, None]
        return self.centre[None, None] + c * self.u[None, None] + r * self.v[None, None]

    @jax.jit  # outside a compiled function its dozen small operations would each be compiled
    def place_of(self, points_mm: Float[Array, "*points 3"]) -> Float[Array, "*points 2"]:
        """(row, column) on the detector where the rays through these world points meet it.

        Integers are pixel centres; places may lie outside the detector. Differentiable in points and
        camera. A point in the plane of a point source gives infinities, one behind it a mirrored place.
        """
        start = jnp.asarray(points_mm)
        along = jnp.broadcast_to(jax.tree.leaves(self)[0], start.shape)
        along = start - along if isinstance(self, Camera) else along
        dot = partial(jnp.matmul, precision="highest")
        normal = jnp.cross(self.u, self.v)
        depth = (dot(self.centre, normal) - dot(start, normal)) / dot(along, normal)
        on_u, on_v = (
            dot(start, axis) + depth * dot(along, axis) - dot(self.centre, axis)
            for axis in (self.u, self.v)
        )
        # The offset from the centre is b u + a v; u and v need not be orthogonal.
        uu, vv, uv = dot(self.u, self.u), dot(self.v, self.v), dot(self.u, self.v)
        scale = uu * vv - uv * uv
        rows, columns = self.shape
        row = (uu * on_v - uv * on_u) / scale + (rows - 1) / 2
        column = (vv * on_u - uv * on_v) / scale + (columns - 1) / 2
        return jnp.stack([row, column], -1)

    def resized(self: AnyKind, shape: tuple[int, int]) -> AnyKind:
        """The same detector area read out with another number of pixels."""
        rows, columns = (old / new for old, new in zip(self.shape, shape))
        return self.replace(u=self.u * columns, v=self.v * rows, shape=tuple(shape))

    def binned(self: AnyKind, blocks: Sequence[int]) -> AnyKind:
        """The camera of an image averaged over blocks of (rows, columns), whole blocks from its first pixel.

        What fills no block at the image's end is left out.
        """
        shape = self.shape[0] // int(blocks[0]), self.shape[1] // int(blocks[1])
        kept = shape[0] * int(blocks[0]), shape[1] * int(blocks[1])
        rows, columns = ((n - k) / 2 for n, k in zip(self.shape, kept))
        centre = self.centre - rows * self.v - columns * self.u
        return self.replace(centre=centre, shape=kept).resized(shape)

    def moved(
        self: AnyKind, rotation: Float[AnyArray, "3 3"], translation_mm: Float[AnyArray, "3"]
    ) -> AnyKind:
        """The camera after the rigid motion x -> rotation x + translation of the world."""
        # At full precision: 1e-3 of a metre is a millimetre.
        camera = jax.tree.map(lambda x: jnp.matmul(rotation, x, precision="highest"), self)
        moved = camera.replace(centre=camera.centre + translation_mm)
        if isinstance(self, Camera):
            moved = moved.replace(source=camera.source + translation_mm)
        return moved

    def strips(self: AnyKind, count: int) -> tuple[AnyKind, ...]:
        """The detector cut into `count` cameras of as many rows each, from the first row down.

        Raises:
            InputError: the rows cannot be divided so.
        """
        rows, columns = self.shape
        if count < 1 or rows % count:
            raise InputError(f"a detector of {rows} rows cannot be cut into {count} equal strips")
        height = rows // count
        centres = (self.centre + self.v * (height * (n - (count - 1) / 2)) for n in range(count))
        return tuple(self.replace(centre=centre, shape=(height, columns)) for centre in centres)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for a JSON sidecar; `camera_from_dict` reads them back."""
        first = "source_mm" if isinstance(self, Camera) else "direction"
        leaves = (np.asarray(leaf, np.float64).tolist() for leaf in jax.tree.leaves(self))
        return {**dict(zip((first, *_DETECTOR), leaves)), "shape": list(self.shape)}


class Camera(_Detector, struct.PyTreeNode):
    """A point source and a flat detector, in world millimetres: cone beam.

    The centre of pixel (r, c) lies at `centre + (c - (C-1)/2) u + (r - (R-1)/2) v`. A pytree whose
    leaves are the four vectors, so that poses can be differentiated and stacked; `shape` is static.

    Attributes:
        source: X-ray source, [3] mm.
        centre: centre of the detector, [3] mm.
        u: step from one column to the next, [3] mm.
        v: step from one row to the next, [3] mm.
        shape: (rows, columns).
    """

    source: Float[Array, "*batch 3"]
    centre: Float[Array, "*batch 3"]
    u: Float[Array, "*batch 3"]
    v: Float[Array, "*batch 3"]
    shape: tuple[int, int] = struct.field(pytree_node=False)


class ParallelCamera(_Detector, struct.PyTreeNode):
    """Parallel rays onto a flat detector, in world millimetres; pixels as in `Camera`.

    Attributes:
        direction: direction of the rays, [3], of any length but 0.
        centre: centre of the detector, [3] mm; rays are whole lines, so its depth does not matter.
        u, v, shape: as in `Camera`.
    """

    direction: Float[Array, "*batch 3"]
    centre: Float[Array, "*batch 3"]
    u: Float[Array, "*batch 3"]
    v: Float[Array, "*batch 3"]
    shape: tuple[int, int] = struct.field(pytree_node=False)


AnyCamera: TypeAlias = Camera | ParallelCamera


def finite(value: Any, count: int, name: str) -> Float[np.ndarray, "#count"]:
    """`count` finite numbers; a single one stands for a pair of equal ones.

    Raises:
        InputError: it is anything else; `name` says of what.
    """
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):  # a whole number beyond any float
        numbers = np.empty(0)
    if numbers.ndim == 0 and count < 3:
        numbers = np.full(count, numbers)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(f"{name} is {shown(value)}, expected {count} finite number(s)")
    return numbers


def same_cameras(a: Sequence[AnyCamera], b: Sequence[AnyCamera], within_mm: float = 0.0) -> bool:
    """Whether both hold the same cameras in the same order: kinds, shapes and vectors; not traced."""
    near = partial(np.allclose, rtol=0.0, atol=within_mm)
    return [(type(c), c.shape) for c in a] == [(type(c), c.shape) for c in b] and all(
        map(near, jax.tree.leaves(list(a)), jax.tree.leaves(list(b)))
    )


def camera_from_dict(numbers: dict[str, Any], origin: str = "camera") -> AnyCamera:
    """A camera from the numbers of its `to_dict`.

    Args:
        numbers: keys source_mm or, for parallel rays, direction; centre_mm, u_mm, v_mm (three numbers
            each); shape (two integers).
        origin: file or flag to name in an error.

    Raises:
        InputError: a key is missing, has another length, or holds a value that is not finite, or the
            rays run within the detector's plane.
    """

    def wrong(fault: str) -> InputError:
        return InputError(f"{origin}: {fault}")

    parallel = "direction" in numbers
    first, centre, u, v = (
        jnp.asarray(finite(numbers.get(name), 3, f"{origin}: {name}"), jnp.float32)
        for name in ("direction" if parallel else "source_mm", *_DETECTOR)
    )
    shape = numbers.get("shape")
    sizes = shape if isinstance(shape, list | tuple) else ()
    if [isinstance(n, int) and n > 0 for n in sizes] != [True, True]:
        raise wrong(f"shape is {shown(shape)}, expected [rows, columns] as positive integers")
    normal = np.cross(u, v)
    if np.linalg.norm(normal) == 0:
        raise wrong("u_mm and v_mm are parallel, expected two directions of a detector")
    if parallel and np.dot(normal, first) == 0:
        raise wrong("the rays run within the detector's plane")
    if not parallel and np.dot(normal, centre - first) == 0:
        raise wrong("the source lies in the detector's plane, expected it in front")
    return (ParallelCamera if parallel else Camera)(first, centre, u, v, tuple(sizes))


# Numbers of a camera with values, in NumPy and float64.


def vectors(camera: AnyCamera) -> tuple[np.ndarray, ...]:
    """(source or direction of the rays, centre, u, v); [3] each, [views, 3] of stacked cameras."""
    return tuple(np.asarray(part, np.float64) for part in jax.tree.leaves(camera))


def unit_normal(camera: AnyCamera) -> Float[np.ndarray, "3"]:
    """The detector's normal, u x v."""
    _, _, u, v = vectors(camera)
    across = np.cross(u, v)
    return across / np.linalg.norm(across)


def pixel_mm(camera: AnyCamera) -> tuple[float, float]:
    """Pixel pitch on the detector (between rows, between columns)."""
    _, _, u, v = vectors(camera)
    return float(np.linalg.norm(v)), float(np.linalg.norm(u))


def source_detector_mm(camera: Camera) -> float:
    """Distance from the source to the detector's plane."""
    source, centre, _, _ = vectors(camera)
    return float(abs(unit_normal(camera) @ (centre - source)))


def depth_of(
    camera: AnyCamera, points_mm: Float[AnyArray, "*points 3"]
) -> Float[np.ndarray, "*points"]:
    """How far points lie on the way from the source (0) to the detector's plane (1); 1 for parallel rays."""
    if isinstance(camera, ParallelCamera):
        return np.ones(np.shape(points_mm)[:-1])
    source, centre, u, v = vectors(camera)
    normal = np.cross(u, v)
    return np.asarray((np.asarray(points_mm) - source) @ normal / ((centre - source) @ normal))


def pitch_at(camera: AnyCamera, point_mm: Float[AnyArray, "3"]) -> Float[np.ndarray, "2"]:
    """`pixel_mm`, shrunk to where the rays pass the plane through this point."""
    return abs(depth_of(camera, point_mm)) * np.array(pixel_mm(camera))


def shares(pixels: int, parts: int) -> Float[np.ndarray, "parts pixels"]:
    """Of each pixel along an axis in the mean over each of `parts` equal parts of it."""
    ends, first = np.arange(parts + 1) * (pixels / parts), np.arange(pixels)
    shared = np.minimum(ends[1:, None], first + 1) - np.maximum(ends[:-1, None], first)
    return np.maximum(shared, 0.0) * (parts / pixels)


def places_of(
    camera: AnyCamera, points_mm: Float[AnyArray, "*points 3"]
) -> Float[np.ndarray, "*points 2"]:
    """The camera's `place_of`: (row, column) where the rays through these points meet the detector."""
    first, centre, u, v = vectors(camera)
    points = np.asarray(points_mm, np.float64)
    rays = points - first if isinstance(camera, Camera) else np.broadcast_to(first, points.shape)
    # point = centre + row v + column u + t ray
    axes = np.stack(np.broadcast_arrays(v, u, rays), -1)
    found = np.linalg.solve(axes, (points - centre)[..., None])[..., :2, 0]
    return found + (np.array(camera.shape) - 1) / 2


def detector_corners_mm(camera: AnyCamera) -> Float[np.ndarray, "4 3"]:
    """World positions of the corners of the detector's area, in order around it."""
    _, centre, u, v = vectors(camera)
    rows, columns = camera.shape
    half = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    return np.array([centre + r * rows / 2 * v + c * columns / 2 * u for r, c in half])


def rotation_about(axis: str, radians: float) -> Float[np.ndarray, "3 3"]:
    """Rotation about the world's x, y or z."""
    j, k = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    c, s = np.cos(radians), np.sin(radians)
    matrix = np.eye(3)
    matrix[[[j], [k]], [j, k]] = [[c, -s], [s, c]]
    return matrix


# Cameras about a patient.


def camera_at(
    angle_deg: float,
    elevation_deg: float = 0.0,
    *,
    source_axis_mm: float = 1000.0,
    source_detector_mm: float = 1500.0,
    shape: tuple[int, int] = (128, 128),
    pixel_mm: float | tuple[float, float] = 3.0,
    isocentre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Camera:
    """A camera on a circle about the body's long axis, rotated by Rz(angle) Rx(elevation).

    At angle 0 the source stands in front of the patient (+y) and the image shows the patient's
    right on its left, the head up; at 90 degrees it stands at the patient's left (-x) and the image
    shows the face on its left.

    Args:
        angle_deg: rotation about +z in degrees: 0 frontal, 90 lateral.
        elevation_deg: tilt about the rotated x axis in degrees; positive raises the source.
        source_axis_mm: distance from source to isocentre.
        source_detector_mm: distance from source to detector.
        shape: (rows, columns).
        pixel_mm: pixel pitch on the detector, one number or (between rows, between columns).
        isocentre_mm: point of the world that the axis goes through.

    Raises:
        InputError: a distance or pitch is not positive, or the detector is nearer than the axis.
    """
    if not source_axis_mm > 0:
        raise InputError(f"source-axis distance is {source_axis_mm} mm, expected a positive number")
    if not source_detector_mm > source_axis_mm:
        raise InputError(
            f"source-detector distance is {source_detector_mm} mm, expected more than the "
            f"source-axis distance of {source_axis_mm} mm"
        )
    world, offset, detector = _orbit(angle_deg, elevation_deg, shape, pixel_mm, isocentre_mm)
    source = world(0, source_axis_mm, 0) + offset
    centre = world(0, source_axis_mm - source_detector_mm, 0) + offset
    return Camera(source, centre, *detector)


def parallel_at(
    angle_deg: float,
    elevation_deg: float = 0.0,
    *,
    shape: tuple[int, int] = (128, 128),
    pixel_mm: float | tuple[float, float] = 2.0,
    isocentre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> ParallelCamera:
    """Parallel rays from where `camera_at` has its source; the detector lies at the isocentre.

    Raises:
        InputError: the pitch is not positive.
    """
    world, centre, detector = _orbit(angle_deg, elevation_deg, shape, pixel_mm, isocentre_mm)
    return ParallelCamera(world(0, -1, 0), centre, *detector)


def _orbit(
    angle_deg: float, elevation_deg: float, shape: Any, pixel_mm: Any, isocentre_mm: Any
) -> tuple[Callable[[float, float, float], Array], Array, tuple[Array, Array, tuple[int, int]]]:
    """(turn to the world, isocentre, (u, v, shape)) of a detector turned by Rz(angle) Rx(elevation)."""
    row_mm, column_mm = pixel_mm if isinstance(pixel_mm, tuple | list) else (pixel_mm, pixel_mm)
    if not (row_mm > 0 and column_mm > 0):
        raise InputError(f"pixel pitch is {pixel_mm} mm, expected positive numbers")
    turn, tilt = np.deg2rad(angle_deg), np.deg2rad(elevation_deg)
    rotation = rotation_about("z", turn) @ rotation_about("x", tilt)
    rotation = np.where(np.abs(rotation) < 1e-15, 0.0, rotation)

    def world(x: float, y: float, z: float) -> Array:
        return jnp.asarray(rotation @ np.array([x, y, z]), jnp.float32)

    isocentre = jnp.asarray(np.asarray(isocentre_mm, np.float64), jnp.float32)
    detector = world(-column_mm, 0, 0), world(0, 0, -row_mm), (int(shape[0]), int(shape[1]))
    return world, isocentre, detector


def frontal(**geometry: Any) -> Camera:
    """Anterior-posterior view: the source in front of the patient. Keywords as `camera_at`."""
    return camera_at(0.0, **geometry)


def lateral(**geometry: Any) -> Camera:
    """Left-to-right view: the source at the patient's left. Keywords as `camera_at`."""
    return camera_at(90.0, **geometry)


def biplanar(**geometry: Any) -> tuple[Camera, Camera]:
    """The two orthogonal views of the biplanar papers: frontal and lateral. Keywords as `camera_at`."""
    return frontal(**geometry), lateral(**geometry)


def evenly_spaced(count: int, **geometry: Any) -> tuple[Camera, ...]:
    """`count` views over a half circle; two of them are `biplanar`. Keywords as `camera_at`."""
    return tuple(camera_at(180.0 * view / count, **geometry) for view in range(count))
