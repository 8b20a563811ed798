"""Arrays rounded to 8 bits: what ships with the package takes a quarter of the room."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8


class Rows(NamedTuple):
    """Arrays in 8 bits, each with the factor that its numbers are in units of."""

    steps: Int8[Array, "k *s"]
    unit: Float[Array, " k"]

    def of(self, weights: Float[Array, " k"]) -> Float[Array, "*s"]:
        """Their weighted sum."""
        return jnp.tensordot(weights * self.unit, self.steps.astype(jnp.float32), 1)

    def arrays(self) -> Float[Array, "k *s"]:
        """All of them, each in its units."""
        return self.steps.astype(jnp.float32) * self.unit.reshape(-1, *(1,) * (self.steps.ndim - 1))

    def against(self, y: Float[Array, "*s"]) -> Float[Array, " k"]:
        """The scalar product of each with y."""
        products = jnp.tensordot(self.steps.astype(jnp.float32), y, y.ndim)
        return jnp.asarray(products * self.unit)


def rows(arrays: Float[Array, "k *s"]) -> Rows:
    """Rounded to 8 bits, the largest number of each array to 127."""
    unit = jnp.max(jnp.abs(arrays), axis=tuple(range(1, arrays.ndim))) / 127.0
    unit = jnp.maximum(unit, 1e-30)
    steps = jnp.round(arrays / unit.reshape(-1, *(1,) * (arrays.ndim - 1)))
    return Rows(steps.astype(jnp.int8), unit)
