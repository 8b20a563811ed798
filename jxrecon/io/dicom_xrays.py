"""DICOM radiographs (CR, DX, XA, RF): what their tags tell of camera and pixels, each with its origin.

The positioner's angles place the detector about the patient, `--view` the source: (p, s) is the view
(p + 180, -s). Which way the picture lies is Patient Orientation's to tell: C-arms turn and mirror pictures
at the press of a button, so that angles without it are not enough. AP and PA without it are taken as every
clinic shows them, the patient's right on the picture's left.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from jaxtyping import Float
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from jxrecon.files import one_line
from jxrecon.io import xray_checks
from jxrecon.io.dicom_files import PIXELS, count_of_frames, read_elements, stored_values, text_of
from jxrecon.types import InputError

Said = dict[str, tuple[Any, str]]
"""Quantity -> its value and where it came from."""

MODALITIES = ("CR", "DX", "XA", "RF", "RG", "DR", "PX", "OT")

_HEADER = [
    *PIXELS, "Modality", "SOPClassUID", "DistanceSourceToDetector", "DistanceSourceToPatient",
    "EstimatedRadiographicMagnificationFactor", "ImagerPixelSpacing", "PixelSpacing",
    "NominalScannedPixelSpacing", "PositionerType", "PositionerMotion", "PositionerPrimaryAngle",
    "PositionerSecondaryAngle", "ViewPosition", "ViewCodeSequence", "PatientOrientation",
    "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "PresentationIntentType",
    "PresentationLUTShape", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
]  # fmt: skip
_NAMED = {
    "AP": "ap", "PA": "pa", "LL": "ll", "RL": "rl",
    "ANTERO-POSTERIOR": "ap", "POSTERO-ANTERIOR": "pa", "LEFT LATERAL": "ll", "RIGHT LATERAL": "rl",
}  # fmt: skip
_RESCALE = (("Slope", 1.0), ("Intercept", 0.0))
_RELATIONS = {"LIN": "raw", "LOG": "log", "DISP": "display"}


class DicomXray(NamedTuple):
    """A radiograph as its file has it.

    Attributes:
        path: the file.
        header: its elements.
        stored: numbers of one frame, [rows, columns].
        said: what its tags tell, by the keys of a sidecar.
    """

    path: Path
    header: pydicom.Dataset
    stored: np.ndarray
    said: Said


def read_dicom_xray(path: Path, frame: int | None = None) -> DicomXray:
    """One frame of a radiograph with what its tags tell.

    Args:
        frame: from 1; needed where there are several.

    Raises:
        InputError: it is damaged, no radiograph, or has several frames of which none was chosen.
    """
    header = read_elements(path, _HEADER)
    modality = text_of(header, "Modality")
    if modality not in MODALITIES:
        raise InputError(
            f"{path}: Modality is {modality or 'missing'}, expected a radiograph (CR, DX, XA)"
        )
    count = count_of_frames(path, header)
    if (frame is None and count > 1) or (frame is not None and not 1 <= frame <= count):
        told = "" if frame is None else f", --frame {frame}"
        raise InputError(f"{path}: {count} frame(s){told}, expected --frame 1 to {count}")
    stored = stored_values(path, header)[(frame or 1) - 1]
    return DicomXray(
        path, header, stored, {**_lengths(header), **_view(path, header), **_kind(header)}
    )


def _lengths(header: pydicom.Dataset) -> Said:
    """Distances and pitch, where they are positive numbers: 0 stands for unknown."""
    said: Said = {}

    def positive(name: str, count: int) -> tuple[float, ...] | None:
        try:
            value = header.get(name)
            found = tuple(float(x) for x in np.atleast_1d(value)) if value is not None else ()
        except (TypeError, ValueError):
            found = ()
        good = len(found) == count and all(0 < x < math.inf for x in found)
        return found if good else None

    detector = positive("DistanceSourceToDetector", 1)
    axis = positive("DistanceSourceToPatient", 1)
    larger = positive("EstimatedRadiographicMagnificationFactor", 1)
    if detector:
        said["source_detector_mm"] = detector[0], "DistanceSourceToDetector"
    if axis:
        said["source_axis_mm"] = axis[0], "DistanceSourceToPatient"
    elif detector and larger and larger[0] > 1:
        said["source_axis_mm"] = detector[0] / larger[0], "EstimatedRadiographicMagnificationFactor"
    for name in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):  # in the detector's plane
        if pitch := positive(name, 2):
            said["pixel_mm"] = pitch, name
            break
    return said


def _view(path: Path, header: pydicom.Dataset) -> Said:
    """Where the X-ray is taken from, and which way its picture lies."""
    said: Said = {}
    orientation = [x for x in header.get("PatientOrientation") or [] if str(x).strip()]
    if orientation:
        said["patient_orientation"] = [str(x) for x in orientation], "PatientOrientation"
    angles = [text_of(header, f"Positioner{which}Angle") for which in ("Primary", "Secondary")]
    codes = header.get("ViewCodeSequence") or [pydicom.Dataset()]
    meaning = text_of(codes[0], "CodeMeaning").upper()
    position = _NAMED.get(text_of(header, "ViewPosition").upper()) or _NAMED.get(meaning)
    where = (
        "ViewPosition" if text_of(header, "ViewPosition").upper() in _NAMED else "ViewCodeSequence"
    )
    arm = text_of(header, "PositionerType") in ("", "CARM")
    moving = text_of(header, "PositionerMotion") == "DYNAMIC"
    if angles[0] and arm and not moving:
        try:
            primary, secondary = float(angles[0]), float(angles[1] or 0)
        except ValueError:
            raise InputError(f"{path}: positioner angles are {angles}, expected numbers") from None
        if not (-180 <= primary <= 180 and -90 <= secondary <= 90):
            raise InputError(
                f"{path}: positioner angles are {primary:g}, {secondary:g}, expected up to 180 and 90 degrees"
            )
        origin = f"PositionerPrimaryAngle {primary:g}, PositionerSecondaryAngle {secondary:g}"
        # exact zeros, and no -0
        said["view"] = f"{(primary + 180) % 360:.12g},{-secondary + 0.0:.12g}", origin
    elif position and (position in ("ap", "pa") or orientation):
        said["view"] = position, where
    return said


def _kind(header: pydicom.Dataset) -> Said:
    """What the pixels are."""
    relation = text_of(header, "PixelIntensityRelationship").upper()
    if relation in _RELATIONS:
        return {"intensity": (_RELATIONS[relation], f"PixelIntensityRelationship {relation}")}
    if text_of(header, "PresentationIntentType") == "FOR PROCESSING":
        return {"intensity": ("raw", "PresentationIntentType FOR PROCESSING")}
    return {}


def lacks_orientation(said: Said) -> bool:
    """Whether positioner angles stand alone: nothing tells which way the picture lies."""
    angles = "view" in said and said["view"][1].startswith("Positioner")
    return angles and "patient_orientation" not in said


def pixels_of(
    xray: DicomXray, intensity: str, turned: bool = False
) -> tuple[Float[np.ndarray, "rows columns"], tuple[str, str, str]]:
    """The pixels as intensities ("raw"), or as numbers that grow with attenuation, and a line to print.

    For display: after modality and VOI look-up tables, dark for bright in MONOCHROME1 (PS3.3 C.7.6.3.1.2).
    Raw and log: after the modality's alone. Pixel Intensity Relationship Sign says which way stored numbers
    run; MONOCHROME1 files disagree on whether it is told before or after the inversion, so that of these two
    readings the one with air about the body counts.

    Args:
        turned: the other way round than found here.
    """
    header, path = xray.header, xray.path
    dark_high = text_of(header, "PhotometricInterpretation") == "MONOCHROME1"
    if intensity == "display":
        values = _looked_up(path, xray.stored, header, voi=True)
        shape = text_of(header, "PresentationLUTShape")
        why = (
            "MONOCHROME1"
            if dark_high
            else f"PresentationLUTShape {shape}"
            if shape
            else "MONOCHROME2"
        )
        inverted = (dark_high or shape == "INVERSE") != turned
        values = _ends(header) - values if inverted else values
        return values, (
            "polarity",
            "inverted after VOI" if inverted else "as stored after VOI",
            why,
        )
    sign = text_of(header, "PixelIntensityRelationshipSign")
    falls = sign == "-1" if sign else dark_high  # stored numbers fall where intensities rise
    why = (
        f"PixelIntensityRelationshipSign {sign}"
        if sign
        else text_of(header, "PhotometricInterpretation")
    )
    if dark_high and not turned and _air_is_dark(xray, falls) and not _air_is_dark(xray, not falls):
        falls, why = not falls, f"MONOCHROME1 over {why}: air is at the picture's frame"
    as_intensity = falls == turned
    rising = as_intensity if intensity == "raw" else not as_intensity
    values = _looked_up(path, xray.stored if rising else _complement(xray), header, voi=False)
    what = "intensities" if intensity == "raw" else "attenuation"
    return values, ("polarity", f"{what} {'as stored' if rising else 'inverted'}", why)


def _ends(header: pydicom.Dataset) -> float:
    """The sum of the least and the largest number that display values can have."""
    tables = header.get("VOILUTSequence")
    if tables:
        return float((1 << int(tables[0].LUTDescriptor[2])) - 1)
    signed = header.get("PixelRepresentation") == 1
    total = -1.0 if signed else float((1 << int(header.BitsStored)) - 1)
    slope, intercept = (
        float(header.get(f"Rescale{name}") or default) for name, default in _RESCALE
    )
    return slope * total + 2 * intercept


def _complement(xray: DicomXray) -> np.ndarray:
    """Dark for bright: the largest number that the stored bits can have, or the least, becomes the other."""
    bits, signed = int(xray.header.BitsStored), xray.header.get("PixelRepresentation") == 1
    return (-1 if signed else (1 << bits) - 1) - xray.stored


def _air_is_dark(xray: DicomXray, falls: bool) -> bool:
    """Whether, read so, the frame of the picture attenuates as nothing but a body inside out does."""
    intensity = (_complement(xray) if falls else xray.stored).astype(np.float64)
    intensity -= min(0.0, intensity.min())
    top = max(1.0, intensity.max())
    return xray_checks.is_inverted(-np.log(np.maximum(intensity, top / 4096) / top))


def _looked_up(path: Path, stored: np.ndarray, header: pydicom.Dataset, voi: bool) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"):
            values = apply_modality_lut(stored, header)
            return np.asarray(apply_voi_lut(values, header) if voi else values, np.float64)
    except Exception as error:  # tables of a damaged file make it raise anything
        raise InputError(
            f"{path}: its look-up tables cannot be applied ({one_line(error)[:160]})"
        ) from None
