"""The linear prior in the coordinates of its training X-rays: left-out patients, deviations.

    x_j     attenuation of training volume j; the second half are the mirror images      j = 1 .. N = 2n
    y_j     their X-rays, whatever they show beside the volume, all views after one another

The X-rays span no more than N directions, Y - mean = q r, so all that the closed-form MAP of
`volumes.linear_prior` needs of an X-ray y are its coordinates c = q'(y - mean). The MAP is a weighted sum
of training volumes, and the weights are affine in c:

    w = a + B c,     x = sum_j w_j x_j,     X-ray that the prior expects = mean + q r w

A patient is left out, with the mirror image, by leaving both out of mean and covariance before a and B
are formed: they then have weight 0 and no influence at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int16

from jxrecon.drr import beam
from jxrecon.units import MU_WATER_PER_MM

CANDIDATES = 13
"""Values of sigma / s_max tried, evenly spaced in the logarithm from 1e-4 to 1e-1."""

HELD_OUT = 16
"""Patients left out, one at a time, to choose sigma; evenly picked from the training set."""


class Basis(NamedTuple):
    """The training X-rays as mean + q r, and what of an X-ray they do not explain.

    Attributes:
        mean: of the X-rays.
        q: orthonormal directions.
        r: coordinates of every X-ray along them.
        sigma: standard deviation of a line integral about the prior's explanation of it.
    """

    mean: Float[Array, " pixels"]
    q: Float[Array, "pixels m"]
    r: Float[Array, "m n2"]
    sigma: Float[Array, ""]

    def coordinates(self, y: Float[Array, " pixels"]) -> Float[Array, " m"]:
        """c = q'(y - mean)."""
        return jnp.matmul(y - self.mean, self.q, precision="highest")

    def expected(self, weights: Float[Array, " n2"]) -> Float[Array, " pixels"]:
        """The same weighted sum of the training X-rays."""
        return self.mean + self.q @ (self.r @ weights)


class Weights(NamedTuple):
    """w = offset + matrix c, for as many priors as there are first axes.

    Attributes:
        offset: a; sums to 1.
        matrix: B; its columns sum to 0.
    """

    offset: Float[Array, "*k n2"]
    matrix: Float[Array, "*k n2 m"]

    def of(self, coordinates: Float[Array, " m"]) -> Float[Array, " n2"]:
        """The weights of the training volumes; of one prior."""
        return self.offset + jnp.matmul(self.matrix, coordinates, precision="highest")


def basis_of(images: Float[Array, "pixels n2"], sigma: Float[Array, ""] | float) -> Basis:
    """q and r by thin QR: singular values, not their squares, so that float32 suffices."""
    with jax.default_matmul_precision("highest"):
        mean = jnp.mean(images, axis=1)
        q, r = jnp.linalg.qr(images - mean[:, None])
    return Basis(mean, q, r, jnp.asarray(sigma, jnp.float32))


def rows_of(images: Sequence[Float[Array, "n rows columns"]]) -> Float[Array, "n pixels"]:
    """All views of a case after one another, one row a case."""
    return jnp.concatenate([view.reshape(view.shape[0], -1) for view in images], axis=1)


def empty_basis(pixels: int, cases: int) -> Basis:
    """The shapes of a basis of so many cases and their mirror images, all zero."""
    m = min(pixels, 2 * cases)
    shapes = (pixels,), (pixels, m), (m, 2 * cases), ()
    return Basis(*(jnp.zeros(shape, jnp.float32) for shape in shapes))


def empty_weights(basis: Basis, *priors: int) -> Weights:
    """The shapes of the weights of so many priors, all zero."""
    m, total = basis.r.shape
    offset = jnp.zeros((*priors, total), jnp.float32)
    return Weights(offset, jnp.zeros((*priors, total, m), jnp.float32))


