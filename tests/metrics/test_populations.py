"""Distances of populations against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.metrics import populations
from jxrecon.metrics.lpips import features

KEY = jax.random.key(0)


def test_a_shift_is_its_own_sliced_wasserstein_distance():
    a = jnp.asarray(np.random.default_rng(0).normal(size=(5, 40, 10)), jnp.float32)
    found = populations.sliced_wasserstein(a, a + 3.0, KEY, slices=2000)
    assert float(found) == pytest.approx(3.0, rel=0.05)
    assert float(populations.sliced_wasserstein(a, a[::-1], KEY)) == pytest.approx(0.0, abs=1e-6)


def test_populations_of_unlike_sizes_are_compared_by_quantiles():
    a = jnp.asarray(np.random.default_rng(0).normal(size=(4, 30)), jnp.float32)
    twice = jnp.repeat(a, 2, axis=0)
    near = float(populations.sliced_wasserstein(a, twice, KEY))
    assert near < 0.5 * float(populations.sliced_wasserstein(a, 2.0 * a, KEY))


def test_spread_and_nearest_by_hand():
    a = jnp.asarray([[0.0, 0.0], [3.0, 3.0], [3.0, 0.0]])
    half = 3.0 / 2**0.5
    assert float(populations.spread(a)) == pytest.approx((3.0 + half + half) / 3)
    np.testing.assert_allclose(populations.nearest(a, a), [half, half, half], rtol=1e-6)
    np.testing.assert_allclose(populations.nearest(a[:1], a[1:2]), [3.0], rtol=1e-6)


def test_the_feature_distance_is_that_of_mean_unit_features_and_none_of_a_population_to_itself(net):
    a, b = (np.random.default_rng(n).uniform(n, 3, (2, 64, 64)).astype(np.float32) for n in (0, 1))
    distance = jax.jit(populations.feature_distance)
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    means = []
    for images in (a, b):
        grey = (images - low) / (high - low) * 2 - 1
        layers = jax.jit(features)(net, jnp.stack([jnp.asarray(grey)] * 3, -1))
        units = (
            np.asarray(f) / (np.linalg.norm(f, axis=-1, keepdims=True) + 1e-10) for f in layers
        )
        means.append([u.reshape(-1, u.shape[-1]).mean(0) for u in units])
    expected = np.mean([np.sum((f - g) ** 2) for f, g in zip(*means)])
    assert float(distance(net, a, b)) == pytest.approx(expected, rel=1e-3)
    assert float(distance(net, a, a)) == 0.0
