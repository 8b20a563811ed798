"""An organ's surface as a template is fitted to it: points with outward normals, and where holes are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from jxrecon.mesh import Mesh, enclosed_volume, face_areas, face_normals
from jxrecon.mesh import template as checked
from jxrecon.mesh.points import sampled
from jxrecon.mesh.topology import check, sides_of
from jxrecon.terminal import note
from jxrecon.types import InputError

MERGED = (1e-4, 1e-6)
"""Vertices on rims within this share of the extent are one: the larger share that leaves a surface."""

DROPPED = 0.05
"""Largest share of a surface's area, or of an organ's voxels, that is left out without being asked to."""

TURNED_SHARE = 0.02
"""With more edges between faces of opposite sense than this, the sense of all is found anew."""


class Organ(NamedTuple):
    """A surface to fit a template to.

    Attributes:
        mesh: its largest piece, faces outwards.
        points: [S, 3] sampled evenly by area, mm.
        normals: [S, 3] outwards.
        on_rim: [S] whether a hole's rim is next to it.
        size_mm: square root of the area.
        rim_edges: edges with one face.
    """

    mesh: Mesh
    points: Float[np.ndarray, "s 3"]
    normals: Float[np.ndarray, "s 3"]
    on_rim: Bool[np.ndarray, " s"]
    size_mm: float
    rim_edges: int

    def tree(self, lever_mm: float) -> cKDTree:
        """A search tree of points and normals together, six coordinates in mm."""
        return cKDTree(np.concatenate([self.points, lever_mm * self.normals], 1))

    def moved(self, shift_mm: Float[np.ndarray, "3"]) -> Organ:
        """The organ elsewhere."""
        mesh = self.mesh._replace(vertices=self.mesh.vertices + shift_mm)
        return self._replace(mesh=mesh, points=self.points + shift_mm)


def organ(mesh: Mesh, points: int, seed: int = 0, origin: str = "mesh") -> Organ:
    """The organ of a mesh.

    Args:
        mesh: surface of any topology, mm. Rims that lie together are joined, faces that repeat a vertex and
            small pieces beside the largest are left out, which is told; faces that look inwards are turned.
        points: how many to sample.
        seed: seed of their places.
        origin: file to name in an error.

    Raises:
        InputError: there is no face, an index is out of range, a coordinate is not finite, an edge has
            more than two faces, the surface has no area, or more than 5 % of it lies in other pieces.
    """
    mesh = sound(mesh, origin)
    vertices, faces = mesh
    edges, count = np.unique(np.sort(sides_of(faces), axis=1), axis=0, return_counts=True)
    rim = vertices[edges[count == 1]].mean(1)
    size = float(np.sqrt(face_areas(vertices, faces).sum()))
    samples = sampled(vertices, faces, points, seed)
    on_rim = np.zeros(points, bool)
    if len(rim):
        on_rim = cKDTree(rim).query(samples.points)[0] < size / np.sqrt(points)
    normals = face_normals(vertices, faces)[samples.faces]
    return Organ(mesh, samples.points, normals, on_rim, size, len(rim))


def sound(mesh: Mesh, origin: str = "mesh", largest: bool = False) -> Mesh:
    """The largest piece of a surface, rims joined, faces outwards; see `organ`. What is altered is told.

    Args:
        mesh: surface of any topology, mm.
        origin: file to name.
        largest: leave all other pieces out, however large they are.

    Raises:
        InputError: as `organ`.
    """
    check(mesh, origin)
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    faces = _joined(vertices, faces, origin)
    faces = faces[(np.diff(np.sort(faces, 1), axis=1) != 0).all(1)]
    areas = face_areas(vertices, faces)
    if not len(faces) or not areas.sum() > 0:
        raise InputError(f"{origin}: {len(mesh.faces)} faces without area, expected a surface")
    labels = trimesh.graph.connected_component_labels(sides_of(faces), len(vertices))
    pieces, piece = np.unique(labels[faces[:, 0]], return_inverse=True)
    shares = np.bincount(piece, areas) / areas.sum()
    _tell_dropped(len(pieces), 1 - float(shares.max()), "area", origin, largest)
    faces = faces[piece == shares.argmax()]
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    checked(Mesh(vertices, faces), origin)
    directed = sides_of(faces)
    repeated = len(directed) - len(np.unique(directed, axis=0))
    if repeated > TURNED_SHARE * len(directed):
        surface = trimesh.Trimesh(vertices, faces, process=False)
        trimesh.repair.fix_winding(surface)
        faces = np.asarray(surface.faces)
        note(f"{origin}: {repeated} sides lay between faces of opposite sense, which were turned")
    if enclosed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
        note(f"{origin}: its faces looked inwards and were turned")
    return Mesh(vertices, np.ascontiguousarray(faces))


def _joined(vertices: np.ndarray, faces: np.ndarray, origin: str) -> np.ndarray:
    """Faces whose vertices on rims are one where they lie together; sheets that touch stay two.

    Of the tolerances the first is taken that makes no more than two faces meet at an edge.
    """
    edges, count = _edges(faces)
    rim = np.unique(edges[count == 1])
    extent = float(np.ptp(vertices, axis=0).max())
    for tolerance in MERGED if len(rim) else ():
        pairs = cKDTree(vertices[rim]).query_pairs(tolerance * extent, output_type="ndarray")
        graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(rim),) * 2)
        _, group = connected_components(graph, directed=False)
        _, first = np.unique(group, return_index=True)
        same = np.arange(len(vertices))
        same[rim] = rim[first[group]]
        joined = same[faces]
        kept = joined[(np.diff(np.sort(joined, 1), axis=1) != 0).all(1)]
        if len(kept) and _edges(kept)[1].max() <= 2:
            if len(pairs):
                gone = len(rim) - len(first)
                note(f"{origin}: {gone} vertices on rims joined to others in the same place")
            return kept
    return faces


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every edge, the smaller index first, and how many faces meet there."""
    return np.unique(np.sort(sides_of(faces), axis=1), axis=0, return_counts=True)


