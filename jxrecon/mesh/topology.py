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
        neighbours: [V, D] int32, the vertices next to each one; unused places hold V.
        degree: [V] int32, how many there are.
    """

    vertices: Vertices
    faces: Faces
    edges: Int[np.ndarray, "e 2"]
    neighbours: Int[np.ndarray, "v d"]
    degree: Int[np.ndarray, " v"]


def edges_of(faces: Faces) -> Int[np.ndarray, "e 2"]:
    """Every undirected edge once, the smaller index first, in lexical order."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32)


def neighbour_table(
    edges: Int[np.ndarray, "e 2"], count: int
) -> tuple[Int[np.ndarray, "v d"], Int[np.ndarray, " v"]]:
    """(neighbours [V, D] in ascending order, unused places V; degree [V])."""
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    degree = np.bincount(both[:, 0], minlength=count)
    table = np.full((count, int(degree.max(initial=0))), count, np.int32)
    first = np.cumsum(degree) - degree
    table[both[:, 0], np.arange(len(both)) - first[both[:, 0]]] = both[:, 1]
    return table, degree.astype(np.int32)


def template(mesh: Mesh, origin: str = "mesh") -> Template:
    """The tables of a mesh that is to serve as a template.

    Args:
        mesh: one connected surface; holes are tolerated.
        origin: file to name in an error.

    Raises:
        InputError: an index is out of range, a coordinate is not finite, a face repeats a vertex, an
            edge has more than two faces, or a vertex has none.
    """
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or not len(vertices):
        raise InputError(f"{origin}: vertices of shape {vertices.shape}, expected [V, 3]")
    if faces.ndim != 2 or faces.shape[1:] != (3,) or not len(faces):
        raise InputError(f"{origin}: faces of shape {faces.shape}, expected triangles [F, 3]")
    if not np.isfinite(vertices).all():
        bad = int(np.flatnonzero(~np.isfinite(vertices).all(1))[0])
        raise InputError(f"{origin}: vertex {bad} is {vertices[bad]}, expected finite millimetres")
    if faces.min() < 0 or faces.max() >= len(vertices):
        wrong = int(faces.max() if faces.max() >= len(vertices) else faces.min())
        raise InputError(
            f"{origin}: a face names vertex {wrong}, expected 0 to {len(vertices) - 1}"
        )
    twice = (np.diff(np.sort(faces, 1), axis=1) == 0).any(1)
    if twice.any():
        face = int(np.flatnonzero(twice)[0])
        raise InputError(f"{origin}: face {face} is {faces[face]}, expected three vertices")
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, count = np.unique(pairs, axis=0, return_counts=True)
    if count.max() > 2:
        a, b = edges[count.argmax()]
        raise InputError(
            f"{origin}: {count.max()} faces meet at the edge {a}-{b}, expected at most 2 (manifold)"
        )
    neighbours, degree = neighbour_table(edges, len(vertices))
    if not degree.all():
        raise InputError(
            f"{origin}: vertex {int(degree.argmin())} belongs to no face, expected none such"
        )
    return Template(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        edges.astype(np.int32),
        neighbours,
        degree,
    )


def graph(template: Template, nodes: Float[AnyArray, "v c"]) -> jraph.GraphsTuple:
    """The template as a jraph graph: every edge, then every edge reversed; nodes with these features."""
    edges = template.edges
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=None,
        senders=np.concatenate([edges[:, 0], edges[:, 1]]),
        receivers=np.concatenate([edges[:, 1], edges[:, 0]]),
        n_node=np.array([len(template.vertices)]),
        n_edge=np.array([2 * len(edges)]),
        globals=None,
    )
