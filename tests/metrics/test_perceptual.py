"""The gradient-SSIM distance: an SSIM equal to scikit-image's, and the properties of a distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from jxrecon.metrics.perceptual import gradient_ssim_distance, ssim

distance = jax.jit(gradient_ssim_distance)
slope = jax.jit(jax.grad(gradient_ssim_distance))


def radiograph(seed=0, shape=(24, 20)):
    noise = np.random.default_rng(seed).uniform(0, 1, shape)
    return jnp.asarray(5 * gaussian_filter(noise, 1.5), jnp.float32)


def test_ssim_equals_scikit_image():
    a, b = radiograph(0), radiograph(1)
    oracle = structural_similarity(np.float64(a), np.float64(b), data_range=3.0)
    assert float(jax.jit(ssim)(a, b, 3.0)) == pytest.approx(oracle, abs=1e-5)


def test_distance_is_zero_for_equal_images_and_positive_for_one_changed_pixel():
    a = radiograph()
    assert abs(float(distance(a, a))) < 1e-6
    for pixel in ((0, 0), (12, 10), (23, 19)):
        assert float(distance(a.at[pixel].add(0.1), a)) > 1e-4


def test_distance_grows_with_noise_blur_and_shift():
    b = radiograph()
    noise = jnp.asarray(np.random.default_rng(3).normal(size=b.shape), jnp.float32)
    noisy = [float(distance(b + s * noise, b)) for s in (0.01, 0.05, 0.2)]
    blurred = [float(distance(jnp.asarray(gaussian_filter(b, s)), b)) for s in (0.5, 1.0, 2.0)]
    shifted = [float(distance(jnp.roll(b, s, axis=1), b)) for s in (1, 2, 3)]
    for values in (noisy, blurred, shifted):
        assert values == sorted(values)
        assert values[0] > 1e-3


def test_distance_does_not_depend_on_the_unit():
    a, b = radiograph(0), radiograph(1)
    assert float(distance(40 * a, 40 * b)) == pytest.approx(float(distance(a, b)), rel=1e-4)


def test_a_batch_gives_one_distance_an_image():
    a, b = (jnp.stack([radiograph(s), radiograph(s + 1)]) for s in (0, 5))
    single = [float(distance(x, y)) for x, y in zip(a, b)]
    np.testing.assert_allclose(distance(a, b), single, rtol=1e-5)


def test_gradient_matches_finite_differences():
    a, b = radiograph(0), radiograph(1)
    direction = jnp.asarray(np.random.default_rng(2).normal(size=a.shape), jnp.float32)
    gradient = float(jnp.vdot(slope(a, b), direction))
    step = 1e-3
    numeric = (distance(a + step * direction, b) - distance(a - step * direction, b)) / (2 * step)
    assert gradient == pytest.approx(float(numeric), rel=2e-2)


def test_descent_leads_from_noise_to_the_target():
    b = radiograph(0)
    start = a = radiograph(1)
    for step in range(300):
        g = slope(a, b)
        a = a - 0.1 * (1 - step / 300) * g / jnp.maximum(jnp.linalg.norm(g), 1e-6)
    assert float(distance(a, b)) < 0.3 * float(distance(start, b))
    assert float(jnp.abs(a - b).mean()) < 0.5 * float(jnp.abs(start - b).mean())


def test_gradient_is_finite_for_equal_flat_and_tiny_images():
    for image in (radiograph(), jnp.zeros((24, 20)), jnp.full((24, 20), 3.0), jnp.ones((3, 2))):
        assert bool(jnp.isfinite(slope(image, image)).all())
        assert bool(jnp.isfinite(slope(image + 0.1, image)).all())
