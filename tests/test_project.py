"""`jxrecon project`: what it writes is the projector's image and the camera that made it."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import project
from jxrecon.drr import beam, hu_to_mu, line_integrals
from jxrecon.geometry import Grid, camera_at, centred_grid
from jxrecon.io.nifti import read_volume, write_volume
from jxrecon.io.radiographs import read

MIDDLE = np.array([30.0, -20.0, -600.0])


@pytest.fixture(scope="module")
def ellipsoid(tmp_path_factory):
    """A NIfTI of soft tissue in air, far from the world's origin."""
    grid = centred_grid((12, 10, 14), (4.0, 5.0, 6.0), tuple(MIDDLE))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    inside = (((world - MIDDLE - [3.0, 2.0, 5.0]) / [15.0, 18.0, 30.0]) ** 2).sum(-1) < 1
    path = tmp_path_factory.mktemp("ct") / "body.nii.gz"
    write_volume(path, np.where(inside, 40.0, -1000.0), grid.affine)
    return path


@pytest.fixture
def run(run_command):
    return partial(run_command, project)


def test_files_hold_the_projectors_image_with_its_camera(ellipsoid, tmp_path, capsys, run):
    views = ["--view", "frontal", "--view=-30,10"]
    assert run(ellipsoid, *views, "--pixels", "16,12", "--pixel-mm", "7", "--out", tmp_path) == 0
    hu, affine = read_volume(ellipsoid)
    for name, angles in {"frontal": (0.0, 0.0), "-30_10": (-30.0, 10.0)}.items():
        middle = Grid(hu.shape, affine).centre_mm
        camera = camera_at(*angles, shape=(16, 12), pixel_mm=7.0, isocentre_mm=tuple(middle))
        project = jax.jit(partial(line_integrals, affine=affine, camera=camera))
        expected = project(hu_to_mu(hu.astype(np.float32)))
        found = read(tmp_path / f"body_{name}.nii.gz")
        np.testing.assert_allclose(found.line_integrals, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.camera.source, camera.source, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.camera.u, camera.u, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.isocentre_mm, MIDDLE, rtol=0, atol=1e-4)
        preview = read(tmp_path / f"body_{name}.png")
        step = float(np.ptp(expected)) / 65535
        np.testing.assert_allclose(preview.line_integrals, expected, rtol=0, atol=step)
        sidecar = json.loads((tmp_path / f"body_{name}.json").read_text())
        assert sidecar["source"] == "DRR of body.nii.gz"
    assert len(list(tmp_path.iterdir())) == 6
    printed = capsys.readouterr().out
    assert "body_frontal" in printed
    assert "1500.0 mm" in printed
    assert "--pixel-mm" in printed


def test_by_default_two_views_hold_all_of_the_ct(ellipsoid, tmp_path, run):
    assert run(ellipsoid, "--pixels", "16", "--format", "npz", "--out", tmp_path / "new") == 0
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    stems = ["body_frontal", "body_lateral"]
    assert names == sorted(f"{stem}.{ending}" for stem in stems for ending in ("npz", "json"))
    hu, affine = read_volume(ellipsoid)
    ends = np.array([[-0.5] * 3, [n - 0.5 for n in hu.shape]]) @ affine[:3, :3].T + affine[:3, 3]
    furthest = 0.0
    for stem in stems:
        camera = read(tmp_path / "new" / f"{stem}.npz").camera
        source, centre = np.asarray(camera.source), np.asarray(camera.centre)
        normal = (centre - source) / np.linalg.norm(centre - source)
        for corner in np.stack(np.meshgrid(*ends.T), -1).reshape(-1, 3):
            ray = (corner - source) * (1500.0 / ((corner - source) @ normal))
            across = np.stack([ray @ camera.u, ray @ camera.v]) / float(camera.u @ camera.u)
            furthest = max(furthest, np.abs(across).max())
    assert furthest == pytest.approx(7.5, abs=1e-3)  # the middle of the outermost of 16 pixels


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--view", "front"], "expected frontal, lateral, ap, pa"),
        (["--view", "0", "--view", "0"], "expected different views"),
        (["--pixels", "0"], "expected positive whole numbers"),
        (["--pixels", "16.5"], "expected positive whole numbers"),
        (["--pixels", "90000"], "expected at most"),
        (["--pixel-mm", "-1"], "pixel pitch"),
        (["--sad", "20", "--sid", "200"], "to 45 mm from the source, expected it before"),
        (["--sad", "100", "--sid", "110"], "expected it before the detector at 110 mm"),
        (["--sid", "900"], "source-detector distance is 900.0 mm"),
        (["--isocentre", "1,2"], "expected 3 finite numbers"),
        (["--method", "aligned", "--view", "0", "--view", "17,5"], "does not fit this camera"),
        (["--method", "voxels"], "projection method is 'voxels', expected one of auto, siddon"),
        (["--kvp", "160"], "--kvp 160: expected 20 to 150 kV"),
        (["--kvp", "nan"], "--kvp nan: expected 20 to 150 kV"),
        (["--dose", "0"], "--dose 0: expected 1 to 1e+08 photons per pixel"),
        (["--scatter=-1"], "--scatter -1: expected 0 to 20"),
        (["--blur-mm=-0.1"], "--blur-mm -0.1: expected 0 to 100 mm"),
        (["--filter-mm", "3"], "--filter-mm 3: expected --kvp with it"),
        (["--electronic", "3"], "--electronic 3: expected --dose with it"),
        (["--attenuation", "bilinear", "--kvp", "80"], "expected without --kvp"),
        (["--parallel", "--sid", "900"], "--sid 900: expected without --parallel"),
    ],
)
def test_bad_arguments_give_one_line_and_no_file(
    ellipsoid, tmp_path, capsys, arguments, expected, run
):
    assert run(ellipsoid, *arguments, "--out", tmp_path / "new") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert not (tmp_path / "new").exists()


