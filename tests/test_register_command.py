"""`jxrecon register`: a shifted CT found in its X-rays, a demo of itself, and bad input."""

import json
import shutil
from functools import partial

import numpy as np
import pytest

from jxrecon import project, register
from jxrecon.drr import mu_to_hu
from jxrecon.geometry import centred_grid
from jxrecon.io.nifti import write_volume
from jxrecon.io.radiographs import read

MIDDLE = np.array([30.0, -20.0, -600.0])
SHIFT = np.array([9.0, -6.0, 12.0])
GRID = centred_grid((40, 40, 40), (4.0, 4.0, 4.0), tuple(MIDDLE))
QUICK = ("--pitch-mm", 4, "--starts", 1, "--steps", 100)


@pytest.fixture(scope="module")
def patient(tmp_path_factory, run_command):
    """X-rays of a body, and its CT, which lies elsewhere by -SHIFT."""
    folder = tmp_path_factory.mktemp("patient")
    index = np.stack(np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij"), -1)
    mu = np.zeros(GRID.shape, np.float32)
    for centre, radii, value in [
        ((20, 20, 20), (16, 12, 17), 0.006),
        ((28, 16, 25), (3, 3, 6), 0.04),
        ((11, 24, 15), (3, 5, 3), 0.04),
        ((22, 28, 12), (6, 2, 3), 0.04),
        ((14, 13, 28), (5, 3, 3), 0.04),
    ]:
        radius = np.linalg.norm((index - centre) / np.array(radii), axis=-1)
        mu += value * np.clip((1 - radius) * np.mean(radii) + 0.5, 0, 1).astype(np.float32)
    hu = np.asarray(mu_to_hu(mu))
    write_volume(folder / "body.nii.gz", hu, GRID.affine)
    views = ["--pixels", 48, "--pixel-mm", 6, "--format", "png", "--out", folder]
    assert run_command(project, folder / "body.nii.gz", *views) == 0
    affine = GRID.affine.copy()
    affine[:3, 3] -= SHIFT
    write_volume(folder / "ct.nii.gz", hu, affine)
    return folder


@pytest.fixture
def run(run_command):
    return partial(run_command, register)


def _xrays(folder):
    return "--xray", folder / "body_frontal.png", folder / "body_lateral.png"


@pytest.mark.slow
def test_a_shifted_ct_is_found_and_its_cameras_follow(patient, tmp_path, capsys, run):
    out = tmp_path / "out"
    assert run("--ct", patient / "ct.nii.gz", *_xrays(patient), "--out", out, *QUICK) == 0
    pose = json.loads((out / "pose.json").read_text())
    np.testing.assert_allclose(pose["translation_mm"], SHIFT, atol=0.7)
    assert np.rad2deg(np.linalg.norm(pose["rotation_vector_rad"])) < 0.5
    np.testing.assert_allclose(pose["about_mm"], MIDDLE - SHIFT, atol=1e-4)
    world = np.array(pose["world"])
    np.testing.assert_allclose(world @ [*(MIDDLE - SHIFT), 1], [*MIDDLE, 1], atol=0.7)
    assert pose["similarity"] > 0.95
    assert pose["synthetic"] is False
    for name in ("body_frontal.png", "body_lateral.png"):
        before, after = read(patient / name), read(out / name)
        np.testing.assert_allclose(after.line_integrals, before.line_integrals, atol=1e-4)
        np.testing.assert_allclose(after.isocentre_mm, MIDDLE - SHIFT, atol=0.8)
        homogeneous = [*np.asarray(after.camera.source, np.float64), 1.0]
        np.testing.assert_allclose((world @ homogeneous)[:3], before.camera.source, atol=1e-2)
    assert (out / "registration.png").stat().st_size > 1000
    printed = capsys.readouterr()
    assert "similarity" in printed.out
    assert "scale 1 of 1" in printed.err


@pytest.mark.slow
def test_demo_prints_its_errors_and_calls_itself_synthetic(patient, tmp_path, capsys, run):
    flags = ("--demo", "--ct", patient / "ct.nii.gz", "--view", "frontal", "--range-mm", 5)
    assert run(*flags, "--range-deg", 2, "--out", tmp_path, *QUICK, "--seed", 3) == 0
    pose = json.loads((tmp_path / "pose.json").read_text())
    assert pose["synthetic"] is True
    assert pose["demo"]["error_deg"] < 1.0
    assert pose["demo"]["error_mm"] < 5.0
    printed = capsys.readouterr().out
    assert "hidden pose" in printed
    assert "SYNTHETIC" in printed
    assert "one X-ray" in printed
    assert "SYNTHETIC" in (tmp_path / "synthetic_frontal.json").read_text()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--demo", "--xray", "a.png"), "without --demo"),
        (("--ct", "ct.nii.gz"), "--xray is missing"),
        (("--demo", "--starts", 0), "--starts 0: expected 1 to"),
        (("--demo", "--range-mm", -1), "--range-mm -1: expected 0 to"),
        (("--demo", "--pitch-mm", "3,10"), "--pitch-mm 3,10: expected positive, coarse to fine"),
        (("--ct", "ct.nii.gz", "--xray", "a.png", "b/a.png"), "names occur twice"),
        (("--ct", "ct.nii.gz", "--xray", "absent.png"), "absent.png"),
        (
            ("--ct", "ct.nii.gz", "--xray", "a.png", "--view", "frontal", "lateral"),
            "2 --view for 1",
        ),
    ],
)
def test_bad_flags_are_one_line(flags, line, tmp_path, capsys, run):
    assert run(*flags, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_ct_of_another_world_is_refused(patient, tmp_path, capsys, run):
    shutil.copy(patient / "body_frontal.png", tmp_path)
    flags = ("--view", "frontal", "--sad", 1000, "--sid", 1500, "--pixel-mm", 9)
    png = ("--xray", tmp_path / "body_frontal.png", *flags)
    sidecar = json.loads((patient / "body_frontal.json").read_text())
    kept = {key: sidecar[key] for key in ("scale", "offset", "intensity")}
    (tmp_path / "body_frontal.json").write_text(json.dumps(kept))
    assert run("--ct", patient / "ct.nii.gz", *png, "--out", tmp_path / "out") == 2
    assert "the CT about (21, -14, -612) mm is not in its view" in capsys.readouterr().err


def test_xrays_are_never_overwritten(patient, capsys, run):
    assert run("--ct", patient / "ct.nii.gz", *_xrays(patient), "--out", patient) == 2
    assert "expected another one" in capsys.readouterr().err
