"""DICOM files of a clinic, written by pydicom from a volume or an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def write_dicom(path: Path, stored: np.ndarray, **tags: object) -> Path:
    """A file of 16 bits, unsigned where nothing else is said; a tag that is None is taken away."""
    data = pydicom.Dataset()
    data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.astype("<i4").astype("<u2").tobytes()
    for name, value in tags.items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    return save(path, data)


def save(path: Path, data: pydicom.Dataset) -> Path:
    """The data set as a file."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def write_ct_folder(folder: Path, hu: np.ndarray, affine: np.ndarray, patient: str) -> Path:
    """A CT [x, y, z] of whole HU in RAS as axial slices, in files whose names say nothing of their order."""
    folder.mkdir(parents=True)
    spacing, count = np.diagonal(affine)[:3], hu.shape[2]
    first = affine @ (hu.shape[0] - 1, hu.shape[1] - 1, 0, 1)
    uid = pydicom.uid.generate_uid()
    for k in range(count):
        write_dicom(
            folder / f"{(k * 7) % count:03d}",
            hu[::-1, ::-1, k].T + 1024,
            SOPClassUID=CTImageStorage,
            Modality="CT",
            PatientID=patient,
            SeriesInstanceUID=uid,
            ImagePositionPatient=[-first[0], -first[1], first[2] + k * spacing[2]],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[spacing[1], spacing[0]],
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
    return folder