EXPOSURE = ["--kvp", "90", "--scatter", "0.5", "--blur-mm", "4", "--dose", "1000", "--seed", "7"]


def test_an_exposure_is_the_beam_chain_of_the_parts_and_is_recorded(ellipsoid, tmp_path, run):
    small = ["--view", "0", "--pixels", "16", "--pixel-mm", "7", "--format", "npz"]
    assert run(ellipsoid, *small, *EXPOSURE, "--out", tmp_path) == 0
    found = read(tmp_path / "body_0.npz")
    hu, affine = read_volume(ellipsoid)
    project = jax.jit(partial(line_integrals, affine=affine, camera=found.camera))
    through = jnp.stack([project(part) for part in beam.split(hu.astype(np.float32))])
    settings = beam.Settings(
        spectrum=beam.energy_integrating(beam.kramers(90.0)),
        scatter_ratio=0.5,
        blur_mm=4.0,
        pixel_mm=(7.0, 7.0),
        dose=1000.0,
        response=beam.Response(saturation=1.1),
        floor=0.5 / 1000.0,
    )
    key = jax.random.fold_in(jax.random.key(7), 0)
    expected = jax.jit(lambda through: beam.radiograph(through, key, settings))(through)
    np.testing.assert_allclose(found.line_integrals, expected, atol=5e-3)  # a photon of 1000: 1e-3
    simulated = json.loads((tmp_path / "body_0.json").read_text())["simulated"]
    assert simulated["kvp"] == 90
    assert simulated["scatter_to_primary"] == 0.5
    assert simulated["blur_mm"] == 4
    assert simulated["dose_photons"] == 1000
    assert simulated["seed"] == 7


def test_bilinear_attenuation_is_projected_and_parallel_rays_are_written(ellipsoid, tmp_path, run):
    arguments = ["--parallel", "--attenuation", "bilinear", "--view", "frontal", "--pixels", "12"]
    assert run(ellipsoid, *arguments, "--out", tmp_path) == 0
    found = read(tmp_path / "body_frontal.nii.gz")
    hu, affine = read_volume(ellipsoid)
    np.testing.assert_allclose(found.camera.direction, [0.0, -1.0, 0.0], atol=1e-7)
    project = jax.jit(partial(line_integrals, affine=affine, camera=found.camera))
    expected = project(beam.hu_to_mu_bilinear(hu.astype(np.float32)))
    np.testing.assert_allclose(found.line_integrals, expected, rtol=1e-5, atol=1e-6)
    # The box is 84 mm high: the middles of the outermost of 12 rows lie on its ends.
    assert float(jnp.linalg.norm(found.camera.v)) * 11 == pytest.approx(84.0, rel=1e-5)
    recorded = json.loads((tmp_path / "body_frontal.json").read_text())["simulated"]
    assert recorded == {"attenuation": "bilinear"}


def test_bad_ct_gives_one_line_and_no_file(ellipsoid, tmp_path, capsys, run):
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(ellipsoid.read_bytes()[:-30])
    for path in (cut, tmp_path / "absent.nii.gz", tmp_path / "ct.dcm"):
        assert run(path, "--out", tmp_path / "new") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}")
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()
