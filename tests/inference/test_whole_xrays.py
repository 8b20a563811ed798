"""Reconstruction from X-rays of the whole patient: what lies about the field is taken from them first."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.surround import SURROUND
from jxrecon.drr import hu_to_mu, line_integrals
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.inference import geometry
from jxrecon.inference.geometry import Turned, shipped_patients
from jxrecon.inference.patient import Request, reconstruct
from jxrecon.inference.volumes import as_taken, untrained
from jxrecon.io.views import View
from jxrecon.likelihood.pose import Refined, move
from jxrecon.runs import config
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.run import open_run, start
from jxrecon.types import InputError

TOY = '''
"""A toy that keeps the X-rays it is given: its volume is their mean, its trace the weights' mean."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jxrecon.data.volumes import Dataset, Scenes, VolumeSet
from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.geometry import centred_grid
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, Reconstruction, no_step, no_terms
from jxrecon.rivals import volume_rivals

GRID = centred_grid((8, 8, 8), (12.0, 12.0, 12.0))
AROUND = centred_grid((20, 16, 16), (12.0, 12.0, 12.0))


def build(settings, problem):
    def reconstruct(state, images, cameras, key, progress=None, weights=None):
        trusted = jnp.zeros(1) if weights is None else jnp.stack([jnp.mean(w) for w in weights])
        hu = jnp.full(problem.grid.shape, jnp.mean(jnp.stack([jnp.mean(y) for y in images])))
        return Reconstruction(hu, {"weight": trusted})

    made = Method(lambda key: jnp.zeros(1), no_step, no_terms, reconstruct, field_model=True)
    return made._replace(any_camera=True)


def load(experiment, folder, cache):
    def cases(count, seed):
        random = np.random.default_rng(seed)
        whole = np.full((count, *AROUND.shape), -1000, np.int16)
        fields = np.full((count, *GRID.shape), -1000, np.int16)
        for n, size in enumerate(random.uniform(0.5, 1.5, count)):
            fields[n, 1:7, 1:7, 1:7] = 200 * size
            whole[n, 7:13, 5:11, 5:11] = 200 * size
            whole[n, 0:6, 4:12, 2:14] = 300 * size  # a shoulder that goes with the field
        affines = np.stack([GRID.affine] * count)
        scenes = Scenes(whole, np.stack([AROUND.affine] * count), 0.6)
        names = tuple(f"{seed}_{n}" for n in range(count))
        return VolumeSet(names, fields, fields > -500, affines, scenes)

    return Dataset(cases(6, 0), cases(2, 1), "Blocks beside a shoulder.", True)


def get_config(size=None):
    return Experiment(
        name="toy",
        size=size or "tiny",
        field=Field((8, 8, 8), (12.0, 12.0, 12.0)),
        views=Views(pixels=12, detector_mm=480.0),
        schedule=Schedule(steps=1, batch_size=1),
        settings=None,
        build=build,
        load=load,
        kind=VOLUMES,
        rivals=volume_rivals(),
    )
