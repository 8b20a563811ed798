"""Correlation of derivatives: what it ignores, what it sees, and where it looks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.registration.similarity import (
    averaged,
    correlation,
    gradient_correlation,
    multiscale_gradient_correlation,
)

SIMILARITIES = (correlation, gradient_correlation, multiscale_gradient_correlation)


def picture(seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (32, 24))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_brightness_and_contrast_do_not_matter(similarity) -> None:
    a, b = picture(), picture() + 0.5 * picture(1)
    assert float(similarity(a, 3.0 * a + 7.0)) == pytest.approx(1.0, abs=1e-5)
    assert float(similarity(a, 2.0 - a)) == pytest.approx(-1.0, abs=1e-5)
    assert float(similarity(0.1 * a - 3.0, 5.0 * b)) == pytest.approx(
        float(similarity(a, b)), abs=1e-4
    )
    assert abs(float(similarity(a, picture(2)))) < 0.3


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_an_image_of_one_value_is_like_nothing_and_has_a_finite_gradient(similarity) -> None:
    value, gradient = jax.value_and_grad(similarity)(jnp.ones((16, 16)), picture()[:16, :16])
    assert abs(float(value)) < 1e-3
    assert np.isfinite(gradient).all()


def test_correlation_is_that_of_numpy() -> None:
    a, b = picture(), picture() + picture(1)
    expected = np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]
    assert float(correlation(a, b)) == pytest.approx(expected, abs=1e-5)


def test_gradient_correlation_is_the_mean_over_both_directions() -> None:
    a, b = np.asarray(picture()), np.asarray(picture() + picture(1))
    both = [
        np.corrcoef(np.diff(a, axis=n).ravel(), np.diff(b, axis=n).ravel())[0, 1] for n in (0, 1)
    ]
    assert float(gradient_correlation(a, b)) == pytest.approx(np.mean(both), abs=1e-5)


def test_slow_shading_hardly_matters_to_gradients() -> None:
    a = picture()
    shading = jnp.broadcast_to(0.3 * jnp.arange(24.0)[None], a.shape)
    assert float(correlation(a, a + shading)) < 0.6
    assert float(gradient_correlation(a, a + shading)) > 0.999


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_pixels_without_weight_are_not_looked_at(similarity) -> None:
    a = picture()
    weight = jnp.ones_like(a).at[:8].set(0.0)
    spoilt = a.at[:8].set(100.0 * picture(1)[:8])
    assert float(similarity(a, spoilt, weight)) == pytest.approx(1.0, abs=1e-5)
    assert float(similarity(a, spoilt)) < 0.9


def test_pyramid_sees_a_shift_that_single_pixels_do_not() -> None:
    row = jnp.arange(32, dtype=jnp.float32)[:, None]
    column = jnp.arange(32, dtype=jnp.float32)[None]

    def image(at: float, seed: int) -> jax.Array:
        blob = jnp.exp(-((row - 16) ** 2 + (column - at) ** 2) / 30)
        return blob + 0.3 * jax.random.normal(jax.random.key(seed), (32, 32))

    fine = float(gradient_correlation(image(16, 0), image(18, 1)))
    coarse = float(multiscale_gradient_correlation(image(16, 0), image(18, 1)))
    assert coarse > fine + 0.1


def test_averages_leave_out_what_fills_no_block() -> None:
    x = np.arange(35.0).reshape(5, 7)
    np.testing.assert_allclose(averaged(x, (2, 3))[0], [(0 + 1 + 2 + 7 + 8 + 9) / 6, 7.5])
    assert averaged(x, (2, 3)).shape == (2, 2)
