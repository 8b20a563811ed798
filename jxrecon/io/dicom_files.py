"""One DICOM file: is it one, its elements as numbers and text, its stored values with bits in their place."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Int
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from jxrecon.files import MAX_BYTES, one_line
from jxrecon.types import InputError

# What is wrong is told where it is used, and not where pydicom comes upon it.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

PIXELS = (
    "PixelData", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows",
    "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""The elements that `stored_values` needs."""

DECODERS = 'pip install "jxrecon[dicom]"'
"""What reads compressed pixels that pydicom alone does not."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as a DICOM file does, with the mark DICM or, in old ones, without."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    # Without the mark the first element is of group 2 or 8, in either order of bytes.
    group, element = head[:2], head[2:4]
    low = element[1:] == b"\0" if group[1:] == b"\0" else element[:1] == b"\0"
    bare = group in (b"\x08\0", b"\0\x08", b"\x02\0") and len(head) == 132 and low
    return head[128:] == b"DICM" or bare


def is_blank(path: Path) -> bool:
    """Whether a file is empty or begins with zeros alone, as one that was lost in a transfer."""
    try:
        with path.open("rb") as stream:
            return not any(stream.read(132)) and not is_dicom(path)
    except OSError:
        return False


def read_elements(path: Path, names: Sequence[str]) -> pydicom.Dataset:
    """These elements, and no other: what a vendor wrote into its own does not matter.

    Raises:
        InputError: the file is no DICOM file, or damaged.
    """
    if not is_dicom(path):
        raise InputError(f"{path}: does not begin as a DICOM file, expected the mark DICM")
    try:
        with warnings.catch_warnings(action="ignore"):  # what is wrong is told where it is used
            found = pydicom.dcmread(
                path,
                stop_before_pixels="PixelData" not in names,
                specific_tags=[*names],
                force=True,
            )
            for dataset in (found.file_meta, found):
                for tag in dataset.keys():  # noqa: SIM118 # decodes them, as is done where they are used
                    with suppress(ValueError, TypeError, OverflowError, LookupError):
                        dataset[tag]
    except Exception as error:  # a damaged file makes it raise anything
        raise InputError(f"{path}: cannot be read as DICOM ({one_line(error)[:160]})") from None
    if "TransferSyntaxUID" not in found.file_meta:
        implicit, little = found.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        found.file_meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian
    return found


def text_of(header: pydicom.Dataset, name: str) -> str:
    """An element as text; empty where it is absent, empty or no text."""
    try:
        with warnings.catch_warnings(action="ignore"):
            value = header.get(name)
            return "" if value is None else str(value).strip()
    except Exception:  # bytes that are none of its kind
        return ""


def numbers_of(path: Path, header: pydicom.Dataset, name: str, count: int) -> np.ndarray:
    """`count` finite numbers of an element.

    Raises:
        InputError: it is absent or holds anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            value: Any = header.get(name)
            numbers = np.atleast_1d(np.asarray(value, np.float64))
    except Exception:  # of the wrong kind, or bytes that are no number
        value, numbers = "no number", np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        number = text_of(header, "InstanceNumber")
        slice_ = f"slice {number} has " if number else ""
        raise InputError(f"{path}: {slice_}{name} = {value}, expected {count} finite number(s)")
    return numbers


def count_of_frames(path: Path, header: pydicom.Dataset) -> int:
    """Number of Frames (0028,0008); 1 where it is absent or empty.

    Raises:
        InputError: it is no positive whole number.
    """
    if "NumberOfFrames" not in header:
        return 1
    text = text_of(header, "NumberOfFrames")
    if text in ("", "None"):
        value = _empty_or_wrong(header)
        if value == "":
            return 1
        text = value
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise InputError(
            f"{path}: NumberOfFrames is {text[:40]!r}, expected a positive whole number"
        )
    return int(text)


def _empty_or_wrong(header: pydicom.Dataset) -> str:
    """The bytes of a Number of Frames that is no integer, as text."""
    raw = header.get_item("NumberOfFrames")
    value = getattr(raw, "value", None)
    return value.decode("latin-1").strip() if isinstance(value, bytes) else str(value or "")


def stored_values(path: Path, header: pydicom.Dataset) -> Int[np.ndarray, "frames rows columns"]:
    """The stored numbers of every frame, int32, before any rescale.

    The bits of a sample are those from High Bit down, Bits Stored of them; others, such as an old overlay,
    are dropped. pydicom takes the lowest bits wherever High Bit lies.

    Raises:
        InputError: the pixels cannot be decoded, are cut short, too large, or no single grey number.
    """
    rows, columns, samples, allocated, stored = (
        int(numbers_of(path, header, name, 1)[0])
        for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    frames, kind = count_of_frames(path, header), text_of(header, "PhotometricInterpretation")
    if samples != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"{path}: pixels are {kind} of {samples} sample(s), expected one grey number"
        )
    if not (1 <= stored <= allocated <= 32 and min(rows, columns) > 0):
        raise InputError(
            f"{path}: {rows} x {columns} pixels of {stored} in {allocated} bits, expected some, of 1 to 32"
        )
    if 4 * frames * rows * columns > MAX_BYTES:
        raise InputError(f"{path}: declares {frames} x {rows} x {columns} pixels, expected fewer")
    high = int(numbers_of(path, header, "HighBit", 1)[0]) if "HighBit" in header else stored - 1
    shift = high + 1 - stored
    syntax = header.file_meta.TransferSyntaxUID
    if not 0 <= shift <= allocated - stored or (shift and syntax.is_compressed):
        raise InputError(
            f"{path}: HighBit {high} with {stored} bits stored of {allocated}"
            f"{' and compressed' if syntax.is_compressed else ''}, expected {stored - 1}"
        )
    if shift:  # all bits as they are, to be shifted here
        header.BitsStored, header.HighBit = allocated, allocated - 1
    values = _decoded(path, header)
    if values.size != frames * rows * columns:
        raise InputError(
            f"{path}: pixels have shape {values.shape}, expected {frames, rows, columns}"
        )
    values = values.reshape(frames, rows, columns)
    if not shift:
        return values.astype(np.int32)
    bits = (values.astype(np.int64) >> shift) & ((1 << stored) - 1)
    if header.get("PixelRepresentation") == 1:
        bits -= (bits >> (stored - 1)) << stored
    return bits.astype(np.int32)


def _decoded(path: Path, header: pydicom.Dataset) -> np.ndarray:
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:  # what pydicom raises for a syntax that it does not know
        raise InputError(
            f"{path}: pixels in the transfer syntax {syntax.name}, which nothing reads"
        ) from None
    if not decoder.is_available:
        raise InputError(
            f"{path}: pixels in {syntax.name} need a decoder, expected it after {DECODERS}"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            return np.asarray(header.pixel_array)
    except Exception as error:  # decoders raise anything
        number = text_of(header, "InstanceNumber")
        slice_ = f"slice {number} has " if number else ""
        reason = one_line(error)[:160]
        raise InputError(f"{path}: {slice_}no readable pixels ({reason})") from None
