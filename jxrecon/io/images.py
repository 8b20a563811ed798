"""Grey images as files, exactly as stored: read from the header on, written whole.

PNG, TIFF, NPY and NPZ hold [row, column]. NIfTI holds [column, row] or [column, row, 1], so that its
first axis runs along a row as a viewer expects; here an image is always [row, column].
"""

from __future__ import annotations

import gzip
import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from jxrecon.io.dicom_files import is_dicom
from jxrecon.io.finding import ends
from jxrecon.io.tiff import ORIENTATION, check_upright, one_channel, read_tiff
from jxrecon.types import InputError

MOST_PIXELS = 1 << 26
"""Larger images (8192 x 8192) are refused from their header."""

_MM_PER_UNIT = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
"""The units of lengths that a NIfTI may tell."""

WRITTEN = (".nii.gz", ".nii", ".npz", ".png")
"""Endings of what is written."""

SUFFIXES = (*WRITTEN, ".npy", ".tif", ".tiff")
"""And of what is read; DICOM files are known by their content."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dic")


_GREY = ("L", "I", "I;16", "I;16B")


def stem(path: Path) -> str:
    """The file's name without its ending; that of a DICOM file may have none.

    Raises:
        InputError: the name has another ending.
    """
    if ending := ends(path, (*SUFFIXES, *DICOM_SUFFIXES)):
        return path.name[: -len(ending)]
    if is_dicom(path):
        return path.name
    lossy = " (JPEG is lossy)" if path.suffix.lower() in (".jpg", ".jpeg") else ""
    raise InputError(
        f"{path}: unknown kind of X-ray{lossy}, expected DICOM or one of {', '.join(SUFFIXES)}"
    )


def suffix(path: Path) -> str:
    """The ending that `stem` takes off, in small letters."""
    return path.name[len(stem(path)) :].lower()


def read_pixels(path: Path) -> tuple[Shaped[np.ndarray, "rows columns"], dict[str, np.ndarray]]:
    """The stored numbers, and the other arrays of an NPZ or the affine (to mm) that a NIfTI tells.

    Raises:
        InputError: there is no such file, it is damaged, cut short or too large, or it holds
            anything but one plane of real numbers.
    """
    kind = suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an X-ray")
    readers = {".png": _read_png, ".npz": _read_npz, ".npy": _read_npy}
    readers |= {".tif": _read_tiff, ".tiff": _read_tiff}
    reader = readers.get(kind, _read_nifti)
    try:
        image, others = reader(path)
    except InputError:
        raise
    except Exception as error:  # a decoder may raise anything on a damaged file
        what = f"cannot be read as {kind[1:]}, damaged or cut short"
        raise InputError(f"{path}: {what} ({error})") from None
    if image.dtype.kind not in "iuf":
        raise InputError(f"{path}: pixels of type {image.dtype}, expected real numbers")
    return image, others


def mm_per_unit(header: nib.Nifti1Header, path: Path) -> float:
    """Millimetres in a NIfTI's unit of length, taken for mm where it tells none.

    Raises:
        InputError: the unit is unknown.
    """
    try:
        return _MM_PER_UNIT[header.get_xyzt_units()[0]]
    except KeyError:
        code = int(header["xyzt_units"])
        raise InputError(f"{path}: its unit has the code {code}, expected mm, m or um") from None


def png_bytes(levels: Shaped[np.ndarray, "rows columns"]) -> bytes:
    """A grey PNG of 16 bits a pixel from whole numbers between 0 and 65535."""
    stream = io.BytesIO()
    Image.fromarray(levels.astype(np.uint16)).save(stream, format="PNG")
    return stream.getvalue()


def npz_bytes(image: Float[np.ndarray, "rows columns"], others: dict[str, np.ndarray]) -> bytes:
    """A compressed NPZ with the key `image` and other arrays beside it."""
    stream, arrays = io.BytesIO(), dict[str, Any](others, image=image)
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def nifti_bytes(
    image: Float[np.ndarray, "rows columns"], affine: Float[np.ndarray, "4 4"], zipped: bool
) -> bytes:
    """A NIfTI of [column, row, 1]; `affine` takes (column, row, 0) to world mm."""
    picture = nib.Nifti1Image(image.T[..., None], affine)
    picture.header.set_xyzt_units("mm")
    content = picture.to_bytes()
    return gzip.compress(content, 6, mtime=0) if zipped else content


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    if not 0 < math.prod(shape) <= MOST_PIXELS:
        size = " x ".join(map(str, shape))
        raise InputError(f"{path}: declares {size} pixels, expected 1 to {MOST_PIXELS} in all")


def _read_png(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        with Image.open(path, formats=["PNG"]) as picture:
            _check_size(path, picture.size)
            # Pillow widens less than 8 bits and cuts coloured 16 to 8; byte 24 is the depth (ISO 15948).
            with path.open("rb") as stream:
                depth = stream.read(25)[24]
            if depth < 8 or (depth == 16 and picture.mode not in _GREY):
                raise InputError(
                    f"{path}: PNG of mode {picture.mode} and {depth} bits, expected one grey channel of 8 or "
                    "16 bits, or equal ones of 8"
                )
            if (frames := getattr(picture, "n_frames", 1)) > 1:
                raise InputError(f"{path}: an animation of {frames} pictures, expected one")
            picture.verify()  # compares the checksum of every chunk, which loading does not
        with Image.open(path, formats=["PNG"]) as picture:
            check_upright(picture.getexif().get(ORIENTATION, 1), path)
            plain = "RGBA" if "transparency" in picture.info else "RGB"
            palette = picture.mode in ("P", "PA")
            return one_channel(np.array(picture.convert(plain) if palette else picture), path), {}


def _read_tiff(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return read_tiff(path, MOST_PIXELS), {}


def _read_npy(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with path.open("rb") as stream:
        _check_array(stream, path)
    return np.load(path, allow_pickle=False), {}


def _check_array(stream: Any, path: Path) -> None:
    """Refuses an array from its header, before its numbers are read."""
    version = np.lib.format.read_magic(stream)
    headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, _, dtype = headers[version != (1, 0)](stream)
    if len(shape) != 2 or dtype.kind not in "iuf":
        raise InputError(
            f"{path}: the image is {dtype}{list(shape)}, expected real [rows, columns]"
        )
    _check_size(path, shape)


def _read_npz(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        alone = next(iter(names)) if len(names) == 1 else ""
        key = "image" if "image" in names else alone
        if not key:
            raise InputError(f"{path}: holds {sorted(names)}, expected the key image or one array")
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}
        size = sum(n for name, n in entries.items() if name != f"{key}.npy")
        if size > 1 << 20:
            raise InputError(f"{path}: {size} bytes beside the image, expected at most {1 << 20}")
        packed = {entry.compress_type for entry in archive.infolist()}
        if odd := packed - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise InputError(f"{path}: packed by method {min(odd)} of ZIP, expected NumPy's own")
        with archive.open(f"{key}.npy") as stream:
            _check_array(stream, path)
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[key], {name: arrays[name] for name in sorted(names - {key})}


def _read_nifti(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Header first, so that a bomb is refused; then the whole stream, so that a cut one is."""
    opener = gzip.open if suffix(path) == ".nii.gz" else open
    with opener(path, "rb") as stream:
        header = nib.Nifti1Header(stream.read(348), check=False)  # a check logs lines of its own
        if int(header["sizeof_hdr"]) != 348 or bytes(header["magic"])[:3] != b"n+1":
            raise InputError(f"{path}: magic {bytes(header['magic'])!r}, expected a NIfTI-1 file")
        shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
        if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
            raise InputError(f"{path}: axes {shape}, expected [column, row] or [column, row, 1]")
        _check_size(path, shape)
        gap = int(header.get_data_offset()) - stream.tell()
        if not 4 <= gap <= 1 << 20:
            raise InputError(f"{path}: pixels begin {gap} bytes behind the header, expected 4")
        stream.read(gap)
        size = dtype.itemsize * shape[0] * shape[1]
        content = stream.read(size)
        if len(content) < size:
            raise InputError(f"{path}: cut short, {len(content)} of {size} bytes of pixels")
        if stream.read(1 << 20) and stream.read(1):  # also compares gzip's checksum at the end
            raise InputError(f"{path}: more bytes than its header declares, expected {size}")
    image = np.frombuffer(content, dtype).reshape(shape[:2], order="F").T
    slope, intercept = header.get_slope_inter()
    if slope not in (None, 1.0) or intercept not in (None, 0.0):
        image = image * np.float64(slope) + np.float64(intercept)
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        return image, {}
    affine = np.asarray(header.get_best_affine(), np.float64)
    affine[:3] *= mm_per_unit(header, path)
    if not np.isfinite(affine).all() or not affine[:3, :2].any(0).all():
        raise InputError(f"{path}: its affine is {affine[:3].tolist()}, expected finite axes")
    return image, {"affine": affine}
