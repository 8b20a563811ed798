"""How near a volume is to the truth: PSNR, 3-D SSIM, masked HU errors and re-projection error.

Errors by tissue, bones and perceptual distances have modules of their own, whose conventions are
gathered here. Beside these strict ones stand those of another convention, whose names say so
(`x2ct_legacy`).

The HU window, the mask and the air around the body move these numbers by many decibels, so each has
its convention in `METRICS`, and every table prints it.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from skimage.metrics import structural_similarity

from jxrecon.drr import beam, project
from jxrecon.geometry import Camera, Grid
from jxrecon.metrics import bone, slices, tissue, x2ct_legacy
from jxrecon.metrics.metric import Metric, named
from jxrecon.metrics.tissue import masked_mae
from jxrecon.units import Window

TISSUE_HU = -300.0
"""Voxels whose truth lies above count as tissue: skin, muscle and bone, neither air nor lung."""

METRICS = {
    **named(
        Metric(
            "psnr_db",
            "PSNR [dB]",
            "PSNR in dB over the whole volume, no mask; both volumes clipped to the window "
            "[{low:g}, {high:g}] HU, peak = {range:g} HU",
            better=1,
        ),
        Metric(
            "ssim_3d",
            "SSIM 3-D",
            "3-D SSIM, mean over the whole volume; uniform 7x7x7 window, both volumes clipped to "
            "[{low:g}, {high:g}] HU, data range {range:g} HU, K1 = 0.01, K2 = 0.03",
            better=1,
            digits=4,
        ),
        Metric(
            "mae_hu_body",
            "MAE body [HU]",
            "mean absolute error in HU inside the filled body mask of the truth; both volumes clipped "
            "to [{low:g}, {high:g}] HU",
            digits=1,
        ),
        Metric(
            "mae_hu_tissue",
            "MAE tissue [HU]",
            "mean absolute error in HU over the voxels whose truth is above -300 HU; both volumes "
            "clipped to [{low:g}, {high:g}] HU",
            digits=1,
        ),
    ),
    **named(
        Metric(
            "within_one",
            "within 1 std",
            "share of the voxels in the filled body mask of the truth whose error is at most the standard "
            "deviation that the method gives; 0.683 of a normal distribution; both volumes clipped to "
            "[{low:g}, {high:g}] HU",
            better=0,
            digits=3,
        ),
        Metric(
            "within_two",
            "within 2 std",
            "the same with twice the deviation; 0.954 of a normal distribution",
            better=0,
            digits=3,
        ),
    ),
    **tissue.METRICS,
    **bone.METRICS,
    **slices.METRICS,
    **named(
        Metric(
            "reprojection_error",
            "re-projection",
            "|A x - y| / |y| of the line integrals over the views given to the method; y is as it was given, "
            "or, where that shows the whole patient, what the field alone would have cast, noise-free",
            digits=4,
        ),
        Metric(
            "reprojection_unseen",
            "unseen view",
            "the same, noise-free, over views half-way between the given ones, which no method was given",
            digits=4,
        ),
    ),
    **x2ct_legacy.METRICS,
}
"""Metric by name, in the order of the tables; all but the costs."""


def psnr(
    a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"], data_range: float
) -> float:
    """20 log10(data_range / RMSE(a, b)) in dB; infinite where they are equal."""
    squared = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(data_range**2 / squared))


def ssim_3d(
    a: Float[np.ndarray, "x y z"], b: Float[np.ndarray, "x y z"], data_range: float
) -> float:
    """Mean structural similarity of two volumes with a true 3-D window, 7 voxels along each axis.

    Wang et al., IEEE TIP 2004, as scikit-image's `structural_similarity` has it by default: uniform
    window, sample covariance. The mean over slices of 2-D SSIM is another number.
    """
    pair = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(structural_similarity(*pair, data_range=data_range))


def case_metrics(
    truth_hu: Float[np.ndarray, "x y z"],
    recon_hu: Float[np.ndarray, "x y z"],
    body: Bool[np.ndarray, "x y z"],
    window: Window,
    spacing_mm: bone.Spacing,
) -> dict[str, float]:
    """The volume metrics of one case under the keys of `METRICS`.

    All but those that need X-rays (re-projection), LPIPS's weights or a clock.

    Args:
        truth_hu: HU.
        recon_hu: HU on the same grid.
        body: the filled body mask of the truth.
        window: HU range to which both are clipped and whose width is the data range.
        spacing_mm: edges of a voxel along x, y, z.
    """
    truth = np.clip(np.asarray(truth_hu, np.float32), *window)
    recon = np.clip(np.asarray(recon_hu, np.float32), *window)
    return {
        "psnr_db": psnr(recon, truth, window.range),
        "ssim_3d": ssim_3d(recon, truth, window.range),
        "mae_hu_body": masked_mae(recon, truth, body),
        "mae_hu_tissue": masked_mae(recon, truth, np.asarray(truth_hu) > TISSUE_HU),
        **tissue.case_metrics(truth_hu, recon_hu, body, window),
        **bone.case_metrics(truth_hu, recon_hu, spacing_mm),
        **x2ct_legacy.case_metrics(truth, recon, window),
    }


def coverage(
    truth_hu: Float[np.ndarray, "x y z"],
    recon_hu: Float[np.ndarray, "x y z"],
    deviation_hu: Float[np.ndarray, "x y z"] | None,
    body: Bool[np.ndarray, "x y z"],
    window: Window,
) -> dict[str, float]:
    """within_one and within_two of `METRICS`; NaN for a method that gives no deviation."""
    if deviation_hu is None or not body.any():
        return {"within_one": float("nan"), "within_two": float("nan")}
    error = np.abs(np.clip(recon_hu, *window) - np.clip(truth_hu, *window))[body]
    deviation = deviation_hu[body]
    return {
        "within_one": float(np.mean(error <= deviation)),
        "within_two": float(np.mean(error <= 2.0 * deviation)),
    }


def reprojection_error(
    recon_hu: Float[Array, "x y z"],
    images: Sequence[Float[Array, "rows columns"]],
    cameras: Sequence[Camera],
    grid: Grid,
) -> Float[Array, ""]:
    """|A x - y| / |y| over all views together: how well a volume explains its X-rays.

    Args:
        recon_hu: HU on `grid`.
        images: measured line integrals y, one [rows, columns] a camera.
        cameras: concrete (not traced), so that the projector picks its path.
    """
    mu = beam.hu_to_mu(recon_hu)
    pairs = list(zip(project(mu, grid.affine, cameras), images, strict=True))
    error = sum(jnp.sum(jnp.square(p - y)) for p, y in pairs)
    return jnp.sqrt(error / sum(jnp.sum(jnp.square(y)) for _, y in pairs))
