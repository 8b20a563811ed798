"""Volume metrics against numbers worked out by hand, and the honesty of their conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.drr import beam, line_integrals
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.metrics import tissue, x2ct_legacy
from jxrecon.metrics.volume import (
    METRICS,
    case_metrics,
    coverage,
    masked_mae,
    psnr,
    reprojection_error,
    ssim_3d,
)
from jxrecon.units import Window

WINDOW = Window(-1024.0, 2000.0)


def pair(shape=(9, 10, 11), seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-900, 1500, shape).astype(np.float32)
    return truth, truth + rng.normal(0, 80, shape).astype(np.float32)


def test_psnr_of_a_known_error_is_the_closed_form():
    truth = np.zeros((4, 5, 6), np.float32)
    assert psnr(truth + 30.24, truth, 3024.0) == pytest.approx(40.0, abs=1e-5)
    assert psnr(truth, truth, 3024.0) == np.inf


def test_ssim_is_a_three_dimensional_window_by_hand():
    a, b = (v.astype(np.float64) for v in pair((8, 9, 7)))
    c1, c2 = (0.01 * 3024) ** 2, (0.03 * 3024) ** 2
    values = []
    for x in range(2):
        for y in range(3):
            p, q = (v[x : x + 7, y : y + 7, :7].ravel() for v in (a, b))
            cov = np.cov(p, q)
            luminance = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
            values.append(luminance * (2 * cov[0, 1] + c2) / (cov[0, 0] + cov[1, 1] + c2))
    assert ssim_3d(a, b, 3024.0) == pytest.approx(np.mean(values), abs=1e-9)
    assert ssim_3d(a, a, 3024.0) == pytest.approx(1.0, abs=1e-12)


def test_masked_mae_sees_nothing_outside_its_mask():
    truth, recon = pair()
    mask = np.zeros(truth.shape, bool)
    mask[2:5, 3, 4] = True
    recon = np.where(mask, truth + np.float32(7), recon + np.float32(1000))
    assert masked_mae(recon, truth, mask) == pytest.approx(7.0, abs=1e-3)
    assert np.isnan(masked_mae(recon, truth, np.zeros_like(mask)))


def test_case_metrics_clip_to_the_window_and_mask_by_body_and_tissue():
    truth = np.full((8, 8, 8), -1000.0, np.float32)
    truth[2:6, 2:6, 2:6] = 0.0
    truth[3, 3, 3] = -800.0  # air inside the body
    recon = truth.copy()
    recon[4, 4, 4] = 3000.0  # clipped to 2000
    recon[3, 3, 3] = -700.0
    recon[0, 0, 0] = -3000.0  # clipped to -1024
    body = np.zeros(truth.shape, bool)
    body[2:6, 2:6, 2:6] = True
    found = case_metrics(truth, recon, body, WINDOW, (1.0, 1.0, 1.0))
    squared = (2000.0**2 + 100.0**2 + 24.0**2) / 512
    assert found["psnr_db"] == pytest.approx(10 * np.log10(3024.0**2 / squared), abs=1e-5)
    assert found["mae_hu_body"] == pytest.approx(2100 / 64, rel=1e-6)
    assert found["mae_hu_tissue"] == pytest.approx(2000 / 63, rel=1e-6)
    assert found["ssim_3d"] == pytest.approx(
        ssim_3d(np.clip(truth, *WINDOW), np.clip(recon, *WINDOW), 3024.0), abs=1e-12
    )


def test_every_voxel_of_the_body_counts_in_one_band_of_its_true_hu():
    truth = np.array([-1000, -900, -301, -300, -21, -20, 199, 200, 3000], np.float32)
    truth = truth.reshape(9, 1, 1)
    off = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256], np.float32).reshape(9, 1, 1)
    body = np.ones(truth.shape, bool)
    found = tissue.case_metrics(truth, truth - off, body, Window(-2000.0, 4000.0))
    assert found == {
        "mae_hu_air": 1.0,
        "mae_hu_lung": 3.0,
        "mae_hu_fat": 12.0,
        "mae_hu_soft": 48.0,
        "mae_hu_bone": 192.0,
    }
    body[[0, 8]] = False
    masked = tissue.case_metrics(truth, truth - off, body, Window(-2000.0, 4000.0))
    assert np.isnan(masked["mae_hu_air"])
    assert masked["mae_hu_bone"] == 128.0
    clipped = tissue.case_metrics(truth, truth - off, body, Window(-1024.0, 100.0))
    assert clipped["mae_hu_bone"] == 28.0  # of 200 -> 72 what is below 100


def test_bands_together_are_the_body():
    truth, recon = pair()
    body = truth > -700
    found = tissue.case_metrics(truth, recon, body, WINDOW)
    counts = [np.sum(body & (truth >= low) & (truth < high)) for low, high in tissue.BANDS.values()]
    assert sum(counts) == body.sum()
    together = np.nansum([n * value for n, value in zip(counts, found.values())]) / body.sum()
    whole = masked_mae(np.clip(recon, *WINDOW), np.clip(truth, *WINDOW), body)
    assert together == pytest.approx(whole, rel=1e-6)


def test_every_metric_has_a_convention_that_names_its_window():
    truth, recon = pair()
    sentences = {name: metric.says(WINDOW) for name, metric in METRICS.items()}
    assert set(case_metrics(truth, recon, truth > 0, WINDOW, (1.0, 1.0, 1.0))) < set(sentences)
    better = {name for name, metric in METRICS.items() if metric.better > 0}
    assert better == {"psnr_db", "ssim_3d", "bone_dice", *x2ct_legacy.METRICS}
    for name in ("psnr_db", "ssim_3d", "mae_hu_body", "mae_hu_tissue", "mae_hu_fat", "lpips_alex"):
        assert "[-1024, 2000] HU" in sentences[name]
    assert not any("{" in sentence for sentence in sentences.values())


def test_reprojection_error_is_zero_at_the_truth_and_relative_to_the_xrays():
    grid = centred_grid((8, 8, 8), (10.0, 10.0, 10.0))
    cameras = biplanar(shape=(8, 8), pixel_mm=16.0)
    truth = jnp.asarray(pair((8, 8, 8))[0])
    mu = beam.hu_to_mu(truth)
    images = tuple(line_integrals(mu, grid.affine, c) for c in cameras)
    error = jax.jit(lambda recon: reprojection_error(recon, images, cameras, grid))
    assert float(error(truth)) < 1e-6
    # Line integrals are linear in attenuation: 10 % more of it is 10 % more of them.
    assert float(error(beam.mu_to_hu(1.1 * mu))) == pytest.approx(0.1, rel=1e-4)
    assert float(error(jnp.full_like(truth, -1000.0))) == pytest.approx(1.0, rel=1e-5)


def test_coverage_counts_the_voxels_of_the_body_within_one_and_two_deviations():
    truth, body = np.zeros((2, 2, 2)), np.ones((2, 2, 2), bool)
    off = np.array([0, 10, 11, 20, 21, 24, 31, 500.0]).reshape(2, 2, 2)
    body[1, 1, 1] = False
    found = coverage(truth, off, np.full_like(off, 10.0), body, WINDOW)
    assert found == {"within_one": pytest.approx(2 / 7), "within_two": pytest.approx(4 / 7)}
    beyond = coverage(truth + 2500, truth + 9999, np.full_like(off, 1.0), body, WINDOW)
    assert beyond == {"within_one": 1.0, "within_two": 1.0}  # both clipped to the window
    for nothing in ((truth, off, None, body), (truth, off, off, ~(truth == 0))):
        assert np.isnan(list(coverage(*nothing, WINDOW).values())).all()
