"""Cameras from and to the conventions of others: DiffDRR, nanodrr, ASTRA, RTK, LEAP and DICOM angles.

Every `from_x` makes a camera of plain numbers in mm, its vectors NumPy float64; `to_x` gives the
numbers of a camera, for all but ASTRA as keyword arguments: `from_x(**to_x(camera))` is the camera
again. A camera that a convention cannot hold is refused in one line.

The world is that of the other package: DiffDRR, nanodrr and nibabel have RAS as here, RTK and all
ITK software LPS (flip the signs of x and y). DiffDRR, nanodrr, ASTRA and LEAP integrate along the
whole straight line, past the detector too: ask the projector for extent="line" where the detector
cuts the volume.
"""

from __future__ import annotations

from jxrecon.interop.dicom import from_dicom, to_dicom
from jxrecon.interop.euler import from_diffdrr, from_nanodrr, to_diffdrr, to_nanodrr
from jxrecon.interop.vectors import astra_voxel_mm, from_astra, from_modular, to_astra, to_modular
