"""Which point of an organ attracts which point of a template: nearest by position and by normal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from jxrecon.correspondence.organ import Organ
from jxrecon.mesh import face_normals, vertex_normals
from jxrecon.mesh.points import nearest_in_triangles
from jxrecon.mesh.topology import Faces, Vertices
from jxrecon.types import AnyArray

CANDIDATES = 6
"""Faces of the template looked at for each sampled point, the nearest by centroid and normal."""


class Pairs(NamedTuple):
    """Which points attract each other in one round.

    Attributes:
        corners: [S, 3] vertices of the template's face nearest to each sampled point.
        barycentric: [S, 3] where on it.
        points, normals, weights: of the samples.
        vertex_points, vertex_normals, vertex_weights: of the sample nearest to each vertex.
    """

    corners: Int[AnyArray, "s 3"]
    barycentric: Float[AnyArray, "s 3"]
    points: Float[AnyArray, "s 3"]
    normals: Float[AnyArray, "s 3"]
    weights: Float[AnyArray, " s"]
    vertex_points: Float[AnyArray, "v 3"]
    vertex_normals: Float[AnyArray, "v 3"]
    vertex_weights: Float[AnyArray, " v"]


def pair(vertices: Vertices, faces: Faces, found: Organ, lever: float, least: float) -> Pairs:
    """Pairs of a template as it lies, nearest by position and normal together.

    Args:
        vertices: mm.
        faces: faces of the template.
        found: the organ.
        lever: mm; a pair's normals count as lever times their difference does.
        least: mm; so far apart pairs are always trusted.
    """
    # Vertices to samples.
    normals = vertex_normals(vertices, faces)
    _, mate = found.tree(lever).query(np.concatenate([vertices, lever * normals], 1))
    agreement = np.einsum("vi,vi->v", normals, found.normals[mate])
    apart = np.linalg.norm(vertices - found.points[mate], axis=1)
    weights = _trust(apart, agreement, least) * ~found.on_rim[mate]
    # Samples to the template's surface.
    normals, corners = face_normals(vertices, faces), np.asarray(vertices, np.float64)[faces]
    tree = cKDTree(np.concatenate([corners.mean(1), lever * normals], 1))
    _, near = tree.query(
        np.concatenate([found.points, lever * found.normals], 1), min(CANDIDATES, len(faces))
    )
    count, many = near.shape
    repeated = np.repeat(found.points, many, axis=0)
    barycentric = nearest_in_triangles(repeated, corners[near.ravel()])
    foot = np.einsum("nk,nkd->nd", barycentric, corners[near.ravel()])
    squared = np.sum((foot - repeated) ** 2, axis=1).reshape(count, many)
    cosine = np.einsum("smi,si->sm", normals[near], found.normals)
    best = np.argmin(squared + 2 * lever**2 * (1 - cosine), axis=1)
    row = np.arange(count)
    trust = _trust(np.sqrt(squared[row, best]), cosine[row, best], least)
    barycentric = barycentric.reshape(count, many, 3)[row, best]
    floats = (barycentric, found.points, found.normals, trust)
    of_vertices = found.points[mate], found.normals[mate], weights
    return Pairs(
        np.asarray(faces[near[row, best]], np.int32),
        *(np.asarray(x, np.float32) for x in (*floats, *of_vertices)),
    )


def _trust(apart: np.ndarray, agreement: np.ndarray, least: float) -> np.ndarray:
    """Weight of pairs: Geman-McClure in the distance, times the cosine of the normals."""
    scale = max(3 * float(np.median(apart)), least)
    return np.clip(agreement, 0, 1) / (1 + (apart / scale) ** 2) ** 2
