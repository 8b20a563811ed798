"""The mean of the training volumes: what one knows of a patient without looking at the X-rays."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.geometry import Camera
from jxrecon.methods.base.method import Method, Problem, Progress, Reconstruction
from jxrecon.types import Key, Terms, VolumeBatch


class State(NamedTuple):
    """Attributes: hu: mean of the training volumes in HU."""

    hu: Float[Array, "x y z"]


def mean_volume(problem: Problem) -> Method:
    """x = 1/n sum_i x_i in HU, whatever the images show; one `train_step` on all volumes fits it."""

    def init(key: Key) -> State:
        return State(jnp.zeros(problem.grid.shape, jnp.float32))

    def train_step(state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
        return State(jnp.mean(batch.hu, axis=0)), {}

    def eval_step(state: State, batch: VolumeBatch, key: Key) -> Terms:
        return {"mean_abs_hu": jnp.mean(jnp.abs(batch.hu - state.hu[None]))}

    def reconstruct(
        state: State,
        images: tuple[Float[Array, "rows columns"], ...],
        cameras: tuple[Camera, ...],
        key: Key,
        progress: Progress | None = None,
    ) -> Reconstruction:
        return Reconstruction(state.hu, {})

    return Method(init, train_step, eval_step, reconstruct)
