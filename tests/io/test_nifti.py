"""NIfTI files: frames survive, damage is told in one line, resampling keeps the world."""

import gzip
import itertools
import os

import nibabel as nib
import numpy as np
import pytest

from jxrecon.geometry import Grid, centred_grid
from jxrecon.io.nifti import read_volume, resample, write_volume
from jxrecon.types import InputError

SHAPE = (4, 5, 6)
AFFINE = np.array([[2.0, 0, 0, -7], [0, 3.0, 0, 11], [0, 0, 1.5, 5], [0, 0, 0, 1]])
ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def marked_volume() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def stored(path, image_class=nib.Nifti1Image, data=None, affine=AFFINE):
    nib.save(image_class(marked_volume() if data is None else data, affine), path)
    return path


def with_header(path, change):
    """The file of `stored` after `change(header)`, its voxels as they were."""
    raw = stored(path.parent / "plain.nii").read_bytes()
    header = nib.Nifti1Header(raw[:348])
    change(header)
    data = header.binaryblock + raw[348:]
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def one_line_about(path, expectation):
    """What read_volume complains of: one line, which names the file and what was expected."""
    with pytest.raises(InputError, match=expectation) as caught:
        read_volume(path)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_every_axis_orientation_keeps_world_coordinates(tmp_path, axes, signs):
    matrix = np.zeros((3, 3))
    for index_axis, (world_axis, sign) in enumerate(zip(axes, signs)):
        matrix[world_axis, index_axis] = sign * (1.0, 2.5, 4.0)[index_axis]
    affine = nib.affines.from_matvec(matrix, (-12.3, 45.6, 7.8))
    volume = marked_volume()
    read, canonical = read_volume(stored(tmp_path / "a.nii", data=volume, affine=affine))
    assert nib.aff2axcodes(canonical) == ("R", "A", "S")
    for index in itertools.product((0, 3), (0, 4), (0, 5)):
        world = nib.affines.apply_affine(affine, index)
        there = nib.affines.apply_affine(np.linalg.inv(canonical), world)
        np.testing.assert_allclose(there, np.rint(there), atol=1e-4)
        assert read[tuple(np.rint(there).astype(int))] == volume[index]
        np.testing.assert_allclose(
            nib.affines.apply_affine(canonical, np.rint(there)), world, atol=0.01
        )


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_written_is_read_back(tmp_path, name):
    path = tmp_path / "new" / name
    write_volume(path, marked_volume() - 40.4, AFFINE)
    hu, affine = read_volume(path)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(hu, marked_volume() - 40)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    header = nib.load(path).header
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)


def test_values_beyond_int16_are_clipped(tmp_path):
    hu = np.array([-1e6, -1000.5, 0.0, 1e6]).reshape(4, 1, 1)
    write_volume(tmp_path / "a.nii", hu, AFFINE)
    assert read_volume(tmp_path / "a.nii")[0].ravel().tolist() == [-32768, -1000, 0, 32767]


def test_writing_the_same_volume_twice_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, marked_volume(), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    write_volume(path, marked_volume(), AFFINE)
    before = path.read_bytes()

    def disk_full(image, part):
        with open(part, "wb") as stream:
            stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", disk_full)
    with pytest.raises(InputError, match="No space left"):
        write_volume(path, marked_volume() + 1, AFFINE)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.nii.gz"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("hu", [np.zeros((2, 2)), np.full((2, 2, 2), np.nan)])
def test_what_is_no_volume_is_not_written(tmp_path, hu):
    with pytest.raises(InputError, match="expected finite HU"):
        write_volume(tmp_path / "a.nii", hu, AFFINE)
    assert os.listdir(tmp_path) == []


