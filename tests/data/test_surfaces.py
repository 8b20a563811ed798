"""The cases of a surface experiment: which livers, which split, what an X-ray shows."""

import dataclasses

import numpy as np
import pytest

from jxrecon.data import surfaces
from jxrecon.data.surfaces import SurfacePopulation, load
from jxrecon.geometry import camera_at
from jxrecon.io.meshes import write_mesh
from jxrecon.mesh import Mesh
from jxrecon.phantom.liver import liver, liver_template
from jxrecon.types import InputError

CAMERA = camera_at(0, shape=(32, 32), pixel_mm=450 / 32)
SMALL = SurfacePopulation(train=2, validation=1, states=2, spacing_mm=8.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache):
    return load(CAMERA, SMALL, cache=cache)


@pytest.fixture
def folder(tmp_path):
    template = liver_template()
    write_mesh(tmp_path / "template.ply", Mesh(template.vertices, template.faces))
    for n in range(5):
        write_mesh(tmp_path / f"case_{n}.ply", Mesh(liver(7, n), template.faces))
    return tmp_path


def test_cases_have_the_shapes_that_methods_expect(made):
    train = made.train
    assert train.image.shape == (4, 32, 32)
    assert train.reference.shape == train.target.shape == (4, 642, 3)
    assert {array.dtype for array in train[1:4]} == {np.dtype(np.float32)}
    assert train.subject.tolist() == [0, 0, 1, 1]
    assert made.synthetic
    assert "SYNTHETIC" in made.rule
    np.testing.assert_allclose(made.template.vertices, train.reference.mean(0), atol=1e-3)
    batch = train.batch([3, 1])
    np.testing.assert_array_equal(batch.image, train.image[[3, 1]])
    np.testing.assert_array_equal(batch.target, train.target[[3, 1]])
    assert np.asarray(batch.index).tolist() == [3, 1]


def test_no_liver_is_in_both_splits(made):
    def livers(split):
        return {name.rsplit("_", 1)[0] for name in split.names}

    assert livers(made.train).isdisjoint(livers(made.validation))
    apart = made.train.reference[:, None] - made.validation.reference[None]
    assert np.abs(apart).max((2, 3)).min() > 3


def test_states_of_a_liver_share_its_reference_and_move_differently(made):
    train = made.train
    np.testing.assert_array_equal(train.reference[0], train.reference[1])
    moved = np.abs(train.target - train.reference).max((1, 2))
    assert moved.max() > 2
    assert moved.max() < 35
    assert np.abs(train.target[0] - train.target[1]).max() > 0.5


def test_the_x_ray_sees_the_organ_and_its_motion(made):
    train = made.train
    assert np.isfinite(train.image).all()
    assert 1 < train.image.mean() < 8  # of exp(-x): some 300 mm of tissue
    place = np.asarray(CAMERA.place_of(train.target))
    on_detector = ((place > -0.5) & (place < 31.5)).all(-1)
    assert on_detector.mean() > 0.95
    motion = np.abs(train.target - train.reference).mean((1, 2))
    first, second = train.image[0], train.image[1]
    assert abs(motion[0] - motion[1]) > 0.5
    assert np.abs(first - second).max() > 0.1


def test_the_cache_gives_the_same_without_making_it_again(made, cache, monkeypatch):
    monkeypatch.setattr(surfaces, "sample_body", lambda: pytest.fail("made again"))
    again = load(CAMERA, SMALL, cache=cache)
    assert again.train.names == made.train.names
    for kept, first in zip(again.train[1:], made.train[1:]):
        np.testing.assert_array_equal(kept, first)
    np.testing.assert_array_equal(again.template.vertices, made.template.vertices)
    with pytest.raises(pytest.fail.Exception, match="made again"):
        load(CAMERA, dataclasses.replace(SMALL, seed=1), cache=cache)


def test_a_folder_is_split_by_liver_and_may_grow_by_its_shape_model(folder):
    settings = SurfacePopulation(states=1, augment=1, spacing_mm=8.0)
    found = load(CAMERA, settings, folder)
    assert not found.synthetic
    assert found.validation.names == ("case_2_00",)
    assert found.train.names == (
        "case_0_00", "case_1_00", "case_3_00", "case_4_00", "drawn_0000_00",
    )  # fmt: skip
    shape = found.train.reference[0] - found.train.reference[0].mean(0)
    np.testing.assert_allclose(shape, liver(7, 0), atol=1e-2)
    drawn = found.train.reference[4] - found.train.reference[4].mean(0)
    nearest = min(np.abs(drawn - liver(7, n)).max() for n in range(5))
    assert 0.5 < nearest < 40


def test_a_subfolder_holds_the_livers_to_test_on_and_the_others_stay(folder):
    settings = SurfacePopulation(train=1, validation=1, states=1, spacing_mm=8.0)
    without = load(CAMERA, settings, folder)
    assert without.test is None
    (folder / "test").mkdir()
    with pytest.raises(InputError, match=r"test: 0 livers.*at least 1"):
        load(CAMERA, settings, folder)
    write_mesh(folder / "test" / "case_9.ply", Mesh(liver(7, 9), liver_template().faces))
    found = load(CAMERA, settings, folder)
    assert found.test.names == ("case_9_00",)
    assert "1 other livers for validation and 1 for test," in found.rule
    shape = found.test.reference[0] - found.test.reference[0].mean(0)
    np.testing.assert_allclose(shape, liver(7, 9), atol=1e-2)
    assert found.train.names == without.train.names
    np.testing.assert_array_equal(found.train.image, without.train.image)
    np.testing.assert_array_equal(found.template.vertices, without.template.vertices)


def test_a_liver_of_another_topology_is_refused(folder):
    template = liver_template()
    write_mesh(folder / "case_9.ply", Mesh(liver(7, 9), template.faces[:-1]))
    with pytest.raises(InputError, match=r"case_9\.ply.*1279 faces"):
        load(CAMERA, SMALL, folder)


def test_a_folder_without_livers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no template\.ply"):
        load(CAMERA, SMALL, tmp_path)
    template = liver_template()
    write_mesh(tmp_path / "template.ply", Mesh(template.vertices, template.faces))
    with pytest.raises(InputError, match="0 livers"):
        load(CAMERA, SMALL, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"states": 0}, "states is 0"),
        ({"amplitude_mm": (9.0, 3.0)}, "amplitude_mm"),
        ({"augment": -1}, "none below 0"),
        ({"train": 9}, "expected at most 5"),
    ],
)
def test_settings_out_of_range_are_refused(folder, change, words):
    with pytest.raises(InputError, match=words):
        load(CAMERA, dataclasses.replace(SMALL, **change), folder)
