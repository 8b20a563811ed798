"""`python -m jxrecon.reconstruct`: a toy run, X-rays of a CT far from the origin, the CT back in place."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jxrecon.drr import hu_to_mu, line_integrals, mu_to_hu
from jxrecon.geometry import camera_at, centred_grid, parallel_at
from jxrecon.io.nifti import read_volume, write_volume
from jxrecon.io.radiographs import Radiograph, read, write
from jxrecon.io.views import centred_view, common_isocentre
from jxrecon.methods.base.method import Problem
from jxrecon.project import command as drr
from jxrecon.reconstruct import command, main, parser
from jxrecon.runs import config
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.run import start
from jxrecon.types import InputError
from jxrecon.units import Window

MIDDLE = (30.0, -20.0, -600.0)
GRID = centred_grid((8, 10, 12), (8.0, 8.0, 8.0))

TOY = '''
"""A toy: the density of one known shape that explains the X-rays best, in closed form."""

import jax
import jax.numpy as jnp

from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.drr import line_integrals, mu_to_hu
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, Reconstruction


def build(settings, problem):
    def init(key):
        return jnp.zeros(problem.grid.shape, jnp.float32)

    def reconstruct(state, images, cameras, key, progress=None):
        pairs = [(line_integrals(state, problem.grid.affine, c), y) for c, y in zip(cameras, images)]
        density = sum(jnp.vdot(a, y) for a, y in pairs) / sum(jnp.vdot(a, a) for a, _ in pairs)
        if progress is not None:
            jax.debug.callback(progress, 0, density)
        return Reconstruction(mu_to_hu(density * state), {"density": jnp.stack([density, density])})

    return Method(init, lambda s, b, k: (s, {}), lambda s, b, k: {}, reconstruct)


def get_config(size=None):
    return Experiment(
        name="toy",
        size=size or "tiny",
        field=Field((8, 10, 12), (8.0, 8.0, 8.0)),
        views=Views(pixels=16, detector_mm=256.0),
        schedule=Schedule(steps=1, batch_size=1),
        settings=None,
        build=build,
        kind=VOLUMES,
    )
'''


def _shape():
    """A lopsided block of half the density of water, in 1/mm, with a denser rod in it."""
    mu = np.zeros(GRID.shape, np.float32)
    mu[2:5, 3:8, 1:9] = 0.01
    mu[3, 4, 2:11] = 0.02
    return mu


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of the toy experiment."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.py").write_text(TOY)
    dataset = SimpleNamespace(
        train=SimpleNamespace(names=("a", "b")), rule="Two made-up cases.", synthetic=True
    )
    experiment = config.find(str(folder / "toy.py"))
    start(folder / "run", experiment, str(folder / "toy.py"), None, dataset)
    checkpoints = Checkpoints(folder / "run" / "checkpoints")
    checkpoints.save(3, jnp.asarray(_shape()), 1.0)
    checkpoints.wait()
    checkpoints.close()
    return folder / "run"


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A CT of 0.8 times the shape's density, far from the origin, and its X-rays at the run's pitch."""
    folder = tmp_path_factory.mktemp("patient")
    affine = GRID.affine.copy()
    affine[:3, 3] += MIDDLE
    write_volume(folder / "ct.nii.gz", np.asarray(mu_to_hu(0.8 * _shape())), affine)
    arguments = [folder / "ct.nii.gz", "--pixels", 16, "--pixel-mm", 16, "--out", folder]
    assert drr([str(argument) for argument in arguments]) == 0
    return folder


def _run(*arguments):
    words = [str(argument) for argument in arguments]
    if "--run" in words:
        words += ["--trust", str(Path(words[words.index("--run") + 1]).parent / "toy.py")]
    return command(words)


def refused(*arguments):
    main(parser().parse_args(list(arguments)))


def _xrays(folder, ending=".nii.gz"):
    names = ("frontal", "lateral")
    return [word for name in names for word in ("--xray", folder / f"ct_{name}{ending}")]


