"""CT series in DICOM files: found by their UIDs, ordered in space, read whole or not at all."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from jaxtyping import Float, Shaped
from pydicom.uid import MediaStorageDirectoryStorage

from jxrecon.files import one_line
from jxrecon.io.nifti import MAX_BYTES, canonical
from jxrecon.types import InputError

SPACING_SHARE, SPACING_MM = 0.01, 0.1
"""A gap between slices may differ by the larger of 1 % and 0.1 mm from the others."""

DUPLICATE_MM = 0.01
"""Slices nearer than this lie in the same place."""

_ASIDE_MM = 0.2  # that a slice may lie beside the others, across their normal
_ALIKE = 1e-3  # of direction cosines and of spacings in mm that must be equal
_HEADER = [
    "SOPClassUID", "Modality", "PatientID", "SeriesInstanceUID", "InstanceNumber", "ImageType",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
]  # fmt: skip


class Series(NamedTuple):
    """Files of one CT series.

    Attributes:
        uid: SeriesInstanceUID (0020,000E).
        patient: PatientID (0010,0020), may be empty.
        files: its slices, in the order of their names.
    """

    uid: str
    patient: str
    files: tuple[Path, ...]


class _Slice(NamedTuple):
    path: Path
    position: np.ndarray  # of its first voxel, LPS mm
    axes: np.ndarray  # direction of a row and of a column, [2, 3]
    spacing: np.ndarray  # between columns and between rows, mm
    shape: tuple[int, int]  # columns, rows
    slope: float
    intercept: float
    number: int


def find_series(files: Iterable[Path]) -> list[Series]:
    """The CT series among files, in the order of patient and UID.

    What is no DICOM file, no CT or a scout view is passed over. A DICOM file too damaged to tell what it
    is of counts to every series of its folder, so that reading them names it: else a lost slice at an end
    of the scan would go unnoticed.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    patients: dict[str, str] = {}
    damaged: list[Path] = []
    for path in sorted(files):
        try:
            header = _read(path, pixels=False)
        except InputError:
            header = pydicom.Dataset()
        if "Modality" not in header:
            meta = getattr(header, "file_meta", pydicom.Dataset())
            dicomdir = meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
            damaged += [path] if _is_dicom(path) and not dicomdir else []
            continue
        if header.Modality != "CT" or "LOCALIZER" in (header.get("ImageType") or ()):
            continue
        uid = str(header.get("SeriesInstanceUID") or "")
        found[uid].append(path)
        patients.setdefault(uid, str(header.get("PatientID") or ""))
    for paths in found.values():
        folders = {path.parent for path in paths}
        paths += [path for path in damaged if path.parent in folders]
    return sorted(
        (Series(uid, patients[uid], tuple(paths)) for uid, paths in found.items()),
        key=lambda series: (series.patient, series.uid),
    )


