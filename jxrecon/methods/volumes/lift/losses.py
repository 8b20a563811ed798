"""What the network is trained by: L1 and L2 of the volume, and the likelihood of its errors' size."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jxrecon.types import Terms

LEAST_LOG_SIZE, MOST_LOG_SIZE = -8.0, 0.0
"""Of the error's mean size: 1 HU and the whole window."""


class Weights(NamedTuple):
    """Attributes: l1, l2: of the volume; nll: of the errors' size, which teaches the mean nothing."""

    l1: float = 1.0
    l2: float = 20.0
    nll: float = 0.02


def objective(
    found: Float[Array, "b x y z"],
    log_size: Float[Array, "b x y z"],
    truth: Float[Array, "b x y z"],
    weights: Weights,
) -> tuple[Float[Array, ""], Terms]:
    """L = l1 mean|e| + l2 mean e^2 + nll mean(|e| / b + log b), e = found - truth, b = exp(log_size).

    The last is the negative log likelihood of a Laplace distribution of mean size b, but for log 2.
    """
    error = found - truth
    l1, l2 = jnp.mean(jnp.abs(error)), jnp.mean(jnp.square(error))
    log_size = jnp.clip(log_size, LEAST_LOG_SIZE, MOST_LOG_SIZE)
    nll = jnp.mean(lax.stop_gradient(jnp.abs(error)) * jnp.exp(-log_size) + log_size)
    total = weights.l1 * l1 + weights.l2 * l2 + weights.nll * nll
    return total, {"L": total, "L_1": l1, "L_2": l2, "NLL": nll}
