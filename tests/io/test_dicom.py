"""A DICOM series becomes the volume it is, in its place, or is refused by slice and position."""

from __future__ import annotations

from functools import partial

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage
from written_dicom import write_dicom

from jxrecon.io import dicom
from jxrecon.io.dicom import find_series
from jxrecon.types import InputError
from jxrecon.units import Stated

# The numbers here are no patient's: that they count as they are is stated.
read_series = partial(dicom.read_series, stated=Stated(hu_offset=0))
read_folder = partial(dicom.read_folder, stated=Stated(hu_offset=0))

SHAPE, SPACING = (4, 5, 6), (0.5, 0.75, 2.0)  # columns, rows, slices; mm


def write_slice(path, stored, position, **tags):
    usual = {
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "PatientID": "P1",
        "SeriesInstanceUID": "1.2.3",
        "ImagePositionPatient": [float(x) for x in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [SPACING[1], SPACING[0]],  # between rows, between columns
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "SliceThickness": 9,  # decides nothing
    }
    return write_dicom(path, stored, **usual | tags)


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
    for lost in (b"", bytes(5000)):
        files[-1].write_bytes(lost)
        with pytest.raises(InputError, match=f"{files[-1]}: does not begin as a DICOM file"):
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


def test_bits_lie_where_the_header_says(tmp_path):
    """12 of 16 bits, at the top or at the bottom with an old overlay above them, signed or not."""
    volume, _ = write_series(tmp_path / "plain") if (tmp_path / "plain").mkdir() is None else ()
    expected, _ = read_folder(tmp_path / "plain")
    for name, high, signed, code in (
        ("top", 15, 0, lambda v: (v << 4) | 0x5),
        ("overlay", 11, 0, lambda v: v | 0xA000),
        ("signed", 15, 1, lambda v: ((v - 1024) & 0xFFF) << 4),
    ):
        folder = tmp_path / name
        folder.mkdir()
        tags = {"BitsStored": 12, "HighBit": high, "PixelRepresentation": signed}
        tags["RescaleIntercept"] = 0 if signed else -1024
        for k in range(SHAPE[2]):
            stored = code(volume[:, :, k].T)
            write_slice(folder / f"{k}", stored, (10, 20, -30 + SPACING[2] * k), **tags)
        hu, _ = read_folder(folder)
        np.testing.assert_array_equal(hu, expected, err_msg=name)
    file = next((tmp_path / "top").iterdir())
    data = pydicom.dcmread(file)
    data.BitsStored, data.HighBit = 12, 10
    data.save_as(file)
    with pytest.raises(InputError, match="HighBit 10 with 12 bits"):
        read_folder(tmp_path / "top")


def test_slices_without_the_mark_are_read(tmp_path):
    write_series(tmp_path)
    expected, _ = read_folder(tmp_path)
    for n, path in enumerate(sorted(tmp_path.iterdir())):
        content = path.read_bytes()[132:]
        if n % 2:  # nor with the group that says how the rest is encoded
            length = int.from_bytes(content[8:12], "little")
            content = content[12 + length :]
        path.write_bytes(content)
    (tmp_path / "notes.txt").write_text("no DICOM " * 50)
    np.testing.assert_array_equal(read_folder(tmp_path)[0], expected)


def test_acquisitions_in_the_same_places_are_split_or_refused(tmp_path, capsys):
    one, two = tmp_path / "a", tmp_path / "b"
    for n, folder in enumerate((one, two)):
        folder.mkdir()
        write_series(folder, tags=lambda k, n=n: {"AcquisitionNumber": n + 1})
    for path in two.iterdir():
        path.rename(one / f"b{path.name}")
    first, second = find_series(one.iterdir())
    assert (first.part, second.part) == ("AcquisitionNumber 1", "AcquisitionNumber 2")
    assert read_series(second.files)[0].shape == SHAPE
    for fix in (False, True):
        with pytest.raises(InputError, match=r"2 volumes \(AcquisitionNumber 1: 6 slices; "):
            read_series(first.files + second.files, fix)
        with pytest.raises(InputError, match=r"AcquisitionNumber 2 \(6 files\)"):
            read_folder(one, fix)
    for path in one.iterdir():
        data = pydicom.dcmread(path)
        del data.AcquisitionNumber
        data.save_as(path)
    with pytest.raises(InputError, match=r"6 of 6 places .* hold several slices"):
        read_folder(one, True)
    assert "fixed" not in capsys.readouterr().err


def test_acquisitions_between_each_others_slices_are_two_and_in_a_row_one(tmp_path):
    for name, number in (("row", lambda k: 1 + k // 3), ("comb", lambda k: 1 + k % 2)):
        (tmp_path / name).mkdir()
        write_series(tmp_path / name, tags=lambda k, n=number: {"AcquisitionNumber": n(k)})
    assert read_folder(tmp_path / "row")[0].shape == SHAPE
    with pytest.raises(InputError, match="AcquisitionNumber 1"):
        read_folder(tmp_path / "comb")


def test_repairs_are_told(tmp_path, capsys):
    volume, files = write_series(tmp_path)
    files.pop(2).unlink()
    again = write_slice(tmp_path / "again", volume[:, :, 3].T, (10, 20, -24), InstanceNumber=99)
    read_series([*files, again], fix=True)
    told = capsys.readouterr().err
    assert "1 slice(s) missing before slice 4" in told
    assert "again" in told
    assert "dropped" in told


def enhanced(path, volume, order, slope=1.0):
    data = pydicom.dcmread(write_slice(path, volume[:, :, 0].T, (0, 0, 0)))
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                 "RescaleIntercept"):  # fmt: skip
        delattr(data, name)
    data.NumberOfFrames = len(order)
    data.PixelData = np.stack([volume[:, :, k].T for k in order]).astype("<u2").tobytes()

    def group(**sequences):
        made = pydicom.Dataset()
        for name, tags in sequences.items():
            item = pydicom.Dataset()
            for tag, value in tags.items():
                setattr(item, tag, value)
            setattr(made, name, [item])
        return made

    spacing = [SPACING[1], SPACING[0]]
    scale = {"RescaleSlope": slope, "RescaleIntercept": -1024, "RescaleType": "HU"}
    data.SharedFunctionalGroupsSequence = [
        group(
            PixelMeasuresSequence={"PixelSpacing": spacing},
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            PixelValueTransformationSequence=scale,
        )
    ]
    data.PerFrameFunctionalGroupsSequence = [
        group(PlanePositionSequence={"ImagePositionPatient": [10, 20, -30 + SPACING[2] * k]})
        for k in order
    ]
    data.save_as(path)
    return path


def test_an_enhanced_file_is_the_same_volume_in_any_order_of_frames(tmp_path):
    (tmp_path / "plain").mkdir()
    volume, _ = write_series(tmp_path / "plain")
    expected, affine = read_folder(tmp_path / "plain")
    path = enhanced(tmp_path / "e.dcm", volume, [3, 0, 5, 1, 4, 2])
    hu, found = read_series([path])
    np.testing.assert_array_equal(hu, expected)
    np.testing.assert_array_equal(found, affine)
    enhanced(path, volume, [0, 1, 3, 4, 5])
    with pytest.raises(InputError, match=r"1 slice.s. missing before frame 3"):
        read_series([path])
    enhanced(path, volume, [0, 1, 2, 2, 3, 4])
    with pytest.raises(InputError, match="lies where"):
        read_series([path])


def test_padding_is_air_before_slices_are_interpolated(tmp_path):
    """Half of a fill value would be tissue; a number that the picture holds, too, counts from a corner."""
    rows = np.zeros((5, 4), int)
    rows[3, 1:3] = 1064
    for name, value in (("far", -1000), ("tissue", 1064)):
        folder = tmp_path / name
        folder.mkdir()
        for k in (0, 1, 2, 4):
            stored = rows.copy()
            stored[0] = value
            tags = {"PixelPaddingValue": value, "PixelRepresentation": int(value < 0)}
            write_slice(folder / f"{k}", stored, (0, 0, 2.0 * k), **tags)
        hu, _ = dicom.read_folder(folder, fix=True)
        expected = np.full((4, 5, 5), -1024)
        expected[1:3, 1] = 40
        np.testing.assert_array_equal(hu, expected, err_msg=name)


def test_what_is_no_hu_and_what_cannot_be_decoded_is_told(tmp_path):
    _, files = write_series(tmp_path, tags=lambda k: {"RescaleType": "MGML"})
    with pytest.raises(InputError, match=r"Rescale Type is MGML.*--hu-offset"):
        dicom.read_series(files)
    data = pydicom.dcmread(files[0])
    data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    data.PixelData = pydicom.encaps.encapsulate([b"\0" * 10])
    data["PixelData"].VR = "OB"
    data.save_as(files[0])
    with pytest.raises(InputError, match=r"MPEG2.*(nothing reads|jxrecon\[dicom\])"):
        read_series(files)
