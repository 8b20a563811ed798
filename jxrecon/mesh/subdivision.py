"""Finer meshes: a vertex in the middle of every edge, and features carried over to it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jxrecon.mesh.topology import Mesh, Template, numbers_of, sides_of, template
from jxrecon.types import AnyArray


def subdivided(coarse: Template) -> tuple[Template, Int[np.ndarray, "e 2"]]:
    """Every face cut into four at the middles of its edges.

    Returns:
        The finer template: the coarse vertices first, then one for every edge in the order of
        `coarse.edges`; and these edges, for `unpool`. Each face (a, b, c) gives the corners (a, ab, ca),
        (b, bc, ab), (c, ca, bc) and the middle (ab, bc, ca), all facing as it does.
    """
    vertices, faces, edges = coarse.vertices, coarse.faces, coarse.edges
    count = len(vertices)
    (a, b, c), middles = faces.T, count + numbers_of(sides_of(faces), edges)
    ab, bc, ca = middles.reshape(3, -1)
    corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    finer = np.stack([np.stack(face, axis=1) for face in corners], axis=1).reshape(-1, 3)
    moved = np.concatenate([vertices, vertices[edges].mean(axis=1)])
    return template(Mesh(moved, finer)), edges


def unpool(
    features: Float[AnyArray, "*batch v c"], edges: Int[np.ndarray, "e 2"]
) -> Float[Array, "*batch w c"]:
    """[Pixel2Mesh, graph unpooling] Features of the finer mesh: the mean of an edge's ends at its middle.

    Args:
        features: features of the coarse vertices.
        edges: as `subdivided` returns them.

    Returns:
        Those of the coarse vertices unchanged, then one for every edge: w = v + e.
    """
    features = jnp.asarray(features)
    ends = features[..., edges[:, 0], :] + features[..., edges[:, 1], :]
    return jnp.concatenate([features, ends / 2], axis=-2)
