"""CT series in DICOM files: found by their UIDs, ordered in space, read whole or not at all."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from jaxtyping import Float, Shaped
from pydicom.uid import MediaStorageDirectoryStorage
from scipy import ndimage

from jxrecon.files import MAX_BYTES
from jxrecon.io.dicom_files import PIXELS, is_blank, is_dicom, read_elements, stored_values, text_of
from jxrecon.io.dicom_slices import DUPLICATE_MM, HEADER, Slice, slices_in, volumes_in
from jxrecon.io.finding import Found, find_files
from jxrecon.io.hounsfield import AIR_HU, LEAST_HU, MOST_HU, checked_hu
from jxrecon.io.nifti import canonical
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

SPACING_SHARE, SPACING_MM = 0.01, 0.1
"""A gap between slices may differ by the larger of 1 % and 0.1 mm from the others."""

_ASIDE_MM = 0.2  # that a slice may lie beside the others, across their normal
_ALIKE = 1e-3  # of direction cosines and of spacings in mm that must be equal


class Series(NamedTuple):
    """Files of one CT volume.

    Attributes:
        uid: SeriesInstanceUID (0020,000E).
        patient: PatientID (0010,0020), may be empty.
        files: its slices, in the order of their names.
        part: which volume of its series, such as "AcquisitionNumber 2"; empty where there is one.
    """

    uid: str
    patient: str
    files: tuple[Path, ...]
    part: str = ""


def find_series(files: Iterable[Path]) -> list[Series]:
    """The CT volumes among files, in the order of patient, UID and part.

    What is no DICOM file, no CT or a scout view is passed over. A DICOM file too damaged to tell what it
    is of counts to every series of its folder, so that reading them names it: else a lost slice at an end
    of the scan would go unnoticed. So does an empty one whose name ends as theirs. A series of several
    acquisitions or times is split.
    """
    found: dict[str, dict[Path, pydicom.Dataset]] = defaultdict(dict)
    damaged: list[Path] = []
    lost: list[Path] = []
    for path in sorted(files):
        if not is_dicom(path):
            lost += [path] if is_blank(path) else []
            continue
        try:
            header = read_elements(path, HEADER)
        except InputError:
            header = pydicom.Dataset()
        if not text_of(header, "Modality"):
            meta = getattr(header, "file_meta", pydicom.Dataset())
            dicomdir = meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
            damaged += [] if dicomdir else [path]
        elif header.Modality == "CT" and "LOCALIZER" not in (header.get("ImageType") or ()):
            found[text_of(header, "SeriesInstanceUID")][path] = header
    series = [one for uid, headers in found.items() for one in _split(uid, headers)]
    for n, one in enumerate(series):
        folders = {path.parent for path in one.files}
        alike = {(path.parent, _ending(path)) for path in one.files}
        faults = [path for path in damaged if path.parent in folders]
        faults += [path for path in lost if (path.parent, _ending(path)) in alike]
        series[n] = one._replace(files=(*one.files, *faults))
    return sorted(series, key=lambda one: (one.patient, one.uid, one.part))


def _ending(path: Path) -> str:
    """The ending of a name; empty where it is a number, as in IM.0001."""
    return "" if path.suffix[1:].isdecimal() else path.suffix.lower()


def _split(uid: str, headers: dict[Path, pydicom.Dataset]) -> Iterator[Series]:
    """The volumes of one series, where each file belongs to one; else all in one, to be refused when read."""
    try:
        volumes = volumes_in(
            [s for path, header in headers.items() for s in slices_in(path, header)]
        )
    except InputError:
        volumes = {}
    files = {part: tuple(sorted({s.path for s in slices})) for part, slices in volumes.items()}
    if sum(map(len, files.values())) != len(headers):
        files = {"": tuple(headers)}
    for part, paths in files.items():
        yield Series(uid, text_of(headers[paths[0]], "PatientID"), paths, part)


def read_folder(
    folder: Path, fix: bool = False, stated: Stated = NOTHING_STATED
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """The one CT volume in a folder and the folders in it, as `read_series` gives it.

    Raises:
        InputError: the folder holds no CT volume or several, or the series cannot be read.
    """
    found = find_files(folder)
    series = find_series(found.files)
    if len(series) != 1:
        told = [f"{one.uid} {one.part}".strip() + f" ({len(one.files)} files)" for one in series]
        raise InputError(f"{folder}: expected one CT series, found {', '.join(told) or 'none'}")
    others = [(path, "of another kind") for path in found.files if path not in series[0].files]
    Found(series[0].files, (*found.passed, *others)).told(folder)
    return read_series(series[0].files, fix, stated)


def read_series(
    files: Sequence[Path], fix: bool = False, stated: Stated = NOTHING_STATED
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A CT volume in RAS order from the slices of one series, in single files or in enhanced ones.

    Slices are ordered along their normal by Image Position (Patient); Slice Thickness, file names and
    Instance Number decide nothing. Each slice has its own rescale slope and intercept.

    Args:
        files: its files, in any order.
        fix: instead of refusing them, drop the later of two slices in one place, fill gaps by linear
            interpolation, and keep a gantry tilt as a sheared affine; each is told in a line on stderr.
        stated: what the user says about the numbers.

    Returns:
        The voxels [x, y, z] in HU, int16 where all are whole numbers and float32 otherwise, and the
        affine, index -> world mm (RAS), float64.

    Raises:
        InputError: a file is damaged or of another series, size or orientation, or has no position;
            a slice is missing or there twice, gaps differ or the gantry was tilted; there are several
            volumes; the volume is too large or not in HU.
    """
    slices = [one for path in files for one in slices_in(path)]
    if len(slices) < 2:
        place = files[0] if files else "series"
        raise InputError(f"{place}: {len(slices)} slices in its series, expected at least two")
    if len(parts := volumes_in(slices)) > 1:
        told = "; ".join(f"{part}: {len(group)} slices" for part, group in parts.items())
        raise InputError(
            f"{slices[0].path}: its series holds {len(parts)} volumes ({told}), expected the files of one"
        )
    _check_alike(slices)
    if (size := 4 * len(slices) * int(np.prod(slices[0].shape))) > MAX_BYTES:
        raise InputError(
            f"{slices[0].path}: its series declares {size / 1024**3:.1f} GiB, expected at most "
            f"{MAX_BYTES / 1024**3:g} GiB"
        )
    normal = np.cross(*slices[0].axes)
    slices.sort(key=lambda s: (float(s.position @ normal), s.number.rjust(12), s.path.name))
    slices = _without_duplicates(slices, normal, fix)
    places = np.array([s.position @ normal for s in slices])
    step = _check_gaps(slices, places, fix)
    direction = _check_tilt(slices, normal, fix)
    volume = _pixels(slices, stated)
    if fix:
        volume = _evenly(volume, places, step)
    affine = np.eye(4)
    first = slices[0]
    affine[:3, :2] = (first.axes * first.spacing[:, None]).T
    affine[:3, 2], affine[:3, 3] = direction * step, first.position
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS
    return canonical(volume, affine)


