"""The surface of the training case whose X-ray is most like the given one: looking it up."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem, no_step
from jxrecon.methods.base.surface_regression import standardised, vertex_errors
from jxrecon.types import Key

PIXELS = 32
"""Images are compared at this size at most: where the organ lies, not noise, is to decide."""


class State(NamedTuple):
    """The training set.

    Attributes:
        images: small and standardised, one row a case.
        targets: surfaces when X-rayed, world mm.
    """

    images: Float[Array, "n pixels"]
    targets: Float[Array, "n v 3"]


def nearest_shape(problem: SurfaceProblem) -> SurfaceMethod:
    """v^ = v_i with i = argmax_i of the correlation of image i and the given one.

    The reference is not looked at.
    """
    return SurfaceMethod(
        init=partial(init, problem),
        train_step=no_step,
        eval_step=lambda state, batch, key: vertex_errors(
            find(problem, state, batch.image), batch.target
        ),
        reconstruct=lambda state, image, reference: find(problem, state, image[None])[0],
        fit=lambda state, everything: State(small(problem, everything.image), everything.target),
    )


def small(problem: SurfaceProblem, images: Float[Array, "b r c"]) -> Float[Array, "b pixels"]:
    """The images, coarse and standardised."""
    shape = (len(images), *_shape(problem))
    return standardised(jax.image.resize(images, shape, "linear")).reshape(len(images), -1)


def find(
    problem: SurfaceProblem, state: State, images: Float[Array, "b r c"]
) -> Float[Array, "b v 3"]:
    """The targets of the most similar training images."""
    likeness = jnp.matmul(small(problem, images), state.images.T, precision="highest")
    return state.targets[jnp.argmax(likeness, axis=1)]


def init(problem: SurfaceProblem, key: Key) -> State:
    """Zeros in the shapes of a fitted state."""
    rows, columns = _shape(problem)
    return State(
        jnp.zeros((problem.cases, rows * columns), jnp.float32),
        jnp.zeros((problem.cases, *problem.template.vertices.shape), jnp.float32),
    )


def _shape(problem: SurfaceProblem) -> tuple[int, int]:
    rows, columns = problem.camera.shape
    return min(rows, PIXELS), min(columns, PIXELS)
