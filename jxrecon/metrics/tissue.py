"""Errors of the CT value by tissue: the mean absolute error in bands of the true HU."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from jxrecon.metrics.metric import Metric, named
from jxrecon.units import Window

BANDS = {
    "air": (-math.inf, -900.0),
    "lung": (-900.0, -300.0),
    "fat": (-300.0, -20.0),
    "soft": (-20.0, 200.0),
    "bone": (200.0, math.inf),
}
"""Tissue -> low <= HU < high. Together they are all of the body."""

METRICS = named(
    *(
        Metric(
            f"mae_hu_{name}",
            f"MAE {name} [HU]",
            f"mean absolute error in HU over the voxels inside the filled body mask whose truth is {where}; "
            "both volumes clipped to [{low:g}, {high:g}] HU, not a number where there is none",
            digits=1,
        )
        for name, where in {
            "air": "below -900 HU",
            "lung": "from -900 to below -300 HU (of a head: pharynx, sinuses and edges of air, too)",
            "fat": "from -300 to below -20 HU",
            "soft": "from -20 to below 200 HU",
            "bone": "200 HU or more (contrast and metal, too)",
        }.items()
    )
)


def masked_mae(
    a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"]
) -> float:
    """Mean |a - b| where the mask is true; NaN where it is nowhere true."""
    mask = np.asarray(mask, bool)
    if not mask.any():
        return float("nan")
    difference = np.asarray(a, np.float64)[mask] - np.asarray(b, np.float64)[mask]
    return float(np.mean(np.abs(difference)))


def case_metrics(
    truth_hu: Float[np.ndarray, "x y z"],
    recon_hu: Float[np.ndarray, "x y z"],
    body: Bool[np.ndarray, "x y z"],
    window: Window,
) -> dict[str, float]:
    """The metrics under the keys of `METRICS` of one case, as `metrics.volume.case_metrics` takes it.

    A voxel's band is that of its own true value, before it is clipped.
    """
    truth, body = np.asarray(truth_hu, np.float32), np.asarray(body, bool)
    clipped = np.clip(truth, *window), np.clip(np.asarray(recon_hu, np.float32), *window)
    return {
        f"mae_hu_{name}": masked_mae(*clipped, body & (truth >= low) & (truth < high))
        for name, (low, high) in BANDS.items()
    }
