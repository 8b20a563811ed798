"""Materials, spectra and polychromatic transmission against NIST numbers and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.drr import beam
from jxrecon.types import InputError
from jxrecon.units import MU_WATER_PER_MM

KRAMERS, PASSED = jax.jit(beam.kramers), jax.jit(beam.polychromatic_transmission)
MASS, LINEAR = jax.jit(beam.mass_attenuation), jax.jit(beam.linear_attenuation)
SPLIT, MU_AT = jax.jit(beam.split), jax.jit(beam.hu_to_mu_at)


def _through(water_mm, bone_mm=0.0):
    return jnp.stack(jnp.broadcast_arrays(jnp.float32(water_mm), jnp.float32(bone_mm)))


def _tau(through, spectrum):
    return -jnp.log(PASSED(through, spectrum))


@pytest.mark.parametrize(
    ("material", "kev", "expected"),
    [  # NIST SRD 126, cm^2/g
        (beam.WATER, 30.0, 0.3756),
        (beam.WATER, 150.0, 0.1505),
        (beam.CORTICAL_BONE, 40.0, 0.6655),
        (beam.CORTICAL_BONE, 80.0, 0.2229),
        (beam.ALUMINIUM, 10.0, 26.23),
        (beam.ALUMINIUM, 60.0, 0.2778),
    ],
)
def test_mass_attenuation_is_nists_at_the_tables_energies(material, kev, expected):
    np.testing.assert_allclose(MASS(material, kev), expected, rtol=1e-5)


def test_mass_attenuation_between_the_tables_energies_is_xcoms():
    kev = jnp.array([22.0, 25.0, 28.0, 70.0])  # none of them in the table
    xcom = [0.6557, 0.5082, 0.4175, 0.1929]
    np.testing.assert_allclose(MASS(beam.WATER, kev), xcom, rtol=1.5e-3)


def test_linear_attenuation_is_per_millimetre_at_the_materials_density():
    bone = LINEAR(beam.CORTICAL_BONE, 60.0)
    np.testing.assert_allclose(bone, 0.3148 * 1.92 / 10, rtol=1e-5)
    water = LINEAR(beam.WATER, beam.REFERENCE_KEV)
    np.testing.assert_allclose(water, MU_WATER_PER_MM, rtol=2e-5)


def test_bilinear_attenuation_is_that_of_hu_up_to_water_and_the_stated_bone_at_its_hu():
    low = jnp.array([-3000.0, -1000.0, -500.0, 0.0])
    np.testing.assert_allclose(beam.hu_to_mu_bilinear(low), beam.hu_to_mu(low), rtol=1e-7)
    high = beam.hu_to_mu_bilinear(jnp.array([500.0, 1000.0, 2000.0]))
    np.testing.assert_allclose(
        high, [0.03825, 0.0573, 0.0954], rtol=1e-5
    )  # 0.0192 + 0.0381 HU/1000


def test_split_parts_attenuate_as_hu_say_at_the_energy_of_the_ct():
    hu = jnp.linspace(-1500.0, 4000.0, 111)
    found = MU_AT(hu, beam.REFERENCE_KEV)
    np.testing.assert_allclose(found, beam.hu_to_mu(hu), rtol=3e-5, atol=1e-9)


def test_split_finds_pure_water_pure_bone_and_halves():
    water, bone = (LINEAR(m, beam.REFERENCE_KEV) for m in beam.MATERIALS)
    bone_hu = float(1000 * (bone / water - 1))
    assert bone_hu == pytest.approx(1535, abs=1)
    hu = jnp.array([-1000.0, -500.0, 0.0, 100.0, (100 + bone_hu) / 2, bone_hu])
    expected = [[0, 0.5, 1, 1.1, 0.55, 0], [0, 0, 0, 0, 0.5, 1]]
    np.testing.assert_allclose(SPLIT(hu), expected, atol=2e-6)
    denser = SPLIT(jnp.float32(2 * (1000 + bone_hu) - 1000))  # absorbs twice as much
    np.testing.assert_allclose(denser, [0, 2], atol=2e-6)


def test_softer_x_rays_see_bone_more_than_water():
    def bone_over_water(kev):
        water, bone = MU_AT(jnp.array([0.0, 1200.0]), kev)
        return float(bone / water)

    assert bone_over_water(40.0) > bone_over_water(60.0) > 2.2 > bone_over_water(100.0) > 1.2


def test_kramers_spectrum_is_the_formula():
    spectrum = KRAMERS(100.0, 0.0)
    energies, weights = np.asarray(spectrum.energies_kev), np.asarray(spectrum.weights)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert (weights[energies > 100] == 0).all()
    at = {float(e): float(w) for e, w in zip(energies, weights)}
    assert at[25.0] / at[75.0] == pytest.approx(9.0, rel=1e-5)  # (4 - 1) / (4/3 - 1)
    filtered = KRAMERS(100.0, 3.0).weights / spectrum.weights.clip(1e-9)
    soft, hard = (float(filtered[list(at).index(kev)]) for kev in (25.0, 75.0))
    aluminium = LINEAR(beam.ALUMINIUM, jnp.array([25.0, 75.0]))
    assert soft / hard == pytest.approx(
        float(jnp.exp(-3.0 * (aluminium[0] - aluminium[1]))), rel=1e-4
    )


def test_voltage_filter_and_energy_integration_each_harden_the_spectrum():
    means = [float(KRAMERS(kvp).mean_kev) for kvp in (60.0, 90.0, 120.0, 150.0)]
    assert means == sorted(means)
    assert means[2] == pytest.approx(50.6, abs=0.1)
    assert float(KRAMERS(120.0, 5.0).mean_kev) > means[2]
    weighed = beam.energy_integrating(KRAMERS(120.0))
    assert float(weighed.weights.sum()) == pytest.approx(1, abs=1e-6)
    assert float(weighed.mean_kev) > means[2]


def test_one_energy_is_beer_lambert_to_the_bit():
    water_mm = jnp.linspace(0.0, 400.0, 9)
    mu = beam.linear_attenuation(beam.WATER, jnp.array([60.0]))[0]
    found = beam.polychromatic_transmission(_through(water_mm), beam.monochromatic(60.0))
    np.testing.assert_array_equal(found, beam.transmission(mu * water_mm))


def test_two_energies_are_the_sum_worked_by_hand():
    spectrum = beam.Spectrum(jnp.array([40.0, 80.0]), jnp.array([0.25, 0.75]))
    found = PASSED(_through(100.0, 10.0), spectrum)
    # 0.25 exp(-(2.683 + 1.27776)) + 0.75 exp(-(1.837 + 0.427968))
    assert float(found) == pytest.approx(
        0.25 * np.exp(-3.96076) + 0.75 * np.exp(-2.264968), rel=2e-5
    )


def test_the_beam_hardens_with_thickness():
    water_mm = jnp.array([1.0, 10.0, 50.0, 100.0, 200.0, 400.0])
    effective = _tau(_through(water_mm), KRAMERS(120.0)) / water_mm
    assert (jnp.diff(effective) < 0).all()
    assert float(effective[0] / effective[-1]) > 1.2
    behind_bone = _tau(_through(100.0, 30.0), KRAMERS(120.0))
    apart = _tau(_through(100.0), KRAMERS(120.0)) + _tau(_through(0.0, 30.0), KRAMERS(120.0))
    assert float(behind_bone) < float(apart) - 0.1


def test_nothing_in_the_way_lets_all_pass():
    assert float(PASSED(_through(0.0), KRAMERS(80.0))) == (pytest.approx(1, abs=1e-6))


def test_gradients_of_thickness_and_voltage_are_central_differences():
    def tau(water, kvp):
        return _tau(_through(water, 5.0), KRAMERS(kvp))

    by_water, by_kvp = jax.jit(jax.grad(tau, argnums=(0, 1)))(150.0, 101.5)
    for found, low, high, step in (
        (by_water, tau(149.0, 101.5), tau(151.0, 101.5), 2.0),
        (by_kvp, tau(150.0, 101.3), tau(150.0, 101.7), 0.4),
    ):
        assert float(found) == pytest.approx(float((high - low) / step), rel=1e-2)


def test_energies_and_voltages_without_numbers_are_named():
    with pytest.raises(InputError, match="photon energy is 300 keV, expected 10 to 150"):
        beam.linear_attenuation(beam.WATER, 300.0)
    with pytest.raises(InputError, match="tube voltage is 5 kV, expected 20 to 150"):
        beam.kramers(5)


def test_vmap_over_spectra_is_a_loop():
    volts = jnp.array([70.0, 140.0])
    through = _through(jnp.array([0.0, 100.0, 200.0]))

    def passed(kvp):
        return PASSED(through, KRAMERS(kvp))

    np.testing.assert_allclose(
        jax.jit(jax.vmap(passed))(volts), [passed(70.0), passed(140.0)], rtol=2e-6
    )