def read_folder(
    folder: Path, fix: bool = False
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """The one CT series of a folder, as `read_series` gives it.

    Raises:
        InputError: the folder holds no CT series or several, or the series cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one of DICOM files")
    series = find_series(path for path in folder.iterdir() if path.is_file())
    if len(series) != 1:
        uids = ", ".join(f"{one.uid} ({len(one.files)} files)" for one in series) or "none"
        raise InputError(f"{folder}: expected one CT series, found {uids}")
    return read_series(series[0].files, fix)


def read_series(
    files: Sequence[Path], fix: bool = False
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A CT volume in RAS order from the slices of one series.

    Slices are ordered along their normal by Image Position (Patient); Slice Thickness, file names and
    Instance Number decide nothing. Each slice has its own rescale slope and intercept.

    Args:
        files: its slices, one a file, in any order.
        fix: instead of refusing them, drop the later of two slices in one place, fill gaps by linear
            interpolation, and keep a gantry tilt as a sheared affine.

    Returns:
        The voxels [x, y, z] in HU, int16 where all are whole numbers and float32 otherwise, and the
        affine, index -> world mm (RAS), float64.

    Raises:
        InputError: a file is damaged or of another series, size or orientation, or has no position;
            a slice is missing or there twice, gaps differ or the gantry was tilted; the volume is
            too large.
    """
    slices = [_checked(path, _read(path, pixels=False)) for path in files]
    if len(slices) < 2:
        place = files[0] if files else "series"
        raise InputError(f"{place}: {len(slices)} slices in its series, expected at least two")
    _check_alike(slices)
    if (size := 4 * len(slices) * int(np.prod(slices[0].shape))) > MAX_BYTES:
        raise InputError(
            f"{slices[0].path}: its series declares {size / 1024**3:.1f} GiB, expected at most "
            f"{MAX_BYTES / 1024**3:g} GiB"
        )
    normal = np.cross(*slices[0].axes)
    slices.sort(key=lambda s: (float(s.position @ normal), s.number, s.path.name))
    slices = _without_duplicates(slices, normal, fix)
    places = np.array([s.position @ normal for s in slices])
    step = _check_gaps(slices, places, fix)
    direction = _check_tilt(slices, normal, fix)
    volume = np.stack([_pixels(s) for s in slices], -1)  # float32 if one of them is
    if fix:
        volume = _evenly(volume, places, step)
    affine = np.eye(4)
    first = slices[0]
    affine[:3, :2] = (first.axes * first.spacing[:, None]).T
    affine[:3, 2], affine[:3, 3] = direction * step, first.position
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS
    return canonical(volume, affine)


def _read(path: Path, pixels: bool) -> pydicom.Dataset:
    """The elements that are used, and no other: what a vendor wrote into its own does not matter."""
    wanted = [*_HEADER, "PixelData"] if pixels else _HEADER
    try:
        with warnings.catch_warnings(action="ignore"):  # what is wrong is told where it is used
            return pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=wanted)
    except Exception as error:  # a damaged file makes it raise anything
        raise InputError(f"{path}: cannot be read as DICOM ({one_line(error)[:160]})") from None


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _numbers(path: Path, header: pydicom.Dataset, name: str, count: int) -> np.ndarray:
    """`count` finite numbers of an element."""
    try:
        with warnings.catch_warnings(action="ignore"):
            value = header.get(name)
            numbers = np.atleast_1d(np.asarray(value, np.float64))
    except Exception:  # of the wrong kind, or bytes that are no number
        value, numbers = "no number", np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        number = header.get("InstanceNumber")
        raise InputError(
            f"{path}: slice {number} has {name} = {value}, expected {count} finite number(s)"
        )
    return numbers


def _checked(path: Path, header: pydicom.Dataset) -> _Slice:
    if header.get("Modality") != "CT":
        raise InputError(f"{path}: Modality is {header.get('Modality')}, expected CT")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise InputError(
            f"{path}: {header.NumberOfFrames} frames in one file, expected one slice a file"
        )
    axes = _numbers(path, header, "ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        raise InputError(
            f"{path}: ImageOrientationPatient is {axes.ravel().tolist()}, expected two unit vectors "
            "at a right angle"
        )
    rows_mm, columns_mm = _numbers(path, header, "PixelSpacing", 2)
    if not min(rows_mm, columns_mm) > 0:
        raise InputError(
            f"{path}: PixelSpacing is [{rows_mm:g}, {columns_mm:g}], expected positive mm"
        )
    rows, columns, slope, intercept = (
        float(_numbers(path, header, name, 1)[0])
        for name in ("Rows", "Columns", "RescaleSlope", "RescaleIntercept")
    )
    position = _numbers(path, header, "ImagePositionPatient", 3)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    spacing, number = np.array([columns_mm, rows_mm]), int(header.get("InstanceNumber") or 0)
    shape = int(columns), int(rows)
    return _Slice(path, position, axes, spacing, shape, slope, intercept, number)


def _check_alike(slices: Sequence[_Slice]) -> None:
    first = slices[0]
    for one in slices[1:]:
        for what, a, b in (
            ("orientation", one.axes, first.axes),
            ("pixel spacing", one.spacing, first.spacing),
            ("size", np.array(one.shape), np.array(first.shape)),
        ):
            if not np.allclose(a, b, rtol=0, atol=_ALIKE):
                raise InputError(
                    f"{one.path}: {_name(one)} has {what} {a.ravel().tolist()}, expected "
                    f"{b.ravel().tolist()} as in {first.path.name}"
                )


