"""Features at projected vertices: exact where they should be, aligned between sizes, finite outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jxrecon.nn.perceptual_pooling import at_level, bilinear, pool

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_sampling_is_linear_interpolation_with_the_border_outside():
    random = np.random.default_rng(0)
    features = random.normal(size=(5, 7, 2)).astype(np.float32)
    place = random.uniform(-2, 8, (30, 2)).astype(np.float32)
    place[0], place[1], place[2] = (4, 6), (0, 0), (2, 3)
    found = jit(bilinear)(jnp.asarray(features)[None], jnp.asarray(place)[None])[0]
    for channel in range(2):
        expected = map_coordinates(features[..., channel], place.T, order=1, mode="nearest")
        np.testing.assert_allclose(found[:, channel], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[:3], features[[4, 0, 2], [6, 0, 3]])


def test_a_place_means_the_same_at_every_level():
    # A ramp, and its averages over 2 x 2 and 4 x 4 pixels.
    ramp = np.arange(16.0)[None, :, None, None] + 100 * np.arange(16.0)[None, None, :, None]
    levels = [ramp.astype(np.float32)]
    for _ in range(2):
        r = levels[-1].shape[1] // 2
        levels.append(levels[-1].reshape(1, r, 2, r, 2, 1).mean((2, 4)))
    place = jnp.array([[[5.0, 6.25], [8.5, 3.0]]])
    found = jit(lambda levels, place: pool(levels, place, (16, 16)))(levels, place)[0]
    np.testing.assert_allclose(found, [[630.0] * 3, [308.5] * 3], rtol=1e-6)
    assert at_level(place, (16, 16), (8, 8))[0, 0, 0] == pytest.approx(2.25)