def test_parallel_rays_are_refused_in_one_line():
    image = np.zeros((3, 4), np.float32)
    xray = Radiograph(image, parallel_at(0.0, shape=(3, 4)), "x.nii")
    for act in (lambda: common_isocentre([xray]), lambda: centred_view(xray, np.zeros(3), None)):
        with pytest.raises(InputError, match=r"x\.nii: parallel rays, expected"):
            act()


def test_reconstruction_overlays_on_the_ct_that_the_x_rays_are_of(run, patient, tmp_path, capsys):
    assert _run("--run", run, *_xrays(patient), "--out", tmp_path) == 0
    hu, affine = read_volume(tmp_path / "ct_recon.nii.gz")
    truth, true_affine = read_volume(patient / "ct.nii.gz")
    np.testing.assert_allclose(affine, true_affine, rtol=0, atol=1e-3)
    np.testing.assert_allclose(hu.astype(float), truth, rtol=0, atol=1)  # both are rounded

    trace = list(csv.reader((tmp_path / "ct_recon_trace.csv").read_text().splitlines()))
    assert trace[0] == ["iteration", "density"]
    assert [row[0] for row in trace[1:]] == ["0", "1"]
    assert float(trace[1][1]) == pytest.approx(0.8, abs=1e-3)
    with Image.open(tmp_path / "ct_recon_preview.png") as picture:
        assert picture.size == (900, 900)
    facts = json.loads((tmp_path / "ct_recon_facts.json").read_text())
    assert facts["step"] == 3
    assert facts["synthetic_training_data"] is True
    assert max(facts["reprojection_error"]) < 1e-3
    endings = {".csv", ".gz", ".html", ".json", ".png"}
    assert {path.suffix for path in tmp_path.iterdir()} == endings
    assert len(list(tmp_path.iterdir())) == len(endings)
    printed = capsys.readouterr().out
    assert "Two made-up cases." in printed
    assert "re-projection error" in printed
    assert "16 x 16, 16 x 16 pixels" in printed
    assert "a field of 64 x 80 x 96 mm" in printed


def test_cameras_from_flags_give_the_same_volume(run, patient, tmp_path):
    for name in ("frontal", "lateral"):
        image = read(patient / f"ct_{name}.nii.gz").line_integrals
        counts = np.rint(60000 * np.exp(-image)).astype(np.uint16)
        Image.fromarray(counts).save(tmp_path / f"ct_{name}.png")
    flags = [
        "--view",
        "frontal",
        "--view",
        "90,0",
        "--sad",
        1000,
        "--sid",
        1500,
        "--pixel-mm",
        "16,16",
    ]
    flags += ["--intensity", "raw", "--i0", 60000, "--isocentre", "30,-20,-600"]
    common = ["--run", run, "--checkpoint", "best", "--out"]
    assert _run(*_xrays(tmp_path, ".png"), *flags, *common, tmp_path / "flags") == 0
    assert _run(*_xrays(patient), *common, tmp_path / "sidecars") == 0
    one, affine = read_volume(tmp_path / "flags" / "ct_recon.nii.gz")
    other, other_affine = read_volume(tmp_path / "sidecars" / "ct_recon.nii.gz")
    np.testing.assert_allclose(one.astype(float), other, rtol=0, atol=2)
    np.testing.assert_allclose(affine, other_affine, rtol=0, atol=1e-3)


def test_views_tell_their_isocentre_where_nothing_else_does():
    def xrays(*angles):
        cameras = [camera_at(*angle, isocentre_mm=MIDDLE) for angle in angles]
        return [Radiograph(np.zeros((128, 128), np.float32), c, "x.png") for c in cameras]

    for angles in ([(0.0,), (90.0,)], [(10.0, 5.0), (45.0, -5.0), (100.0, 0.0)]):
        np.testing.assert_allclose(common_isocentre(xrays(*angles)), MIDDLE, rtol=0, atol=1e-2)
    for angles in ([(0.0,)], [(0.0,), (180.0,)], [(0.0,), (2.0,)]):
        with pytest.raises(InputError, match="nothing tells the isocentre"):
            common_isocentre(xrays(*angles))


