"""HU to the attenuation of matter at one photon energy, and Beer-Lambert there and back.

HU below air count as air; nothing is scaled by what else a volume holds.
"""

from __future__ import annotations

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.units import HU_AIR, MU_WATER_PER_MM

Scalar: TypeAlias = Float[Array, ""] | float
"""A number, traced or not."""

LEAST_TRANSMISSION = 1e-6
"""Transmission below which a radiograph holds no signal: tau stays under 13.8, 72 cm of water."""

BILINEAR_BONE_HU, BILINEAR_BONE_PER_MM = 1000.0, 0.0573
"""HU and attenuation of bone in 1/mm: nanodrr 0.1.7, `hu_to_mu`.

It is dense cortical bone (1.92 g/cm^3, NIST) at 62 keV, while the water it comes with is at 71 keV.
"""


def hu_to_mu(hu: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Attenuation in 1/mm: mu_water (1 + HU / 1000), the definition of HU; below air counts as air."""
    return MU_WATER_PER_MM * (1.0 + jnp.maximum(hu, HU_AIR) / 1000.0)


def mu_to_hu(mu: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """HU of an attenuation in 1/mm: 1000 (mu / mu_water - 1), the inverse of `hu_to_mu` from air on."""
    return 1000.0 * (jnp.asarray(mu) / MU_WATER_PER_MM - 1.0)


def hu_to_mu_bilinear(hu: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Attenuation in 1/mm with bone of its own: `hu_to_mu` up to water, a steeper line above.

        mu = mu_water (1 + HU / 1000)                              HU <= 0
        mu = mu_water + (mu_bone - mu_water) HU / 1000             HU > 0

    For X-rays softer than the CT's, where bone absorbs more than its HU say: it gives 1000 HU half
    as much again as `hu_to_mu`. For a stated energy see `materials.hu_to_mu_at`.
    """
    hu = jnp.asarray(hu)
    steeper = (BILINEAR_BONE_PER_MM - MU_WATER_PER_MM) / BILINEAR_BONE_HU
    return hu_to_mu(jnp.minimum(hu, 0.0)) + steeper * jnp.maximum(hu, 0.0)


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
