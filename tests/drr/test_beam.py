"""HU, attenuation and Beer-Lambert against their definitions."""

import jax.numpy as jnp
import numpy as np

from jxrecon.drr import beam
from jxrecon.units import MU_WATER_PER_MM


def test_water_and_air_have_their_defining_attenuation():
    mu = beam.hu_to_mu(jnp.array([0.0, -1000.0, 1000.0]))
    np.testing.assert_allclose(mu, [MU_WATER_PER_MM, 0.0, 2 * MU_WATER_PER_MM], rtol=1e-6)


def test_values_below_air_attenuate_like_air():
    assert beam.hu_to_mu(jnp.array([-1024.0, -3000.0])).tolist() == [0.0, 0.0]


def test_hu_survives_the_way_to_attenuation_and_back():
    hu = jnp.linspace(-1000.0, 3000.0, 17)
    np.testing.assert_allclose(beam.mu_to_hu(beam.hu_to_mu(hu)), hu, atol=2e-3)


def test_ten_centimetres_of_water_pass_e_to_the_minus_1_92():
    tau = beam.hu_to_mu(jnp.float32(0.0)) * 100.0
    np.testing.assert_allclose(beam.transmission(tau), 0.1466070, rtol=1e-5)


def test_absorption_keeps_precision_for_thin_objects():
    np.testing.assert_allclose(beam.absorption(jnp.float32(1e-8)), 1e-8, rtol=1e-6)


def test_line_integrals_of_inverts_transmission_down_to_its_floor():
    tau = jnp.linspace(0.0, 10.0, 11)
    np.testing.assert_allclose(beam.line_integrals_of(beam.transmission(tau)), tau, atol=2e-5)
    black = beam.line_integrals_of(jnp.array([0.0, -1.0]))
    np.testing.assert_allclose(black, -np.log(beam.LEAST_TRANSMISSION), rtol=1e-6)
