"""Distances of populations against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.metrics import populations

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
