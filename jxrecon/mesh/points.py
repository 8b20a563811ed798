"""Points of a surface: sampled evenly by area, and the nearest one to any point of the world."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from jxrecon.mesh.quality import face_areas, faces_around
from jxrecon.mesh.topology import Faces, Vertices


class Samples(NamedTuple):
    """Points that lie on a surface.

    Attributes:
        points: [S, 3] mm, float64.
        faces: [S] the face of each.
        weights: [S, 3] its barycentric coordinates there: each row adds up to 1.
    """

    points: Float[np.ndarray, "s 3"]
    faces: Int[np.ndarray, " s"]
    weights: Float[np.ndarray, "s 3"]


class Nearest(NamedTuple):
    """The points of a surface that are nearest to given points: how far, mm, and where, as in `Samples`."""

    distances: Float[np.ndarray, " n"]
    faces: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, "n 3"]


def sampled(vertices: Vertices, faces: Faces, count: int, seed: int = 0) -> Samples:
    """Points spread over a surface in proportion to its area.

    Stratified along the faces: each of `count` equal shares of the area, in the order of the faces,
    has one point, uniform within its face.
    """
    rng = np.random.default_rng(seed)
    ends = np.cumsum(face_areas(vertices, faces))
    shares = (np.arange(count) + rng.random(count)) / count * ends[-1]
    face = np.minimum(np.searchsorted(ends, shares, side="right"), len(faces) - 1)
    root, second = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - root, root * (1 - second), root * second], axis=1)
    return Samples(placed(vertices, faces, face, weights), face, weights)


def placed(
    vertices: Vertices, faces: Faces, face: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Where barycentric coordinates of faces lie, mm, in float64."""
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)[face]]
    return np.einsum("nk,nkd->nd", weights, corners)


def nearest_in_triangles(
    points: Float[np.ndarray, "n 3"], corners: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, "n 3"]:
    """Barycentric coordinates of the point of each triangle that is nearest to each point.

    The seven regions of Ericson, Real-Time Collision Detection (2005), section 5.1.5. A triangle
    without area counts as its longest edge.

    Args:
        points: one a triangle, mm.
        corners: [triangle, corner, axis] mm.
    """
    a, b, c = np.moveaxis(corners, 1, 0)

    def dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum("ni,ni->n", x, y)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    # Nearest on each edge, as weights of the three corners.
    options = []
    for start, (one, other) in enumerate(((a, b), (b, c), (c, a))):
        edge = other - one
        along = np.clip(share(dot(points - one, edge), dot(edge, edge)), 0, 1)
        weights = np.zeros((len(points), 3))
        weights[:, start], weights[:, (start + 1) % 3] = 1 - along, along
        options.append(weights)
    # Within, where the foot of the perpendicular lies in the triangle.
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11, d20, d21 = dot(ab, ab), dot(ab, ac), dot(ac, ac), dot(ap, ab), dot(ap, ac)
    area = d00 * d11 - d01 * d01
    second, third = share(d11 * d20 - d01 * d21, area), share(d00 * d21 - d01 * d20, area)
    within = (area > 1e-12 * d00 * d11) & (second >= 0) & (third >= 0) & (second + third <= 1)
    apart = [dot(w, w) for w in (np.einsum("nk,nkd->nd", o, corners) - points for o in options)]
    edge_wise = np.stack(options)[np.argmin(apart, axis=0), np.arange(len(points))]
    foot = np.stack([1 - second - third, second, third], axis=1)
    return np.where(within[:, None], foot, edge_wise)


def nearest(points: Float[np.ndarray, "n 3"], vertices: Vertices, faces: Faces) -> Nearest:
    """The nearest points of a surface, exactly: every face that could hold one is looked at.

    Args:
        points: mm.
        vertices: mm.
        faces: at least one.
    """
    points, faces = np.asarray(points, np.float64), np.asarray(faces)
    corners = np.asarray(vertices, np.float64)[faces]
    squared = np.full(len(points), np.inf)
    distances = squared.copy()
    found, weights = np.zeros(len(points), int), np.zeros((len(points), 3))

    def look(which: np.ndarray, face: np.ndarray) -> None:
        """Improves on what is found by pairs of a point and a face."""
        w = nearest_in_triangles(points[which], corners[face])
        apart = np.einsum("nk,nkd->nd", w, corners[face]) - points[which]
        d = np.einsum("ni,ni->n", apart, apart)
        order = np.lexsort((d, which))
        first = order[np.unique(which[order], return_index=True)[1]]
        better = first[d[first] < squared[which[first]]]
        at = which[better]
        squared[at], distances[at] = d[better], np.sqrt(d[better])
        found[at], weights[at] = face[better], w[better]

    few = min(3, len(faces))
    candidates = cKDTree(corners.mean(1)).query(points, few)[1]
    look(np.repeat(np.arange(len(points)), few), candidates.ravel())
    for pairs in faces_around(points, distances, corners):
        look(*pairs)
    return Nearest(distances, found, weights)
