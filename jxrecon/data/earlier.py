"""Earlier CTs of the patients that are reconstructed: one file a case, in the same world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from jxrecon.data.body import TISSUE_HU, body_mask, without_surroundings
from jxrecon.data.nifti import read_volume, resample
from jxrecon.geometry import Grid
from jxrecon.types import InputError
from jxrecon.units import HU_AIR

ENDINGS = ("_ct.nii.gz", "_ct.nii", ".nii.gz", ".nii")
"""What follows the name of a case."""


def find_earlier(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The earlier scan of each case.

    Args:
        folder: holds NAME_ct.nii.gz, NAME.nii.gz or the same without .gz.
        names: of the cases.

    Raises:
        InputError: a case has no file.
    """
    found = {}
    for name in names:
        paths = [folder / f"{name}{ending}" for ending in ENDINGS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise InputError(f"{folder}: no earlier scan of {name}, expected {paths[0].name}")
        found[name] = path
    return found


def read_earlier(
    path: Path, shape: tuple[int, int, int], affine: Float64[np.ndarray, "4 4"]
) -> Float[np.ndarray, "x y z"]:
    """An earlier scan in HU on the voxels of a case, air outside the body and outside the file.

    Args:
        path: a CT in HU, rigidly registered: its world is the case's own.
        shape: voxels of the case along x, y, z.
        affine: of the case, index -> world mm (RAS).

    Raises:
        InputError: the file is no CT, or no body of it lies where the case is.
    """
    hu, own = read_volume(path)
    if (lowest := hu.min()) > TISSUE_HU:
        raise InputError(f"{path}: its lowest value is {lowest:g}, expected air at -1000 HU")
    body = body_mask(hu, own)
    found = resample(without_surroundings(hu, body), own, Grid(shape, affine), HU_AIR)
    if not (found > TISSUE_HU).any():
        raise InputError(
            f"{path}: none of its body lies where the case is, expected a scan registered to it"
        )
    return np.asarray(found, np.float32)
