"""The mean of the training volumes: what one knows of a patient without looking at the X-rays."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.base.method import Method, Problem, Reconstruction, no_step
from jxrecon.types import Key, Terms, TrainingVolumes, VolumeBatch


class State(NamedTuple):
    """Attributes: hu: mean of the training volumes in HU."""

    hu: Float[Array, "x y z"]


def mean_volume(problem: Problem) -> Method:
    """x = 1/n sum_i x_i in HU, whatever the images show."""
    return Method(
        init=lambda key: State(jnp.zeros(problem.grid.shape, jnp.float32)),
        train_step=no_step,
        eval_step=eval_step,
        reconstruct=lambda state, images, cameras, key, progress=None: Reconstruction(state.hu, {}),
        fit=fit,
    )


def fit(state: State, everything: TrainingVolumes) -> State:
    """The mean of the training volumes."""
    return State(jnp.mean(everything.hu.astype(jnp.float32), axis=0))


def eval_step(state: State, batch: VolumeBatch, key: Key) -> Terms:
    """Mean absolute error in HU over all voxels."""
    return {"mean_abs_hu": jnp.mean(jnp.abs(batch.hu - state.hu[None]))}
