"""The objective of the latent optimiser: each term by hand, its gradient at the start, and descent."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.methods.volumes.x2vision import latent
from jxrecon.methods.volumes.x2vision.latent import Latents, LatentSettings


def _random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture
def statistics():
    mixed = _random(0, 400, 5) @ _random(1, 5, 5)
    return latent.w_statistics(mixed + _random(2, 1, 5))


def test_statistics_are_mean_deviation_and_principal_directions(statistics):
    ws = np.asarray(_random(0, 400, 5) @ _random(1, 5, 5) + _random(2, 1, 5), np.float64)
    np.testing.assert_allclose(statistics.mean, ws.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics.std, ws.std(0), rtol=1e-4)
    axes, scales = np.asarray(statistics.axes), np.asarray(statistics.scales)
    covariance = (axes * scales**2) @ axes.T
    np.testing.assert_allclose(covariance, np.cov(ws.T, bias=True), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-5)


def test_a_direction_without_variance_keeps_a_floor():
    ws = _random(3, 50, 3) * jnp.asarray([[1.0, 2.0, 0.0]])
    statistics = latent.w_statistics(ws)
    assert float(statistics.std.min()) > 0
    assert float(statistics.scales.min()) == pytest.approx(
        1e-3 * float(statistics.scales.max()), rel=1e-5
    )


def test_style_likelihood_is_the_gaussians_exponent(statistics):
    ws = _random(2, 2, 3, 5)
    z = (np.asarray(ws) - np.asarray(statistics.mean)) / np.asarray(statistics.std)
    found = latent.style_likelihood(ws, statistics, "elementwise")
    np.testing.assert_allclose(found, 0.5 * (z**2).sum((1, 2)), rtol=1e-5)


def test_scalar_sigma_is_the_root_of_the_summed_variances(statistics):
    ws = _random(3, 2, 3, 5)
    variance = float((np.asarray(statistics.std) ** 2).sum())
    expected = 0.5 * ((np.asarray(ws) - np.asarray(statistics.mean)) ** 2).sum((1, 2)) / variance
    found = latent.style_likelihood(ws, statistics, "scalar")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_style_likelihood_equals_scipys_density_up_to_its_constant(statistics):
    from scipy.stats import norm

    a, b = _random(4, 1, 2, 5), _random(5, 1, 2, 5)
    density = norm(np.asarray(statistics.mean), np.asarray(statistics.std))
    expected = -density.logpdf(np.asarray(a)).sum() + density.logpdf(np.asarray(b)).sum()
    found = [latent.style_likelihood(ws, statistics, "elementwise")[0] for ws in (a, b)]
    assert float(found[0] - found[1]) == pytest.approx(expected, rel=1e-4)


def test_style_coherence_equals_the_von_mises_density_up_to_its_constant():
    from scipy.stats import vonmises

    ws = np.asarray(_random(6, 1, 4, 5), np.float64)
    unit = ws[0] / np.linalg.norm(ws[0], axis=1, keepdims=True)
    angles = [np.arccos(unit[i] @ unit[j]) for i in range(4) for j in range(i + 1, 4)]
    kappa = 1.7
    constant = 6 * np.log(2 * np.pi * np.i0(kappa))
    expected = -vonmises(kappa).logpdf(angles).sum() - constant
    found = latent.style_coherence(jnp.asarray(ws, jnp.float32), kappa)
    assert float(found[0]) == pytest.approx(expected, rel=1e-4)


def test_style_coherence_has_a_finite_gradient_where_all_styles_are_equal():
    ws = jnp.repeat(_random(7, 1, 1, 5), 4, axis=1)
    gradient = jax.grad(lambda w: jnp.sum(latent.style_coherence(w, 1.0)))(ws)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)  # equal styles are its minimum
    assert float(latent.style_coherence(ws, 1.0)[0]) == pytest.approx(-6.0, rel=1e-5)


def test_noise_likelihood_sums_over_every_map():
    noise = (_random(8, 2, 3, 4, 1), _random(9, 2, 5, 1, 1))
    expected = sum(0.5 * (np.asarray(n) ** 2).reshape(2, -1).sum(1) for n in noise)
    np.testing.assert_allclose(latent.noise_likelihood(noise), expected, rtol=1e-5)


def test_image_distance_is_a_norm_summed_over_views():
    a, b = _random(10, 2, 3, 4), _random(11, 2, 3, 4)
    expected = np.linalg.norm((np.asarray(a) - np.asarray(b)).reshape(2, -1), axis=1)
    found = latent.image_distance((a, b), (b, a))
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-5)


def test_the_papers_weights_are_the_defaults():
    settings = LatentSettings()
    weights = (settings.lambda_w, settings.lambda_c, settings.lambda_n, settings.kappa)
    assert weights == (0.1, 0.05, 10.0, 1.0)


def test_the_total_is_the_weighted_sum_of_its_terms(statistics):
    settings = LatentSettings()
    latents = Latents(_random(12, 2, 3, 5), (_random(13, 2, 4, 1),))
    images = (_random(14, 2, 16, 16), _random(15, 2, 16, 16))
    total, terms = latent.objective(
        latents, images, lambda _: tuple(0.5 * i for i in images), statistics, settings
    )
    weights = {"L_2": 10.0, "L_p": 0.1, "L_w": 0.1, "L_c": 0.05, "L_n": 10.0}
    expected = sum(weights[name] * np.asarray(terms[name]) for name in weights)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_array_equal(total, terms["total"])


def _linear_world():
    """A generator that is linear in w, so that the inversion has a known answer."""
    matrix = _random(16, 3 * 5, 16 * 16) / 4.0

    def project(latents):
        flat = latents.ws.reshape(latents.ws.shape[0], -1) @ matrix
        return (flat.reshape(-1, 16, 16),)

    return project


def test_inversion_descends_to_the_latents_behind_the_images(statistics):
    project = _linear_world()
    target = Latents(
        statistics.mean[None, None] + 0.5 * _random(17, 2, 3, 5), (jnp.zeros((2, 4, 1)),)
    )
    start = Latents(
        jnp.broadcast_to(statistics.mean[None, None], (2, 3, 5)), (jnp.zeros((2, 4, 1)),)
    )
    settings = LatentSettings(iterations=200, learning_rate=0.05)
    images = project(target)
    found = jax.jit(lambda s: latent.invert(s, images, project, statistics, settings))(start)
    before = latent.image_distance(project(start), images)
    after = latent.image_distance(project(found.latents), images)
    assert (np.asarray(after) < 0.02 * np.asarray(before)).all()
    np.testing.assert_allclose(found.latents.ws, target.ws, atol=0.05)


def test_inversion_returns_the_lowest_total_it_saw_and_members_are_independent(statistics):
    project = _linear_world()
    target = Latents(_random(18, 2, 3, 5), (jnp.zeros((2, 4, 1)),))
    start = Latents(_random(19, 2, 3, 5), (jnp.zeros((2, 4, 1)),))
    settings = LatentSettings(iterations=20, learning_rate=0.3)
    images = project(target)
    both = latent.invert(start, images, project, statistics, settings)
    np.testing.assert_allclose(both.objective, both.trace["total"].min(axis=0), rtol=1e-6)
    one = latent.invert(
        jax.tree.map(lambda a: a[1:], start),
        tuple(i[1:] for i in images),
        project,
        statistics,
        settings,
    )
    np.testing.assert_allclose(one.latents.ws[0], both.latents.ws[1], rtol=1e-4, atol=1e-5)


def test_progress_reports_a_falling_objective(statistics):
    project = _linear_world()
    start = Latents(_random(20, 1, 3, 5), (jnp.zeros((1, 4, 1)),))
    images = project(Latents(_random(21, 1, 3, 5), ()))
    seen = []
    latent.invert(
        start,
        images,
        project,
        statistics,
        LatentSettings(iterations=40),
        progress=lambda i, lowest: seen.append((int(i), float(lowest))),
    )
    jax.effects_barrier()
    assert [i for i, _ in seen] == list(range(0, 40, 2))
    assert all(a >= b for (_, a), (_, b) in pairwise(seen))
