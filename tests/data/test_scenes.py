"""Scenes: the whole CT about the field, of any shape and spacing, cached as a memory map."""

import dataclasses

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from jxrecon import drr, phantom
from jxrecon.data import scenes as scenes_module
from jxrecon.data.scene_xrays import field_of
from jxrecon.data.scenes import merged, mirrored, painted, rule_of
from jxrecon.data.volumes import load
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views, Xrays
from jxrecon.geometry import centred_grid, frontal
from jxrecon.types import InputError, SceneBatch


def scenes_of(data, split, folder, grid, cache=None, table=False):
    """The scenes of a split of what `load` has read."""
    return scenes_module.scenes_of(getattr(data, split), folder / split, grid, cache, table)


def experiment(extent_mm=(112.0, 120.0, 100.8)) -> Experiment:
    shape = (10, 12, 14)
    return Experiment(
        name="tiny",
        size="small",
        field=Field(shape, tuple(e / n for e, n in zip(extent_mm, shape))),
        views=Views(pixels=8),
        schedule=Schedule(steps=1, batch_size=1),
        settings=None,
        kind=None,
        population=Population(train=2, validation=1, seed=7),
    )


def write_ct(path, centre_mm=(0.0, 0.0, 0.0), spacing=5.0, radius_mm=70.0, height_mm=160.0):
    """A cylinder of water with a bone inside along z, a table behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n = int(180 / spacing)
    grid = centred_grid((n, n + 2, int(height_mm / 5)), (spacing, spacing, 5.0), centre_mm)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    x, y, _ = np.moveaxis(index @ grid.affine[:3, :3].T + grid.affine[:3, 3] - centre_mm, -1, 0)
    hu = np.full(grid.shape, -1024, np.int16)
    hu[np.hypot(x, y) < radius_mm] = 0
    hu[np.hypot(x - 20, y) < 8] = 900
    hu[:, 1] = 500
    nib.save(nib.Nifti1Image(hu, grid.affine), path)
    return hu, grid.affine


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "clinic"
    write_ct(root / "train" / "a_ct.nii.gz", (30.0, -10.0, 400.0))
    write_ct(root / "train" / "b_ct.nii", spacing=4.0)
    write_ct(root / "validation" / "c_ct.nii.gz", radius_mm=66.0)
    return root


def test_a_scene_is_the_whole_ct_without_the_table_about_the_field(folder):
    grid, data = experiment().field.grid, load(experiment(), folder)
    scenes = scenes_of(data, "validation", folder, grid)
    hu, affine = write_ct(folder / "again" / "c_ct.nii.gz", radius_mm=66.0)
    assert scenes.hu.dtype == np.int16
    assert scenes.hu.shape[1:] == hu.shape
    np.testing.assert_array_equal(scenes.hu[0][:, 3:].clip(-1000), hu[:, 3:].clip(-1000))
    assert (scenes.hu[0][:, 1] == -1000).all()
    shift = data.validation.affines[0][:3, 3] - grid.affine[:3, 3]
    np.testing.assert_allclose(scenes.affines[0][:3, 3] + shift, affine[:3, 3])
    assert 0.2 < scenes.beyond < 0.8
    assert "outside the field" in rule_of(scenes)


def test_the_table_is_kept_by_choice(folder):
    grid, data = experiment().field.grid, load(experiment(), folder)
    scenes = scenes_of(data, "validation", folder, grid, table=True)
    assert (scenes.hu[0][:, 1] == 500).all()


def test_scenes_of_other_shapes_have_air_around_them(folder):
    grid, data = experiment().field.grid, load(experiment(), folder)
    scenes = scenes_of(data, "train", folder, grid)
    assert scenes.hu.shape == (2, 45, 47, 32)
    assert (scenes.hu[0][36:] == -1000).all()
    assert (scenes.hu[0][:, 38:] == -1000).all()
    np.testing.assert_allclose(np.diagonal(scenes.affines[0])[:3], 5.0)
    np.testing.assert_allclose(np.diagonal(scenes.affines[1])[:2], 4.0)


def test_the_cache_is_a_memory_map_of_the_same_voxels(folder, tmp_path):
    grid, data = experiment().field.grid, load(experiment(), folder)
    fresh = scenes_of(data, "train", folder, grid)
    scenes_of(data, "train", folder, grid, tmp_path / "cache")
    kept = scenes_of(data, "train", folder, grid, tmp_path / "cache")
    assert isinstance(kept.hu, np.memmap)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    np.testing.assert_array_equal(kept.hu, fresh.hu)
    np.testing.assert_array_equal(kept.affines, fresh.affines)
    assert kept.beyond == fresh.beyond
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        scenes_of(data, "train", folder, grid, tmp_path / "cache").hu, fresh.hu
    )


def test_a_disk_that_refuses_is_told_of_and_no_more(folder, tmp_path, capsys):
    grid, data = experiment().field.grid, load(experiment(), folder)
    (tmp_path / "file").write_text("")
    scenes = scenes_of(data, "validation", folder, grid, tmp_path / "file" / "cache")
    assert len(scenes.hu) == 1
    assert "not cached" in capsys.readouterr().err


def test_a_ct_no_larger_than_the_field_has_no_surround(folder):
    wide = experiment((260.0, 260.0, 165.0))
    data = load(wide, folder)
    scenes = scenes_of(data, "train", folder, wide.field.grid)
    assert scenes.beyond == 0.0
    assert "no surround" in rule_of(scenes)


def test_synthetic_subjects_have_scenes_of_their_own_about_the_field():
    standard = experiment((224.0, 240.0, 201.6))
    data = scenes_module.load(standard, None)
    for cases, numbers in ((data.train, (0, 1)), (data.validation, (2,))):
        for number, hu, affine in zip(numbers, cases.scenes.hu, cases.scenes.affines):
            expected, place = phantom.scene(7, number)
            np.testing.assert_array_equal(hu, expected)
            np.testing.assert_array_equal(affine, place)
        assert 0.5 < cases.scenes.beyond < 0.75
        cut = field_of(
            jnp.asarray(cases.scenes.hu[-1]),
            jnp.asarray(cases.scenes.affines[-1], jnp.float32),
            standard.field.grid,
            samples=(4, 3, 2),
        )
        inside = cases.body[-1]
        assert np.corrcoef(cut[inside], cases.hu[-1][inside])[0, 1] > 0.95
    assert "voxels lie outside the field" in data.rule
    assert len(data.rule.split("SYNTHETIC")) == 2


def test_synthetic_voxels_are_as_fine_as_the_fields_within_bounds(monkeypatch):
    made = []

    def scene(*arguments):
        made.append(arguments)
        return np.zeros((2, 2, 2), np.int16), np.eye(4)

    monkeypatch.setattr(phantom, "scene", scene)
    for spacing in (9.0, 5.0, 2.0):
        painted((4, 6), 7, centred_grid((8, 8, 8), (spacing,) * 3))
    assert made == [(7, n, pytest.approx(mm)) for mm in (6.0, 5.0, 4.0) for n in (4, 6)]


def test_a_file_that_has_gone_is_an_error(folder):
    grid, data = experiment().field.grid, load(experiment(), folder)
    (folder / "validation" / "c_ct.nii.gz").unlink()
    with pytest.raises(InputError, match="expected the CT of case c"):
        scenes_of(data, "validation", folder, grid)


def test_fine_voxels_are_merged_and_line_integrals_stay():
    fine = centred_grid((48, 30, 20), (0.8, 0.8, 2.5))
    noise = np.random.default_rng(0).normal(0, 1, fine.shape)
    hu = (2000 * ndimage.gaussian_filter(noise, 2.0)).astype(np.float32)
    coarse, affine = merged(hu, fine.affine)
    assert coarse.shape == (24, 15, 20)
    np.testing.assert_allclose(np.diagonal(affine)[:3], [1.6, 1.6, 2.5])
    camera = frontal(shape=(6, 6), pixel_mm=4.0)
    before, after = (
        np.asarray(drr.line_integrals(drr.hu_to_mu(v.astype(np.float32)), a, camera, "siddon"))
        for v, a in ((hu, fine.affine), (coarse, affine))
    )
    assert np.linalg.norm(before - after) < 0.01 * np.linalg.norm(before)


def test_voxels_that_are_fine_along_every_axis_are_merged_where_they_lie():
    fine = centred_grid((8, 6, 4), (0.8, 0.9, 1.0), (5.0, -3.0, 40.0))
    hu = np.full(fine.shape, -1000.0, np.float32)
    hu[4:6, 2:4, :2] = 80.0
    coarse, affine = merged(hu, fine.affine)
    assert coarse.shape == (4, 3, 2)
    ((*block,),) = np.argwhere(coarse == 80)
    middle = fine.affine[:3, :3] @ [4.5, 2.5, 0.5] + fine.affine[:3, 3]
    np.testing.assert_allclose(affine[:3, :3] @ block + affine[:3, 3], middle)


def test_large_voxels_are_merged_only_where_there_are_very_many(monkeypatch):
    grid = centred_grid((40, 8, 8), (1.5, 3.0, 3.0))
    hu = np.zeros(grid.shape, np.int16)
    assert merged(hu, grid.affine)[0].shape == grid.shape
    monkeypatch.setattr(scenes_module, "MOST_MERGED", 20)
    assert merged(hu, grid.affine)[0].shape == (20, 8, 8)


def test_a_mirror_image_has_left_for_right(folder):
    data = scenes_module.load(experiment(), folder)
    affine, point = data.train.scenes.affines[0], np.array([3.0, 4.0, 5.0, 1.0])
    np.testing.assert_allclose(mirrored(affine) @ point, [-1, 1, 1, 1] * (affine @ point))


def test_all_splits_have_scenes_unless_xrays_show_the_field(folder):
    data = scenes_module.load(experiment(), folder)
    assert len(data.train.scenes.hu) == 2
    assert len(data.validation.scenes.hu) == 1
    assert "X-rays of the whole CT" in data.rule
    alone = dataclasses.replace(experiment(), xrays=Xrays(of="field"))
    data = scenes_module.load(alone, folder)
    assert data.train.scenes is data.validation.scenes is None
    assert "inverse crime" in data.rule
    wrong = dataclasses.replace(experiment(), xrays=Xrays(of="organ"))
    with pytest.raises(InputError, match="'organ', expected patient or field"):
        scenes_module.load(wrong, folder)


def test_a_batch_has_the_scenes_of_its_cases(folder):
    train = scenes_module.load(experiment(), folder).train
    batch = train.batch(np.array([1], np.int32))
    assert isinstance(batch, SceneBatch)
    np.testing.assert_array_equal(batch.scene[0], train.scenes.hu[1])
    np.testing.assert_allclose(batch.affine[0], train.scenes.affines[1], rtol=1e-6)
