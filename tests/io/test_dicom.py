"""A DICOM series becomes the volume it is, in its place, or is refused by slice and position."""

from __future__ import annotations

from functools import partial

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from jxrecon.io import dicom
from jxrecon.io.dicom import find_series
from jxrecon.types import InputError
from jxrecon.units import Stated

# The numbers here are no patient's: that they count as they are is stated.
read_series = partial(dicom.read_series, stated=Stated(hu_offset=0))
read_folder = partial(dicom.read_folder, stated=Stated(hu_offset=0))

SHAPE, SPACING = (4, 5, 6), (0.5, 0.75, 2.0)  # columns, rows, slices; mm


def write_slice(path, stored, position, **tags):
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, pydicom.uid.generate_uid()
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", "P1", "1.2.3"
    data.ImagePositionPatient = [float(x) for x in position]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [SPACING[1], SPACING[0]]  # between rows, between columns
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.SliceThickness = 9  # decides nothing
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.astype("<u2").tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, tilt=0.0, tags=lambda k: {}, order=None):
    """Slices [x, y, z] of known numbers, in files whose names say nothing of their order."""
    volume = np.random.default_rng(0).integers(0, 3000, SHAPE)
    files = []
    for k in range(SHAPE[2]):
        position = (10.0, 20.0 + tilt * k, -30.0 + SPACING[2] * k)
        name = folder / f"{(k * 5) % 7}.dcm"
        files.append(
            write_slice(name, volume[:, :, k].T, position, **{"InstanceNumber": k + 1, **tags(k)})
        )
    return volume, files


def test_voxels_lie_where_the_headers_say(tmp_path):
    volume, _ = write_series(tmp_path)
    hu, affine = read_folder(tmp_path)
    assert hu.dtype == np.int16
    place = affine @ (0, 0, 0, 1)
    # LPS: x and y grow to the left and to the back; RAS turns both.
    np.testing.assert_array_equal(hu, volume[::-1, ::-1] - 1024)
    np.testing.assert_allclose(np.diag(affine)[:3], SPACING)
    last = (10 + 3 * SPACING[0], 20 + 4 * SPACING[1])
    np.testing.assert_allclose(place[:3], (-last[0], -last[1], -30.0))


def test_each_slice_has_its_own_rescale(tmp_path):
    volume, _ = write_series(
        tmp_path, tags=lambda k: {"RescaleSlope": 1 + k % 2, "RescaleIntercept": -k}
    )
    hu, _ = read_folder(tmp_path)
    k = np.arange(SHAPE[2])
    np.testing.assert_array_equal(hu[::-1, ::-1], volume * (1 + k % 2) - k)


def test_a_sagittal_series_lies_in_the_same_world(tmp_path):
    stored = np.arange(20).reshape(4, 5)
    for k in range(3):
        write_slice(tmp_path / f"{k}", stored + 100 * k, (7.0 * k, 1.0, 2.0),
                    ImageOrientationPatient=[0, 1, 0, 0, 0, -1])  # fmt: skip
    hu, affine = read_folder(tmp_path)
    index = np.linalg.inv(affine) @ (-14.0, -1.0 - 2 * SPACING[0], 2.0 - 3 * SPACING[1], 1)
    i, j, k = np.rint(index[:3]).astype(int)
    assert hu[i, j, k] == stored[3, 2] + 200 - 1024
    assert (np.diag(affine)[:3] > 0).all()


def test_series_are_told_apart_and_other_files_passed_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", tags=lambda k: {"SeriesInstanceUID": "1.2.4"})
    (tmp_path / "a" / "notes.txt").write_text("no DICOM")
    write_slice(tmp_path / "x.dcm", np.zeros((2, 2)), (0, 0, 0), Modality="DX")
    found = find_series(path for path in tmp_path.rglob("*") if path.is_file())
    assert [(s.uid, s.patient, len(s.files)) for s in found] == [
        ("1.2.3", "P1", 6),
        ("1.2.4", "P1", 6),
    ]
    for path in (tmp_path / "b").iterdir():
        path.rename(tmp_path / "a" / f"b{path.name}")
    with pytest.raises(InputError, match=r"expected one CT series, found 1\.2\.3 \(6 files\), 1"):
        read_folder(tmp_path / "a")


