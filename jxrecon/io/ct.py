"""A CT from anywhere: NIfTI, MetaImage, NRRD, or DICOM in a folder or an enhanced file, in HU and in RAS.

One reader for every command, so that each refuses the same: see `hounsfield` for what are no HU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from jxrecon.io import itk
from jxrecon.io.dicom import read_folder, read_series
from jxrecon.io.dicom_files import is_dicom, read_elements, text_of
from jxrecon.io.finding import ends, find_files
from jxrecon.io.hounsfield import checked_hu
from jxrecon.io.nifti import is_volume, read_volume
from jxrecon.terminal import note
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

ENDINGS = (".nii.gz", ".nii", *itk.ENDINGS)
"""Of files that hold a whole CT, in small letters."""

KINDS = f"a CT: {', '.join(ENDINGS)}, a folder of DICOM slices or an enhanced DICOM file"
"""What `read_ct` reads, for help and errors."""


EXTENT_MM = (10.0, 5000.0)
"""Between which the longest edge of a CT lies; in metres, taken for millimetres, it lies outside."""

SMALL_MM = 60.0
"""A shorter longest edge is told: a CT of a tooth, or one in centimetres."""


def ct_stem(path: Path) -> str:
    """The name of a CT without its ending; that of a folder or a DICOM file as it is."""
    ending = None if path.is_dir() else ends(path, ENDINGS)
    return path.resolve().name if ending is None else path.name[: -len(ending)]


def holds_ct(folder: Path) -> bool:
    """Whether a folder, or one in it, holds DICOM files."""
    return any(map(is_dicom, find_files(folder).files))


def read_ct(
    path: Path, stated: Stated = NOTHING_STATED
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """The HU of a CT in nibabel's canonical order (RAS), none below -1024, and its affine.

    Args:
        path: a file or a folder, see `KINDS`.
        stated: what the user says about its numbers.

    Returns:
        The voxels [x, y, z] in HU, int16 or float32, and the affine, index -> world mm, float64.

    Raises:
        InputError: it is absent, damaged, too large or ambiguous, says not where it lies, or is not in HU
            or in mm.
    """
    values, affine = _read(Path(path), stated)
    check_extent(values.shape, affine, str(path))
    return values, affine


def check_extent(shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"], origin: str) -> None:
    """Raises InputError where a volume is so small or large that its lengths are no mm; notes a small one."""
    edges = np.linalg.norm(affine[:3, :3], axis=0) * shape
    measures = f"{origin}: measures {edges[0]:.3g} x {edges[1]:.3g} x {edges[2]:.3g} mm"
    if not EXTENT_MM[0] <= edges.max() <= EXTENT_MM[1]:
        raise InputError(
            f"{measures}, expected the longest edge between {EXTENT_MM[0]:g} and {EXTENT_MM[1]:g} mm "
            "(lengths in metres?)"
        )
    if edges.max() < SMALL_MM:
        note(f"{measures}, small for a patient (lengths in centimetres?)")


def _read(
    path: Path, stated: Stated
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    if path.is_dir():
        return read_folder(path, stated=stated)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected {KINDS}")
    if is_volume(path):
        values, affine = read_volume(path)
    elif path.name.lower().endswith(itk.ENDINGS):
        values, affine = itk.read_itk(path)
    elif is_dicom(path):
        return read_series([path], stated=stated)
    else:
        raise InputError(f"{path}: ends in {path.suffix!r} and is no DICOM file, expected {KINDS}")
    return checked_hu(values, str(path), stated), affine


def patient_of(path: Path) -> str:
    """The Patient ID of a CT in a folder of DICOM slices; empty where none is told, as of other files."""
    slices = filter(is_dicom, find_files(path).files if path.is_dir() else ())
    return next((text_of(read_elements(one, ("PatientID",)), "PatientID") for one in slices), "")
