"""Standard deviations that mean what they say: one factor, found on patients nobody learned from."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

ONE, TWO = 0.6827, 0.9545
"""Shares of a normal distribution within one and within two standard deviations."""


TISSUE_HU = -300.0
"""Truth above counts for errors and deviations in training; tables count the body mask."""


class Shares(NamedTuple):
    """Attributes: one, two: share of the voxels whose error is within one and two deviations."""

    one: Float[Array, ""]
    two: Float[Array, ""]


def scale_of(
    error: Float[Array, " v"], deviation: Float[Array, " v"], counted: Bool[Array, " v"]
) -> Float[Array, ""]:
    """The factor on the deviations that is fairest to both shares.

    Errors have longer tails than a normal distribution, so no factor makes both shares right. This is the
    geometric mean of the two that make one of them right each.
    """
    ratio = jnp.where(counted, jnp.abs(error) / deviation, jnp.nan)
    within_one, within_two = (jnp.nanquantile(ratio, share) for share in (ONE, TWO))
    return jnp.sqrt(within_one * within_two / 2.0)


def shares(
    error: Float[Array, "*v"], deviation: Float[Array, "*v"], counted: Bool[Array, "*v"]
) -> Shares:
    """How much of what is counted lies within one and two deviations."""
    ratio = jnp.abs(error) / deviation
    total = jnp.maximum(jnp.sum(counted), 1).astype(jnp.float32)
    one, two = (jnp.sum(counted & (ratio <= k)).astype(jnp.float32) / total for k in (1.0, 2.0))
    return Shares(one, two)
