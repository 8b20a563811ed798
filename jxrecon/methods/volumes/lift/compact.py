"""The linear prior in a few components, half as fine and in 8 bits: small enough to be handed on.

    MAP(y) = m + U' t,   y_MAP = e + E' t,   t = R (y - ybar)

As a map of X-rays that vary as those of the training do, y -> MAP(y) is cut off after its first principal
components: the weights w = a + B c of `base.linear_posterior` with c ~ N(0, r r' / N), so that the columns of
X B (r r' / N)^(1/2) are what the volumes vary by. No training volume is stored, and nobody can be left out.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int16

from jxrecon.drr import beam
from jxrecon.methods.base import linear_posterior
from jxrecon.methods.base.linear_posterior import Basis, Weights
from jxrecon.nn.resample import halved
from jxrecon.rounded import Rows, rows

RANK = 32
"""Components kept. From two views, 17 validation patients, lift reaches 28.45 dB with 32 of them, 28.49 with
64, 28.32 with 16 and 28.11 with 8; with the prior whole and as fine as the field 28.40."""


class Compact(NamedTuple):
    """The linear prior's MAP as it is handed on.

    Attributes:
        mean: m, attenuation in 1/m on the half grid.
        components: U, the same.
        seen: ybar, the mean of the training X-rays, all views in a row.
        reading: R.
        expected_mean: e.
        expected: E.
    """

    mean: Float[Array, "i j k"]
    components: Rows
    seen: Float[Array, " pixels"]
    reading: Rows
    expected_mean: Float[Array, " pixels"]
    expected: Rows

    def explain(
        self, y: Float[Array, " pixels"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "x y z"], Float[Array, " pixels"]]:
        """(MAP in HU on the field's grid, the X-ray that the prior expects of it); `index` is not used."""
        t = self.reading.against(y - self.seen)
        coarse = self.mean + self.components.of(t)
        fine = jax.image.resize(coarse, [2 * n for n in coarse.shape], "linear") / 1000.0
        return beam.mu_to_hu(jnp.maximum(fine, 0.0)), self.expected_mean + self.expected.of(t)


def compact(
    hu: Int16[Array, "n x y z"], basis: Basis, weights: Weights, rank: int = RANK
) -> Compact:
    """The first components of a fitted prior.

    Args:
        hu: training volumes.
        basis: of their X-rays.
        weights: of the prior that leaves nobody out.
        rank: components kept, at most.
    """
    total, size = basis.r.shape[1], min(basis.r.shape)
    with jax.default_matmul_precision("highest"):
        u, s, _ = jnp.linalg.svd(basis.r, full_matrices=False)
        spread = s / total**0.5  # c = u (spread t) with t ~ N(0, 1)
        varied = weights.matrix @ (u * spread[None])
        _, turned = jnp.linalg.eigh(varied.T @ linear_posterior.gram(hu) @ varied)
        kept = turned[:, ::-1][:, : min(rank, size)]
        floor = 1e-5 * spread[0]
        whitened = jnp.where(spread > floor, 1.0 / jnp.maximum(spread, floor), 0.0)
        reading = (kept.T * whitened[None]) @ u.T
        combined = varied @ kept
        mean, components = _halved_sums(hu, weights.offset, combined)
        return Compact(
            mean,
            rows(components),
            basis.mean,
            rows(reading @ basis.q.T),
            basis.expected(weights.offset),
            rows((basis.q @ (basis.r @ combined)).T),
        )


def _halved_sums(
    hu: Int16[Array, "n x y z"], offset: Float[Array, " n2"], combined: Float[Array, "n2 k"]
) -> tuple[Float[Array, "i j k"], Float[Array, "r i j k"]]:
    """Weighted sums of the volumes and mirror images on the half grid, 1/m."""
    weights = jnp.concatenate([offset[:, None], combined], 1)

    def add(sums: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        volume, w = item
        coarse = halved(1000.0 * linear_posterior.attenuation(volume))
        both = jnp.tensordot(w[0], coarse, 0) + jnp.tensordot(w[1], coarse[::-1], 0)
        return sums + both, None

    shape = (weights.shape[1], *(n // 2 for n in hu.shape[1:]))
    pairs = weights.reshape(2, -1, weights.shape[1]).swapaxes(0, 1)
    sums = lax.scan(add, jnp.zeros(shape, jnp.float32), (hu, pairs))[0]
    return sums[0], sums[1:]
