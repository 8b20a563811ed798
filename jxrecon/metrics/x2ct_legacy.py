"""x2ct-legacy: the numbers that X2CT-GAN's own evaluation prints, for comparison with papers that use it.

Volumes are in [0, 1] over the window; the reconstruction is clipped to it. PSNR is taken on values x 2500
cut off to integers, but with the peak 4095 of a 12-bit CT: 4.286 dB more than with the range. PSNR and SSIM
are means over 2-D slices, and over the three directions of slicing. Not to be compared with the strict ones
of `metrics.volume`. Axes and their directions do not matter.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.ndimage import uniform_filter

from jxrecon.metrics.metric import Metric, named
from jxrecon.units import Window

RANGE = 2500
"""Values that [0, 1] stands for: HU + 1024 clipped to [0, 2500] in the paper."""

PEAK = 4095.0
"""What the authors' PSNR is relative to."""

EQUAL_DB = 100.0
"""PSNR of slices without error."""

WIDTH = 7
"""Pixels along the window of SSIM."""

METRICS = named(
    Metric(
        "x2ct_legacy_psnr_db",
        "x2ct-legacy PSNR [dB]",
        "x2ct-legacy, not comparable with PSNR: both volumes as [0, 1] over the window "
        "[{low:g}, {high:g}] HU, times 2500, cut off to integers; peak 4095; mean over the slices of "
        "each axis (100 dB where equal), mean of the three axes",
        better=1,
    ),
    Metric(
        "x2ct_legacy_ssim",
        "x2ct-legacy SSIM",
        "x2ct-legacy, not comparable with SSIM 3-D: both volumes as [0, 1] over the window "
        "[{low:g}, {high:g}] HU; 2-D SSIM, uniform 7x7 window, data range 1, mean over the slices of "
        "each axis, mean of the three axes",
        better=1,
        digits=4,
    ),
)

Volume = Float[np.ndarray, "x y z"]


def case_metrics(truth_hu: Volume, recon_hu: Volume, window: Window) -> dict[str, float]:
    """The metrics under the keys of `METRICS` of one case in HU, whose window becomes [0, 1]."""
    if not np.isfinite(recon_hu).all():  # NaN as the strict metrics, and no integer either
        return dict.fromkeys(METRICS, float("nan"))
    real, fake = (
        ((np.clip(hu, *window) - window.low) / window.range).astype(np.float32)
        for hu in (truth_hu, recon_hu)
    )
    return {
        "x2ct_legacy_psnr_db": psnr_slices(*map(integers, (real, fake)))[3],
        "x2ct_legacy_ssim": ssim_slices(real, fake)[3],
    }


def legacy_metrics(real: Volume, fake: Volume) -> dict[str, float]:
    """All numbers of the authors' test script, under its names.

    Args:
        real: truth in [0, 1]; not clipped.
        fake: reconstruction; clipped to [0, 1].

    Returns:
        MAE0, MSE0, CosineSimilarity and SSIM on [0, 1]; psnr_3d, PSNR, MAE and MSE on integers of 0 to
        2500. PSNR and SSIM are the means of the three directions.
    """
    fake = np.clip(fake, 0.0, 1.0)
    a, b = (np.asarray(v, np.float64) for v in (real, fake))
    i, j = integers(real), integers(fake)
    return {
        "MAE0": float(np.mean(np.abs(a - b))),
        "MSE0": float(np.mean((a - b) ** 2)),
        "CosineSimilarity": float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))),
        "SSIM": ssim_slices(real, fake)[3],
        "psnr_3d": float(_psnr(np.mean((i - j) ** 2))),
        "PSNR": psnr_slices(i, j)[3],
        "MAE": float(np.mean(np.abs(i - j))),
        "MSE": float(np.mean((i - j) ** 2)),
    }


def integers(volume: Volume) -> Volume:
    """[0, 1] -> 0 to 2500, cut off, not rounded."""
    return (np.asarray(volume, np.float32) * np.float32(RANGE)).astype(np.int32).astype(np.float64)


def psnr_slices(a: Volume, b: Volume) -> tuple[float, float, float, float]:
    """PSNR in dB, mean over the slices of each axis, and the mean of the three."""
    squared = (a - b) ** 2
    axes = [float(_psnr(squared.mean(axis)).mean()) for axis in ((1, 2), (0, 2), (0, 1))]
    return axes[0], axes[1], axes[2], sum(axes) / 3


def _psnr(squared: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    with np.errstate(divide="ignore"):
        return np.where(squared == 0, EQUAL_DB, 10 * np.log10(PEAK**2 / squared))


def ssim_slices(a: Volume, b: Volume) -> tuple[float, float, float, float]:
    """2-D SSIM, mean over the slices of each axis, and the mean of the three.

    Uniform 7x7 window, sample covariance, data range 1; pixels whose window leaves the slice are left out.
    """
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    axes = [_ssim(a, b, axis) for axis in range(3)]
    return axes[0], axes[1], axes[2], sum(axes) / 3


def _ssim(a: Volume, b: Volume, axis: int) -> float:
    size = [1 if k == axis else WIDTH for k in range(3)]
    inner = tuple(slice(None) if n == 1 else slice(WIDTH // 2, -(WIDTH // 2)) for n in size)

    def mean(volume: Volume) -> Float[np.ndarray, "p q r"]:
        return uniform_filter(volume, size)[inner]

    c1, c2, sample = 0.01**2, 0.03**2, WIDTH**2 / (WIDTH**2 - 1)
    p, q = mean(a), mean(b)
    pp, qq, pq = (
        sample * (mean(s * t) - m * n) for s, t, m, n in ((a, a, p, p), (b, b, q, q), (a, b, p, q))
    )
    luminance = (2 * p * q + c1) / (p * p + q * q + c1)
    return float(np.mean(luminance * (2 * pq + c2) / (pp + qq + c2)))
