"""CT volumes in MetaImage (MHA, MHD) and NRRD files, read by SimpleITK once their headers say where they lie.

ITK takes what a header does not tell for the identity: such a volume would lie somewhere else unnoticed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jxrecon.files import MAX_BYTES, component, one_line
from jxrecon.io.nifti import DEFLATE_RATIO, canonical, is_frame
from jxrecon.types import InputError, shown

ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")

_LARGEST_HEADER, _LONGEST_LINE = 1 << 16, 1000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_TEXT = ("ascii", "text", "txt")
_SKIPS = {"headersize", "byte skip", "byteskip", "line skip", "lineskip"}
_SPACES = {
    "right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps",
}  # fmt: skip
_PLACE: dict[str, dict[str, tuple[str, ...]]] = {
    "MetaImage": {
        "TransformMatrix": ("transformmatrix", "rotation", "orientation"),
        "Offset": ("offset", "position", "origin"),
        "ElementSpacing": ("elementspacing", "elementsize"),
    },
    "NRRD": {
        "space": ("space",),
        "space directions": ("space directions",),
        "space origin": ("space origin",),
    },
}


def read_itk(path: Path) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A volume in RAS order, int16 where the file holds int16 and float32 otherwise, and its affine, mm.

    Raises:
        InputError: the file is damaged, cut short or too large, says not where it lies, or holds anything
            but one real number a voxel of three axes.
    """
    import SimpleITK as sitk

    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    header = _header(path, nrrd)
    for what, names in _PLACE["NRRD" if nrrd else "MetaImage"].items():
        if not any(name in header for name in names):
            raise InputError(
                f"{path}: its header has no {what}, expected where it lies in the world"
            )
    _check_counts(path, header, nrrd)
    if nrrd and header["space"].lower() not in _SPACES:
        raise InputError(
            f"{path}: its space is {header['space']}, expected left-posterior-superior or so"
        )
    unit = header.get("space units") or header.get("distanceunits") or "mm"
    if set(re.findall(r"\w+", unit)) - {"mm", "millimeter"}:
        raise InputError(f"{path}: its lengths are in {unit}, expected mm")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    data = _data_file(path, header)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    try:
        reader.ReadImageInformation()
        _check(path, reader, data, header, sitk)
        image = reader.Execute()
    except RuntimeError as error:
        reason = one_line(error).rsplit("ERROR:", 1)[-1].strip()
        raise InputError(f"{path}: damaged or cut short ({reason[:200]})") from None
    values = sitk.GetArrayFromImage(image)
    values = values.reshape(values.shape[-3:]).T  # [x, y, z]
    values = values if values.dtype == np.int16 else values.astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise InputError(f"{path}: {bad} voxels are not finite, expected a number in each")
    axes = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS
    if not is_frame(affine):
        rows = " ".join(f"{value:g}" for value in affine[:3].ravel())
        raise InputError(f"{path}: its affine is [{rows}], expected finite mm and an inverse")
    return canonical(values, affine)


def _header(path: Path, nrrd: bool) -> dict[str, str]:
    """Fields of the text at the file's head, by their names in small letters."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST_HEADER)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    end = re.search(rb"\r?\n\r?\n" if nrrd else rb"(?i)\nElementDataFile[^\n]*", text)
    lines = text[: end.end() if end else None].decode("latin-1").splitlines()
    pairs = (re.split(r":=?|=", line, maxsplit=1) for line in lines if not line.startswith("#"))
    if max(map(len, lines), default=0) > _LONGEST_LINE:  # ITK goes over them again and again
        raise InputError(f"{path}: a line of its header is longer than {_LONGEST_LINE} characters")
    fields: dict[str, str] = {}
    for name, value in (pair for pair in pairs if len(pair) == 2):
        if name.strip().lower() in fields and not nrrd:
            raise InputError(f"{path}: its header has {name.strip()} twice, expected once")
        fields[name.strip().lower()] = value.strip()
    return fields


def _check_counts(path: Path, header: dict[str, str], nrrd: bool) -> None:
    """Refuses numbers of axes that do not fit each other: on some of them ITK crashes.

    Raises:
        InputError: there are not three or four axes, or a field has more or fewer numbers than axes.
    """
    count, sizes = ("dimension", "sizes") if nrrd else ("ndims", "dimsize")
    axes = header.get(count, "")
    if axes not in ("3", "4"):
        raise InputError(f"{path}: {count} is {shown(axes)}, expected 3 axes")
    n = int(axes)
    wanted = {sizes: n}
    if not nrrd:
        place = _PLACE["MetaImage"]
        wanted |= dict.fromkeys((*place["Offset"], *place["ElementSpacing"]), n)
        wanted |= dict.fromkeys(place["TransformMatrix"], n * n)
    for name, length in wanted.items():
        words = header.get(name, "").split()
        good = len(words) == length and all(_NUMBER.fullmatch(word) for word in words)
        if not good and (name in header or name == sizes):
            raise InputError(
                f"{path}: {name} is {shown(' '.join(words))}, expected {length} numbers"
            )
    for name in _PLACE["MetaImage"]["ElementSpacing"] if not nrrd else ():
        if name in header and not min(map(float, header[name].split())) > 0:
            raise InputError(f"{path}: {name} is {header[name]}, expected positive mm")


def _data_file(path: Path, header: dict[str, str]) -> Path:
    """The file with the voxels: the header's own, or the one that it names.

    Raises:
        InputError: it names another folder's, several, or one that is not there.
    """
    names = ("elementdatafile", "data file", "datafile")
    place = next(filter(None, map(header.get, names)), "local")
    if place.lower() == "local":
        return path
    if place.lower().startswith("list") or "%" in place:
        raise InputError(f"{path}: its voxels lie in several files ({shown(place)}), expected one")
    data = path.parent / component(place.removeprefix("./"), str(path))
    if not data.is_file():
        raise InputError(f"{path}: its voxels lie in {data.name}, expected that file beside it")
    return data


def _check(path: Path, reader: Any, data: Path, header: dict[str, str], sitk: Any) -> None:
    """Refuses what is no volume of a size that the file can hold."""
    size, parts = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) < 3 or min(size) < 1 or any(n != 1 for n in size[3:]) or parts != 1:
        raise InputError(
            f"{path}: axes {size} of {parts} number(s), expected x, y, z of one number"
        )
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(f"{path}: complex numbers, expected real ones")
    count = int(np.prod(size, dtype=np.float64))
    if 4 * count > MAX_BYTES:
        raise InputError(
            f"{path}: declares {' x '.join(map(str, size))} voxels, {4 * count / 1024**3:.1f} GiB, "
            f"expected at most {MAX_BYTES / 1024**3:g} GiB"
        )
    held, encoding = data.stat().st_size, header.get("encoding", "raw").lower()
    text = encoding in _TEXT or header.get("binarydata", "true").lower() != "true"
    packed = header.get("compresseddata", "false").lower() == "true"
    packed |= encoding not in ("raw", *_TEXT)
    if count > held * (DEFLATE_RATIO if packed else 1):
        raise InputError(f"{path}: cut short, {data.name} cannot hold {count} declared voxels")
    declared = count * sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID())).itemsize
    plain = data != path and not (text or packed or _SKIPS & set(header))
    if plain and held != declared:  # bytes of a header that is not told would move every voxel
        raise InputError(
            f"{path}: {data.name} holds {held} bytes, expected the {declared} that its header declares"
        )