def _fixed(what: str) -> None:
    print(f"fixed: {what}", file=sys.stderr)


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for one in slices[1:]:
        for what, a, b in (
            ("orientation", one.axes, first.axes),
            ("pixel spacing", one.spacing, first.spacing),
            ("size", np.array(one.shape), np.array(first.shape)),
        ):
            if not np.allclose(a, b, rtol=0, atol=_ALIKE):
                raise InputError(
                    f"{one.path}: {one.name} has {what} {a.ravel().tolist()}, expected "
                    f"{b.ravel().tolist()} as in {first.path.name}"
                )
        if one.kind != first.kind:
            raise InputError(
                f"{one.path}: {one.name} has RescaleType {one.kind!r}, expected {first.kind!r} as in "
                f"{first.path.name}"
            )


def _without_duplicates(slices: list[Slice], normal: np.ndarray, fix: bool) -> list[Slice]:
    kept, double = [slices[0]], []
    for one in slices[1:]:
        if (one.position - kept[-1].position) @ normal >= DUPLICATE_MM:
            kept.append(one)
            continue
        double.append((one, kept[-1]))
        if not fix:
            raise InputError(
                f"{one.path}: {one.name} lies where {kept[-1].path.name} does, expected one slice "
                "a position"
            )
    if len(kept) < 2:
        raise InputError(f"{slices[0].path}: all slices of its series lie in one place")
    if 2 * len(double) > len(kept):
        raise InputError(
            f"{double[0][0].path}: {len(double)} of {len(kept)} places of its series hold several slices, "
            "expected one volume, and nothing tells several apart"
        )
    for one, other in double:
        _fixed(f"{one.path}: {one.name} dropped, as {other.path.name} lies there")
    return kept


