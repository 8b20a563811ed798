"""x2ct-legacy metrics are the numbers of the authors' own evaluation."""

import numpy as np
import pytest

from jxrecon.metrics.x2ct_legacy import (
    METRICS,
    case_metrics,
    integers,
    legacy_metrics,
    psnr_slices,
    ssim_slices,
)
from jxrecon.units import Window


@pytest.fixture(scope="module")
def oracle(oracles):
    with np.load(oracles / "x2ct_metrics.npz") as numbers:
        return {key: numbers[key] for key in numbers.files}


def pair(oracle, name):
    source = "pair2" if name == "identical" else name
    real = oracle[f"{source}/real"]
    return real, real if name == "identical" else oracle[f"{source}/fake"]


CASES = pytest.mark.parametrize("name", ["pair0", "pair1", "pair2", "identical"])


@CASES
def test_every_number_is_the_authors(oracle, name):
    found = legacy_metrics(*pair(oracle, name))
    slices = {"SSIM": "SSIM_d_h_w_avg", "PSNR": "PSNR_d_h_w_avg"}
    for key, value in found.items():
        expected = oracle[f"{name}/{slices[key]}"][3] if key in slices else oracle[f"{name}/{key}"]
        assert value == pytest.approx(float(expected), rel=1e-6, abs=1e-9), key


@CASES
def test_each_direction_of_slicing_is_the_authors(oracle, name):
    real, fake = pair(oracle, name)
    fake = np.clip(fake, 0, 1)
    expected = oracle[f"{name}/PSNR_d_h_w_avg"]
    np.testing.assert_allclose(psnr_slices(integers(real), integers(fake)), expected, rtol=1e-6)
    expected = oracle[f"{name}/SSIM_d_h_w_avg"]
    np.testing.assert_allclose(ssim_slices(real, fake), expected, rtol=1e-6)


def test_in_the_papers_window_a_case_has_the_authors_numbers(oracle):
    """HU = 2500 x - 1024, whichever way the axes lie."""
    real, fake = pair(oracle, "pair0")
    hu = [2500.0 * v.T[::-1].astype(np.float64) - 1024.0 for v in (real, fake)]
    found = case_metrics(*hu, Window(-1024.0, 1476.0))
    assert set(found) == set(METRICS)
    # One value in a thousand lies on the edge between two integers and HU in float32 may cross it.
    assert found["x2ct_legacy_psnr_db"] == pytest.approx(
        oracle["pair0/PSNR_d_h_w_avg"][3], abs=2e-3
    )
    assert found["x2ct_legacy_ssim"] == pytest.approx(oracle["pair0/SSIM_d_h_w_avg"][3], rel=1e-5)


def test_the_peak_of_4095_gives_more_than_the_range():
    real = np.zeros((8, 8, 8), np.float32)
    fake = np.full_like(real, 0.1)
    found = case_metrics(1000.0 * real, 1000.0 * fake, Window(0.0, 1000.0))
    assert found["x2ct_legacy_psnr_db"] == pytest.approx(20 + 20 * np.log10(4095 / 2500), abs=1e-3)
