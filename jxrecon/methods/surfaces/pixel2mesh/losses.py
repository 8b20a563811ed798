"""What Pixel2Mesh is trained with, summed over its three surfaces; vertices are not paired with true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jxrecon.mesh.laplacian import Laplacian
from jxrecon.methods.base.surface_regression import mean_square
from jxrecon.types import Terms

Vertices = Float[Array, "b v 3"]
Points = Float[Array, "b n 3"]


class Weights(NamedTuple):
    """Factors of the terms; the defaults are the paper's.

    Attributes:
        chamfer: for both distances.
        opposite: for the surface's distance to the points, within the chamfer term.
        normal: for the edges' cosine to the normals.
        edge: for the edges' length.
        laplacian: for the change of the surface's Laplacian in a block.
        move: for the displacement of vertices in a block.
        blocks: one a block, for Laplacian and displacement; the first one's displacement is free.
    """

    chamfer: float = 3000.0
    opposite: float = 0.55
    normal: float = 0.5
    edge: float = 300.0
    laplacian: float = 1500.0
    move: float = 100.0
    blocks: tuple[float, ...] = (0.1, 1.0, 1.0)


PAPER = Weights()


class Mesh(NamedTuple):
    """What the losses know of a block's mesh.

    Attributes:
        edges: both ends of each.
        laplacian: a vertex minus the mean of its neighbours.
    """

    edges: Int[Array, "e 2"]
    laplacian: Laplacian


def nearest(points: Points, vertices: Vertices) -> tuple[Int[Array, "b n"], Int[Array, "b v"]]:
    """(the vertex nearest to each point, the point nearest to each vertex), by brute force."""

    def one(p: Array, v: Array) -> tuple[Array, Array]:
        # |p - v|^2 without |p|^2 or |v|^2: what is left out does not change the minimum.
        product = jnp.matmul(p, v.T, precision="highest")
        to_vertex = jnp.sum(v * v, -1)[None] - 2.0 * product
        to_point = jnp.sum(p * p, -1)[:, None] - 2.0 * product
        return jnp.argmin(to_vertex, axis=1), jnp.argmin(to_point, axis=0)

    return jax.vmap(one)(jax.lax.stop_gradient(points), jax.lax.stop_gradient(vertices))


def _take(values: Float[Array, "b n 3"], index: Int[Array, "b m"]) -> Float[Array, "b m 3"]:
    return jnp.take_along_axis(values, index[..., None], axis=1)


def _unit(x: Float[Array, "b n 3"]) -> Float[Array, "b n 3"]:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, jnp.asarray(1e-24, x.dtype)))


def terms(
    before: Sequence[Vertices],
    after: Sequence[Vertices],
    points: Points,
    normals: Points,
    meshes: Sequence[Mesh],
    weights: Weights = PAPER,
) -> Terms:
    """[P2M l_all] The weighted terms, each summed over blocks; their sum is the loss.

    | term | in a block that moves v_0 to v |
    |---|---|
    | l_c, chamfer | mean_p min_v \\|p - v\\|^2 + opposite * mean_v min_p \\|v - p\\|^2 |
    | l_n, normal | mean over edges of \\|cos\\| to the normal at the point nearest to the first end |
    | l_loc, edge | mean over edges of length^2 |
    | l_lap, laplacian | mean over vertices of \\|L(v) - L(v_0)\\|^2 |
    | move | mean over vertices of \\|v - v_0\\|^2; free in the first block |

    Args:
        before: surface that each block started from, with the vertices it added.
        after: surface that it gave.
        points: vertices of the true surface, in the same unit.
        normals: its normals there, of length 1.
        meshes: edges and Laplacian of each block.
        weights: factors of the terms.
    """
    zero = jnp.zeros((), points.dtype)
    found = dict.fromkeys(("chamfer", "normal", "edge", "laplacian", "move"), zero)
    for block, (old, new, mesh) in enumerate(zip(before, after, meshes, strict=True)):
        vertex, point = nearest(points, new)
        there, back = points - _take(new, vertex), new - _take(points, point)
        found["chamfer"] += mean_square(there) + weights.opposite * mean_square(back)
        one, other = mesh.edges[:, 0], mesh.edges[:, 1]
        along, normal = _unit(new[:, one] - new[:, other]), _unit(_take(normals, point)[:, one])
        found["normal"] += jnp.mean(jnp.abs(jnp.sum(along * normal, axis=-1)))
        found["edge"] += mean_square(new[:, one] - new[:, other])
        found["laplacian"] += weights.blocks[block] * mean_square(mesh.laplacian(new - old))
        if block:
            found["move"] += weights.blocks[block] * mean_square(new - old)
    return {f"L_{name}": getattr(weights, name) * value for name, value in found.items()}
