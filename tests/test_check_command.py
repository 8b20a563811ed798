"""`jxrecon check` and `reconstruct --refine-pose` on a run of the linear prior of SYNTHETIC subjects."""

import json
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import check as check_command
from jxrecon.compile import jit
from jxrecon.drr import hu_to_mu, line_integrals
from jxrecon.geometry import biplanar, camera_from_dict
from jxrecon.inference.patient import Request
from jxrecon.inference.volumes import reconstruct_volume, untrained
from jxrecon.io import radiographs
from jxrecon.io.nifti import read_volume
from jxrecon.io.radiographs import Radiograph
from jxrecon.likelihood.check import CHECK
from jxrecon.likelihood.pose import move
from jxrecon.runs import config
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.run import open_run, start

reconstruct_command = import_module(
    "jxrecon.reconstruct"
)  # jxrecon.reconstruct itself is a function

EXPERIMENT = '''
"""The linear prior of a few SYNTHETIC subjects."""

from jxrecon.data import scenes
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.rivals import volume_rivals


def get_config(size=None):
    return Experiment(
        name="prior",
        size=size or "tiny",
        kind=VOLUMES,
        field=Field((8, 8, 8), (28.0, 30.0, 25.0)),
        views=Views(pixels=32),
        schedule=Schedule(steps=1, batch_size=1),
        population=Population(train=12, validation=1),
        settings=None,
        build=lambda settings, problem: linear_prior(problem),
        load=scenes.load,
        rivals=volume_rivals(),
    )
'''

