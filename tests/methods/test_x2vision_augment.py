"""Augmentation: nothing at p = 0, rigid and linear where it should be, differentiable twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.methods.volumes.x2vision.augment import Strengths, adjust, augment

# Compile quickly: each function here runs a few times on tiny volumes.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

NONE = Strengths(0.0, 0.0, 0.0, 0.0, 0.0)
SHAPE = (4, 8, 6, 10, 1)


def volumes(seed=0, shape=SHAPE):
    draw = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(draw, jnp.float32)


@pytest.fixture(scope="module")
def augmented():
    return jit(augment, static_argnames="spacing_mm")  # strengths are traced: few compilations


def test_probability_zero_leaves_every_voxel_as_it_was(augmented):
    x = volumes()
    np.testing.assert_array_equal(augmented(jax.random.key(0), x, 0.0), x)


def test_without_strength_volumes_are_only_flipped_left_to_right(augmented):
    x = volumes()
    same, mirrored = [], []
    for seed in range(16):
        y = np.asarray(augmented(jax.random.key(seed), x, 1.0, strengths=NONE))
        same += [np.allclose(a, b, atol=1e-6) for a, b in zip(y, np.asarray(x))]
        mirrored += [np.allclose(a, b[::-1], atol=1e-6) for a, b in zip(y, np.asarray(x))]
    assert all(a != b for a, b in zip(same, mirrored))
    assert 20 < sum(mirrored) < 44  # half of 64, within 3 standard deviations


def test_translation_is_by_whole_voxels_and_air_moves_in(augmented):
    x = volumes() + 10.0
    y = np.asarray(augmented(jax.random.key(2), x, 1.0, strengths=NONE._replace(translation=0.3)))
    for sample, original in zip(y, np.asarray(x)):
        inside = sample[sample != -1.0]
        assert np.isin(inside, original).all()
        assert inside.size >= 0.3 * original.size
    assert (y == -1.0).any()


def test_contrast_scales_and_brightness_shifts_all_voxels_of_a_volume_alike(augmented):
    x = volumes()
    y = augmented(
        jax.random.key(3), x, 1.0, strengths=NONE._replace(brightness_std=0.2, contrast_std=0.5)
    )
    for a, b in zip(np.asarray(y), np.asarray(x)):
        b = b if np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9 else b[::-1]
        slope, offset = np.polyfit(b.ravel(), a.ravel(), 1)
        assert abs(slope - 1) > 1e-3
        np.testing.assert_allclose(a, slope * b + offset, atol=1e-4)


def test_rotation_keeps_a_ball_in_millimetres_a_ball(augmented):
    spacing = (2.0, 1.0, 1.0)
    grid = np.stack(np.meshgrid(*map(np.arange, (16, 32, 32)), indexing="ij"), -1)
    radius = np.linalg.norm((grid - np.array([7.5, 15.5, 15.5])) * spacing, axis=-1)
    ball = np.tanh((10 - radius) / 3)[None, ..., None].astype(np.float32).repeat(2, 0)
    rotate = NONE._replace(rotation_std_deg=40.0)
    y = augmented(jax.random.key(4), jnp.asarray(ball), 1.0, strengths=rotate, spacing_mm=spacing)
    assert np.abs(y - ball).max() < 0.1  # of 2, from interpolation
    wrong = augmented(jax.random.key(4), jnp.asarray(ball), 1.0, strengths=rotate)
    assert np.abs(wrong - ball).max() > 0.3


def test_augmentation_is_affine_in_the_volume_and_has_second_derivatives():
    key, x, probe = jax.random.key(5), volumes(), volumes(1)

    def slope(x):
        return jax.grad(lambda x: jnp.sum(augment(key, x, 0.8) ** 2 * probe))(x)

    @jit
    def both(x):
        along = jax.grad(lambda x: jnp.vdot(slope(x), probe))(x)
        return slope(x + probe) - slope(x), along

    difference, along = both(x)  # the gradient of a quadratic is affine
    np.testing.assert_allclose(difference, along, rtol=1e-3, atol=1e-3)
    assert jnp.any(along != 0)


def test_probability_rises_above_the_target_by_one_in_500_thousand_images_and_stays_in_0_1():
    p = jnp.float32(0.5)
    np.testing.assert_allclose(adjust(p, jnp.float32(0.9), 5000), 0.51, rtol=1e-6)
    np.testing.assert_allclose(adjust(p, jnp.float32(0.1), 5000), 0.49, rtol=1e-6)
    assert adjust(jnp.float32(0.0), jnp.float32(0.1), 5000) == 0.0
    assert adjust(jnp.float32(1.0), jnp.float32(0.9), 5000) == 1.0
