"""What IGCN and IGCN+ are trained with; sums over coordinates, means over vertices and cases."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.mesh.laplacian import Laplacian
from jxrecon.methods.base.surface_regression import mean_square
from jxrecon.types import Terms

Vertices = Float[Array, "b v 3"]


def position(found: Vertices, target: Vertices) -> Float[Array, ""]:
    """[IGCN L_pos] 1/n sum |v_i - v^_i|^2."""
    return mean_square(found - target)


def mapping(mapped: Float[Array, "b v 2"], seen: Float[Array, "b v 2"]) -> Float[Array, ""]:
    """[IGCN L_map] 1/n sum |q_i - M(p_i)|^2.

    Args:
        mapped: M(p_i), where the image branch says that vertex i of the reference has gone.
        seen: q_i, where the target's vertex i is projected.
    """
    return mean_square(mapped - seen)


def laplacian(found: Vertices, target: Vertices, operator: Laplacian) -> Float[Array, ""]:
    """[IGCN L_laplacian] 1/n sum |L(v_i) - L(v^_i)|^2, L linear."""
    return mean_square(operator(found - target))


def plus_mesh(found: Vertices, target: Vertices, operator: Laplacian) -> Terms:
    """[IGCN+ loss_mesh] L_pos and L_laplacian in the target's own units: no length comes in.

    Coordinates are divided by the range of the target's (over vertices and axes of the case), their
    Laplacians by that of its Laplacian. Factors are not included.
    """

    def scale(of: Vertices) -> Float[Array, "b 1 1"]:
        return jnp.max(of, (1, 2), keepdims=True) - jnp.min(of, (1, 2), keepdims=True)

    away, curve = found - target, operator(target)
    return {
        "L_pos": mean_square(away / scale(target)),
        "L_laplacian": mean_square(operator(away) / scale(curve)),
    }


def plus_map(
    dense: Float[Array, "b r c 3"], rendered: Float[Array, "b r c 3"], scale: float
) -> Float[Array, ""]:
    """[IGCN+ L_map] mean (M - M^)^2 / 6800 over pixels and axes."""
    return jnp.mean(jnp.square(dense - rendered)) / scale
