"""The beam: HU to attenuation of water-like matter, and Beer-Lambert for one photon energy.

Attenuation mu is in 1/mm, line integrals tau = int mu dl are dimensionless, transmission is I / I0.
Constants: `jxrecon.units`.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.units import HU_AIR, MU_WATER_PER_MM

LEAST_TRANSMISSION = 1e-6
"""Transmission below which a radiograph holds no signal: tau stays under 13.8, 72 cm of water."""


def hu_to_mu(hu: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Attenuation in 1/mm: mu_water (1 + HU / 1000), the definition of HU; below air counts as air."""
    return MU_WATER_PER_MM * (1.0 + jnp.maximum(hu, HU_AIR) / 1000.0)


def mu_to_hu(mu: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """HU of an attenuation in 1/mm: 1000 (mu / mu_water - 1), the inverse of `hu_to_mu` from air on."""
    return 1000.0 * (jnp.asarray(mu) / MU_WATER_PER_MM - 1.0)


def transmission(tau: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Beer-Lambert: the part exp(-tau) of the photons that passes."""
    return jnp.exp(-jnp.asarray(tau))


def absorption(tau: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """The part 1 - exp(-tau) of the photons that is lost, exact for small tau."""
    return -jnp.expm1(-jnp.asarray(tau))


def line_integrals_of(
    transmission: Float[Array | np.ndarray, "..."], floor: float = LEAST_TRANSMISSION
) -> Float[Array, "..."]:
    """Line integrals -log(T) of a radiograph; T below `floor` counts as `floor`."""
    return -jnp.log(jnp.maximum(jnp.asarray(transmission), floor))
