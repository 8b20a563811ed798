"""Separable resampling equals zero insertion, full convolution and decimation done by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.nn.resample import BINOMIAL, downsample2, upfirdn, upfirdn_axis, upsample2


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_hand(line, taps, up, down, padding):
    stretched = np.zeros(line.size * up)
    stretched[::up] = line
    before, after = padding
    stretched = np.pad(stretched, (max(before, 0), max(after, 0)))
    stretched = stretched[max(-before, 0) : stretched.size - max(-after, 0)]
    return np.convolve(stretched, taps, "valid")[::down]


@pytest.mark.parametrize(
    ("up", "down", "padding"),
    [(1, 1, (2, 1)), (2, 1, (2, 1)), (1, 2, (1, 1)), (2, 3, (-1, 2)), (3, 1, (3, -2))],
)
def test_an_axis_is_resampled_as_by_hand(up, down, padding):
    x, taps = draw(0, 3, 7, 2), (0.1, 0.5, -0.3, 0.2)
    y = upfirdn_axis(jnp.asarray(x), 1, taps, up, down, padding)
    expected = np.apply_along_axis(by_hand, 1, x, taps, up, down, padding)
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_a_volume_is_resampled_axis_by_axis_times_the_gain():
    x, taps = draw(1, 2, 4, 3, 5, 2), (0.25, 0.5, 0.25)
    expected = 8.0 * x
    for axis in (1, 2, 3):
        expected = np.apply_along_axis(by_hand, axis, expected, taps, 2, 1, (1, 1))
    y = upfirdn(jnp.asarray(x), taps, up=2, padding=(1, 1), gain=8.0)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_upsampling_a_constant_volume_keeps_it_away_from_the_border():
    y = upsample2(jnp.full((1, 4, 5, 6, 1), 3.0))
    assert y.shape == (1, 8, 10, 12, 1)
    np.testing.assert_allclose(y[:, 1:-1, 1:-1, 1:-1], 3.0, rtol=1e-6)


def test_downsampling_and_filtering_keep_a_constant_away_from_the_border():
    x = jnp.full((1, 8, 8, 8, 1), 3.0)
    np.testing.assert_allclose(downsample2(x)[:, 1:-1, 1:-1, 1:-1], 3.0, rtol=1e-6)
    smooth = upfirdn(x, BINOMIAL, padding=(2, 1))
    np.testing.assert_allclose(smooth[:, 2:-1, 2:-1, 2:-1], 3.0, rtol=1e-6)
    assert smooth.shape == x.shape


def test_upsampling_is_eight_times_the_adjoint_of_downsampling():
    x, y = jnp.asarray(draw(2, 2, 3, 4, 2, 1)), jnp.asarray(draw(3, 2, 6, 8, 4, 1))
    np.testing.assert_allclose(
        jnp.vdot(upsample2(x), y), 8 * jnp.vdot(x, downsample2(y)), rtol=1e-4, atol=1e-5
    )
