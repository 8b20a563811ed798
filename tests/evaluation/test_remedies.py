"""Remedies: what is put right before a method is given X-rays, and what it is told of cameras."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_balls import (
    CALLS,
    DATASET,
    EXPERIMENT,
    FIELD,
    SETTING,
    condition,
    counted,
    party,
    volume_set,
)

from jxrecon.data.volumes import Dataset
from jxrecon.evaluation.bench import Knowledge, Remedy, Righted
from jxrecon.evaluation.contenders import choose
from jxrecon.evaluation.perturbations import conditions_of
from jxrecon.evaluation.remedies import histograms, matched, poses
from jxrecon.evaluation.robustness import Room, nominal, robustness
from jxrecon.evaluation.setting import Terms, make_setting
from jxrecon.evaluation.volumes import Finder
from jxrecon.geometry import same_cameras
from jxrecon.methods.base.method import Method, Reconstruction, no_step, no_terms
from jxrecon.runs.run import Run, Trained


@pytest.fixture(scope="module")
def room():
    return Room(SETTING, conditions_of(nominal(SETTING)))


def test_a_remedy_gives_methods_other_xrays_and_cameras(tmp_path):
    turned = condition("angle in plane", 10.0).taking.cameras
    told = Remedy("told", lambda bench: lambda images, _: Righted(images, turned), "told the truth")
    both = party(["counted"], remedies=(told,))
    assert [c.name for c in both.contenders] == ["counted", "counted, told"]
    CALLS.clear()
    robustness([both], tmp_path, ["inverted"], slow_cases=1)
    jax.effects_barrier()
    plain = float(nominal(SETTING).cameras[1].source[0])
    assert sorted(CALLS) == sorted([plain] * 2 + [float(turned[1].source[0])] * 2)


def test_runs_that_find_poses_take_part_with_that_at_the_end_without_remedies():
    method = counted(SETTING.problem(2))
    method = method._replace(posed=method.reconstruct, own_views=True)
    run = Run(Path("run"), EXPERIMENT, None, SETTING.problem(2), method, True, "Balls.")
    run = run._replace(assignments=("settings.steps=3",))
    setting = make_setting(EXPERIMENT, DATASET, Terms(counts=(2,), remedies=(histograms(),)))
    asked = setting, ["mean volume"], [Trained(run, (), 7)]
    names = ["mean volume", "mean volume, histograms", "toy", "toy, histograms"]
    assert [c.name for c in choose(*asked)] == names
    found = choose(*asked, posed=True)
    assert [c.name for c in found] == [*names, "toy, own pose"]
    assert found[-1].note.startswith("trained for 7 steps; settings.steps=3; made for 2")


@pytest.mark.parametrize("any_camera", [False, True])
def test_a_method_of_any_camera_is_told_where_the_cameras_stood(room, any_camera):
    told, *stood = (condition("angle in plane", x).taking.cameras for x in (1.0, -10.0, 10.0))
    traced = []

    def reconstruct(state, images, cameras, key, progress=None, weights=None):
        traced.append(isinstance(cameras[1].source, jax.core.Tracer))
        value = images[1][0, 0] + cameras[1].source[0]
        return Reconstruction(jnp.full(FIELD.shape, value), {})

    method = Method(lambda key: (), no_step, no_terms, reconstruct, field_model=True)
    method = method._replace(any_camera=any_camera)
    stands = iter(stood)

    def remedy(images, cameras):
        there = next(stands)
        return Righted(images, cameras, lambda share: ((share[0], share[1] + 1e3), there))

    find = Finder(Knowledge(method, lambda place: (), remedy), told, room.share)
    images = room.images(0, condition("none", 0.0))
    share, _ = room.share(images, told)
    for there in stood:
        expected = float(share[1][0, 0]) + float(told[1].source[0])
        if any_camera:
            expected += 1e3 + float(there[1].source[0] - told[1].source[0])
        result, _ = find(0, images, jax.random.key(0))
        np.testing.assert_allclose(result.hu, expected, rtol=1e-5)
    assert traced == [any_camera]  # one program


def test_poses_are_found_first_and_told_to_those_alone_who_take_any_camera():
    data = Dataset(volume_set(12, 0), volume_set(2, 1), "Balls of tissue in air.", True)
    setting = make_setting(EXPERIMENT, data, Terms(counts=(1, 2)))
    bench = setting.judge.bench(setting, 2)
    remedy = poses()
    apply = remedy.learn(bench)
    asked = conditions_of(nominal(setting._replace(terms=Terms(counts=(2,)))), ["angle-in-plane"])
    here = Room(setting._replace(terms=Terms(counts=(2,))), asked)
    [turned] = (c for c in asked if c.value == 10.0)
    right, seen = (
        here.images(0, c) for c in (asked[0], turned)
    )  # balls: no pose can be found by them
    found, cameras, turned = apply(seen, bench.problem.cameras)
    assert cameras is bench.problem.cameras
    np.testing.assert_array_equal(found[0], seen[0])
    assert found[1].shape == seen[1].shape
    moved = float(jnp.abs(found[1] - seen[1]).max())
    assert 0 < moved < float(jnp.abs(seen[1]).max())
    assert remedy.learn(bench)(seen, cameras)[0] is found  # once for all methods
    taken, stood = turned(None)  # X-rays of the field alone: as they were taken
    np.testing.assert_array_equal(taken[1], seen[1])
    share, _ = here.share(found, cameras)
    shown, there = turned(share)
    assert same_cameras(there, stood)
    assert not same_cameras(there, cameras)
    np.testing.assert_array_equal(shown[0], share[0])
    assert float(jnp.abs(shown[1] - share[1]).max()) > 0
    alone = setting.judge.bench(setting, 1)
    assert remedy.learn(alone)(right[:1], cameras[:1])[0] is not None


def test_histograms_are_matched_to_those_of_training():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(40, 40)).astype(np.float32)
    known = np.quantile(rng.gamma(2.0, size=5000), np.linspace(0, 1, 257))
    found = np.asarray(matched(image, known))
    np.testing.assert_allclose(
        np.quantile(found, [0.1, 0.5, 0.9]), known[[26, 128, 230]], rtol=0.05
    )
    order = np.argsort(image, axis=None)
    assert (np.diff(found.ravel()[order]) >= 0).all()
    flat = np.where(image > 0, image, 0.0)  # half of it air
    assert len(np.unique(np.asarray(matched(flat, known))[flat == 0])) == 1
    assert histograms().name == "histograms"
