"""The training volume whose X-rays are nearest to the given ones: looking it up in the training set."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16

from jxrecon import drr
from jxrecon.geometry import same_cameras
from jxrecon.methods.base.linear_posterior import attenuation
from jxrecon.methods.base.method import Cameras, Images, Method, Problem, Progress, Reconstruction
from jxrecon.types import Key, Terms, VolumeBatch


class State(NamedTuple):
    """The training set and its X-rays.

    Attributes:
        hu: all training volumes, HU.
        images: their line integrals in the problem's cameras, one row a volume, views after one another.
    """

    hu: Int16[Array, "n x y z"]
    images: Float[Array, "n pixels"]


def nearest(problem: Problem) -> Method:
    """x = x_i with i = argmin_i |A x_i - y|; one `train_step` on all volumes fits it.

    With the problem's own cameras the stored X-rays are compared; any other cameras make the training
    volumes be projected again.
    """
    return Method(
        init=partial(init, problem),
        train_step=partial(train_step, problem),
        eval_step=lambda state, batch, key: {},
        reconstruct=partial(reconstruct, problem),
    )


def init(problem: Problem, key: Key) -> State:
    """Zeros in the shapes of a fitted state."""
    pixels = sum(rows * columns for rows, columns in (c.shape for c in problem.cameras))
    return State(
        jnp.zeros((problem.cases, *problem.grid.shape), jnp.int16),
        jnp.zeros((problem.cases, pixels), jnp.float32),
    )


def train_step(problem: Problem, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
    """The fit to all training volumes."""
    hu = jnp.round(batch.hu).astype(jnp.int16)
    return State(hu, project(hu, problem, problem.cameras)), {}


def reconstruct(
    problem: Problem,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
) -> Reconstruction:
    """See `nearest`."""
    own = same_cameras(cameras, problem.cameras)
    known = state.images if own else project(state.hu, problem, cameras)
    y = jnp.concatenate([image.ravel() for image in images])
    i = jnp.argmin(jnp.sum(jnp.square(known - y[None]), axis=1))
    return Reconstruction(state.hu[i].astype(jnp.float32), {})


def project(
    hu: Int16[Array, "n x y z"], problem: Problem, cameras: Cameras
) -> Float[Array, "n pixels"]:
    """A x_i, one row a volume, views after one another."""

    def one(volume: Int16[Array, "x y z"]) -> Float[Array, " pixels"]:
        views = drr.project(attenuation(volume), problem.grid.affine, cameras)
        return jnp.concatenate([view.ravel() for view in views])

    return jax.lax.map(one, hu)