def test_blocks_of_pixels_lie_where_their_pixels_lay():
    camera = camera_at(20.0, 10.0, shape=(67, 33), pixel_mm=(1.0, 2.0), isocentre_mm=MIDDLE)
    image = np.random.default_rng(0).uniform(0, 5, camera.shape).astype(np.float32)
    problem = Problem(GRID, (camera_at(0.0, shape=(8, 8), pixel_mm=4.5),), Window(), 2)
    view = centred_view(Radiograph(image, camera, "x.png"), np.array(MIDDLE), problem.cameras[0])
    assert view.image.shape == view.camera.shape == (16, 16)  # blocks of 4 x 2 pixels
    np.testing.assert_allclose(view.image[3, 5], image[12:16, 10:12].mean(), rtol=1e-5)
    block = np.asarray(camera.pixels())[12:16, 10:12].mean((0, 1)) - MIDDLE
    np.testing.assert_allclose(view.camera.pixels()[3, 5], block, rtol=0, atol=1e-3)


def test_x_rays_coarser_than_the_experiment_stay_as_they_are():
    camera = camera_at(0.0, shape=(6, 7), pixel_mm=9.0)
    image = np.arange(42, dtype=np.float32).reshape(6, 7)
    problem = Problem(GRID, (camera_at(0.0, pixel_mm=4.5),), Window(), 2)
    view = centred_view(Radiograph(image, camera, "x.png"), np.zeros(3), problem.cameras[0])
    np.testing.assert_array_equal(view.image, image)
    assert jax.tree.all(jax.tree.map(np.array_equal, view.camera, camera))


def test_x_rays_that_the_volume_does_not_explain_end_with_a_warning(run, patient, tmp_path, capsys):
    path = tmp_path / "ct_frontal.npz"
    frontal = read(patient / "ct_frontal.nii.gz")
    write(path, frontal._replace(line_integrals=np.roll(frontal.line_integrals, 5, axis=1)))
    assert _run("--run", run, *_xrays(patient)[2:], "--xray", path, "--out", tmp_path / "out") == 3
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("warning: "))
    assert "ct_frontal.npz: re-projection error" in line
    assert (tmp_path / "out" / "ct_recon.nii.gz").is_file()
    assert "Exit code 3" in " ".join(parser().format_help().split())


