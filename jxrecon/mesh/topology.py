"""A triangle surface, and what its topology gives a network: edges, neighbours, a graph."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jraph
import numpy as np
from jaxtyping import Float, Int

from jxrecon.types import AnyArray, InputError

Vertices: TypeAlias = Float[np.ndarray, "v 3"]
"""Places in the world, mm."""

Faces: TypeAlias = Int[np.ndarray, "f 3"]
"""Triangles: indices of vertices, counter-clockwise seen from outside."""


class Mesh(NamedTuple):
    """A triangle surface in the world.

    Attributes:
        vertices: [V, 3] mm.
        faces: [F, 3] indices of vertices, counter-clockwise seen from outside.
    """

    vertices: Vertices
    faces: Faces


class Template(NamedTuple):
    """A mesh whose topology many surfaces share, with the tables that networks need; all in NumPy.

    Attributes:
        vertices: [V, 3] mm, float32: a representative shape.
        faces: [F, 3] int32.
        edges: [E, 2] int32, every undirected edge once, the smaller index first, in lexical order.
        degree: [V] int32, how many vertices are next to each one.
    """

    vertices: Vertices
    faces: Faces
    edges: Int[np.ndarray, "e 2"]
    degree: Int[np.ndarray, " v"]


def sides_of(faces: Faces) -> Int[np.ndarray, "s 2"]:
    """The sides of all faces as (from, to): first those from the faces' first corners."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def edges_of(faces: Faces) -> Int[np.ndarray, "e 2"]:
    """Every undirected edge once, the smaller index first, in lexical order."""
    return np.unique(np.sort(sides_of(faces), axis=1), axis=0).astype(np.int32)


def numbers_of(
    ends: Int[np.ndarray, "s 2"], edges: Int[np.ndarray, "e 2"]
) -> Int[np.ndarray, " s"]:
    """Which edge of `edges_of` joins these vertices, in either order."""
    size = int(edges.max(initial=0)) + 1
    keys, wanted = (x[:, 0].astype(np.int64) * size + x[:, 1] for x in (edges, np.sort(ends, 1)))
    return np.searchsorted(keys, wanted)


def check(mesh: Mesh, origin: str = "mesh") -> None:
    """Refuses what is no surface.

    Raises:
        InputError: there is no vertex or no triangle, a coordinate is not finite in float32, or an index
            out of range; `origin` names the file.
    """
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
        raise InputError(
            f"{origin}: vertices of shape {vertices.shape}, expected a surface's [V, 3]"
        )
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise InputError(f"{origin}: faces of shape {faces.shape}, expected a surface's [F, 3]")
    with np.errstate(over="ignore"):
        finite = np.isfinite(vertices.astype(np.float32)).all(axis=1)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"{origin}: vertex {bad} is {vertices[bad].tolist()}, expected finite millimetres"
        )
    least, most, count = int(faces.min()), int(faces.max()), len(vertices)
    if least < 0 or most >= count:
        wrong = most if most >= count else least
        raise InputError(f"{origin}: a face names vertex {wrong}, expected 0 to {count - 1}")


def template(mesh: Mesh, origin: str = "mesh") -> Template:
    """The tables of a mesh that is to serve as a template.

    Args:
        mesh: one connected surface; holes are tolerated.
        origin: file to name in an error.

    Raises:
        InputError: an index is out of range, a coordinate is not finite, a face repeats a vertex, an
            edge has more than two faces, or a vertex has none.
    """
    check(mesh, origin)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    twice = (np.diff(np.sort(faces, 1), axis=1) == 0).any(1)
    if twice.any():
        face = int(np.flatnonzero(twice)[0])
        raise InputError(f"{origin}: face {face} is {faces[face]}, expected three vertices")
    edges, count = np.unique(np.sort(sides_of(faces), axis=1), axis=0, return_counts=True)
    if count.max() > 2:
        a, b = edges[count.argmax()]
        raise InputError(
            f"{origin}: {count.max()} faces meet at the edge {a}-{b}, expected at most 2 (manifold)"
        )
    degree = np.bincount(edges.ravel(), minlength=len(vertices)).astype(np.int32)
    if not degree.all():
        raise InputError(
            f"{origin}: vertex {int(degree.argmin())} belongs to no face, expected none such"
        )
    return Template(
        vertices.astype(np.float32), faces.astype(np.int32), edges.astype(np.int32), degree
    )


def graph(template: Template, nodes: Float[AnyArray, "v c"]) -> jraph.GraphsTuple:
    """The template as a jraph graph: every edge, then every edge reversed; nodes with these features."""
    edges = template.edges
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=None,
        senders=edges.T.ravel(),
        receivers=edges[:, ::-1].T.ravel(),
        n_node=np.array([len(template.vertices)]),
        n_edge=np.array([2 * len(edges)]),
        globals=None,
    )
