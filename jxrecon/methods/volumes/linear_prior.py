"""The linear prior: PCA of the training volumes and their mirror images, closed-form MAP from X-rays.

    attenuation  x = m + sum_k c_k v_k,  c_k ~ N(0, s_k^2)        (v_k, s_k^2: eigenpairs of the covariance S)
    line integrals  y = A x + e,  e ~ N(0, sigma^2)
    MAP = posterior mean  x = m + S A' (A S A' + sigma^2)^-1 (y - A m)

No component is dropped, so the prior is N(m, S) with S = D D' and D_j = (x_j - m) / sqrt(N) over the
N = 2n volumes and mirror images. Hence x = m + D z with z ~ N(0, 1), and with P = A D = U s V'

    z = argmin |P z - (y - A m)|^2 / sigma^2 + |z|^2 = V diag(s / (s^2 + sigma^2)) U' (y - A m).

The components never appear: x is a weighted sum of training volumes, and `gain` the matrix that makes
z of an X-ray. PCA in attenuation (1/mm) because line integrals are linear in it, not in clipped HU.
Thin QR before the SVD keeps singular values instead of their squares: float32 suffices.

sigma stands for what the prior cannot explain, much more than noise. Rule: of the candidates
s_max 10^(-4 ... -1), the one with the least squared error of left-out training patients (each with
its mirror image) reconstructed from their own X-rays. Training volumes only.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int16

from jxrecon import drr
from jxrecon.drr import beam
from jxrecon.geometry import same_cameras
from jxrecon.methods.base.linear_posterior import CANDIDATES, HELD_OUT, attenuation, gram
from jxrecon.methods.base.method import Cameras, Images, Method, Problem, Progress, Reconstruction
from jxrecon.types import Key, Terms, VolumeBatch


class Fit(NamedTuple):
    """The MAP as a linear map from line integrals to weights.

    Attributes:
        mean: A m, the line integrals of the mean volume, views after one another.
        gain: [2n, pixels], z = gain (y - mean).
        sigma: standard deviation of a line integral about the prior's explanation of it.
    """

    mean: Float[Array, " pixels"]
    gain: Float[Array, "n2 pixels"]
    sigma: Float[Array, ""]


class State(NamedTuple):
    """Attributes: hu: all training volumes, HU; fit: the MAP for the problem's cameras."""

    hu: Int16[Array, "n x y z"]
    fit: Fit


def linear_prior(problem: Problem) -> Method:
    """The Method of this file; one `train_step` on all training volumes fits it.

    With the problem's own cameras the stored fit is used; any other cameras are fitted anew. Voxels never
    fall below vacuum: x is clipped at 0 (-1000 HU).
    """
    return Method(
        init=partial(init, problem),
        train_step=partial(train_step, problem),
        eval_step=lambda state, batch, key: {},
        reconstruct=partial(reconstruct, problem),
        sample=sample,
    )


def init(problem: Problem, key: Key) -> State:
    """Zeros in the shapes of a fitted state."""
    pixels = sum(rows * columns for rows, columns in (c.shape for c in problem.cameras))
    mean, gain = jnp.zeros(pixels, jnp.float32), jnp.zeros((2 * problem.cases, pixels), jnp.float32)
    hu = jnp.zeros((problem.cases, *problem.grid.shape), jnp.int16)
    return State(hu, Fit(mean, gain, jnp.zeros((), jnp.float32)))


