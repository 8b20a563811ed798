"""The chest CT that ships with the package: real anatomy without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16

from jxrecon.data.nifti import read_volume


def chest_ct_path() -> Path:
    """The file itself, for programs that take a path: a NIfTI volume."""
    return Path(__file__).parent / "sample" / "chest_ct.nii.gz"


def chest_ct() -> tuple[Int16[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A whole chest CT of LIDC-IDRI (CC BY 3.0, see NOTICE), resampled, air outside the body.

    Returns:
        HU [x, y, z] in RAS and the affine, index -> world mm.
    """
    return read_volume(chest_ct_path())