def _name(one: _Slice) -> str:
    place = ", ".join(f"{x:g}" for x in one.position)
    return f"slice {one.number} at ({place}) mm"


def _without_duplicates(slices: list[_Slice], normal: np.ndarray, fix: bool) -> list[_Slice]:
    kept = [slices[0]]
    for one in slices[1:]:
        if (one.position - kept[-1].position) @ normal >= DUPLICATE_MM:
            kept.append(one)
        elif not fix:
            raise InputError(
                f"{one.path}: {_name(one)} lies where {kept[-1].path.name} does, expected one slice "
                "a position"
            )
    if len(kept) < 2:
        raise InputError(f"{slices[0].path}: all slices of its series lie in one place")
    return kept


def _check_gaps(slices: Sequence[_Slice], places: np.ndarray, fix: bool) -> float:
    """The distance from slice to slice in mm."""
    gaps = np.diff(places)
    step = float(np.median(gaps))
    allowed = max(SPACING_SHARE * step, SPACING_MM)
    for k in [] if fix else np.flatnonzero(np.abs(gaps - step) > allowed).tolist():
        missing = round(gaps[k] / step) - 1
        what = f"{missing} slice(s) missing" if missing > 0 else "the spacing is uneven"
        raise InputError(
            f"{slices[k + 1].path}: {what} before {_name(slices[k + 1])}, {gaps[k]:.3f} mm after "
            f"{slices[k].path.name}, expected {step:.3f} mm"
        )
    # The mean of even gaps: rounded positions would add up.
    return step if fix else float(places[-1] - places[0]) / (len(places) - 1)


def _check_tilt(slices: Sequence[_Slice], normal: np.ndarray, fix: bool) -> np.ndarray:
    """The step from slice to slice for 1 mm along the normal; the normal itself without a tilt."""
    moved = slices[-1].position - slices[0].position
    direction = moved / (moved @ normal)
    tilt = np.degrees(np.arctan(np.linalg.norm(direction - normal)))
    along = direction if fix else normal
    for one in slices[1:]:
        offset = one.position - slices[0].position
        aside = np.linalg.norm(offset - (offset @ normal) * along)
        if aside > _ASIDE_MM:
            raise InputError(
                f"{one.path}: {_name(one)} lies {aside:.2f} mm beside the line of the slices "
                f"(a gantry tilt of {tilt:.1f} degrees?), expected at most {_ASIDE_MM} mm"
            )
    return along


def _pixels(one: _Slice) -> np.ndarray:
    """HU [column, row]; int16 where slope and intercept are whole numbers that fit."""
    header = _read(one.path, pixels=True)
    try:
        with warnings.catch_warnings(action="ignore"):
            stored = header.pixel_array
    except Exception as error:  # decoders raise anything
        reason = one_line(error)[:160]
        raise InputError(f"{one.path}: {_name(one)} has no readable pixels ({reason})") from None
    if stored.shape != one.shape[::-1]:
        raise InputError(
            f"{one.path}: pixels have shape {stored.shape}, expected {one.shape[::-1]}"
        )
    hu = stored.T.astype(np.float64) * one.slope + one.intercept
    limits = np.iinfo(np.int16)
    whole = one.slope == int(one.slope) and one.intercept == int(one.intercept)
    fits = whole and limits.min <= hu.min() and hu.max() <= limits.max
    return hu.astype(np.int16 if fits else np.float32)


def _evenly(volume: np.ndarray, places: np.ndarray, step: float) -> np.ndarray:
    """Slices at places -> slices every `step` from the first, by linear interpolation."""
    wanted = places[0] + step * np.arange(round((places[-1] - places[0]) / step) + 1)
    after = np.clip(np.searchsorted(places, wanted), 1, len(places) - 1)
    weight = (wanted - places[after - 1]) / (places[after] - places[after - 1])
    weight = np.clip(weight, 0.0, 1.0).astype(np.float32)
    mixed = (1 - weight) * volume[..., after - 1] + weight * volume[..., after]
    return np.rint(mixed).astype(np.int16) if volume.dtype == np.int16 else mixed