def _tell_dropped(pieces: int, share: float, of: str, origin: str, largest: bool) -> None:
    """Refuses, or tells of, what lies beside the largest piece."""
    if pieces < 2:
        return
    if share > DROPPED and not largest:
        raise InputError(
            f"{origin}: {pieces} pieces, the largest with {1 - share:.0%} of the {of}, expected one organ in "
            "one piece, or --largest-piece to leave the others out"
        )
    note(f"{origin}: {pieces} pieces, all but the largest left out: {share:.2%} of the {of}")


def surface_of(
    label: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    value: int | None = None,
    smoothing: float = 0.7,
    origin: str = "labels",
    largest: bool = False,
) -> Mesh:
    """The surface of a labelled organ in world mm, by marching cubes.

    The largest connected part counts, its cavities filled. Where the volume cuts the organ off, the
    surface stays open.

    Args:
        label: integers [x, y, z].
        affine: index -> world mm.
        value: the organ's label; None: every voxel above 0.
        smoothing: standard deviation of the Gaussian that rounds off the steps, in the longest edge of
            a voxel.
        origin: file to name in an error.
        largest: leave all other parts out, however large they are.

    Raises:
        InputError: no voxel has the value, too few for a surface, or another part is large.
    """
    label = np.asarray(label)
    mask = label > 0 if value is None else label == value
    if not mask.any():
        held = np.unique(label)
        shown = ", ".join(f"{v:g}" for v in held[:12]) + (" ..." if len(held) > 12 else "")
        wanted = "above 0" if value is None else f"{value}"
        raise InputError(f"{origin}: no voxel has the value {wanted}, it holds {shown}")
    parts, count = ndimage.label(mask)
    if count > 1:
        voxels = np.bincount(parts.ravel())[1:]
        _tell_dropped(count, 1 - voxels.max() / voxels.sum(), "voxels", origin, largest)
        mask = parts == voxels.argmax() + 1
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    sigma = smoothing * spacing.max() / spacing
    margin = np.ceil(4 * sigma).astype(int) + 1
    (sides,) = ndimage.find_objects(mask.astype(np.uint8))
    start = np.maximum([side.start for side in sides] - margin, 0)
    stop = np.minimum([side.stop for side in sides] + margin, mask.shape)
    box = ndimage.binary_fill_holes(mask[tuple(map(slice, start, stop))])
    inside = ndimage.gaussian_filter(box.astype(np.float32), sigma, mode="nearest")
    if min(inside.shape) < 2 or not inside.min() < 0.5 < inside.max():
        raise InputError(
            f"{origin}: the organ has {int(mask.sum())} of {mask.size} voxels, expected a surface between "
            "it and others"
        )
    places, faces, _, _ = marching_cubes(inside, 0.5)
    vertices = (places + start) @ affine[:3, :3].T + affine[:3, 3]
    if np.linalg.det(affine[:3, :3]) > 0:  # marching cubes winds towards higher values
        faces = faces[:, ::-1]
    return sound(Mesh(vertices, np.ascontiguousarray(faces)), origin)
