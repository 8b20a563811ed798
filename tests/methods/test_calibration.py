"""Deviations that mean what they say: on errors whose law is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.methods.base import calibration

VOXELS = 20_000


@pytest.mark.parametrize("law", ["normal", "laplace"])
def test_the_factor_puts_both_shares_near_a_normal_distributions(law):
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(size=VOXELS)).astype(np.float32)
    error = (sizes * getattr(rng, law)(size=VOXELS)).astype(np.float32)
    half = jnp.asarray(sizes / 2)
    counted = jnp.asarray(rng.random(VOXELS) < 0.7)
    scale = calibration.scale_of(jnp.asarray(error), half, counted)
    found = calibration.shares(jnp.asarray(error), scale * half, counted)
    assert 0.66 < found.one < 0.76
    assert 0.91 < found.two < 0.97
    if law == "normal":
        assert scale == pytest.approx(2.0, rel=0.03)


def test_what_is_not_counted_does_not_count():
    error, deviation = jnp.asarray([0.5, 100.0]), jnp.ones(2)
    found = calibration.shares(error, deviation, jnp.asarray([True, False]))
    assert found == (1.0, 1.0)
