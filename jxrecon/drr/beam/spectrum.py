"""Photons of many energies: the spectrum of a tube, and what of it passes water and bone.

    T = sum_E S(E) exp(-sum_m mu_m(E) L_m),    sum_E S(E) = 1

with L_m the millimetres of material m along the ray (line integrals of `materials.split`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.beam.attenuation import Scalar
from jxrecon.drr.beam.materials import ALUMINIUM, MATERIALS, linear_attenuation
from jxrecon.types import InputError

LEAST_KVP, MOST_KVP = 20.0, 150.0
"""Tube voltages that `kramers` models: the tables end at 150 keV, nothing useful passes at 20."""

_BINS_KEV = np.arange(11.0, MOST_KVP, 2.0)
"""Middles of bins of 2 keV: with 0.25 keV, tau behind 30 cm of water changes by 2e-5 of itself."""


class Spectrum(NamedTuple):
    """Photons by energy.

    Attributes:
        energies_kev: photon energies in keV.
        weights: how much each adds to the reading of the unattenuated beam; they sum to 1.
    """

    energies_kev: Float[Array, " e"]
    weights: Float[Array, " e"]

    @property
    def mean_kev(self) -> Float[Array, ""]:
        """Mean energy in keV."""
        return (self.energies_kev * self.weights).sum()


def monochromatic(kev: Scalar) -> Spectrum:
    """All photons at one energy in keV: Beer-Lambert."""
    return Spectrum(jnp.asarray(kev, jnp.float32)[None], jnp.ones(1, jnp.float32))


def kramers(kvp: Scalar, aluminium_mm: Scalar = 2.5) -> Spectrum:
    """Photon numbers of a tungsten tube by Kramers' law behind aluminium, in bins of 2 keV.

        S(E) ~ (kVp / E - 1) exp(-mu_Al(E) d),    E < kVp

    A thick target's bremsstrahlung (H. A. Kramers, Phil Mag 46:836, 1923) and nothing else: no
    characteristic lines, no absorption within the target. At 120 kV behind 2.5 mm it has a mean of 50.6
    keV and loses half its photons in 5.0 mm of aluminium (computed, not compared with a tube).

    Args:
        kvp: tube voltage in kV, `LEAST_KVP` to `MOST_KVP`; may be traced.
        aluminium_mm: filter in mm; 2.5 is the least that IEC 60601-1-3 allows above 70 kV.

    Raises:
        InputError: kvp, if not traced, is out of range.
    """
    if isinstance(kvp, int | float) and not LEAST_KVP <= kvp <= MOST_KVP:
        raise InputError(f"tube voltage is {kvp:g} kV, expected {LEAST_KVP:g} to {MOST_KVP:g}")
    energies = jnp.asarray(_BINS_KEV, jnp.float32)
    produced = jnp.maximum(kvp / energies - 1.0, 0.0)
    numbers = produced * jnp.exp(-linear_attenuation(ALUMINIUM, energies) * aluminium_mm)
    return Spectrum(energies, numbers / numbers.sum())


def energy_integrating(spectrum: Spectrum) -> Spectrum:
    """The spectrum as a detector weighs it that sums energy, not photons, and stops them all.

    Flat panels are such; without this a detector counts photons.
    """
    energy = spectrum.weights * spectrum.energies_kev
    return Spectrum(spectrum.energies_kev, energy / energy.sum())


def polychromatic_transmission(
    thickness_mm: Float[Array, "material *pixels"], spectrum: Spectrum
) -> Float[Array, "*pixels"]:
    """The part of the unattenuated reading that remains: sum_E S(E) exp(-sum_m mu_m(E) L_m).

    With one energy it is Beer-Lambert. Energy by energy, so that neither it nor its gradient holds an
    array of pixels times energies.

    Args:
        thickness_mm: L_m, the line integrals of each part of `materials.split`, mm of the pure substance.
        spectrum: see `kramers`, `monochromatic`, `energy_integrating`.
    """
    thickness_mm = jnp.asarray(thickness_mm)
    mu = [linear_attenuation(each, spectrum.energies_kev) for each in MATERIALS]
    terms = [each.astype(thickness_mm.dtype) for each in (spectrum.weights, *mu)]

    @jax.checkpoint
    def add(passed: Array, at: list[Array]) -> tuple[Array, None]:
        weight, *mu_at = at
        tau = sum(mu_m * each for mu_m, each in zip(mu_at, thickness_mm, strict=True))
        return passed + weight * jnp.exp(-tau), None

    return jax.lax.scan(add, jnp.zeros_like(thickness_mm[0]), terms)[0]
