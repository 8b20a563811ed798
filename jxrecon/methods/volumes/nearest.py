"""The training volume whose X-rays are nearest to the given ones: looking it up in the training set."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16

from jxrecon import drr
from jxrecon.drr import beam
from jxrecon.geometry import Camera
from jxrecon.methods.base.method import Method, Problem, Progress, Reconstruction
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

    With the problem's own `cameras` tuple the stored X-rays are compared; any other cameras make the
    training volumes be projected again.
    """

    def project(
        hu: Int16[Array, "n x y z"], cameras: tuple[Camera, ...]
    ) -> Float[Array, "n pixels"]:
        def one(volume: Int16[Array, "x y z"]) -> Float[Array, " pixels"]:
            mu = beam.hu_to_mu(volume.astype(jnp.float32))
            views = drr.project(mu, problem.grid.affine, cameras)
            return jnp.concatenate([view.ravel() for view in views])

        return jax.lax.map(one, hu)

    def init(key: Key) -> State:
        pixels = sum(rows * columns for rows, columns in (c.shape for c in problem.cameras))
        return State(
            jnp.zeros((problem.cases, *problem.grid.shape), jnp.int16),
            jnp.zeros((problem.cases, pixels), jnp.float32),
        )

    def train_step(state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
        hu = jnp.round(batch.hu).astype(jnp.int16)
        return State(hu, project(hu, problem.cameras)), {}

    def eval_step(state: State, batch: VolumeBatch, key: Key) -> Terms:
        return {}

    def reconstruct(
        state: State,
        images: tuple[Float[Array, "rows columns"], ...],
        cameras: tuple[Camera, ...],
        key: Key,
        progress: Progress | None = None,
    ) -> Reconstruction:
        known = state.images if cameras is problem.cameras else project(state.hu, cameras)
        y = jnp.concatenate([image.ravel() for image in images])
        i = jnp.argmin(jnp.sum(jnp.square(known - y[None]), axis=1))
        return Reconstruction(state.hu[i].astype(jnp.float32), {})

    return Method(init, train_step, eval_step, reconstruct)