'''


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.py"
    path.write_text(TOY)
    return path


@pytest.fixture(scope="module")
def run(exp):
    folder, experiment = exp.parent / "run", config.find(str(exp))
    start(folder, experiment, str(exp), None, experiment.load(experiment, None, None))
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(1, jnp.zeros(1), 1.0)
    checkpoints.wait()
    checkpoints.close()
    return open_run(folder, trust=[exp])


@pytest.fixture(scope="module")
def patient(run):
    """(cameras) -> X-rays of the first validation case: of all of it, and of its field alone."""
    cases = run.experiment.load(run.experiment, None, None).validation

    def xrays(cameras):
        whole, around = cases.scenes.hu[0], cases.scenes.affines[0]
        pairs = ((whole, around), (cases.hu[0], run.problem.grid.affine))
        return [
            [
                np.asarray(line_integrals(hu_to_mu(jnp.asarray(hu, jnp.float32)), affine, c))
                for c in cameras
            ]
            for hu, affine in pairs
        ]

    return xrays


def found(run, images, cameras, **options):
    """(the mean of the X-rays that the method was given, the weights' means, the volume)."""
    volume = reconstruct(run, images, cameras, **options)
    return float(volume.hu.mean()), volume.trace["weight"], volume


def test_the_share_of_the_runs_own_cameras_is_stored_with_the_run(run, patient):
    cameras = run.problem.cameras
    whole, field = patient(cameras)
    assert (run.folder / SURROUND).exists()
    mean, weights, volume = found(run, whole, cameras)
    assert mean == pytest.approx(np.mean(field), rel=0.05)
    assert np.mean(whole) > 1.5 * np.mean(field)
    np.testing.assert_allclose(weights, [1.0, 1.0], atol=0.5)
    assert "ridge regression" in volume.facts["xrays_show"]
    np.testing.assert_allclose(
        np.mean([view.image for view in volume.views]), np.mean(field), rtol=0.05
    )


def test_other_cameras_are_learnt_anew(run, patient):
    cameras = biplanar(shape=(10, 14), pixel_mm=40.0)
    whole, field = patient(cameras)
    mean, _, _ = found(run, whole, cameras)
    assert mean == pytest.approx(np.mean(field), rel=0.05)


def test_xrays_of_the_field_are_taken_as_they_are(run, patient):
    cameras = run.problem.cameras
    whole, _ = patient(cameras)
    mean, weights, volume = found(run, whole, cameras, xrays="field")
    assert mean == pytest.approx(np.mean(whole), rel=1e-5)
    assert not weights.any()
    assert volume.facts["xrays_show"] == "the field alone, as given"


def test_a_method_is_told_the_pose_found_with_the_share_by_it(run, patient, monkeypatch):
    cameras = run.problem.cameras
    whole, _ = patient(cameras)
    stood = (cameras[0], move(cameras[1], np.array([5.0, -5.0])))
    nothing = np.zeros((1, 2))

    def refined(run, views, request):
        found = Refined(stood, nothing, nothing, (False,), tuple(v.image for v in views), nothing)
        there = [view._replace(image=0.5 * view.image) for view in views]

        def of_field(share):
            images = whole if share is None else [y + 3.0 for y in share]
            items = zip(views, images, stood)
            return [view._replace(image=np.asarray(y), camera=c) for view, y, c in items]

        return Turned(there, found, of_field)

    monkeypatch.setattr(geometry, "refined", refined)
    mean, weights, volume = found(run, whole, cameras, refine_pose=True)
    halved, _, _ = found(run, [0.5 * y for y in whole], cameras)
    assert mean == pytest.approx(halved + 3.0, rel=1e-5)
    assert weights.any()
    np.testing.assert_array_equal(volume.views[1].camera.source, stood[1].source)
    assert volume.facts["refined_pose"]["cameras"][1]["source_mm"][1] != 0.0
    mean, _, volume = found(run, whole, cameras, refine_pose=True, xrays="field")
    assert mean == pytest.approx(np.mean(whole), rel=1e-5)  # as they were taken
    np.testing.assert_array_equal(volume.views[1].camera.source, stood[1].source)
    other = run._replace(method=run.method._replace(any_camera=False))
    mean, _, volume = found(other, whole, cameras, refine_pose=True)
    assert mean == pytest.approx(halved, rel=1e-5)  # as if they had been taken where they are told
    np.testing.assert_array_equal(volume.views[1].camera.source, cameras[1].source)


def test_an_untrained_method_learns_the_surround_from_a_run(run, exp, patient):
    cameras = run.problem.cameras
    whole, field = patient(cameras)
    method = untrained("fdk", (8, 8, 8), (12.0, 12.0, 12.0), str(exp))
    told = [
        reconstruct(method, images, cameras, **options).hu
        for images, options in ((whole, {"surround": run}), (field, {}), (whole, {}))
    ]
    near, far = (np.abs(hu - told[1]).mean() for hu in (told[0], told[2]))
    assert near < 0.2 * far
    with pytest.raises(InputError, match="give --surround RUN"):
        reconstruct(method, whole, cameras, xrays="patient")


def test_what_ships_of_patients_finds_the_share_of_their_mean(exp):
    weights = open_run(Path("x2vision_hn"))
    known, size = shipped_patients(weights).modes, ((8, 8, 8), (28.0, 30.0, 25.0))
    grid, cameras = centred_grid(*size), biplanar(shape=(16, 16), pixel_mm=24.0)
    sides = ((known.volumes, known.grid), (known.within(grid), grid))
    whole, field = (
        [np.asarray(line_integrals(mu[0], of.affine, camera)) for camera in cameras]
        for mu, of in sides
    )
    method = untrained("fdk", *size, str(exp))
    told = [
        reconstruct(method, images, cameras, **options).hu
        for images, options in ((whole, {"surround": weights}), (field, {}), (whole, {}))
    ]
    near, far = (np.abs(hu - told[1]).mean() for hu in (told[0], told[2]))
    assert near < 0.1 * far
    views = [View(y, camera, "a.png") for y, camera in zip(whole, cameras)]
    share, trusted, told = as_taken(weights, views, Request())  # as it takes them by itself
    assert "share of the patient" in told
    own = weights.problem.grid
    for ours, camera, weight in zip(share, cameras, trusted):
        expected = line_integrals(known.within(own)[0], own.affine, camera)
        assert weight.shape == expected.shape
        assert np.linalg.norm(ours - expected) < 0.1 * np.linalg.norm(expected)


def test_a_damaged_surround_is_named(run, patient, tmp_path):
    cameras, kept = run.problem.cameras, (run.folder / SURROUND).read_bytes()
    try:
        (run.folder / SURROUND).write_bytes(kept[:100])
        with pytest.raises(InputError, match=f"{SURROUND}: cannot be read"):
            reconstruct(run, patient(cameras)[0], cameras)
    finally:
        (run.folder / SURROUND).write_bytes(kept)


def test_a_run_of_a_version_that_knew_no_patients_shows_the_field(run, tmp_path):
    saved = json.loads((run.folder / "config.json").read_text())
    del saved["experiment"]["xrays"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    xrays = open_run(tmp_path, trust=[run.folder.parent / "toy.py"]).experiment.xrays
    assert (xrays.of, xrays.noisy) == ("field", 0.0)
