"""The linear prior: PCA of the training volumes and their mirror images, closed-form MAP from X-rays.

    attenuation  x = m + sum_k c_k v_k,  c_k ~ N(0, s_k^2)        (v_k, s_k^2: eigenpairs of the covariance S)
    X-rays       y = P x + e,  e ~ N(0, sigma^2)       P x_j = y_j: what training case j's own X-rays show
    MAP = posterior mean  x = m + S P' (P S P' + sigma^2)^-1 (y - P m)

No component is dropped, so the prior is N(m, S) with S = D D' and D_j = (x_j - m) / sqrt(N) over the
N = 2n volumes and mirror images; x is a weighted sum of training volumes, `base.linear_posterior`. P needs no
projector: of an X-ray through the whole patient it holds shoulders, head and chest, too, which is why
nothing has to be taken from such an X-ray first. PCA in attenuation (1/mm) because line integrals are linear
in it, not in clipped HU.

sigma stands for what the prior cannot explain, much more than noise. Rule: of the candidates
s_max 10^(-4 ... -1), the one with the least squared error of left-out training patients (each with
its mirror image) reconstructed from their own X-rays. Training cases only; so is the factor on the
posterior's standard deviation.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int16

from jxrecon.methods.base import calibration, linear_posterior
from jxrecon.methods.base.linear_posterior import Basis, Weights
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
    """What is known of the training set.

    Attributes:
        hu: all training volumes, HU.
        basis: of their X-rays.
        weights: the MAP as weights of the volumes and mirror images.
        deviation: standard deviation of every voxel, HU: the same for every X-ray.
    """

    hu: Int16[Array, "n x y z"]
    basis: Basis
    weights: Weights
    deviation: Float[Array, "x y z"]


def linear_prior(problem: Problem) -> Method:
    """The Method of this file. Voxels never fall below vacuum: x is clipped at 0 (-1000 HU)."""
    return Method(
        init=partial(init, problem),
        train_step=no_step,
        eval_step=no_terms,
        reconstruct=partial(reconstruct, problem),
        sample=sample,
        own_views=True,
        deviates=True,
        fit=fit,
    )


def init(problem: Problem, key: Key) -> State:
    """Zeros in the shapes of a fitted state."""
    pixels = sum(rows * columns for rows, columns in (c.shape for c in problem.cameras))
    hu = jnp.zeros((problem.cases, *problem.grid.shape), jnp.int16)
    basis = linear_posterior.empty_basis(pixels, problem.cases)
    weights = linear_posterior.empty_weights(basis)
    return State(hu, basis, weights, jnp.zeros(problem.grid.shape, jnp.float32))


def fit(state: State, everything: TrainingVolumes) -> State:
    """The MAP of all training cases, and how far it is off on those that are left out of it."""
    hu = everything.hu
    basis = linear_posterior.fit(hu, linear_posterior.rows_of(everything.images).T)
    weights = linear_posterior.weights_of(basis, jnp.ones(2 * hu.shape[0], jnp.float32))
    deviation = linear_posterior.deviation(hu, basis)
    return State(hu, basis, weights, factor(hu, basis, deviation) * deviation)


def factor(
    hu: Int16[Array, "n x y z"], basis: Basis, deviation: Float[Array, "x y z"]
) -> Float[Array, ""]:
    """The factor on the deviations that is right for left-out patients; 1 where there are fewer than 3."""
    n = hu.shape[0]
    if n < 3:
        return jnp.ones((), jnp.float32)

    def one(i: Int[Array, ""]) -> Float[Array, ""]:
        weights = linear_posterior.weights_of(basis, linear_posterior.without(i, n))
        found = linear_posterior.volume_of(hu, weights.of(basis.r[:, i]))
        truth = hu[i].astype(jnp.float32)
        tissue = (truth > calibration.TISSUE_HU).ravel()
        return calibration.scale_of((found - truth).ravel(), deviation.ravel(), tissue)

    scales = lax.map(one, jnp.arange(0, n, -(-n // linear_posterior.HELD_OUT)))
    return jnp.exp(jnp.mean(jnp.log(scales)))


def reconstruct(
    problem: Problem,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
) -> Reconstruction:
    """The MAP, and the deviation of every voxel.

    Raises:
        InputError: the X-rays are not the problem's views; see `trained_views.on_trained_pixels`.
    """
    seen = on_trained_pixels(images, cameras, problem.cameras, "linear prior")
    y = jnp.concatenate([image.ravel() for image in seen])
    weights = state.weights.of(state.basis.coordinates(y))
    return Reconstruction(linear_posterior.volume_of(state.hu, weights), {}, state.deviation)


def sample(state: State, key: Key, count: int) -> Float[Array, "b x y z"]:
    """Volumes in HU of `count` random points of the prior: x = m + D z, z ~ N(0, 1)."""
    total = 2 * state.hu.shape[0]
    z = jax.random.normal(key, (count, total), jnp.float32)
    weights = 1.0 / total + (z - jnp.mean(z, axis=1, keepdims=True)) / total**0.5
    return lax.map(partial(linear_posterior.volume_of, state.hu), weights)
