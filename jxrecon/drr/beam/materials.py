"""What matter absorbs at each photon energy, and how much water and bone a CT number stands for.

Mass attenuation coefficients mu/rho, cm^2/g: J. H. Hubbell and S. M. Seltzer, NIST Standard Reference
Database 126, https://physics.nist.gov/PhysRefData/XrayMassCoef/tab4.html (water, cortical bone
of ICRU Report 44) and .../tab3.html (aluminium). No absorption edge of these lies above 10 keV.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.beam.attenuation import Scalar
from jxrecon.types import InputError
from jxrecon.units import HU_AIR

TABLE_KEV = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
"""Photon energies of the tables in keV."""

REFERENCE_KEV = 70.85
"""The energy at which HU are read: there the table's water has `units.MU_WATER_PER_MM` (to 1e-5)."""

SOFT_TISSUE_HU = 100.0
"""HU from which on matter holds bone: skeletal tissue in W. Schneider et al., Phys Med Biol 45:459, 2000."""


class Material(NamedTuple):
    """A substance with its table.

    Attributes:
        density_g_cm3: its density in g/cm^3 (NIST SRD 126, tables 1 and 2).
        mass_attenuation_cm2_g: mu/rho in cm^2/g at each of `TABLE_KEV`.
    """

    density_g_cm3: float
    mass_attenuation_cm2_g: tuple[float, ...]


WATER = Material(
    1.0, (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505)
)
"""Water, liquid."""

CORTICAL_BONE = Material(
    1.92, (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480)
)
"""Bone, cortical (ICRU-44)."""

ALUMINIUM = Material(
    2.699, (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378)
)
"""Aluminium, the filter of X-ray tubes."""

MATERIALS = (WATER, CORTICAL_BONE)
"""What `split` splits HU into, in this order."""


def mass_attenuation(material: Material, kev: Float[Array, "*e"] | float) -> Float[Array, "*e"]:
    """mu/rho in cm^2/g: a cubic spline of log(mu/rho) over log(energy) through the table.

    Within 1.1e-3 of NIST XCOM for water between 20 and 30 keV, where straight lines in log-log would
    be 4 % too high. In an array, energies beyond the table count as its ends.

    Raises:
        InputError: a single energy, not traced, is beyond the table.
    """
    if isinstance(kev, int | float) and not TABLE_KEV[0] <= kev <= TABLE_KEV[-1]:
        raise InputError(
            f"photon energy is {kev:g} keV, expected {TABLE_KEV[0]:g} to {TABLE_KEV[-1]:g}"
        )
    from scipy.interpolate import CubicSpline  # takes a second to import, and few need it

    knots = np.log(TABLE_KEV)
    basis = jnp.asarray(CubicSpline(knots, np.eye(len(knots))).c, jnp.float32)
    table = jnp.log(jnp.asarray(material.mass_attenuation_cm2_g, jnp.float32))
    spline = jnp.matmul(basis, table, precision="highest")
    x = jnp.log(jnp.clip(jnp.asarray(kev, jnp.float32), TABLE_KEV[0], TABLE_KEV[-1]))
    starts = jnp.asarray(knots[:-1], jnp.float32)
    piece = jnp.clip(jnp.searchsorted(starts, x, side="right") - 1, 0, len(knots) - 2)
    cubic, square, slope, value = spline[:, piece]
    d = x - starts[piece]
    return jnp.exp(((cubic * d + square) * d + slope) * d + value)


def linear_attenuation(material: Material, kev: Float[Array, "*e"] | float) -> Float[Array, "*e"]:
    """Attenuation mu = (mu/rho) rho of the material at its own density, 1/mm."""
    return mass_attenuation(material, kev) * (material.density_g_cm3 / 10.0)  # 1/cm -> 1/mm


def split(
    hu: Float[Array | np.ndarray, "..."], reference_kev: float = REFERENCE_KEV
) -> Float[Array, "2 ..."]:
    """How much water and cortical bone each voxel holds, relative to the pure substance.

    Up to `SOFT_TISSUE_HU` it is water of some density, from the HU of cortical bone on (1,535 at
    70.85 keV) bone of some density, between them a mixture by volume of the two. Piecewise linear, and
    at the reference energy attenuation is what HU say: sum_m mu_m split_m = mu_water (1 + HU / 1000).

    Line integrals of the parts are millimetres of water and of cortical bone along the ray; the
    projector is linear, so they come from the one that projects mu.

    Args:
        hu: CT numbers; below air counts as air.
        reference_kev: effective energy of the CT that measured them.

    Returns:
        The parts in the order of `MATERIALS`, dimensionless, >= 0.
    """
    hu = jnp.maximum(jnp.asarray(hu), HU_AIR)
    water, bone = (linear_attenuation(each, reference_kev).astype(hu.dtype) for each in MATERIALS)
    bone_hu = 1000.0 * (bone / water - 1.0)
    mixed = jnp.clip((hu - SOFT_TISSUE_HU) / (bone_hu - SOFT_TISSUE_HU), 0.0, 1.0)
    part_water = (1.0 - mixed) * (1.0 + jnp.minimum(hu, SOFT_TISSUE_HU) / 1000.0)
    part_bone = jnp.where(hu > bone_hu, (1.0 + hu / 1000.0) * (water / bone), mixed)
    return jnp.stack([part_water, part_bone])


def hu_to_mu_at(hu: Float[Array | np.ndarray, "..."], kev: Scalar) -> Float[Array, "..."]:
    """Attenuation in 1/mm at another energy in keV than the CT's: sum_m mu_m(E) split_m(HU)."""
    water, bone = split(hu)
    at = [linear_attenuation(each, kev).astype(water.dtype) for each in MATERIALS]
    return at[0] * water + at[1] * bone