def test_a_sheared_affine_is_kept(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.4
    write_volume(tmp_path / "a.nii", marked_volume(), sheared)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii")[1], sheared, atol=1e-5)


def test_nifti_2_big_endian_scaled_and_4d_singleton_are_read(tmp_path):
    expected = marked_volume()
    for image_class in (nib.Nifti1Image, nib.Nifti2Image):
        path = stored(tmp_path / "a.nii.gz", image_class, expected[..., None])
        np.testing.assert_array_equal(read_volume(path)[0], expected)
    image = nib.Nifti1Image(expected, AFFINE)
    header = image.header.as_byteswapped(">")
    swapped = nib.Nifti1Image(expected, AFFINE, header)
    nib.save(swapped, tmp_path / "b.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii")[0], expected)
    scaled = nib.Nifti1Image(expected * 0.5 - 1000, AFFINE)
    scaled.set_data_dtype(np.int16)
    nib.save(scaled, tmp_path / "c.nii")
    hu = read_volume(tmp_path / "c.nii")[0]
    assert hu.dtype == np.float32
    np.testing.assert_allclose(hu, expected * 0.5 - 1000, atol=0.01)


def test_two_frames_that_disagree_are_told_and_voxels_of_two_sizes_refused(tmp_path, capsys):
    path, affine = tmp_path / "a.nii", np.diag([2.0, 3.0, 4.0, 1.0])
    image = nib.Nifti1Image(np.zeros((6, 5, 4), np.int16), affine)
    image.set_qform(affine, code=1)
    for shift_mm, line in ((0.9, ""), (50.0, "50.0 mm from where its sform does, which was taken")):
        affine[0, 3] = shift_mm
        image.set_sform(affine, code=2)
        nib.save(image, path)
        np.testing.assert_allclose(read_volume(path)[1], affine, rtol=1e-6)
        told = capsys.readouterr().err
        assert line in told
        assert bool(told) == bool(line)
    image.set_sform(np.eye(4), code=2)
    nib.save(image, path)
    with pytest.raises(
        InputError, match="by its sform voxels are 1 x 1 x 1 mm, by its qform 2 x 3 x 4"
    ):
        read_volume(path)


def test_metres_become_millimetres(tmp_path):
    path = with_header(tmp_path / "a.nii", lambda h: h.set_xyzt_units("meter"))
    np.testing.assert_allclose(read_volume(path)[1][:3], 1000 * AFFINE[:3], rtol=1e-6)


@pytest.mark.parametrize("left", [0.3, 0.6, 0.99])
def test_a_truncated_gzip_is_refused(tmp_path, left):
    path = stored(tmp_path / "a.nii.gz")
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data))])
    one_line_about(path, "truncated|NIfTI header")


def test_a_gzip_without_its_checksum_is_refused(tmp_path):
    path = stored(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-8])
    one_line_about(path, "truncated")


def test_a_flipped_bit_in_a_gzip_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    raw = stored(tmp_path / "plain.nii").read_bytes()
    data = bytearray(gzip.compress(raw, compresslevel=0))  # stored bytes: any flip stays decodable
    data[-40] ^= 1
    path.write_bytes(data)
    one_line_about(path, "CRC")


def test_a_truncated_plain_file_is_refused(tmp_path):
    path = stored(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-3])
    one_line_about(path, "truncated, 3 bytes")


def test_a_text_file_under_the_name_is_refused(tmp_path):
    for name in ("a.nii", "b.nii.gz", "c.txt"):
        (tmp_path / name).write_text("no volume " * 100)
        one_line_about(tmp_path / name, "expected|whole file")
    one_line_about(tmp_path / "absent.nii", "no such file")


def test_a_bomb_is_refused_from_its_header(tmp_path):
    path = with_header(tmp_path / "a.nii.gz", lambda h: h.set_data_shape((2000, 2000, 2000)))
    assert "29.8 GiB" in one_line_about(path, "at most 2 GiB")
    path = with_header(tmp_path / "b.nii.gz", lambda h: h.set_data_shape((512, 512, 1000)))
    one_line_about(path, "cannot hold the declared 512 x 512 x 1000")


def set_field(name, value):
    return lambda header: header.__setitem__(name, value)


def set_sform(value):
    def change(header):
        header["srow_x"][1] = value

    return change