def train_step(problem: Problem, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
    """The fit to all training volumes."""
    hu = jnp.round(batch.hu).astype(jnp.int16)
    fit = fit_projections(hu, project(hu, problem, problem.cameras))
    return State(hu, fit), {"sigma": fit.sigma}


def reconstruct(
    problem: Problem,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
) -> Reconstruction:
    """See `linear_prior`."""
    fit = state.fit
    if not same_cameras(cameras, problem.cameras):
        fit = fit_projections(state.hu, project(state.hu, problem, cameras))
    y = jnp.concatenate([image.ravel() for image in images])
    with jax.default_matmul_precision("highest"):
        z = fit.gain @ (y - fit.mean)
    return Reconstruction(volume_of(state.hu, z), {})


def sample(state: State, key: Key, count: int) -> Float[Array, "b x y z"]:
    """Volumes in HU of `count` random z."""
    z = jax.random.normal(key, (count, 2 * state.hu.shape[0]), jnp.float32)
    return jax.lax.map(lambda one: volume_of(state.hu, one), z)


def volume_of(hu: Int16[Array, "n x y z"], z: Float[Array, " n2"]) -> Float[Array, "x y z"]:
    """x = m + D z in HU, from the volumes themselves: the weight of x_j is 1/N + (z_j - mean z) / sqrt(N)."""
    total = z.shape[0]
    weights = 1.0 / total + (z - jnp.mean(z)) / total**0.5

    def add(x: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        volume, (weight, weight_of_mirror) = item
        mu = attenuation(volume)
        return x + weight * mu + weight_of_mirror * mu[::-1], None

    x, _ = jax.lax.scan(add, jnp.zeros(hu.shape[1:], jnp.float32), (hu, weights.reshape(2, -1).T))
    return beam.mu_to_hu(jnp.maximum(x, 0.0))


def project(
    hu: Int16[Array, "n x y z"], problem: Problem, cameras: Cameras
) -> Float[Array, "pixels n2"]:
    """A x_j, one column a volume: first the n volumes, then their mirror images (x reversed)."""

    def one(volume: Int16[Array, "x y z"]) -> Float[Array, " pixels"]:
        mu = attenuation(volume)
        views = drr.project(mu, problem.grid.affine, cameras)
        return jnp.concatenate([view.ravel() for view in views])

    return jnp.concatenate([jax.lax.map(one, hu), jax.lax.map(lambda v: one(v[::-1]), hu)]).T


def solve(
    p: Float[Array, "q n2"], y: Float[Array, "q m"], sigmas: Float[Array, " k"]
) -> Float[Array, "k n2 m"]:
    """z = V diag(s / (s^2 + sigma^2)) U' y for every sigma."""
    u, s, vt = jnp.linalg.svd(p, full_matrices=False)
    shrunk = s[None] / (jnp.square(s)[None] + jnp.square(sigmas)[:, None])
    return jnp.einsum("rj,kr,rm->kjm", vt, shrunk, u.T @ y)


def left_out_error(
    r: Float[Array, "q n2"], k: Float[Array, "n2 n2"], i: Int[Array, ""], sigmas: Float[Array, " k"]
) -> Float[Array, " k"]:
    """|x_i - x|^2 where x is the MAP of patient i's X-rays by the other patients, for every sigma.

    All in coordinates: r holds the centred projections, k the centred Gram matrix of the volumes.
    """
    total = r.shape[1]
    left = jnp.arange(total) % (total // 2) != i
    kept = left.astype(jnp.float32)
    count = total - 2.0
    mean = r @ kept / count
    p = (r - mean[:, None]) * kept[None] / count**0.5
    z = solve(p, (r[:, i] - mean)[:, None], sigmas)[..., 0] * kept[None]
    z -= jnp.sum(z, axis=1, keepdims=True) / count
    weights = kept[None] * (1.0 / count + z / count**0.5)
    error = jax.nn.one_hot(i, total, dtype=jnp.float32)[None] - weights
    return jnp.sum((error @ k) * error, axis=1)


def fit_projections(hu: Int16[Array, "n x y z"], images: Float[Array, "pixels n2"]) -> Fit:
    """Chooses sigma and forms the gain of the MAP from all volumes and their projections."""
    n = hu.shape[0]
    with jax.default_matmul_precision("highest"):
        mean = jnp.mean(images, axis=1)
        q, r = jnp.linalg.qr(images - mean[:, None])  # A D = q r / sqrt(N)
        p = r / (2.0 * n) ** 0.5
        sigmas = jnp.linalg.norm(p, 2) * jnp.logspace(-4.0, -1.0, CANDIDATES, dtype=jnp.float32)
        if n >= 3:
            volumes = gram(hu)
            patients = jnp.arange(0, n, -(-n // HELD_OUT))
            errors = jax.lax.map(lambda i: left_out_error(r, volumes, i, sigmas), patients)
            sigma = sigmas[jnp.argmin(jnp.sum(errors, axis=0))]
        else:  # too few to leave one out: a hundredth of the prior's own spread
            sigma = sigmas[2 * CANDIDATES // 3]
        eye = jnp.eye(p.shape[0], dtype=jnp.float32)
        gain = solve(p, eye, sigma[None])[0] @ q.T
    return Fit(mean, gain, sigma)
