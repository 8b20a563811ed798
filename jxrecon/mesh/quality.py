"""What a surface looks like face by face: normals, areas, volume, flipped and self-intersecting faces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from jxrecon.mesh.topology import Faces, Mesh, Template, Vertices, edges_of, numbers_of, sides_of

AT_ONCE = 4096
"""Places whose surroundings are searched at a time, which bounds the memory."""


def vector_areas(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "f 3"]:
    """Each face's normal, outwards, as long as its area in mm^2; in float64."""
    a, b, c = np.asarray(vertices, np.float64)[np.asarray(faces).T]
    return np.cross(b - a, c - a) / 2


def face_areas(vertices: Vertices, faces: Faces) -> Float[np.ndarray, " f"]:
    """Area of every face in mm^2."""
    return np.linalg.norm(vector_areas(vertices, faces), axis=1)


def face_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "f 3"]:
    """Unit normal of every face; zeros where a face has no area."""
    return _units(vector_areas(vertices, faces))


def vertex_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "v 3"]:
    """Unit normal at every vertex: the mean of its faces', weighted by area; zeros at a lone vertex."""
    return _units(_gathered(vector_areas(vertices, faces), faces, len(vertices)))


def enclosed_volume(vertices: Vertices, faces: Faces) -> float:
    """mm^3 inside a closed surface, negative where its faces look inwards.

    Holes are closed by cones from the centroid of the vertices.
    """
    vertices = np.asarray(vertices, np.float64)
    a, b, c = (vertices - vertices.mean(0))[np.asarray(faces).T]
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def flipped_faces(template: Template | Mesh, vertices: Vertices) -> Bool[np.ndarray, " f"]:
    """Which faces of a deformed template lie upside down against the surface around them.

    A face's neighbourhood is every face that shares a vertex with it, and itself; its direction is the
    sum of their vector areas, which depends on the neighbourhood's rim alone, so that a fold within
    cannot turn it. A face is flipped if the angle between its normal and that direction is more than 90
    degrees larger than in the template. Motion of the whole, bending and sharp rims do not count. If the
    enclosed volume has changed its sign, the surface is inside out and every face is flipped.

    Args:
        template: the shape before.
        vertices: the shape now, the same vertices, mm.
    """
    faces = np.asarray(template.faces)
    before, now = enclosed_volume(template.vertices, faces), enclosed_volume(vertices, faces)
    if before * now < 0:
        return np.ones(len(faces), bool)
    turned = _tilt(vertices, faces) - _tilt(template.vertices, faces)
    return turned > np.pi / 2


def self_intersecting_faces(vertices: Vertices, faces: Faces) -> Bool[np.ndarray, " f"]:
    """Which faces cut through another face of the same surface.

    Two faces cut each other where an edge of one pierces the other; both are marked, and so is the
    edge's other face. An edge that shares a vertex with a face never counts as piercing it; neither do
    faces that overlap within one plane. A vertex exactly in a face's plane is taken to lie on its outer
    side. Vertices must be merged: copies at one place would touch.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    edges = edges_of(faces)
    marked, guilty = np.zeros(len(faces), bool), np.zeros(len(edges), bool)
    ends = vertices[edges]
    middle = ends.mean(1)
    reach = np.linalg.norm(ends[:, 0] - middle, axis=1)
    for pairs in faces_around(middle, reach, vertices[faces]):
        which, face = _piercing(vertices, edges, faces, *pairs)
        guilty[which] = marked[face] = True
    return marked | guilty[numbers_of(sides_of(faces), edges)].reshape(3, -1).any(0)


def faces_around(
    places: Float[np.ndarray, "n 3"],
    reach: Float[np.ndarray, " n"],
    corners: Float[np.ndarray, "f 3 3"],
) -> Iterator[tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]]:
    """Pairs (place, face) that lie within reach: all of them, some thousand places at a time.

    A face counts as the ball around its centroid. Faces about as large as one another are searched
    together, so that a single long one does not widen every search.

    Args:
        places: mm.
        reach: of each place, mm; may shrink while the pairs come.
        corners: [face, corner, axis] mm.
    """
    centroid = corners.mean(1)
    radius = np.linalg.norm(corners - centroid[:, None], axis=2).max(1)
    size = np.ceil(np.log2(np.maximum(radius, 1e-9 * max(float(radius.max()), 1e-300))))
    for octave in np.unique(size):
        some = np.flatnonzero(size == octave)
        tree = cKDTree(centroid[some])
        for start in range(0, len(places), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            near = tree.query_ball_point(places[part], reach[part] + radius[some].max())
            counts = [len(one) for one in near]
            face = np.fromiter(chain.from_iterable(near), int, sum(counts))
            yield np.repeat(start + np.arange(len(near)), counts), some[face]


def _units(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _gathered(values: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """[V, 3]: at every vertex the sum of its faces' values [F, 3]."""
    flat = np.asarray(faces).ravel()
    columns = [np.bincount(flat, np.repeat(values[:, n], 3), count) for n in range(3)]
    return np.stack(columns, axis=1)


def _tilt(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[F]: angle between a face and its neighbourhood in radians; a right angle where one has no area."""
    areas = vector_areas(vertices, faces)
    around = _gathered(areas, faces, len(vertices))[faces].sum(1)
    # A face counts at each vertex it shares: thrice itself, twice across an edge, once across a corner.
    return np.arccos(np.clip(np.sum(_units(areas) * _units(around), axis=1), -1, 1))


def _piercing(
    vertices: np.ndarray, edges: np.ndarray, faces: np.ndarray, which: np.ndarray, face: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the pairs (edge, face) where the edge pierces the face."""
    apart = (edges[which][:, :, None] != faces[face][:, None, :]).all((1, 2))
    which, face = which[apart], face[apart]
    ends, corners = vertices[edges[which]], vertices[faces[face]]
    boxes = ((ends.min(1) <= corners.max(1)) & (corners.min(1) <= ends.max(1))).all(1)
    which, face, ends, corners = which[boxes], face[boxes], ends[boxes], corners[boxes]
    p, q = ends[:, 0], ends[:, 1]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]

    def volume(one: np.ndarray, two: np.ndarray, three: np.ndarray) -> np.ndarray:
        return np.einsum("ni,ni->n", one, np.cross(two, three))

    below, above = volume(p - a, b - a, c - a), volume(q - a, b - a, c - a)
    steep = np.abs(above - below) > 1e-10 * np.linalg.norm(q - p, axis=1) * np.linalg.norm(
        np.cross(b - a, c - a), axis=1
    )  # else the edge lies in the face's plane but for rounding
    crosses = ((below >= 0) != (above >= 0)) & steep
    around = np.stack([volume(q - p, one - p, two - p) for one, two in ((a, b), (b, c), (c, a))])
    inside = (around >= 0).all(0) | (around <= 0).all(0)
    return which[crosses & inside], face[crosses & inside]
