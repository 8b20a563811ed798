"""X2CT-GAN's files are read as its authors' code reads them, and written so that they come back."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from jxrecon.data import lidc
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.types import InputError

N, M = 24, 16  # voxels of the files and of the field


def ball(n, centre=(0.5, 0.5, 0.5), radius=0.3):
    """Stored values [D, H, W]: water in a ball, nothing outside."""
    places = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * 3, indexing="ij"), -1)
    inside = np.linalg.norm(places - np.array(centre), axis=-1) < radius
    return np.where(inside, 1024, 0).astype(np.int16)


def experiment(shape=(M, M, M), spacing=320 / M):
    return Experiment(
        name="x2ct_lidc",
        size="toy",
        kind=VOLUMES,
        field=Field(shape, (spacing,) * 3),
        views=Views(M),
        schedule=Schedule(1, 1),
        settings=None,
        population=Population(1, 1),
    )


@pytest.fixture
def folder(tmp_path):
    """Three cases; one of them is in both lists, one is not there."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("a", "b", "c")):
        images = rng.integers(0, 256, (2, N, N)).astype(np.uint8)
        case = lidc.Case(ball(N, (0.5, 0.5 + 0.05 * k, 0.5)), *images)
        lidc.write_case(tmp_path / name / lidc.FILE, case)
    (tmp_path / "train.txt").write_text("a\nb\ngone\n")
    (tmp_path / "test.txt").write_text("c\nb\n\n")
    return tmp_path


def test_a_case_comes_back_as_it_was_written(folder):
    rng = np.random.default_rng(1)
    case = lidc.Case(rng.integers(0, 4000, (3, 4, 5)).astype(np.int16),
                     *rng.integers(0, 256, (2, 3, 5)).astype(np.uint8))  # fmt: skip
    lidc.write_case(folder / "d" / lidc.FILE, case)
    for got, expected in zip(lidc.read_case(folder / "d" / lidc.FILE), case):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert [path.name for path in (folder / "d").iterdir()] == [lidc.FILE]


def test_resizing_joins_the_corners_and_keeps_whole_numbers():
    line = np.array([0, 10, 21, 30, 45], np.int16)
    expected = np.interp(np.linspace(0, 4, 4), np.arange(5), line)  # 0, 13.67, 27, 45
    got = lidc.resized(line, 4)
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, [0, 14, 27, 45])
    np.testing.assert_array_equal(
        lidc.resized(line.astype(np.float32), 4), expected.astype(np.float32)
    )
    volume = np.random.default_rng(0).integers(0, 4000, (6, 5, 7)).astype(np.int16)
    exact = volume.astype(np.float64)
    for axis in range(3):
        places = np.linspace(0, volume.shape[axis] - 1, 4)
        exact = np.apply_along_axis(
            lambda v, p=places: np.interp(p, np.arange(len(v)), v), axis, exact
        )
    assert np.abs(lidc.resized(volume, 4) - exact).max() <= 0.5 + 1e-9


def test_frames_are_turned_both_ways():
    stored = np.zeros((2, 3, 4), np.int16)
    stored[0, 0, 0] = 1024 + 300  # head, front, right
    hu = lidc.to_hu(stored)
    assert hu.shape == (4, 3, 2)
    assert hu[3, 2, 1] == 300  # RAS: the ends of x, y and z
    assert (hu == -1024).sum() == 23
    np.testing.assert_array_equal(lidc.to_stored(hu), stored)