@pytest.mark.parametrize(
    ("change", "expectation"),
    [
        (set_sform(np.nan), "affine"),
        (set_sform(np.inf), "affine"),
        (set_sform(1e30), "affine"),
        (lambda h: h.set_sform(np.diag([1.0, 0, 1, 1]), 1), "affine"),
        (lambda h: (h.set_sform(None, 0), h.set_qform(None, 0)), "where the volume lies"),
        (lambda h: h.set_data_shape((4, 5, 3, 2)), "three axes"),
        (lambda h: h.set_data_shape((4, 30)), "three axes"),
        (lambda h: h.set_data_dtype(np.complex64), "datatype 32"),
        (set_field("datatype", 128), "datatype 128"),
        (set_field("datatype", 999), "header is invalid|datatype 999"),
        (set_field("vox_offset", 1e9), "vox_offset"),
        (set_field("vox_offset", np.nan), "vox_offset"),
        (set_field("magic", b"ni1"), "single-file"),
        (set_field("scl_slope", 1e38), "not finite"),
        (set_field("xyzt_units", 7), "its unit has the code 7"),
    ],
)
def test_a_header_that_describes_no_ct_is_refused(tmp_path, change, expectation):
    one_line_about(with_header(tmp_path / "a.nii", change), expectation)


def test_a_header_that_nibabel_mends_is_read_in_silence(tmp_path, caplog):
    path = with_header(tmp_path / "a.nii", lambda h: h["pixdim"].__setitem__(slice(0, 2), (0, -2)))
    np.testing.assert_array_equal(read_volume(path)[0], marked_volume())
    assert caplog.records == []


def test_a_voxel_that_is_not_finite_is_refused(tmp_path):
    hu = marked_volume().astype(np.float32)
    hu[1, 2, 3] = np.nan
    one_line_about(stored(tmp_path / "a.nii", data=hu), "1 voxels are not finite")


def ramp(affine, shape, slope=(3.0, -2.0, 0.5)):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return (index @ affine[:3, :3].T + affine[:3, 3]) @ np.array(slope)


@pytest.mark.parametrize("samples", [None, (1, 1, 1), (2, 3, 1)])
def test_resampling_keeps_a_ramp_at_its_place_in_the_world(samples):
    turn = np.deg2rad(20)
    affine = np.diag([3.0, 2.0, 4.0, 1.0])
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    grid = centred_grid((3, 4, 5), (4.0, 5.0, 2.5), (1.0, -2.0, 3.0))
    for frame in (affine, rotation @ affine):
        frame = frame.copy()
        frame[:3, 3] = grid.centre_mm - frame[:3, :3] @ np.array([9.5, 14.5, 7.5])
        moved = resample(ramp(frame, (20, 30, 16)), frame, grid, -1000.0, samples)
        assert moved.shape == grid.shape
        np.testing.assert_allclose(moved, ramp(grid.affine, grid.shape), atol=1e-3)


def test_a_coarse_grid_is_the_block_mean_of_the_fine_one():
    volume = np.random.default_rng(1).normal(size=(12, 10, 14))
    affine = centred_grid((12, 10, 14), (3.0, 3.5, 2.0)).affine
    fine = resample(volume, affine, centred_grid((8, 8, 12), (2.5, 2.5, 2.0)), 0.0, (1, 1, 1))
    coarse = resample(volume, affine, centred_grid((4, 4, 4), (5.0, 5.0, 6.0)), 0.0, (2, 2, 3))
    means = fine.reshape(4, 2, 4, 2, 4, 3).mean((1, 3, 5))
    np.testing.assert_allclose(coarse, means, atol=1e-5)


def test_a_coarse_grid_does_not_alias():
    stripes = np.tile(np.array([0.0, 1000.0]), 32)[:, None, None] * np.ones((64, 2, 2))
    grid = Grid((15, 1, 1), np.array([[4.0, 0, 0, 1.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    np.testing.assert_allclose(resample(stripes, np.eye(4), grid, 0.0), 500.0, atol=1e-3)


def test_outside_the_volume_is_the_fill():
    grid = centred_grid((9, 3, 3), (1.0, 1.0, 1.0))
    moved = resample(
        np.ones((3, 3, 3)), centred_grid((3, 3, 3), (1.0, 1.0, 1.0)).affine, grid, -7.0
    )
    assert moved[:, 1, 1].tolist() == [-7, -7, -7, 1, 1, 1, -7, -7, -7]
