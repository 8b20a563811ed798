"""The mean of the training organs as they were when X-rayed: what one knows without patient and X-ray."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem, no_step
from jxrecon.methods.base.surface_regression import vertex_errors


class State(NamedTuple):
    """Attributes: vertices: mean of the training targets, world mm."""

    vertices: Float[Array, "v 3"]


def mean_shape(problem: SurfaceProblem) -> SurfaceMethod:
    """v^ = 1/n sum_i v_i in the world over the training cases.

    The reference is not looked at, its place neither. Before the fit it is the problem's template.
    """
    return SurfaceMethod(
        init=lambda key: State(jnp.asarray(problem.template.vertices)),
        train_step=no_step,
        eval_step=lambda state, batch, key: vertex_errors(
            jnp.broadcast_to(state.vertices, batch.target.shape), batch.target
        ),
        reconstruct=lambda state, image, reference: state.vertices,
        fit=lambda state, everything: State(jnp.mean(everything.target, axis=0)),
    )