def _check_gaps(slices: Sequence[Slice], places: np.ndarray, fix: bool) -> float:
    """The distance from slice to slice in mm."""
    gaps = np.diff(places)
    step = float(np.median(gaps))
    allowed = max(SPACING_SHARE * step, SPACING_MM)
    for k in np.flatnonzero(np.abs(gaps - step) > allowed).tolist():
        missing, after = round(gaps[k] / step) - 1, slices[k + 1]
        what = f"{missing} slice(s) missing" if missing > 0 else "the spacing is uneven"
        fault = f"{what} before {after.name}, {gaps[k]:.3f} mm after {slices[k].path.name}"
        if not fix:
            raise InputError(f"{after.path}: {fault}, expected {step:.3f} mm")
        _fixed(f"{after.path}: {fault}; interpolated every {step:.3f} mm")
    # The mean of even gaps: rounded positions would add up.
    return step if fix else float(places[-1] - places[0]) / (len(places) - 1)


def _check_tilt(slices: Sequence[Slice], normal: np.ndarray, fix: bool) -> np.ndarray:
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
                f"{one.path}: {one.name} lies {aside:.2f} mm beside the line of the slices "
                f"(a gantry tilt of {tilt:.1f} degrees?), expected at most {_ASIDE_MM} mm"
            )
    if fix and np.linalg.norm(moved - (moved @ normal) * normal) > _ASIDE_MM:
        _fixed(f"{slices[0].path}: a gantry tilt of {tilt:.1f} degrees kept as a sheared volume")
    return along


def _pixels(slices: Sequence[Slice], stated: Stated) -> np.ndarray:
    """HU [column, row, slice]; int16 where slopes and intercepts are whole numbers that fit."""
    count: dict[Path, int] = defaultdict(int)
    for one in slices:
        count[one.path] += 1
    enhanced: dict[Path, tuple[pydicom.Dataset, np.ndarray]] = {}
    planes = []
    for one in slices:
        header, stored = enhanced.get(one.path) or _stored(one)
        if count[one.path] > 1:  # decoded once for all of its frames
            enhanced[one.path] = header, stored
        plane = stored[one.frame].T
        hu = plane.astype(np.float64) * one.slope + one.intercept
        hu[_padding(plane, header, one, stated)] = LEAST_HU
        limits = np.iinfo(np.int16)
        whole = one.slope == int(one.slope) and one.intercept == int(one.intercept)
        fits = whole and limits.min <= hu.min() and hu.max() <= limits.max
        planes.append(hu.astype(np.int16 if fits else np.float32))
    volume = np.stack(planes, -1)  # float32 if one of them is
    return checked_hu(volume, str(slices[0].path), stated, slices[0].kind)


def _stored(one: Slice) -> tuple[pydicom.Dataset, np.ndarray]:
    header = read_elements(one.path, [*PIXELS, "InstanceNumber", "PixelPaddingValue",
                                      "PixelPaddingRangeLimit"])  # fmt: skip
    return header, stored_values(one.path, header)


def _padding(plane: np.ndarray, header: pydicom.Dataset, one: Slice, stated: Stated) -> np.ndarray:
    """Where a slice holds no picture: Pixel Padding Value (0028,0120), up to its range's limit.

    Where that number would be tissue, it counts as padding as far as it reaches in from a corner: some files
    name a number that the picture holds too.
    """
    ends = [text_of(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    numbers = [int(text) for text in ends if text.lstrip("-").isdecimal()]
    if not numbers or not stated.nothing:
        return np.zeros(plane.shape, bool)
    bits, signed = int(header.BitsAllocated), header.get("PixelRepresentation") == 1
    half = 1 << (bits - 1)
    numbers = [(n + half) % (2 * half) - half if signed else n % (2 * half) for n in numbers]
    padded = (plane >= min(numbers)) & (plane <= max(numbers))
    if all(not AIR_HU < n * one.slope + one.intercept < MOST_HU for n in numbers):
        return padded
    pieces, _ = ndimage.label(padded)
    corners = pieces[[0, 0, -1, -1], [0, -1, 0, -1]]
    return padded & np.isin(pieces, corners[corners > 0])


def _evenly(volume: np.ndarray, places: np.ndarray, step: float) -> np.ndarray:
    """Slices at places -> slices every `step` from the first, by linear interpolation."""
    wanted = places[0] + step * np.arange(round((places[-1] - places[0]) / step) + 1)
    after = np.clip(np.searchsorted(places, wanted), 1, len(places) - 1)
    weight = (wanted - places[after - 1]) / (places[after] - places[after - 1])
    weight = np.clip(weight, 0.0, 1.0).astype(np.float32)
    mixed = (1 - weight) * volume[..., after - 1] + weight * volume[..., after]
    return np.rint(mixed).astype(np.int16) if volume.dtype == np.int16 else mixed
