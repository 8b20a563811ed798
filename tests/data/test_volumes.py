"""Loading: synthetic population, folders of CTs, rejects, the cache and the standard field."""

import csv
import dataclasses

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from jxrecon import phantom
from jxrecon.data import volumes as volumes_module
from jxrecon.data.openkbp import FULL_SHAPE, field_centres, is_openkbp, samples_of
from jxrecon.data.volumes import load
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views
from jxrecon.geometry import centred_grid
from jxrecon.io.ct import read_ct
from jxrecon.io.nifti import read_volume
from jxrecon.kinds import VOLUMES
from jxrecon.types import InputError


def experiment(shape=(10, 12, 14), extent_mm=(112.0, 120.0, 100.8)) -> Experiment:
    return Experiment(
        name="tiny",
        size="small",
        kind=VOLUMES,
        field=Field(shape, tuple(e / n for e, n in zip(extent_mm, shape))),
        views=Views(pixels=8),
        schedule=Schedule(steps=1, batch_size=1),
        settings=None,
        population=Population(train=3, validation=2, seed=7),
    )


def write_ct(path, centre_mm=(0.0, 0.0, 0.0), height_mm=160.0, water=0):
    """A cylinder of about water with a bone inside, its long axis along z through `centre_mm`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = centred_grid((32, 34, int(height_mm / 5)), (5.0, 5.0, 5.0), centre_mm)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    x, y, _ = np.moveaxis(index @ grid.affine[:3, :3].T + grid.affine[:3, 3] - centre_mm, -1, 0)
    hu = np.full(grid.shape, -1024, np.int16)
    hu[np.hypot(x, y) < 45] = water
    hu[np.hypot(x - 20, y) < 8] = 900
    hu[:, 2] = 500  # a table behind
    nib.save(nib.Nifti1Image(hu, grid.affine), path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "clinic"
    write_ct(root / "train" / "a_ct.nii.gz", (30.0, -10.0, 400.0))
    write_ct(root / "train" / "b_ct.nii", (-5.0, 0.0, 0.0))
    write_ct(root / "validation" / "c_ct.nii.gz", water=20)
    (root / "train" / "a_labels.nii.gz").write_bytes(b"not read")
    return root


def test_the_synthetic_splits_are_two_ranges_of_one_population():
    data = load(experiment(), None)
    assert data.synthetic
    assert "SYNTHETIC" in data.rule
    assert data.train.names == ("synthetic_0000", "synthetic_0001", "synthetic_0002")
    assert data.validation.names == ("synthetic_0003", "synthetic_0004")
    grid = experiment().field.grid
    np.testing.assert_array_equal(data.validation.hu, phantom.population(grid, 7, 3, 2))
    assert data.train.hu.dtype == np.int16
    assert data.train.body.shape == data.train.hu.shape
    assert (data.train.hu[data.train.body] < -900).any()  # the airway lies inside
    np.testing.assert_array_equal(data.train.affines, np.tile(grid.affine, (3, 1, 1)))


def test_a_population_without_validation_is_an_error():
    empty = dataclasses.replace(experiment(), population=Population(train=3, validation=0))
    with pytest.raises(InputError, match="expected at least one of each"):
        load(empty, None)


def test_a_folder_is_cut_about_each_body_and_overlays_on_it(folder):
    data = load(experiment(), folder)
    assert not data.synthetic
    assert data.train.names == ("a", "b")
    assert data.validation.names == ("c",)
    assert data.test is None
    assert "bounding box" in data.rule
    assert "2 train, 1 validation, 0 left out" in data.rule
    for hu, body, affine, centre in zip(
        data.train.hu, data.train.body, data.train.affines, ((30, -10, 400), (-5, 0, 0))
    ):
        shape = np.array(hu.shape)
        np.testing.assert_allclose(
            affine[:3, :3] @ ((shape - 1) / 2) + affine[:3, 3], centre, atol=2.6
        )
        bone = np.rint(np.linalg.inv(affine) @ [centre[0] + 20, centre[1], centre[2], 1]).astype(
            int
        )
        assert hu[tuple(bone[:3])] > 400
        assert set(np.unique(hu[:, 0])) == {-1000}  # the table is gone
        np.testing.assert_allclose(body.mean(), np.pi * 45**2 / (112 * 120), atol=0.05)
    np.testing.assert_array_equal(data.train.hu[0], data.train.hu[1])


def test_beyond_the_ct_there_is_air_and_no_body(folder):
    wide = (224.0, 240.0, 100.8)  # the CTs are 160 by 170 mm
    train = load(experiment(extent_mm=wide), folder).train
    for axis in (1, 2):
        ends = [0, train.hu.shape[axis] - 1]
        assert set(np.unique(train.hu.take(ends, axis))) == {-1000}
        assert not train.body.take(ends, axis).any()
    np.testing.assert_allclose(train.body.mean(), np.pi * 45**2 / (224 * 240), atol=0.02)


def test_a_test_split_is_read_where_there_is_one(folder):
    write_ct(folder / "test" / "d_ct.nii.gz", water=40)
    assert load(experiment(), folder).test.names == ("d",)


def test_bad_cases_are_left_out_and_listed(folder, capsys):
    write_ct(folder / "train" / "short_ct.nii.gz", height_mm=60.0)
    (folder / "train" / "broken_ct.nii.gz").write_text("no volume")
    blank = nib.Nifti1Image(np.full((8, 8, 8), -1000, np.int16), np.diag([9.0, 9, 9, 1]))
    nib.save(blank, folder / "train" / "air_ct.nii")
    raw = nib.Nifti1Image(np.full((8, 8, 8), 24, np.int16), np.diag([9.0, 9, 9, 1]))
    nib.save(raw, folder / "train" / "raw_ct.nii")
    data = load(experiment(), folder)
    assert data.train.names == ("a", "b")
    assert "4 left out" in data.rule
    for name, reason in {
        "air_ct": "expected tissue",
        "broken_ct": "expected",
        "raw_ct": "lowest value is 24",
        "short_ct": "fills 60 mm of the field's 101 mm",
    }.items():
        assert sum(name in line and reason in line for line in data.rejected) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("left out: ")] == [
        f"left out: {line}" for line in data.rejected
    ]


def test_a_split_without_a_usable_volume_is_an_error(folder, tmp_path):
    (folder / "validation" / "c_ct.nii.gz").write_text("no volume")
    with pytest.raises(InputError, match=r"none of the 1 volumes of validation/"):
        load(experiment(), folder)
    (folder / "validation" / "c_ct.nii.gz").unlink()
    with pytest.raises(InputError, match=r"expected files NAME_ct\.nii\.gz"):
        load(experiment(), folder)
    (folder / "validation").rmdir()
    with pytest.raises(InputError, match=r"no subfolder validation/, expected train/"):
        load(experiment(), folder)
    with pytest.raises(InputError, match="no subfolder train/"):
        load(experiment(), tmp_path / "absent")


def test_two_files_of_one_case_are_an_error(folder):
    write_ct(folder / "train" / "a_CT.NII")
    with pytest.raises(InputError, match="a second file of case a"):
        load(experiment(), folder)
    (folder / "train" / "a_CT.NII").rename(folder / "train" / "A_ct.nii")
    with pytest.raises(InputError, match="results would be called as those of"):
        load(experiment(), folder)


def test_one_ct_in_two_splits_is_refused_whatever_its_name_type_and_origin(folder, capsys):
    image = nib.load(folder / "validation" / "c_ct.nii.gz")
    affine = image.affine + np.array([[0, 0, 0, 7.0]] + 3 * [[0, 0, 0, 0]])
    other = nib.Nifti1Image(
        image.get_fdata(dtype=np.float32)[::-1], affine @ np.diag([-1, 1, 1, 1])
    )
    nib.save(other, folder / "train" / "other_ct.nii")
    with pytest.raises(InputError, match="validation/c is the same CT as train/other"):
        load(experiment(), folder)
    assert "train/b is the same CT as train/a" in capsys.readouterr().err  # told, in one split


def test_the_cache_is_used_while_the_files_are_the_same(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (folder / "train" / "broken_ct.nii.gz").write_text("no volume")
    first = load(experiment(), folder, cache)
    reads = []
    monkeypatch.setattr(
        volumes_module, "read_ct", lambda path, *s: reads.append(path.name) or read_ct(path, *s)
    )
    again = load(experiment(), folder, cache)
    assert reads == []
    assert (again.rule, again.rejected) == (first.rule, first.rejected)
    for old, new in zip(first[:2], again[:2]):
        assert old.names == new.names
        for before, after in zip(old[1:4], new[1:4]):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    write_ct(folder / "train" / "b_ct.nii", (0.0, 0.0, 50.0))
    assert load(experiment(), folder, cache).train.affines[1, 2, 3] != first.train.affines[1, 2, 3]
    assert sorted(reads) == ["a_ct.nii.gz", "b_ct.nii", "broken_ct.nii.gz"]
    load(experiment((5, 6, 7)), folder, cache)
    assert len(reads) == 7


def test_a_damaged_cache_is_made_anew(folder, tmp_path):
    first = load(experiment(), folder, tmp_path)
    kept = next(tmp_path.glob("train_*.npz"))
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    for damaged in (data, data[:100], b""):
        kept.write_bytes(damaged)
        np.testing.assert_array_equal(load(experiment(), folder, tmp_path).train.hu, first.train.hu)
    assert not list(tmp_path.glob("*.part"))


def write_table(root, rows):
    columns = ["patient", "split", "crop_x_mm", "crop_y_mm", "crop_z_mm", "covers_hn"]
    with (root / "patients.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])


def test_the_standard_field_lies_where_patients_csv_says(folder):
    write_table(
        folder,
        [
            ["a", "train", "32", "-18", "455", "1"],
            ["b", "train", "0", "0", "0", "0"],
            ["c", "validation", "1", "-10", "50", "1"],
        ],
    )
    assert is_openkbp(folder)
    data = load(experiment(), folder)
    assert data.train.names == ("a",)
    assert "standard field" in data.rule
    middle = (np.array(data.train.hu.shape[1:]) - 1) / 2
    affine = data.train.affines[0]
    np.testing.assert_allclose(affine[:3, :3] @ middle + affine[:3, 3], (32, -8, 405), atol=1e-9)


def test_a_patient_of_the_table_without_a_file_is_listed(folder):
    rows = [["a", "train", "30", "-20", "450", "1"], ["z", "train", "0", "0", "0", "1"]]
    write_table(folder, [*rows, ["c", "validation", "0", "-10", "50", "1"]])
    data = load(experiment(), folder)
    assert data.train.names == ("a",)
    assert len(data.rejected) == 1
    assert "z_ct.nii.gz: no such file" in data.rejected[0]


def test_a_table_with_a_bad_coordinate_is_an_error(folder):
    write_table(folder, [["a", "train", "32", "nan", "455", "1"]])
    with pytest.raises(InputError, match=r"patients\.csv: a has crop_x_mm"):
        load(experiment(), folder)


def test_another_table_is_not_openkbp(folder):
    (folder / "patients.csv").write_text("patient,age\na,40\n")
    assert not is_openkbp(folder)
    (folder / "patients.csv").write_bytes(b"\xff\xfe\x00")
    assert not is_openkbp(folder)


def test_coarse_standard_grids_are_block_means_of_the_full_one():
    assert samples_of(centred_grid(FULL_SHAPE, (2.8, 2.5, 1.8))) == (1, 1, 1)
    assert samples_of(centred_grid((20, 24, 28), (11.2, 10.0, 7.2))) == (4, 4, 4)
    assert samples_of(centred_grid((32, 32, 32), (7.0, 7.5, 6.3))) is None


def test_real_patients_of_the_standard_field_are_76_and_17(real_data):
    folder = real_data / "openkbp_hn"
    assert is_openkbp(folder)
    assert len(field_centres(folder, "train")) == 76
    assert len(field_centres(folder, "validation")) == 17


def test_a_real_patient_fills_the_standard_field(real_data, tmp_path):
    source = real_data / "openkbp_hn"
    with (source / "patients.csv").open(newline="") as lines:
        covering = [r for r in csv.DictReader(lines) if r["covers_hn"] == "1"]
    rows = []
    for split, row in zip(("train", "validation"), covering):
        name = f"{row['patient']}_ct.nii.gz"
        (tmp_path / split).mkdir()
        (tmp_path / split / name).symlink_to(source / row["split"] / name)
        rows.append([row["patient"], split, *(row[f"crop_{axis}_mm"] for axis in "xyz"), "1"])
    write_table(tmp_path, rows)
    fine = load(experiment(FULL_SHAPE, (224.0, 240.0, 201.6)), tmp_path).train
    coarse = load(experiment((20, 24, 28), (224.0, 240.0, 201.6)), tmp_path).train
    assert 0.25 < fine.body.mean() < 0.6
    means = fine.hu[0].reshape(20, 4, 24, 4, 28, 4).mean((1, 3, 5))
    np.testing.assert_allclose(coarse.hu[0], means, atol=1.0)  # HU, rounded twice
    hu, affine = read_volume(tmp_path / "train" / f"{rows[0][0]}_ct.nii.gz")
    deep = np.argwhere(ndimage.binary_erosion(fine.body[0], iterations=4))[::97]
    world = deep @ fine.affines[0][:3, :3].T + fine.affines[0][:3, 3]
    places = np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T)
    expected = ndimage.map_coordinates(hu.astype(np.float64), places, order=1)
    assert len(expected) > 1000
    np.testing.assert_allclose(fine.hu[0][tuple(deep.T)], expected, atol=0.51)  # HU, rounded
    bone = (fine.hu[0] > 300) & fine.body[0]
    assert 0.01 < bone.mean() < 0.15


def test_a_patient_of_two_splits_is_refused_by_its_id(folder, tmp_path, capsys, monkeypatch):
    ids = {"a": "P-1", "b": "P-2", "c": "P-1"}
    monkeypatch.setattr(volumes_module, "patient_of", lambda path: ids[path.name[0]])
    with pytest.raises(InputError, match="validation/c and train/a have one Patient ID, 'P-1'"):
        load(experiment(), folder)
    ids["a"] = ids["c"] = "ANONYMOUS"  # names nobody
    load(experiment(), folder)
    assert "have one Patient ID, 'ANONYMOUS'" in capsys.readouterr().err
