"""A CT is the same volume from whatever it is kept in, and what holds no HU is refused with its flag."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from jxrecon.io.ct import read_ct
from jxrecon.io.hounsfield import checked_hu
from jxrecon.io.nifti import read_volume, write_volume
from jxrecon.types import InputError
from jxrecon.units import Stated

AFFINE = np.array([[1.5, 0, 0, -20], [0, 2.0, 0, 30], [0, 0, 2.5, -40], [0, 0, 0, 1]])


def body(dtype=np.int16):
    """Air, and in it soft tissue, fat and bone, each voxel with noise of its own."""
    rng = np.random.default_rng(0)
    hu = np.full((12, 10, 8), -1000.0)
    hu[3:9, 3:8, 2:7], hu[4:6, 4:6, 3:5] = 40.0, 700.0
    hu[3, 3:8, 2:7] = -90.0
    return np.maximum(hu + np.rint(rng.normal(0, 8, hu.shape)), -1024).astype(dtype)


@pytest.fixture
def expected(tmp_path):
    write_volume(tmp_path / "CT.NII.GZ", body(), AFFINE)
    return read_volume(tmp_path / "CT.NII.GZ")


def image(dtype=np.int16):
    """The same in ITK: LPS."""
    made = sitk.GetImageFromArray(body(dtype).T)
    made.SetSpacing((1.5, 2.0, 2.5))
    made.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    made.SetOrigin((20.0, -30.0, -40.0))
    return made


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr", "B.MHA"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_metaimage_and_nrrd_are_the_nifti_to_the_bit(name, packed, dtype, expected, tmp_path):
    lower = tmp_path / name.lower()
    sitk.WriteImage(image(dtype), str(lower), packed)
    path = lower.rename(tmp_path / name)
    hu, affine = read_ct(path)
    assert hu.dtype == dtype
    np.testing.assert_array_equal(hu, expected[0])
    np.testing.assert_allclose(affine, expected[1], atol=1e-6)


@pytest.mark.parametrize("space", ["right-anterior-superior", "LAS", "left-posterior-superior"])
def test_an_nrrd_lies_where_its_space_says(space, expected, tmp_path):
    first, second = (word[0] for word in space.lower().split("-")[:2]) if "-" in space else "la"
    x, y = 1 if first == "r" else -1, 1 if second == "a" else -1
    hu = body().astype("<f4")
    header = (
        f"NRRD0004\ntype: float\ndimension: 3\nspace: {space}\nsizes: 12 10 8\nendian: little\n"
        f"space directions: ({1.5 * x},0,0) (0,{2.0 * y},0) (0,0,2.5)\nkinds: domain domain domain\n"
        f"encoding: gzip\nspace origin: ({-20 * x},{30 * y},-40)\n\n"
    )
    path = tmp_path / "a.nrrd"
    path.write_bytes(header.encode() + gzip.compress(hu.tobytes(order="F")))
    found, affine = read_ct(path)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_allclose(affine, expected[1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("a.mha", b"TransformMatrix", b"TransformMatrjx", "no TransformMatrix"),
        ("a.mha", b"Offset", b"Offsjt", "no Offset"),
        (
            "a.nrrd",
            b"space: left-posterior-superior",
            b"space: scanner-xyz",
            "space is scanner-xyz",
        ),
        ("a.nrrd", b"space: left-posterior-superior", b"space dimension: 3", "no space"),
        ("a.nrrd", b"space origin", b"# spice orign", "no space origin"),
        ("a.nrrd", b"sizes: 12 10 8", b"sizes: 12 10 99999999", "expected at most 2 GiB"),
        ("a.mha", b"DimSize = 12 10 8", b"DimSize = 120 10 8", "cut short|damaged"),
    ],
)
def test_a_header_that_leaves_the_place_open_is_refused(name, old, new, reason, tmp_path):
    path = tmp_path / name
    sitk.WriteImage(image(), str(path))
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(InputError, match=reason) as caught:
        read_ct(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_refused_and_an_unknown_one_named(tmp_path):
    for name in ("a.mha", "a.nrrd"):
        path = tmp_path / name
        sitk.WriteImage(image(), str(path))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match=r"cut short|damaged"):
            read_ct(path)
    (tmp_path / "a.xyz").write_text("?" * 200)
    with pytest.raises(InputError, match=r"\.mha.*DICOM"):
        read_ct(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("change", "reason", "stated"),
    [
        (lambda hu: hu + 1024, "lowest value is .*--hu-offset -1024", Stated(hu_offset=-1024)),
        (lambda hu: hu + 1024, "lowest value is", Stated(hu_offset=1024)),  # either sign
        (lambda hu: hu + 1000, "lowest value is", Stated(hu_offset=-1000)),
        (lambda hu: hu + 500, "lowest value is", Stated(hu_offset=-500)),
        (lambda hu: hu - 1024.0, "spread down to|no value lies|greatest value", Stated(None, 1024)),
        (lambda hu: hu / 1000, "lowest value is", Stated(1000.0)),
        (lambda hu: hu / 1000, "lowest value is", Stated(0.001)),  # or its inverse
        (lambda hu: (hu + 1024) / 4095, "lowest value is", Stated(4095.0, -1024)),
        (lambda hu: hu * 10, "spread down to", Stated(0.1)),
        (lambda hu: hu * 0 - 1000, "no value lies between", None),
        (lambda hu: hu * 0 + 7, "lowest value is 7", None),
    ],
)
def test_numbers_that_are_no_hu_are_refused_and_right_once_stated(change, reason, stated):
    values = change(body(np.float32)).astype(np.float32)
    with pytest.raises(InputError, match=reason) as caught:
        checked_hu(values, "ct.nii")
    assert "--hu-offset" in str(caught.value)
    if stated is not None:
        np.testing.assert_allclose(checked_hu(values, "ct.nii", stated), body(), atol=1e-2)


def test_hu_pass_as_they_are_and_fill_becomes_air():
    hu = body()
    np.testing.assert_array_equal(checked_hu(hu, "a"), np.maximum(hu, -1024))
    filled = hu.copy()
    filled[:2], filled[-1] = -2048, -3024
    found = checked_hu(filled, "a")
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, np.maximum(filled, -1024))
    crop = hu[4:8, 4:7, 3:6]  # no air in it: that it holds HU must be said
    with pytest.raises(InputError, match="expected air"):
        checked_hu(crop, "a")
    np.testing.assert_array_equal(checked_hu(crop, "a", Stated(hu_offset=0)), crop)
    with pytest.raises(InputError, match="--hu-scale 1 --hu-offset 300"):
        checked_hu(hu, "a", Stated(hu_offset=300))
    with pytest.raises(InputError, match="--hu-scale"):
        Stated(hu_scale=0.0)


def test_a_ct_in_centimetres_is_doubted(tmp_path, capsys):
    write_volume(tmp_path / "ct.nii", body(), np.diag([4.0, 4.0, 4.0, 1]))
    read_ct(tmp_path / "ct.nii")
    assert "measures 48 x 40 x 32 mm, small for a patient" in capsys.readouterr().err
    write_volume(tmp_path / "whole.nii", body(), np.diag([40.0, 40.0, 40.0, 1]))
    read_ct(tmp_path / "whole.nii")
    assert not capsys.readouterr().err


def test_a_ct_in_metres_is_refused(tmp_path):
    write_volume(tmp_path / "ct.nii", body(), AFFINE * [[1e-3], [1e-3], [1e-3], [1]])
    with pytest.raises(InputError, match=r"measures 0.018 x 0.02 x 0.02 mm.*metres"):
        read_ct(tmp_path / "ct.nii")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("ct.raw", "other.raw", "its voxels lie in other.raw, expected that file beside it"),
        ("ct.raw", "LIST", "several files"),
        ("ct.raw", "ct%03d.raw 1 8 1", "several files"),
        ("more", "ct.raw", "ct.raw holds 1930 bytes, expected the 1920"),
        ("less", "ct.raw", "ct.raw holds 1910 bytes, expected the 1920"),
    ],
)
def test_voxels_in_another_file_are_all_there_and_nothing_else(
    name, data, reason, expected, tmp_path
):
    sitk.WriteImage(image(), str(tmp_path / "ct.mhd"))
    header, voxels = tmp_path / "ct.mhd", tmp_path / "ct.raw"
    np.testing.assert_array_equal(read_ct(header)[0], expected[0])
    header.write_text(header.read_text().replace("= ct.raw", f"= {data}"))
    content = voxels.read_bytes()
    voxels.write_bytes({"more": bytes(10) + content, "less": content[10:]}.get(name, content))
    with pytest.raises(InputError, match=reason):
        read_ct(header)


def test_a_detached_nrrd_may_name_its_own_folder(expected, tmp_path):
    sitk.WriteImage(image(), str(tmp_path / "ct.nhdr"))
    header = tmp_path / "ct.nhdr"
    assert "data file: ct.raw" in header.read_text()
    header.write_text(header.read_text().replace("data file: ", "data file: ./"))
    np.testing.assert_array_equal(read_ct(header)[0], expected[0])
