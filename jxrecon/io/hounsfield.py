"""Whether the numbers of a CT are HU: judged once, where CTs are read, for every command.

A CT of a patient has air about -1000 HU and soft tissue about 0. Numbers without either are stored with an
offset or a scale that the file does not tell, or are no HU at all: they are refused, unless it is stated
what they are. Fill values far below air lie outside of the scanner's circle; they become air before
anything is interpolated, as half of -2048 would be fat.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from jaxtyping import Shaped

from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

LEAST_HU = -1024
"""What lies below is no CT number but fill: a 12-bit CT holds -1024 to 3071."""

AIR_HU = -800.0
"""Some of the volume must lie below: air, or airways where a field holds the lungs alone."""

MOST_HU = 3071.0
"""Above it there is metal alone: hardly any voxel."""

TISSUE_HU = (-300.0, 300.0)
"""Fat, water, muscle, spongy bone."""

_BELOW_AIR = -1124.0  # noise lifts and lowers air by 100 HU
_SAMPLE = 1 << 21  # voxels judged
_KINDS = {"", "HU", "US"}  # of Rescale Type (0028,1054) that may be HU; US: unspecified


def checked_hu(
    values: Shaped[np.ndarray, "x y z"],
    origin: str,
    stated: Stated = NOTHING_STATED,
    kind: str = "",
) -> Shaped[np.ndarray, "x y z"]:
    """The HU of a volume, none below `LEAST_HU`; of the same type where nothing is stated.

    Args:
        values: finite numbers as a file gives them, after its own rescaling.
        origin: the file, to name in an error.
        stated: what the user says about them.
        kind: DICOM's Rescale Type; empty where there is none.

    Raises:
        InputError: they are no HU of a patient.
    """
    sample = values.ravel()[:: max(1, values.size // _SAMPLE)].astype(np.float32)
    if stated.nothing:
        if kind.strip().upper() not in _KINDS:
            raise InputError(
                f"{origin}: its Rescale Type is {kind}, expected HU (--hu-offset 0 states that it is)"
            )
        if fault := _fault(sample):
            raise InputError(f"{origin}: {fault}{_advice(sample)}")
        return np.maximum(values, values.dtype.type(LEAST_HU))
    scale = 1.0 if stated.hu_scale is None else stated.hu_scale
    offset = 0.0 if stated.hu_offset is None else stated.hu_offset
    readings = list(product(dict.fromkeys((scale, 1 / scale)), dict.fromkeys((offset, -offset))))
    found = next((r for r in readings if not _fault(sample * r[0] + r[1])), None)
    if found is None and (scale, offset) != (1.0, 0.0):  # which says that they are HU as they are
        fault = _fault(sample * scale + offset)
        raise InputError(
            f"{origin}: with --hu-scale {scale:g} --hu-offset {offset:g} {fault}; expected HU = number x "
            "scale + offset"
        )
    scale, offset = found or (scale, offset)
    hu = np.maximum(values.astype(np.float64) * scale + offset, LEAST_HU)
    whole = values.dtype.kind in "iu" and scale == int(scale) and offset == int(offset)
    return hu.astype(np.int16 if whole and hu.max() <= np.iinfo(np.int16).max else np.float32)


def _fault(sample: np.ndarray) -> str:
    """Why numbers cannot be HU of a patient, with the value seen; empty where they can."""
    real = sample[sample >= _BELOW_AIR]
    below = sample[sample < _BELOW_AIR]
    if not real.size:
        return f"its greatest value is {sample.max():g}, expected soft tissue about 0 HU"
    lowest = float(np.quantile(real, 1e-3))
    if lowest > AIR_HU:
        return f"its lowest value is {lowest:g}, expected air about -1000 HU"
    if below.size:
        # Fill has one value, or two; numbers of a patient are spread.
        _, counts = np.unique(below, return_counts=True)
        if below.size - np.sort(counts)[-2:].sum() > 0.02 * sample.size:
            return f"values spread down to {below.min():g}, expected air about -1000 HU"
    if np.mean(real > MOST_HU) > 0.005:
        return f"{np.mean(real > MOST_HU):.1%} of its values lie above {MOST_HU:g} HU, expected metal alone"
    low, high = TISSUE_HU
    if not ((real > low) & (real < high)).any():
        return f"no value lies between {low:g} and {high:g} HU (greatest {real.max():g}), expected tissue"
    return ""


def _advice(sample: np.ndarray) -> str:
    """The flag that would make the numbers HU, where one is likely."""
    for offset in (-1024, -1000, 1024):
        if not _fault(sample + offset):
            return f" (--hu-offset {offset} if they are HU {-offset:+d})"
    return " (--hu-offset and --hu-scale state what they are: HU = number x scale + offset)"
