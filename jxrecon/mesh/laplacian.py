"""L(v) = v minus the weighted mean of its neighbours: how far a vertex stands out of its surroundings.

Both Laplacians are in the unit of what they are applied to, mm for vertices; both work on [V, c] and
[b, V, c] in JAX, and are differentiable. They are fixed by a shape given once, so that they are linear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jxrecon.mesh.aggregation import Neighbours, mean_graph, neighbours, normalised
from jxrecon.mesh.topology import Template, Vertices, numbers_of

STEEPEST_COTANGENT = 1 / np.tan(np.deg2rad(1.0))
"""Angles below one degree (or above 179) count as one degree: slivers would rule their vertices."""

LEAST_SHARE = 1e-2
"""No edge weighs less than this. Obtuse triangles make weights negative, the mean then no longer one."""


class Laplacian(NamedTuple):
    """x -> x - mean(x); a pytree.

    Attributes:
        mean: the weighted mean over the neighbours; weights of every vertex add up to 1.
    """

    mean: Neighbours

    def __call__(self, x: Float[Array, "*batch v c"]) -> Float[Array, "*batch v c"]:
        """[IGCN L] The Laplacian of vertices (mm) or other features."""
        return x - self.mean(x)

    def dense(self) -> Float[np.ndarray, "v v"]:
        """The matrix."""
        mean = self.mean.dense()
        return np.eye(len(mean), dtype=mean.dtype) - mean


def uniform_laplacian(template: Template) -> Laplacian:
    """All neighbours count alike: L(v_i) = v_i - mean of its neighbours.

    0 in a flat regular mesh; where edges differ in length it also pulls within the surface.
    """
    return Laplacian(normalised(template, self_loop=False))


def cotangent_laplacian(template: Template, vertices: Vertices | None = None) -> Laplacian:
    """Neighbours weigh by (cot a + cot b) / 2 of the two angles that face the edge, divided by the sum.

    L(v) of the shape's own vertices is normal to the surface for any triangulation, but for the clamps:
    |cot| at most `STEEPEST_COTANGENT`, an edge at least `LEAST_SHARE`. An edge of a hole has one angle.

    Args:
        template: the topology.
        vertices: the shape whose angles count, mm; the template's own without.
    """
    shape = np.asarray(template.vertices if vertices is None else vertices, np.float64)
    corners = shape[template.faces]
    total = np.zeros(len(template.edges))
    for n in range(3):
        one, two = corners[:, (n + 1) % 3] - corners[:, n], corners[:, (n + 2) % 3] - corners[:, n]
        sine = np.linalg.norm(np.cross(one, two), axis=1)
        cotangent = np.einsum("fi,fi->f", one, two) / np.maximum(sine, 1e-300)
        cotangent = np.clip(cotangent, -STEEPEST_COTANGENT, STEEPEST_COTANGENT)
        edge = numbers_of(template.faces[:, [(n + 1) % 3, (n + 2) % 3]], template.edges)
        total += np.bincount(edge, cotangent / 2, len(total))
    weights = np.tile(np.maximum(total, LEAST_SHARE), 2)
    operator = mean_graph(template, self_loop=False)
    whole = np.bincount(operator.receivers, weights, len(shape))
    share = weights / whole[operator.receivers]
    return Laplacian(neighbours(operator._replace(edges=share.astype(np.float32))))
