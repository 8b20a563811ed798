"""Scatter, blur, noise, response and their chain: what each keeps, adds and leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.drr import beam
from jxrecon.types import InputError

KEY = jax.random.key(3)
MM = (0.5, 0.25)
BLURRED = jax.jit(beam.blurred, static_argnums=2)
KRAMERS = jax.jit(beam.kramers)
SCATTERED = jax.jit(beam.scattered, static_argnums=3)


@pytest.fixture(scope="module")
def tau():
    """Line integrals of a ball: air around 20 cm of water."""
    r, c = np.meshgrid(np.linspace(-1.4, 1.4, 24), np.linspace(-1.4, 1.4, 32), indexing="ij")
    return jnp.asarray(3.84 * np.sqrt((1 - r**2 - c**2).clip(0)), jnp.float32)


def test_blur_spreads_a_point_with_the_stated_width_and_keeps_the_sum():
    point = jnp.zeros((61, 101)).at[30, 50].set(1.0)
    spread = np.asarray(BLURRED(point, 1.5, MM), np.float64)  # 3 rows, 6 columns
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert spread.min() > -1e-6
    for axis, (places, pitch) in enumerate(zip(((np.arange(61) - 30), (np.arange(101) - 50)), MM)):
        profile = spread.sum(1 - axis)
        width = np.sqrt((profile * (places * pitch) ** 2).sum())
        assert width == pytest.approx(1.5, rel=1e-2)
        # The full width at half maximum of a Gaussian is 2.355 sigma.
        half = profile.max() / 2
        right = np.interp(-half, -profile[places >= 0], places[places >= 0]) * pitch
        assert 2 * right == pytest.approx(2.355 * 1.5, rel=3e-2)


@pytest.mark.parametrize("sigma", [0.1, 0.4, 3.0, 1000.0])
def test_blur_of_any_width_keeps_sum_uniform_fields_and_sign(sigma, tau):
    image = beam.transmission(tau)
    soft = BLURRED(image, sigma, MM)
    assert float(soft.sum()) == pytest.approx(float(image.sum()), rel=1e-5)
    assert float(soft.min()) > float(image.min()) - 1e-5
    assert float(soft.max()) < float(image.max()) + 1e-5
    np.testing.assert_allclose(BLURRED(jnp.ones_like(tau), sigma, MM), 1.0, atol=1e-5)


def test_blur_of_no_width_is_none_and_of_two_widths_is_their_root_of_squares(tau):
    np.testing.assert_allclose(BLURRED(tau, 0.0, MM), tau, atol=1e-5)
    twice = BLURRED(BLURRED(tau, 0.3, MM), 0.4, MM)
    np.testing.assert_allclose(twice, BLURRED(tau, 0.5, MM), atol=1e-5)


def test_mtf_of_a_blur_wider_than_a_pixel_is_gaussian():
    sigma, waves = 2.0, 6
    x = (np.arange(96) + 0.5) * 1.0
    image = jnp.asarray(np.cos(2 * np.pi * waves * x / 96)[None].repeat(4, 0), jnp.float32)
    passed = BLURRED(image, sigma, (1.0, 1.0))
    found = float((passed * image).sum() / (image * image).sum())
    assert found == pytest.approx(np.exp(-2 * (np.pi * sigma * waves / 96) ** 2), rel=1e-2)


def test_scatter_to_primary_ratio_is_the_stated_one_behind_a_thick_body_and_none_in_air():
    for passed in (1e-3, 0.4, 1.0):
        primary = jnp.full((24, 32), passed)
        ratio = SCATTERED(primary, 2.5, 4.0, MM) / primary
        np.testing.assert_allclose(ratio, 2.5 * (1 - passed), rtol=1e-4, atol=1e-6)


def test_scatter_is_broad_and_its_sum_is_that_of_its_source(tau):
    primary = beam.transmission(tau)
    scatter = SCATTERED(primary, 2.0, 3.0, MM)
    assert float(scatter.sum()) == pytest.approx(
        float(2 * (primary * (1 - primary)).sum()), rel=1e-4
    )
    assert float(scatter.std() / scatter.mean()) < 0.3 < float(primary.std() / primary.mean())


def test_scatter_hides_what_is_dense(tau):
    settings = beam.Settings(scatter_ratio=1.0, scatter_mm=3.0, pixel_mm=MM)
    seen = beam.radiograph(tau, None, settings)
    assert float(seen[12, 16]) < float(tau[12, 16]) - 0.5


@pytest.mark.parametrize("noise", [beam.poisson_noise, beam.gaussian_noise])
def test_noise_has_the_mean_and_variance_of_its_photons(noise):
    passed, dose, electronic, n = 0.3, 200.0, 5.0, 40_000
    seen = np.asarray(noise(KEY, jnp.full(n, passed), dose, electronic), np.float64) * dose
    variance = passed * dose + electronic**2  # 60 photons and the read-out: 85
    assert seen.mean() == pytest.approx(60.0, abs=4 * np.sqrt(variance / n))
    assert seen.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / n))


def test_poisson_counts_are_whole_photons_and_follow_their_distribution():
    counts = np.asarray(beam.poisson_noise(KEY, jnp.full(40_000, 0.02), 100.0)) * 100
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    for k, probability in enumerate((0.13534, 0.27067, 0.27067, 0.18045)):  # of Poisson(2)
        error = 4 * np.sqrt(probability / 40_000)
        assert (np.rint(counts) == k).mean() == pytest.approx(probability, abs=error)


def test_noise_falls_with_the_root_of_the_dose():
    flat = jnp.ones(40_000)
    few, many = (float(beam.poisson_noise(KEY, flat, dose).std()) for dose in (1e2, 1e4))
    assert few / many == pytest.approx(10, rel=0.05)


def test_response_saturates_and_its_correction_gives_the_signal_back():
    response = beam.Response(gain=1000.0, offset=50.0, saturation=850.0)
    signal = jnp.array([0.0, 0.5, 0.8, 1.0])
    np.testing.assert_allclose(response.reading(signal), [50, 550, 850, 850])
    np.testing.assert_allclose(response.corrected(response.reading(signal)), [0, 0.5, 0.8, 0.8])


def test_chain_with_every_stage_off_changes_nothing(tau):
    assert beam.radiograph(tau, KEY, beam.Settings()) is tau


def test_each_stage_of_no_strength_leaves_the_line_integrals(tau):
    for settings in (
        beam.Settings(scatter_ratio=0.0, pixel_mm=MM),
        beam.Settings(blur_mm=0.0, pixel_mm=MM),
        beam.Settings(dose=1e30, noise=beam.gaussian_noise),
        beam.Settings(response=beam.Response(1000.0, 50.0)),
    ):
        np.testing.assert_allclose(beam.radiograph(tau, KEY, settings), tau, rtol=1e-3, atol=1e-5)


def test_chain_at_the_energy_of_the_ct_is_the_plain_pipeline(tau):
    water_mm = tau / beam.hu_to_mu(jnp.float32(0.0))
    through = jnp.stack([water_mm, jnp.zeros_like(tau)])
    settings = beam.Settings(spectrum=beam.monochromatic(beam.REFERENCE_KEV))
    np.testing.assert_allclose(beam.radiograph(through, None, settings), tau, rtol=5e-5, atol=1e-6)


def test_chain_is_its_stages_in_order(tau):
    through = jnp.stack([tau * 50.0, tau])
    spectrum, response = KRAMERS(90.0), beam.Response(2.0, 1.0, 3.1)
    settings = beam.Settings(
        spectrum=spectrum,
        scatter_ratio=0.5,
        scatter_mm=2.0,
        blur_mm=0.6,
        pixel_mm=MM,
        dose=500.0,
        electronic=2.0,
        noise=beam.gaussian_noise,
        response=response,
        floor=1e-3,
    )

    @jax.jit
    def by_stages(through):
        signal = beam.polychromatic_transmission(through, spectrum)
        signal = signal + beam.scattered(signal, 0.5, 2.0, MM)
        signal = beam.gaussian_noise(KEY, beam.blurred(signal, 0.6, MM), 500.0, 2.0)
        return beam.line_integrals_of(response.corrected(response.reading(signal)), 1e-3)

    found = jax.jit(lambda through, key: beam.radiograph(through, key, settings))(through, KEY)
    np.testing.assert_allclose(found, by_stages(through), atol=1e-3)
    assert float(found.max()) <= -np.log(1e-3) + 1e-5
    assert float(found.min()) == pytest.approx(-np.log(1.05), abs=1e-5)  # saturated: (3.1 - 1) / 2


def test_gradients_through_the_chain_are_finite_also_where_no_photon_passes(tau):
    black = tau.at[12, 16].set(200.0)

    @jax.jit
    @jax.grad
    def slope(numbers):
        settings = beam.Settings(
            spectrum=beam.kramers(numbers["kvp"]),
            scatter_ratio=numbers["ratio"],
            blur_mm=numbers["blur"],
            pixel_mm=MM,
            dose=numbers["dose"],
            noise=beam.gaussian_noise,
            response=beam.Response(saturation=1.1),
        )
        through = jnp.stack([numbers["tau"] * 50.0, numbers["tau"]])
        return beam.radiograph(through, KEY, settings).mean()

    at = {"tau": black, "kvp": 90.0, "ratio": 0.5, "blur": 0.3, "dose": 1e4}
    slopes = slope({name: jnp.asarray(value, jnp.float32) for name, value in at.items()})
    assert all(bool(jnp.isfinite(each).all()) for each in slopes.values())
    assert float(slopes["ratio"]) < 0 < float(slopes["tau"][12, 20])
    assert float(slopes["kvp"]) < 0  # harder photons pass more easily


def test_vmap_over_exposures_is_a_loop(tau):
    settings = beam.Settings(dose=100.0, noise=beam.gaussian_noise, blur_mm=0.3, pixel_mm=MM)
    keys = jax.random.split(KEY, 2)

    def expose(image, key):
        return beam.radiograph(image, key, settings)

    found = jax.jit(jax.vmap(expose))(jnp.stack([tau, 0.5 * tau]), keys)
    expected = [jax.jit(expose)(a * tau, key) for a, key in zip((1.0, 0.5), keys)]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("axes", "settings", "expected"),
    [
        (2, beam.Settings(blur_mm=1.0), "expected the detector's pitch"),
        (2, beam.Settings(scatter_ratio=1.0), "expected the detector's pitch"),
        (2, beam.Settings(dose=100.0), "expected a JAX random key"),
        (2, beam.Settings(spectrum=beam.monochromatic(60.0)), "expected [material, rows, columns]"),
        (3, beam.Settings(), "expected [rows, columns]"),
    ],
)
def test_settings_that_do_not_fit_are_named(axes, settings, expected):
    with pytest.raises(InputError) as error:
        beam.radiograph(jnp.zeros((2, 4, 4)[3 - axes :]), None, settings)
    assert expected in str(error.value)