def test_the_lists_become_train_and_validation_and_the_leak_is_told(folder, tmp_path, capsys):
    data = lidc.load(experiment(), folder, tmp_path / "cache")
    said = capsys.readouterr().err
    assert data.train.names == ("a",)
    assert data.validation.names == ("c", "b")
    assert "b in both lists: left out of train" in said
    assert "b in both lists: left out of train" in data.rule
    assert len(data.rejected) == 1
    assert "gone" in data.rejected[0]
    assert data.train.hu.shape == (1, M, M, M)
    expected = lidc.to_hu(lidc.resized(ball(N), M))
    np.testing.assert_array_equal(data.train.hu[0], expected)
    assert data.train.body[0, M // 2, M // 2, M // 2]
    assert not data.train.body[0, 0, 0, 0]
    again = lidc.load(experiment(), folder, tmp_path / "cache")
    np.testing.assert_array_equal(again.train.hu, data.train.hu)
    np.testing.assert_array_equal(again.train.body, data.train.body)
    assert again.rejected == data.rejected
    case = lidc.read_case(folder / "a" / lidc.FILE)
    lidc.write_case(folder / "a" / lidc.FILE, case._replace(ct=case.ct - case.ct // 10))
    changed = lidc.load(experiment(), folder, tmp_path / "cache")
    assert changed.train.hu.max() < data.train.hu.max()
    lidc.write_case(folder / "a" / lidc.FILE, lidc.read_case(folder / "c" / lidc.FILE))
    with pytest.raises(InputError, match="test/c is the same CT as train/a"):
        lidc.load(experiment(), folder, tmp_path / "cache")


def test_another_field_is_refused(folder):
    with pytest.raises(InputError, match="expected as many voxels each way over 320 mm"):
        lidc.load(experiment(spacing=10.0), folder)
    with pytest.raises(InputError, match="expected as many voxels each way"):
        lidc.load(experiment((M, M, 8)), folder)


@pytest.mark.parametrize(
    "damage", ["absent", "text", "short", "no ct", "axes", "huge", "nan", "words"]
)
def test_a_bad_file_is_told_in_one_line(folder, damage):
    path = folder / "a" / lidc.FILE
    whole = path.read_bytes()
    if damage in ("absent", "text", "short"):
        path.unlink()
        if damage != "absent":
            path.write_bytes(b"no HDF5" if damage == "text" else whole[: len(whole) // 2])
    else:
        with h5py.File(path, "a") as file:
            name = "xray1" if damage == "axes" else "ct"
            del file[name]
            if damage == "axes":
                file["xray1"] = np.zeros((2, 2, 2))
            elif damage == "huge":  # takes no room on the disk
                file.create_dataset("ct", (10_000, 10_000, 10_000), "i2", chunks=(64, 64, 64))
            elif damage == "nan":
                file["ct"] = np.full((2, 2, 2), np.nan)
            elif damage == "words":
                file["ct"] = np.full((2, 2, 2), b"x")
    with pytest.raises(InputError) as caught:
        lidc.read_case(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "../a\n", "a/b\n", "..\n"])
def test_a_list_that_leads_elsewhere_is_refused(folder, text):
    (folder / "test.txt").write_text(text)
    with pytest.raises(
        InputError,
        match=r"test\.txt: (holds nothing, expected names|the name .*, expected one that)",
    ):
        lidc.splits(folder)


def test_xrays_show_what_lies_in_the_volume_where_the_networks_expect_it():
    # A ball up, in front and to the right: small D, H and W.
    ct = ball(32, (0.35, 0.3, 0.4), 0.12)
    frontal, lateral = lidc.make_xrays(ct, 10.0, 40)
    assert frontal.dtype == np.uint8
    assert frontal.max() == lateral.max() == 255
    scale = lidc.SOURCE_DETECTOR_MM / lidc.DETECTOR_MM * 40  # pixels per tangent of the angle

    def seen(image):
        rows, columns = np.indices(image.shape)
        weight = image / image.sum(dtype=np.float64)
        return (rows * weight).sum(), (columns * weight).sum()

    up, front, right = -0.15 * 320, -0.2 * 320, -0.1 * 320
    # The frontal source stands in front, the lateral one at the left.
    for image, across, depth in ((frontal, right, 541 + front), (lateral, front, 541 - right)):
        row, column = seen(image)
        assert row == pytest.approx(19.5 + scale * up / depth, abs=0.4)
        assert column == pytest.approx(19.5 + scale * across / depth, abs=0.4)


def test_the_rule_of_attenuation_is_the_papers():
    hu = np.float32([-1024, -800, -799, 0, 1000])
    np.testing.assert_allclose(
        lidc.attenuation(hu), [0, 0, 0.0022 * 0.201, 0.0022, 0.0044], rtol=1e-5
    )


def test_the_standard_volume_is_centred_keeps_the_head_end_and_drops_the_table():
    x, y, z = np.indices((30, 30, 60)) + 0.5
    body = (np.hypot(x - 15, y - 15) < 10) & (z < 60)
    hu = np.where(body, 40, -1000).astype(np.int16)
    hu[:, 1] = 200  # a table
    hu[14:16, 14:16, 55] = 1000  # a mark near the head
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (100, -50, 7)
    ct = lidc.standard_volume(hu, affine, edge=40)
    assert ct.shape == (40, 40, 40)
    assert ct.dtype == np.int16
    np.testing.assert_array_equal(np.unique(np.argwhere(ct == 2024)[:, 0]), [4])  # 60 - 55 - 1
    assert ct[20, 20, 20] == 1064
    assert ct[20, 36, 20] == 0  # y = 1 of 30 lies 14 behind the middle: the table is gone
    assert not ct[:, :, :5].any()
    with pytest.raises(InputError, match="no body found"):
        lidc.standard_volume(np.full((8, 8, 8), -1000, np.int16), np.eye(4), 8)
