"""The slices in DICOM files of CT, one or many a file: where they lie, how they are scaled, whose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom

from jxrecon.io.dicom_files import PIXELS, count_of_frames, numbers_of, read_elements, text_of
from jxrecon.types import InputError

DUPLICATE_MM = 0.01
"""Slices nearer than this lie in the same place."""

_ALWAYS = ("PatientID", "StudyInstanceUID")
_TELLING = (
    "SeriesNumber", "SeriesDescription", "TemporalPositionIdentifier", "TemporalPositionIndex",
    "AcquisitionNumber", "FrameAcquisitionNumber", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "StackID", "ConvolutionKernel", "KVP", "AcquisitionDateTime", "FrameAcquisitionDateTime",
    "AcquisitionTime", "ContentTime",
)  # fmt: skip
"""What tells the volumes of one series apart, the surest first."""

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
HEADER = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "InstanceNumber", "ImageType",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "RescaleSlope", "RescaleIntercept", "RescaleType", *_GROUPS, *_ALWAYS, *_TELLING,
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    *(name for name in PIXELS if name != "PixelData"),
]  # fmt: skip
"""The elements that are read before pixels are."""


class Slice(NamedTuple):
    """A slice as its header has it.

    Attributes:
        path: its file.
        frame: its place in the file, from 0.
        position: of its first voxel, LPS mm, [3].
        axes: direction of a row and of a column, [2, 3].
        spacing: between columns and between rows, mm, [2].
        shape: columns, rows.
        slope, intercept: HU = stored x slope + intercept.
        kind: Rescale Type; empty where there is none.
        number: Instance Number as text; empty of a frame.
        marks: what may tell the volumes of one series apart.
    """

    path: Path
    frame: int
    position: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray
    shape: tuple[int, int]
    slope: float
    intercept: float
    kind: str
    number: str
    marks: dict[str, str]

    @property
    def name(self) -> str:
        place = ", ".join(f"{x:g}" for x in self.position)
        which = f"slice {self.number}" if self.number else f"frame {self.frame + 1}"
        return f"{which} at ({place}) mm"


def slices_in(path: Path, header: pydicom.Dataset | None = None) -> list[Slice]:
    """The slices of a file; more than one in an enhanced (multi-frame) CT.

    Args:
        header: its elements of `HEADER`, where they were read.

    Raises:
        InputError: the file is damaged or no CT, or a slice has no place, size or scale.
    """
    header = read_elements(path, HEADER) if header is None else header
    if header.get("Modality") != "CT":
        raise InputError(f"{path}: Modality is {text_of(header, 'Modality')}, expected CT")
    count = count_of_frames(path, header)
    groups = [header.get(name) or [] for name in _GROUPS]
    if count == 1 and not groups[1]:
        return [_slice(path, header, 0)]
    if len(groups[1]) != count:
        raise InputError(
            f"{path}: {count} frames in one file and {len(groups[1])} groups that tell where they lie, "
            "expected one each, as in enhanced CT"
        )
    return [
        _slice(path, _flat(header, [*groups[0], frame]), n)._replace(number="")
        for n, frame in enumerate(groups[1])
    ]


def _flat(header: pydicom.Dataset, groups: Iterable[pydicom.Dataset]) -> pydicom.Dataset:
    """A frame's elements as those of a single slice: the file's, what its frames share, its own."""
    flat = pydicom.Dataset()
    flat.update({element.tag: element for element in header if element.VR != "SQ"})
    for group in groups:
        for element in group:
            if element.VR == "SQ" and len(element.value) == 1:
                flat.update({inner.tag: inner for inner in element.value[0] if inner.VR != "SQ"})
    return flat


def _slice(path: Path, header: pydicom.Dataset, frame: int) -> Slice:
    axes = numbers_of(path, header, "ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        raise InputError(
            f"{path}: ImageOrientationPatient is {axes.ravel().tolist()}, expected two unit vectors "
            "at a right angle"
        )
    rows_mm, columns_mm = numbers_of(path, header, "PixelSpacing", 2)
    if not min(rows_mm, columns_mm) > 0:
        raise InputError(
            f"{path}: PixelSpacing is [{rows_mm:g}, {columns_mm:g}], expected positive mm"
        )
    rows, columns, slope, intercept = (
        float(numbers_of(path, header, name, 1)[0])
        for name in ("Rows", "Columns", "RescaleSlope", "RescaleIntercept")
    )
    if slope == 0:
        raise InputError(f"{path}: RescaleSlope is 0, expected another number")
    return Slice(
        path,
        frame,
        numbers_of(path, header, "ImagePositionPatient", 3),
        axes / np.linalg.norm(axes, axis=1, keepdims=True),
        np.array([columns_mm, rows_mm]),
        (int(columns), int(rows)),
        slope,
        intercept,
        text_of(header, "RescaleType"),
        text_of(header, "InstanceNumber"),
        {name: text for name in (*_ALWAYS, *_TELLING) if (text := text_of(header, name))},
    )


def volumes_in(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """The volumes that one series holds, by what tells them apart; {"": slices} where it holds one.

    Two patients or studies are two. Acquisitions, times, kernels and so on are two where they lie in the
    same places or between each other's; where one follows the other along the body they are one.
    """
    if len(slices) < 2:
        return {"": [*slices]}
    normal = np.cross(*slices[0].axes)
    for key in (*_ALWAYS, *_TELLING):
        groups = defaultdict(list)
        for one in slices:
            groups[one.marks.get(key, "")].append(one)
        least = 1 if key in _ALWAYS else 2  # a time or number of each slice's own tells nothing
        if len(groups) < 2 or min(map(len, groups.values())) < least:
            continue
        if key in _ALWAYS or _overlap(
            [[float(s.position @ normal) for s in g] for g in groups.values()]
        ):
            return {
                ", ".join(filter(None, (f"{key} {value}", inner))): part
                for value, group in sorted(groups.items())
                for inner, part in volumes_in(group).items()
            }
    return {"": [*slices]}


def _overlap(places: Sequence[Sequence[float]]) -> bool:
    """Whether one group of places reaches into another's."""
    ends = sorted((min(group), max(group)) for group in places)
    return any(low < high + DUPLICATE_MM for (_, high), (low, _) in pairwise(ends))
