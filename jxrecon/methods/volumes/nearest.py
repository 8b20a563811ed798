"""The training volume whose X-rays are nearest to the given ones: looking it up in the training set."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int16

from jxrecon.methods.base.linear_posterior import rows_of
from jxrecon.methods.base.method import (
    Cameras,
    Images,
    Method,
    Problem,
    Progress,
    Reconstruction,
    no_step,
    no_terms,
)
from jxrecon.methods.base.trained_views import on_trained_pixels
from jxrecon.types import Key, TrainingVolumes


class State(NamedTuple):
    """The training set and its X-rays.

    Attributes:
        hu: all training volumes, HU.
        images: their line integrals in the problem's cameras, one row a volume, views after one another.
    """

    hu: Int16[Array, "n x y z"]
    images: Float[Array, "n pixels"]


def nearest(problem: Problem) -> Method:
    """x = x_i with i = argmin_i |y_i - y| over the training cases' own X-rays."""
    return Method(
        init=partial(init, problem),
        train_step=no_step,
        eval_step=no_terms,
        reconstruct=partial(reconstruct, problem),
        own_views=True,
        fit=fit,
    )


def init(problem: Problem, key: Key) -> State:
    """Zeros in the shapes of a fitted state."""
    pixels = sum(rows * columns for rows, columns in (c.shape for c in problem.cameras))
    return State(
        jnp.zeros((problem.cases, *problem.grid.shape), jnp.int16),
        jnp.zeros((problem.cases, pixels), jnp.float32),
    )


def fit(state: State, everything: TrainingVolumes) -> State:
    """All cases, none of their mirror images."""
    return State(everything.hu, rows_of(everything.images)[: everything.hu.shape[0]])


def reconstruct(
    problem: Problem,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
) -> Reconstruction:
    """See `nearest`.

    Raises:
        InputError: the X-rays are not the problem's views; see `trained_views.on_trained_pixels`.
    """
    seen = on_trained_pixels(images, cameras, problem.cameras, "nearest volume")
    y = jnp.concatenate([image.ravel() for image in seen])
    i = jnp.argmin(jnp.sum(jnp.square(state.images - y[None]), axis=1))
    return Reconstruction(state.hu[i].astype(jnp.float32), {})