def test_a_missing_slice_is_named_and_filled_on_request(tmp_path):
    volume, files = write_series(tmp_path)
    files.pop(2).unlink()
    with pytest.raises(
        InputError, match=r"1 slice\(s\) missing before slice 4 at \(10, 20, -24\) mm"
    ):
        read_series(files)
    hu, affine = read_series(files, fix=True)
    assert hu.shape == SHAPE
    mean = np.rint((volume[:, :, 1] + volume[:, :, 3]) / 2)
    assert np.abs(hu[::-1, ::-1, 2] + 1024 - mean).max() <= 1
    np.testing.assert_array_equal(hu[::-1, ::-1, 3], volume[:, :, 3] - 1024)
    assert affine[2, 2] == SPACING[2]


def test_a_slice_that_is_there_twice_is_named_and_dropped_on_request(tmp_path):
    volume, files = write_series(tmp_path)
    files.append(
        write_slice(tmp_path / "again", volume[:, :, 3].T, (10, 20, -24), InstanceNumber=99)
    )
    with pytest.raises(InputError, match=r"slice 99 at \(10, 20, -24\) mm lies where"):
        read_series(files)
    np.testing.assert_array_equal(read_series(files, fix=True)[0][::-1, ::-1], volume - 1024)


def test_a_tilted_gantry_is_refused_and_kept_as_shear_on_request(tmp_path):
    volume, files = write_series(tmp_path, tilt=0.5)
    with pytest.raises(InputError, match=r"gantry tilt of 14\.0 degrees"):
        read_series(files)
    hu, affine = read_series(files, fix=True)
    np.testing.assert_array_equal(hu[::-1, ::-1], volume - 1024)
    np.testing.assert_allclose(affine[:3, 2], (0, -0.5, 2.0), atol=1e-12)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImagePositionPatient": None}, r"slice 3 has ImagePositionPatient = None"),
        ({"PixelSpacing": [0, 0]}, "expected positive mm"),
        ({"RescaleSlope": None}, "RescaleSlope = None"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two unit vectors"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, r"slice 3 at .* has orientation"),
        ({"PixelSpacing": [0.8, 0.5]}, "has pixel spacing"),
        ({"ImagePositionPatient": [10, 20, -25.5]}, "spacing is uneven"),
        ({"PixelData": b"\0" * 10}, "no readable pixels"),
        ({"NumberOfFrames": 3}, "3 frames in one file"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"HighBit": 12, "BitsStored": 12, "BitsAllocated": 12}, "HighBit 12|no readable pixels"),
        ({"Modality": "MR"}, "Modality is MR"),
        ({"Rows": 60000, "Columns": 60000}, "has size"),
    ],
)
def test_a_wrong_slice_is_told_in_one_line(tmp_path, tags, reason):
    _, files = write_series(tmp_path, tags=lambda k: tags if k == 2 else {})
    with pytest.raises(InputError, match=reason) as caught:
        read_series(files)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_series_larger_than_allowed_is_refused_from_its_headers(tmp_path):
    _, files = write_series(tmp_path, tags=lambda k: {"Rows": 60000, "Columns": 60000})
    with pytest.raises(InputError, match=r"declares 80\.5 GiB, expected at most 2 GiB"):
        read_series(files)


def test_a_damaged_file_is_told_in_one_line(tmp_path):
    _, files = write_series(tmp_path)
    files[1].write_bytes(files[1].read_bytes()[:200])
    with pytest.raises(InputError, match=str(files[1])) as caught:
        read_series(files)
    assert "\n" not in str(caught.value)


def test_a_damaged_slice_at_the_end_of_a_scan_is_not_overlooked(tmp_path):
    _, files = write_series(tmp_path)
    files[-1].write_bytes(files[-1].read_bytes()[:400])
    with pytest.raises(InputError, match=str(files[-1])):
        read_folder(tmp_path)


def test_a_real_series_is_read_by_its_positions(real_data):
    folder = real_data / "ct4d_lung_dicom" / "00"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    hu, affine = dicom.read_folder(folder)
    assert hu.shape == (100, 100, 47)
    np.testing.assert_allclose(np.diag(affine), (5, 5, 6, 1))
    assert hu.min() == -1024
    # The lungs of a supine patient: air lies in the middle, the couch at the back.
    assert (hu[30:70, 40:60, 20:30] < -500).mean() > 0.2
