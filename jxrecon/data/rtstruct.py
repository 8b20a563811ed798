"""Organs that were drawn on a CT for radiotherapy: the contours of a DICOM RTSTRUCT as labels of voxels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float, UInt8
from skimage.draw import polygon2mask

from jxrecon.files import one_line
from jxrecon.io.dicom_files import is_dicom
from jxrecon.terminal import note
from jxrecon.types import InputError

ORGANS = {
    "brainstem": 1,
    "spinal_cord": 2,
    "parotid_right": 3,
    "parotid_left": 4,
    "esophagus": 5,
    "larynx": 6,
    "mandible": 7,
}
"""Labels of openkbp_hn."""

_BEGINS = {
    "brainstem": ("brainstem", "brain stem"),
    "spinal_cord": ("cord", "spinal cord", "spinalcord", "spinal canal", "spine cord", "myelon"),
    "esophagus": ("esophag", "oesophag"),
    "larynx": ("larynx",),
    "mandible": ("mandib",),
    "parotid": ("parot",),
}
_SIDES = {"right": {"r", "rt", "right", "rechts"}, "left": {"l", "lt", "left", "links"}}
_NO_ORGAN = re.compile(r"prv|ptv|ctv|gtv|\bexp|margin|\+|minus|avoid|ring|\bopt", re.I)
_PLANE_SHARE = 0.5  # of a slice that a contour may lie beside it


def organ_of(name: str) -> str | None:
    """Which of `ORGANS` a region of interest is, by its name; None for targets, margins and all others."""
    if _NO_ORGAN.search(name):
        return None
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    text = f" {' '.join(words)}"
    fits = [organ for organ, begins in _BEGINS.items() if any(f" {b}" in text for b in begins)]
    sides = [side for side, marks in _SIDES.items() if marks & set(words)]
    if fits == ["parotid"]:
        return f"parotid_{sides[0]}" if len(sides) == 1 else None
    return fits[0] if len(fits) == 1 else None


def find(files: Sequence[Path]) -> dict[str, Path]:
    """SeriesInstanceUID -> the RTSTRUCT drawn on it, among files; the latest of several, which is told."""
    found: dict[str, tuple[str, Path]] = {}
    for path in files:
        if not is_dicom(path):
            continue
        try:
            data = _read(path)
            when = f"{data.get('StructureSetDate', '')}{data.get('StructureSetTime', '')}"
            uids = _series_of(data) if data.get("Modality") == "RTSTRUCT" else set()
        except Exception as error:
            note(f"{path}: cannot be read ({one_line(error)[:120]}), taken for no structure set")
            continue
        for uid in sorted(uids):
            if uid in found:
                note(f"{path}: a second structure set of series {uid}; the latest is taken")
            found[uid] = max(found.get(uid, ("", path)), (when, path))
    return {uid: path for uid, (_, path) in found.items()}


def _read(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True)


def _series_of(data: pydicom.Dataset) -> set[str]:
    return {
        str(series.SeriesInstanceUID)
        for frame in data.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }


def read_labels(
    path: Path, shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"]
) -> tuple[UInt8[np.ndarray, "x y z"], dict[str, Any]]:
    """The organs of a structure set on the voxels of its CT.

    A voxel belongs to an organ where its centre lies within an odd number of the slice's contours.

    Args:
        path: RTSTRUCT.
        shape: of the CT along x, y, z.
        affine: of the CT, index -> world mm (RAS).

    Returns:
        Labels as in `ORGANS`, 0 elsewhere; and the names of the regions by organ, and of those left out.

    Raises:
        InputError: it is damaged, two regions are one organ, or a contour lies between the CT's slices.
    """
    try:
        data = _read(path)
        names = {int(r.ROINumber): str(r.ROIName) for r in data.StructureSetROISequence}
        rois = [
            (names[int(roi.ReferencedROINumber)], [c.ContourData for c in roi.ContourSequence])
            for roi in data.ROIContourSequence
            if roi.get("ContourSequence")
        ]
        drawn = [(n, [np.asarray(c, np.float64).reshape(-1, 3) for c in cs]) for n, cs in rois]
    except Exception as error:  # a damaged file makes it raise anything
        raise InputError(f"{path}: no readable RTSTRUCT ({one_line(error)[:160]})") from None
    x, y, z = shape
    labels = np.zeros((x, y, z), np.uint8)
    to_index = np.linalg.inv(affine)
    taken: dict[str, str] = {}
    left_out = []
    for name, contours in drawn:
        organ = organ_of(name)
        if organ is None:
            left_out.append(name)
            continue
        if organ in taken:
            raise InputError(
                f"{path}: {taken[organ]!r} and {name!r} are both {organ}, expected one"
            )
        taken[organ] = name
        mask = np.zeros(labels.shape, bool)
        for points in contours:
            index = (
                points * [-1, -1, 1] @ to_index[:3, :3].T + to_index[:3, 3]
            )  # LPS -> RAS -> voxels
            level = float(index[:, 2].mean())
            place = round(level)
            if not np.isfinite(index).all() or np.abs(index[:, 2] - place).max() > _PLANE_SHARE:
                raise InputError(
                    f"{path}: a contour of {name!r} lies at slice {level:.2f} of the CT, expected it in one"
                )
            if 0 <= place < z and len(points) > 2:
                mask[:, :, place] ^= polygon2mask((x, y), index[:, :2])
        labels[mask] = ORGANS[organ]
    return labels, {"rois": taken, "rois_left_out": left_out}
