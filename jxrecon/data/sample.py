"""The chest CT that ships with the package: real anatomy without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16, UInt8

from jxrecon.io.nifti import read_volume


def chest_ct_path() -> Path:
    """The file itself, for programs that take a path: a NIfTI volume."""
    return Path(__file__).parent / "sample" / "chest_ct.nii.gz"


def chest_ct() -> tuple[Int16[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A whole chest CT of LIDC-IDRI (CC BY 3.0, see NOTICE), resampled, air outside the body.

    Returns:
        HU [x, y, z] in RAS and the affine, index -> world mm.
    """
    return read_volume(chest_ct_path())


def chest_ct_liver() -> tuple[UInt8[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """What breathes in `chest_ct`, on its grid: 1 liver, 2 else within the chest and abdomen, 0 the rest.

    Made from the organ labels that come with the CT; within the abdomen 2 covers the fat between
    organs too. See NOTICE.

    Returns:
        Labels [x, y, z] in RAS and the affine, index -> world mm.
    """
    labels, affine = read_volume(Path(__file__).parent / "sample" / "chest_ct_liver.nii.gz")
    return labels.astype(np.uint8), affine
