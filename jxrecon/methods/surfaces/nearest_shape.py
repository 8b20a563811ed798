"""The surface of the training case whose X-ray is most like the given one: looking it up."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import standardised, vertex_errors
from jxrecon.types import Key, SurfaceBatch, Terms

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

    One `train_step` on all cases fits it. The reference is not looked at.
    """
    rows, columns = (min(n, PIXELS) for n in problem.camera.shape)

    def small(images: Float[Array, "b r c"]) -> Float[Array, "b pixels"]:
        resized = jax.image.resize(images, (len(images), rows, columns), "linear")
        return standardised(resized).reshape(len(images), -1)

    def find(state: State, images: Float[Array, "b r c"]) -> Float[Array, "b v 3"]:
        likeness = jnp.matmul(small(images), state.images.T, precision="highest")
        return state.targets[jnp.argmax(likeness, axis=1)]

    def init(key: Key) -> State:
        shape = problem.template.vertices.shape
        return State(
            jnp.zeros((problem.cases, rows * columns), jnp.float32),
            jnp.zeros((problem.cases, *shape), jnp.float32),
        )

    def train_step(state: State, batch: SurfaceBatch, key: Key) -> tuple[State, Terms]:
        return State(small(batch.image), batch.target), {}

    def eval_step(state: State, batch: SurfaceBatch, key: Key) -> Terms:
        return vertex_errors(find(state, batch.image), batch.target)

    return SurfaceMethod(
        init=init,
        train_step=train_step,
        eval_step=eval_step,
        reconstruct=lambda state, image, reference: find(state, image[None])[0],
    )