def fit(hu: Int16[Array, "n x y z"], images: Float[Array, "pixels n2"]) -> Basis:
    """The basis with the sigma that reconstructs left-out training patients with the least squared error.

    Args:
        hu: training volumes.
        images: their X-rays, one column each: first the n, then those of the n mirror images.
    """
    basis = basis_of(images, 0.0)
    n, r = hu.shape[0], basis.r
    with jax.default_matmul_precision("highest"):
        largest = jnp.linalg.norm(r, 2) / (2.0 * n) ** 0.5
        sigmas = largest * jnp.logspace(-4.0, -1.0, CANDIDATES, dtype=jnp.float32)
        if n < 3:  # nobody to learn from: a hundredth of what the prior itself varies
            return basis._replace(sigma=sigmas[2 * CANDIDATES // 3])
        volumes = gram(hu)

        def error(i: Int[Array, ""]) -> Float[Array, " k"]:
            keep = without(i, n)

            def one(sigma: Float[Array, ""]) -> Float[Array, ""]:
                off = weights_of(basis._replace(sigma=sigma), keep).of(r[:, i])
                off = off - jax.nn.one_hot(i, 2 * n, dtype=jnp.float32)
                return off @ volumes @ off

            return lax.map(one, sigmas)

        errors = lax.map(error, jnp.arange(0, n, -(-n // HELD_OUT)))
    return basis._replace(sigma=sigmas[jnp.argmin(jnp.sum(errors, axis=0))])


def without(i: Int[Array, ""] | int, n: int) -> Float[Array, " n2"]:
    """1 for all but patient i and the mirror image; all 1 for i = -1."""
    return jnp.where((jnp.arange(2 * n) % n != i) | (jnp.asarray(i) < 0), 1.0, 0.0)


def weights_of(basis: Basis, keep: Float[Array, " n2"]) -> Weights:
    """a and B of the MAP from the volumes with keep = 1 alone: their own mean and covariance."""
    with jax.default_matmul_precision("highest"):
        count = jnp.sum(keep)
        mean = basis.r @ keep / count
        p = (basis.r - mean[:, None]) * keep[None] / count**0.5
        u, s, vt = jnp.linalg.svd(p, full_matrices=False)
        z = (vt.T * (s / (jnp.square(s) + jnp.square(basis.sigma)))[None]) @ u.T
        z = keep[:, None] * z
        z = (z - keep[:, None] * jnp.sum(z, axis=0, keepdims=True) / count) / count**0.5
        return Weights(keep / count - z @ mean, z)


def left_out_weights(basis: Basis) -> Weights:
    """One prior a training patient, without that patient; last the prior of all of them: [n + 1, ...]."""
    n = basis.r.shape[1] // 2
    keeps = jnp.stack([without(i, n) for i in (*range(n), -1)])
    return lax.map(lambda keep: weights_of(basis, keep), keeps)


def attenuation(hu: Int16[Array, "*shape"]) -> Float[Array, "*shape"]:
    """HU as stored -> 1/mm."""
    return beam.hu_to_mu(hu.astype(jnp.float32))


def volume_of(hu: Int16[Array, "n x y z"], weights: Float[Array, " n2"]) -> Float[Array, "x y z"]:
    """sum_j w_j x_j in HU over volumes and mirror images; never below vacuum."""

    def add(
        sums: tuple[Array, Array], item: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        volume, weight = item
        mu = attenuation(volume)
        return (sums[0] + weight[0] * mu, sums[1] + weight[1] * mu), None

    nothing = jnp.zeros(hu.shape[1:], jnp.float32)
    (x, mirror), _ = lax.scan(add, (nothing, nothing), (hu, weights.reshape(2, -1).T))
    return beam.mu_to_hu(jnp.maximum(x + mirror[::-1], 0.0))


def gram(hu: Int16[Array, "n x y z"]) -> Float[Array, "n2 n2"]:
    """K_ij = (x_i - m)'(x_j - m) over volumes and mirror images, one axial slab at a time."""
    n, depth = hu.shape[0], hu.shape[3]

    def add(total: Array, k: Array) -> tuple[Array, None]:
        both = _slab(hu, k)
        both -= jnp.mean(both, axis=0, keepdims=True)
        return total + both @ both.T, None

    return lax.scan(add, jnp.zeros((2 * n, 2 * n), jnp.float32), jnp.arange(depth))[0]


def _slab(hu: Int16[Array, "n x y z"], k: Array) -> Float[Array, "n2 xy"]:
    """One axial slice of all volumes and mirror images, 1/mm."""
    slab = attenuation(lax.dynamic_index_in_dim(hu, k, axis=3, keepdims=False))
    return jnp.concatenate([slab, slab[:, ::-1]]).reshape(2 * hu.shape[0], -1)


def deviation(hu: Int16[Array, "n x y z"], basis: Basis) -> Float[Array, "x y z"]:
    """The posterior's standard deviation in HU, before calibration: the same for every X-ray.

        diag of D C D',   C = (P'P / sigma^2 + 1)^-1,   D_j = (x_j - m) / sqrt(N),   P the X-rays of D

    The prior's covariance is that of N volumes, so it misses what no training volume varies in: a factor
    found on left-out patients (`calibration.scale_of`) makes up for it.
    """
    total = basis.r.shape[1]
    with jax.default_matmul_precision("highest"):
        p = basis.r / total**0.5
        p -= jnp.mean(p, axis=1, keepdims=True)
        _, s, vt = jnp.linalg.svd(p, full_matrices=True)
        s = jnp.zeros(total, jnp.float32).at[: s.shape[0]].set(s)
        sigma = basis.sigma
        root = vt * (sigma / jnp.sqrt(jnp.square(s) + jnp.square(sigma)) / total**0.5)[:, None]
        root -= jnp.mean(root, axis=1, keepdims=True)

        def variance(k: Array) -> Float[Array, " xy"]:
            return jnp.sum(jnp.square(root @ _slab(hu, k)), axis=0)

        slabs = lax.map(variance, jnp.arange(hu.shape[3]))
    return 1000.0 / MU_WATER_PER_MM * jnp.sqrt(slabs.T.reshape(hu.shape[1:]))
