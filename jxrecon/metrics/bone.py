"""How near the bones of a volume are to the true ones: overlap and distance of their surfaces.

A voxel of 200 HU or more is bone, in the truth and in the reconstruction alike, without a body mask:
contrast agent and metal count, and a blurred reconstruction has less bone than the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from jxrecon.metrics.metric import Metric, named

BONE_HU = 200.0
"""The CT value from which on a voxel is bone."""

METRICS = named(
    Metric(
        "bone_dice",
        "Dice bone",
        "Dice coefficient of the voxels of 200 HU or more in the whole volume; 0 where one volume has "
        "none, not a number where neither has",
        better=1,
        digits=3,
    ),
    Metric(
        "bone_assd_mm",
        "ASSD bone [mm]",
        "mean of the mean distances truth to reconstruction and back, mm, between the surfaces of the "
        "voxels of 200 HU or more: the centres of those with one of 6 neighbours below 200 HU or outside "
        "the volume; not a number, and left out of means, where a volume has no such voxel",
    ),
    Metric(
        "bone_hd95_mm",
        "HD95 bone [mm]",
        "larger of both ways' 95th percentiles of the same distances, mm",
    ),
)

Mask = Bool[np.ndarray, "x y z"]
Spacing = tuple[float, float, float] | Float[np.ndarray, "3"]


def case_metrics(
    truth_hu: Float[np.ndarray, "x y z"],
    recon_hu: Float[np.ndarray, "x y z"],
    spacing_mm: Spacing,
) -> dict[str, float]:
    """The metrics under the keys of `METRICS` of one case, as `metrics.volume.case_metrics` takes it."""
    truth, recon = np.asarray(truth_hu) >= BONE_HU, np.asarray(recon_hu) >= BONE_HU
    assd, hd95 = surface_distances(truth, recon, spacing_mm)
    return {"bone_dice": dice(truth, recon), "bone_assd_mm": assd, "bone_hd95_mm": hd95}


def dice(a: Mask, b: Mask) -> float:
    """2 |A and B| / (|A| + |B|); NaN where both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / total) if total else float("nan")


def surface_distances(a: Mask, b: Mask, spacing_mm: Spacing) -> tuple[float, float]:
    """(assd_mm, hd95_mm) between the centres of the surface voxels; NaN where a mask is empty."""
    if not (a.any() and b.any()):
        return float("nan"), float("nan")
    (box,) = find_objects((a | b).astype(np.uint8))
    one, two = surface(a[box]), surface(b[box])
    ways = [
        distance_transform_edt(~target, sampling=spacing_mm)[source]
        for source, target in ((one, two), (two, one))
    ]
    return assd_and_hd95(ways)


def assd_and_hd95(ways: Sequence[Float[np.ndarray, " n"]]) -> tuple[float, float]:
    """The mean of both ways' mean distances, and the larger of their 95th percentiles."""
    assd = float(np.mean([distances.mean() for distances in ways]))
    return assd, float(max(np.percentile(distances, 95) for distances in ways))


def surface(mask: Mask) -> Mask:
    """The voxels of a mask with one of their 6 neighbours outside of it, or of the volume."""
    return mask & ~binary_erosion(mask)