CAMERAS = biplanar(shape=(32, 32), pixel_mm=12.0)
ISOCENTRE = np.array([40.0, -30.0, 900.0])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(flags that name the run, its dataset)."""
    folder = tmp_path_factory.mktemp("prior")
    (folder / "prior.py").write_text(EXPERIMENT)
    experiment = config.find(str(folder / "prior.py"))
    dataset = experiment.load(experiment, None, None)
    run = start(folder / "run", experiment, str(folder / "prior.py"), None, dataset)
    everything = experiment.kind.acquire(experiment, dataset.train).everything()
    state = jit(run.method.fit)(run.method.init(jax.random.key(0)), everything)
    checkpoints = Checkpoints(run.folder / "checkpoints")
    checkpoints.save(1, state, 1.0)
    checkpoints.wait()
    checkpoints.close()
    return ("--run", run.folder, "--trust", folder / "prior.py"), dataset


@pytest.fixture(scope="module")
def xrays(made, tmp_path_factory):
    """(name, cameras that took them) -> files of X-rays of the new subject, told to be of CAMERAS."""
    folder, scenes = tmp_path_factory.mktemp("xrays"), made[1].validation.scenes

    def write(name, stood):
        paths = []
        for n, (camera, told) in enumerate(zip(stood, CAMERAS)):
            mu = hu_to_mu(jnp.asarray(scenes.hu[0], jnp.float32))
            image = np.asarray(line_integrals(mu, scenes.affines[0], camera, "siddon"))
            there = told.moved(jnp.eye(3), jnp.asarray(ISOCENTRE, jnp.float32))
            paths.append(folder / f"{name}_{n}.nii.gz")
            radiographs.write(paths[-1], Radiograph(image, there, name, ISOCENTRE))
        return paths

    return write


def volume_in(out):
    """The volume in a folder, HU."""
    return np.asarray(read_volume(next(out.glob("*_recon.nii.gz")))[0], np.float64)


def test_the_command_names_what_is_wrong_and_keeps_what_it_learnt(made, xrays, run_command, capsys):
    run = made[0]
    right = xrays("right", CAMERAS)
    assert run_command(check_command, *run, *right) == 0
    printed = capsys.readouterr().out
    assert "as told: no other hypothesis is clearly likelier" in printed
    assert "cannot be told" in printed
    assert "frontal mirrored left-right" in printed
    assert "learning from" in printed
    assert (run[1] / CHECK).stat().st_size < 1e6
    wrong = xrays("wrong", CAMERAS[::-1])
    assert run_command(check_command, *run, "--xray", *wrong) == 1
    printed = capsys.readouterr().out
    assert 'NOT AS TOLD: likelier to be "frontal and lateral exchanged"' in printed
    assert "learning from" not in printed
    assert run_command(check_command, *run, right[1]) == 0  # one view of two


def test_reconstruct_warns_in_one_line_only_where_it_is_clear(
    made, xrays, run_command, capsys, tmp_path
):
    run = made[0]
    assert run_command(check_command, *run) == 0
    for name, stood, warns in (("a", CAMERAS, 0), ("b", CAMERAS[::-1], 1)):
        paths = xrays(name, stood)
        arguments = (*run, "--xray", *paths, "--out", tmp_path)
        assert run_command(reconstruct_command, *arguments) in (0, 3)  # 3: X-rays ill explained
        lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
        assert len(lines) == warns, lines


def test_refine_pose_finds_the_camera_and_reconstructs_by_it(
    made, xrays, run_command, capsys, tmp_path
):
    run, dataset = made
    motion = np.array([8.0, -6.0, 0, 0, 0])
    paths = xrays("moved", (CAMERAS[0], move(CAMERAS[1], motion)))
    psnr = []
    for flags in ((), ("--refine-pose",)):
        out = tmp_path / f"out{len(flags)}"
        arguments = (*run, "--xray", *paths, "--out", out, *flags)
        assert run_command(reconstruct_command, *arguments) in (0, 3)  # 3: X-rays ill explained
        hu = volume_in(out)
        psnr.append(-np.log(np.mean((hu - dataset.validation.hu[0]) ** 2.0)))
    assert psnr[1] > psnr[0]
    printed = capsys.readouterr().out
    assert "tilt out of their plane (degrees)" in printed
    assert "shift" not in printed
    assert "+-" in printed
    facts = json.loads(next((tmp_path / "out1").glob("*_facts.json")).read_text())
    found = np.array(facts["refined_pose"]["motion"][0])
    assert np.linalg.norm(found - motion[:2]) < 0.6 * np.linalg.norm(motion)


@pytest.mark.slow
def test_refine_pose_tells_a_method_of_any_camera_where_it_stood(made, xrays):
    flags, dataset = made
    run = open_run(flags[1], trust=[flags[3]])
    stood = CAMERAS[0], move(CAMERAS[1], np.array([8.0, -6.0, 0, 0, 0]))
    taken = [radiographs.read(path) for path in xrays("stood", stood)]
    size = (8, 8, 8), (28.0, 30.0, 25.0)
    method, field = untrained("fdk", *size, str(flags[3])), run.problem.grid
    method = method._replace(method=method.method._replace(any_camera=True))
    truth = hu_to_mu(jnp.asarray(dataset.validation.hu[0], jnp.float32))
    off = []
    for refine_pose in (False, True):
        volume = reconstruct_volume(method, taken, Request(surround=run, refine_pose=refine_pose))
        seen = volume.views[1]
        share = np.asarray(line_integrals(truth, field.affine, seen.camera, "joseph"))
        off.append(np.linalg.norm(seen.image - share) / np.linalg.norm(share))
    there = camera_from_dict(volume.facts["refined_pose"]["cameras"][1])
    np.testing.assert_allclose(seen.camera.source, there.source, atol=1e-2)
    assert np.linalg.norm(seen.camera.source - stood[1].source) < 105.0  # 174 mm as told
    assert off[1] < off[0]  # the field's share is nearer where it stood than where it was told to


def test_what_cannot_be_checked_is_said_in_a_line(made, xrays, run_command, capsys, tmp_path):
    paths = xrays("right", CAMERAS)
    arguments = ("--method", "tv", "--xray", *paths, "--out", tmp_path, "--refine-pose")
    assert run_command(reconstruct_command, *arguments) == 2
    assert "knows no training cases" in capsys.readouterr().err
    arguments = (*made[0], "--xray", paths[0], "--out", tmp_path, "--refine-pose")
    assert run_command(reconstruct_command, *arguments) == 2
    assert "1 X-ray, expected two or more" in capsys.readouterr().err
