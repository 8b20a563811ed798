"""Line integrals from the pixels of an X-ray, once it is told what they are."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from jxrecon.geometry import finite
from jxrecon.io import xray_checks
from jxrecon.io.dicom_xrays import DicomXray, Said, pixels_of
from jxrecon.io.images import suffix
from jxrecon.terminal import note
from jxrecon.types import InputError

Lines: TypeAlias = list[tuple[str, str, str]]
"""(quantity, value, where it came from), for printing."""

OF_PIXELS = ("scale", "offset", "bits", "range")
"""What a sidecar tells of the pixels it was written for, beside their kind."""

DEAD_SHARE = 0.02
"""More pixels without any count than this are no dead ones."""

FEW_COUNTS = 10
"""Whole numbers below it are known to a tenth at best: their line integrals to 0.1."""

ABOVE_I0 = 0.002
"""How far air may lie below a line integral of 0: i0 is the unattenuated beam."""

AIR_SHARE = 0.01
"""Of the pixels, at least, for air to be judged."""

ALIKE, ALIKE_SHARE, NOT_AIR = 0.05, 0.15, 0.2
"""A larger share of the pixels than this within so much of the least line integral is air, which attenuates
by less than the last."""

DISPLAY_MOST = 5.0
"""Line integral that the brightest pixels of a picture for the eye are taken for: 0.26 m of water."""


def line_integrals_of(
    path: Path,
    image: Shaped[np.ndarray, "rows columns"],
    said: Said,
    dicom: DicomXray | None = None,
) -> tuple[Float[np.ndarray, "rows columns"], Lines]:
    """-log(I / I0) of raw intensities, or what the pixels hold already; and the lines to print.

    Args:
        path: of the image, to name in errors.
        image: the numbers as stored.
        said: what sidecar, tags and flags tell.
        dicom: the file's tags, where it is a DICOM file.

    Raises:
        InputError: nothing tells what the pixels are, or they cannot be that.
    """
    if "intensity" not in said:
        raise InputError(
            f"{path}: nothing tells what its pixels are, expected --intensity log|raw|display"
        )
    intensity, where = said["intensity"]
    if intensity not in ("log", "raw", "display"):
        raise InputError(f"{path}: intensity is {intensity!r}, expected log, raw or display")
    lines: Lines = [("intensity", intensity, where)]
    # NIfTI has a scale of its own; numbers that are not whole need none, unless a flag says so.
    levels = image.dtype.kind in "iu" and suffix(path) not in (".nii", ".nii.gz")
    levels |= any(said.get(name, ("", ""))[1].startswith("--") for name in ("scale", "offset"))
    if levels and dicom is None:
        xray_checks.check_bits(image, said.get("bits", (None,))[0], str(path))
    values = _values(path, image, said, dicom, lines)
    if levels:
        values = _scaled(path, values, said, lines, guess=dicom is not None)
    elif intensity == "display":
        raise _of_unknown_scale(path, intensity)
    if bad := int((~np.isfinite(values)).sum()):
        raise InputError(f"{path}: {bad} pixels are not finite, expected a number in each")
    if intensity == "raw":
        values = _from_counts(path, values, said, lines)
        step, told = 0.0, None
    else:
        step = abs(_number(path, said, "scale", 1.0)[0]) if levels and "scale" in said else 0.0
        told = said.get("range", (None,))[0]
    low, high = xray_checks.check_line_integrals(values, told, step, f"{path} ({intensity} pixels)")
    if intensity != "raw":
        xray_checks.check_clipping(values, image.dtype, str(path))
    lines.append(("line integrals", f"{low:.3f} to {high:.3f}", path.name))
    return values.astype(np.float32), lines


def _number(path: Path, said: Said, name: str, default: float) -> tuple[float, str]:
    value, where = said.get(name, (default, "default"))
    return float(finite(value, 1, f"{path}: {name}")[0]), where


def _values(
    path: Path, image: np.ndarray, said: Said, dicom: DicomXray | None, lines: Lines
) -> np.ndarray:
    """The pixels the right way round, float64."""
    inverted, where = said.get("inverted", (False, ""))
    if not isinstance(inverted, bool):
        raise InputError(f"{path}: inverted is {inverted!r}, expected true or false")
    if "inverted" in said:
        lines.append(("inverted", str(inverted).lower(), where))
    if dicom is None:
        return xray_checks.turned_round(image) if inverted else image.astype(np.float64)
    values, line = pixels_of(dicom, said["intensity"][0], inverted)
    lines.append(line)
    return values


def _of_unknown_scale(path: Path, intensity: str) -> InputError:
    return InputError(
        f"{path}: {intensity} pixels of unknown scale, expected line integrals, or scale and offset in its "
        "sidecar or as --scale and --offset (value * scale + offset = line integral)"
    )


def _scaled(path: Path, values: np.ndarray, said: Said, lines: Lines, guess: bool) -> np.ndarray:
    """Whole numbers -> what they stand for: value * scale + offset."""
    intensity = said["intensity"][0]
    if intensity == "display" and "scale" not in said and guess:
        # Nothing can tell it: such pictures are altered until they please the eye.
        low, high = np.percentile(values, (1, 99))
        if not high > low:
            raise InputError(f"{path}: all pixels are {low:g}, expected a picture")
        scale = DISPLAY_MOST / (high - low)
        origin = f"GUESSED: line integrals 0 to {DISPLAY_MOST:g}"
        lines += [("scale", f"{scale:.6g}", origin), ("offset", f"{-low * scale:.6g}", origin)]
        note(
            f"{path}: pixels made for display: their scale is guessed, so that HU are none (--scale and "
            "--offset state it: value * scale + offset = line integral)"
        )
        return np.clip((values - low) * scale, 0.0, None)
    if intensity != "raw" and "scale" not in said:
        raise _of_unknown_scale(path, intensity)
    for name, default in (("scale", 1.0), ("offset", 0.0)):
        number, where = _number(path, said, name, default)
        lines.append((name, f"{number:.6g}", where))
        values = values * number if name == "scale" else values + number
    return values


def _from_counts(path: Path, counts: np.ndarray, said: Said, lines: Lines) -> np.ndarray:
    """-log(counts / i0), dead pixels filled from their neighbours."""
    if "i0" not in said:
        raise InputError(
            f"{path}: raw pixels without i0, expected --i0 or i0 in a sidecar: the intensity of the "
            f"unattenuated beam (the largest here is {counts.max():g})"
        )
    i0, where = _number(path, said, "i0", 1.0)
    lines.append(("i0", f"{i0:.6g}", where))
    if not (i0 > 0 and counts.min() >= 0):
        raise InputError(
            f"{path}: i0 {i0:g}, least intensity {counts.min():g}, expected positive numbers"
        )
    dead = counts == 0
    if dead.mean() > DEAD_SHARE:
        raise InputError(
            f"{path}: {dead.sum()} of {dead.size} pixels have the intensity 0, expected at most "
            f"{DEAD_SHARE:.0%}, of dead ones (bright for dark? see --inverted, --intensity)"
        )
    if (coarse := float((counts < FEW_COUNTS).mean())) > AIR_SHARE:
        note(
            f"{path}: {coarse:.0%} of the pixels have intensities below {FEW_COUNTS}: coarse line integrals"
        )
    values = -np.log(np.where(dead, 1.0, counts) / i0)
    if dead.any():
        values = _filled(values, dead)
        lines.append(("dead pixels", f"{dead.sum()} of intensity 0, filled from around", path.name))
    # Half of its pixels lie below zero where noise alone moves air; all of them where i0 is too small.
    air = values[values < xray_checks.THINNEST]
    if air.size > AIR_SHARE * values.size:
        middle, low = np.quantile(air, (0.5, 0.16))
        # Noise moves the middle, too, as what it lifts above THINNEST is not counted.
        noise = 0.25 * (middle - low)
        if middle < -ABOVE_I0 - noise:
            raise _above_i0(path, i0, float(np.exp(-middle)))
    alike = values[np.abs(values - np.quantile(values, 0.05)) < ALIKE]
    share = alike.size / values.size
    if share > ALIKE_SHARE and (least := float(np.median(alike))) > NOT_AIR:
        note(
            f"{path}: the brightest {share:.0%} of the pixels attenuate alike, by {least:.2f}: if that is "
            f"air, i0 is {i0 * np.exp(-least):.4g}, not {i0:g}"
        )
    return values


def _above_i0(path: Path, i0: float, air: float) -> InputError:
    return InputError(
        f"{path}: air has the intensity {i0 * air:g}, above i0 {i0:g}, expected --i0 of the "
        "unattenuated beam (or counts without dark current)"
    )


def _filled(values: np.ndarray, dead: np.ndarray) -> np.ndarray:
    """Dead pixels as the mean of their neighbours, from the rim of a cluster inwards."""
    values, left = np.where(dead, 0.0, values), dead.copy()
    ring = np.ones((3, 3))
    while left.any():
        known = ndimage.convolve((~left).astype(float), ring, mode="constant")
        total = ndimage.convolve(values, ring, mode="constant")
        rim = left & (known > 0)
        values[rim] = total[rim] / known[rim]
        left &= ~rim
    return values