def test_a_run_does_not_go_on_with_other_cases_of_the_same_names(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    experiment = config.find(str(tmp_path / "toy.py"))

    def begin(*levels, names=("a", "b")):
        hu = np.stack([np.full((4, 4), level, np.int16) for level in levels])
        train = SimpleNamespace(names=names, hu=hu)
        dataset = SimpleNamespace(train=train, rule="Made up.", synthetic=True)
        start(tmp_path / "run", experiment, str(tmp_path / "toy.py"), None, dataset)

    begin(-700, -650)
    begin(-700, -650)
    with pytest.raises(InputError, match=r"other data: case b has the mean -640, then -650\.0"):
        begin(-700, -640)
    with pytest.raises(InputError, match="case c has the mean -650, then it was not there"):
        begin(-700, -650, names=("a", "c"))


def _spoilt(patient, folder, **changes):
    """A copy of the frontal X-ray with another sidecar; None takes a key away."""
    xray = read(patient / "ct_frontal.nii.gz")
    write(folder / "spoilt.nii", xray)
    values = json.loads((folder / "spoilt.json").read_text()) | changes
    (folder / "spoilt.json").write_text(json.dumps(values))
    return ["--xray", folder / "spoilt.nii"]


FAULTS = {
    "no run": (lambda p, d: [*_xrays(p), "--run", d], "no config.json"),
    "no such checkpoint": (lambda p, d: [*_xrays(p), "--checkpoint", "77"], "77"),
    "odd checkpoint": (lambda p, d: [*_xrays(p), "--checkpoint", "new"], "latest, best or a step"),
    "no such file": (lambda p, d: ["--xray", d / "no.png"], "no.png: no such file"),
    "one view for two": (lambda p, d: [*_xrays(p), "--view", "0"], "1 --view for 2 --xray"),
    "lone distance": (lambda p, d: [*_xrays(p), "--sid", 1500], "expected --view too"),
    "odd pitch": (lambda p, d: [*_xrays(p), "--pixel-mm", "a"], "--pixel-mm a: expected 1 or 2"),
    "isocentre off the detector": (
        lambda p, d: [*_xrays(p), "--isocentre", "0,0,0"],
        "expected it on the 16 x 16 pixels",
    ),
    "isocentre behind the source": (
        lambda p, d: [*_xrays(p), "--isocentre", "30,5000,-600"],
        "row nan, column nan",
    ),
    "two worlds": (
        lambda p, d: [*_xrays(p), *_spoilt(p, d, isocentre_mm=[0, 0, 0])],
        "601.1 mm from that of",
    ),
    "no isocentre": (lambda p, d: _spoilt(p, d, isocentre_mm=None), "expected isocentre_mm in its"),
    "no camera": (lambda p, d: _spoilt(p, d, camera=None), "--view, --sad, --sid, --pixel-mm"),
    "display": (lambda p, d: [*_xrays(p), "--intensity", "display"], "unknown scale"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_gives_one_line_and_no_file(run, patient, tmp_path, capsys, fault):
    make, expected = FAULTS[fault]
    arguments = make(patient, tmp_path)
    where = [] if "--run" in arguments else ["--run", run]
    assert _run(*arguments, *where, "--out", tmp_path / "new") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert not (tmp_path / "new").exists()


def test_classical_methods_need_no_run(tmp_path, capsys):
    volume = np.full((10, 12, 14), -1000, np.int16)
    volume[2:8, 3:9, 3:11] = 0
    grid = centred_grid(volume.shape, (8.0, 8.0, 8.0), (20.0, -10.0, 5.0))
    for angle in (0, 60, 120):
        camera = camera_at(angle, shape=(24, 24), pixel_mm=12.0, isocentre_mm=(20.0, -10.0, 5.0))
        image = line_integrals(hu_to_mu(volume.astype(np.float32)), grid.affine, camera, "siddon")
        write(tmp_path / f"box_{angle}.npz", Radiograph(np.asarray(image), camera, "", None))
    xrays = [
        word for angle in (0, 60, 120) for word in ("--xray", str(tmp_path / f"box_{angle}.npz"))
    ]
    arguments = [*xrays, "--out", str(tmp_path / "out"), "--isocentre", "20,-10,5"]
    method = ["--method", "sirt", "--grid", "10,12,14", "--spacing-mm", "8"]
    assert command([*method, *arguments]) == 0
    assert "warning" not in capsys.readouterr().err
    hu, affine = read_volume(tmp_path / "out" / "box_recon.nii.gz")
    np.testing.assert_allclose(affine, grid.affine, atol=1e-3)
    assert hu[volume == 0].mean() > -300
    assert hu[volume == -1000].mean() < -850
    reaching = ["--method", "sirt", "--grid", "10,120,14", "--spacing-mm", "9"]
    with pytest.raises(InputError, match="expected it before the detector at 1500 mm"):
        refused(*reaching, *arguments)
    with pytest.raises(InputError, match="no such untrained method, expected fdk, sirt, cgls, tv"):
        refused("--method", "magic", *arguments)
    with pytest.raises(InputError, match="3 X-rays: the weights that ship take one or two"):
        refused(*arguments)
    with pytest.raises(InputError, match="expected positive millimetres"):
        refused(*method[:-1], "0", *arguments)
