"""`python -m jxrecon.style`: two folders of images, a run that resumes, X-rays in the other style."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jxrecon.data.unpaired import Unpaired, from_unit, read_folder, resized, split, to_unit
from jxrecon.geometry import camera_at
from jxrecon.inference.styles import open_style
from jxrecon.io.nifti import read_volume
from jxrecon.io.radiographs import Radiograph, write
from jxrecon.reconstruct import command as reconstruct
from jxrecon.runs import config
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.run import open_run, restore, start
from jxrecon.style import command
from jxrecon.types import InputError

SETTINGS = [f"settings.{s}" for s in ("width=2", "blocks=1", "pool=2", "enlarged=1.0")]
LEARN = ["settings.learning_rate=0.005", "schedule.log_every=1", "schedule.save_every=15"]
TINY = [*SETTINGS, *LEARN, "field.shape=[32,32,1]", "schedule.evaluate_every=100"]


def _picture(seed, shape=(24, 40)):
    """A blurred random image between 0 and 6."""
    coarse = np.random.default_rng(seed).uniform(0, 6, (4, 5)).astype(np.float32)
    return resized(coarse, shape)


@pytest.fixture(scope="module")
def style(run):
    return open_style(run)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Real X-rays as bare PNG files of 8 bits, synthetic ones as line integrals with sidecars."""
    root = tmp_path_factory.mktemp("images")
    (root / "real").mkdir()
    for i in range(4):
        levels = np.rint(40 * _picture(i)).astype(np.uint8)
        Image.fromarray(levels).save(root / "real" / f"r{i}.png")
    for i in range(3):
        xray = Radiograph(_picture(10 + i), camera_at(0.0, shape=(24, 40)), "made up")
        for ending in (".nii.gz", ".png"):
            write(root / "synthetic" / f"s{i}_frontal{ending}", xray)
    return root


def _style(folders, workdir, *more):
    words = ["--real", folders / "real", "--synthetic", folders / "synthetic", "--workdir", workdir]
    sets = [word for assignment in TINY for word in ("--set", assignment)]
    return command([str(w) for w in [*words, "--size", 64, *sets, *more]])


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    """A run of 30 steps."""
    folder = tmp_path_factory.mktemp("style") / "run"
    assert _style(folders, folder, "--steps", 30) == 0
    return folder


def _log(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_training_lowers_the_cycles_at_a_rate_that_falls_at_last(run):
    *train, held_out = _log(run)
    assert [line["step"] for line in train] == list(range(1, 31))
    cycles = [line["L_cyc"] for line in train]
    assert np.mean(cycles[-5:]) < 0.6 * np.mean(cycles[:2])
    for line in train:
        parts = sum(line[k] for k in ("L_GAN(G)", "L_GAN(F)", "L_cyc", "L_identity"))
        assert line["L(G,F)"] == pytest.approx(parts, rel=1e-5)
    rates = [line["learning_rate"] for line in train]
    np.testing.assert_allclose([rates[0], rates[15], rates[29]], [5e-3, 5e-3, 5e-3 / 15], rtol=1e-5)
    assert {"cycle_real", "cycle_synthetic", "identity_real", "identity_synthetic"} < set(held_out)


@pytest.mark.slow
def test_every_network_learns(run):
    state, step = restore(open_run(run))
    assert (step, int(state.step), int(state.pools.real.count)) == (30, 30, 2)
    for pair, layer in ((state.generators, "head"), (state.discriminators, "conv_0")):
        for params in (pair.real, pair.synthetic):
            assert float(jnp.abs(params[layer]["bias"]).max()) > 1e-3  # it began at 0


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(run, folders, capsys):
    before = _log(run)
    assert _style(folders, run, "--steps", 30) == 0
    assert "at step 30 of 30" in capsys.readouterr().out
    assert _log(run) == before


@pytest.mark.slow
def test_a_run_goes_on_from_its_last_checkpoint_to_the_same_bits(run, folders, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "30")
    assert _style(folders, copy, "--steps", 30) == 0
    assert "resuming" in capsys.readouterr().out
    states = [restore(open_run(folder))[0] for folder in (run, copy)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))
    assert _log(copy) == _log(run)


@pytest.mark.slow
def test_an_x_ray_takes_the_synthetic_scale_and_keeps_its_camera_and_pixels(run, style):
    xray = Radiograph(_picture(50, (30, 20)), camera_at(0.0, shape=(30, 20)), "x.png")
    styled = style(xray)
    assert styled.camera is xray.camera
    assert styled.line_integrals.shape == (30, 20)
    assert 0.0 <= styled.line_integrals.min() < styled.line_integrals.max() <= 8.0
    assert styled.resolved[-1] == ("style", "real to synthetic", str(run))
    # Real ones were taken by their own range: brightness and contrast of the X-ray do not matter.
    brighter = xray._replace(line_integrals=2.0 * xray.line_integrals + 1.0)
    np.testing.assert_allclose(
        style(brighter).line_integrals, styled.line_integrals, rtol=0, atol=1e-3
    )


@pytest.mark.slow
def test_other_images_or_settings_are_not_learnt_into_the_same_run(run, folders, tmp_path, capsys):
    assert _style(folders, run, "--steps", 31) == 2
    assert "schedule.steps: 30 -> 31" in capsys.readouterr().err
    (tmp_path / "real").mkdir()
    for path in sorted((folders / "real").iterdir())[:3]:
        (tmp_path / "real" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "synthetic").symlink_to(folders / "synthetic")
    assert _style(tmp_path, run, "--steps", 30) == 2
    assert "learnt from other images" in capsys.readouterr().err


def test_images_are_read_once_a_name_in_their_scale(folders):
    synthetic = read_folder(folders / "synthetic", (24, 40))
    assert synthetic.names == tuple(f"s{i}_frontal.nii.gz" for i in range(3))
    assert synthetic.scale == "fixed"
    np.testing.assert_allclose(synthetic.unit[1], _picture(11) / 4 - 1, rtol=0, atol=1e-6)
    real = read_folder(folders / "real", (12, 20))
    assert (real.scale, real.unit.shape) == ("own", (4, 12, 20))
    full = read_folder(folders / "real", (24, 40)).unit
    assert (full.min((1, 2)) == -1).all()
    assert (full.max((1, 2)) == 1).all()


def test_scales_undo_each_other():
    image = _picture(3)
    for scale in ("own", "fixed"):
        back = from_unit(to_unit(image, scale), scale, image)
        np.testing.assert_allclose(back, image, rtol=0, atol=1e-5)
    assert to_unit(np.full((2, 2), 9.0, np.float32), "fixed").max() == 1.0
    assert (to_unit(np.ones((2, 2), np.float32), "own") == -1.0).all()


def test_pairs_walk_through_both_folders(folders):
    real, synthetic = (read_folder(folders / name, (8, 8)) for name in ("real", "synthetic"))
    pairs = Unpaired(real, synthetic)
    assert len(pairs.names) == 4
    batch = pairs.batch(np.array([0, 3], np.int32))
    assert batch.real.shape == batch.synthetic.shape == (2, 8, 8)
    np.testing.assert_array_equal(batch.real[1], real.unit[3])
    assert {p.split(" and ")[1] for p in pairs.names} == set(synthetic.names)
    styles = split(real, synthetic, "rule")
    assert (len(styles.train.names), len(styles.validation.names)) == (3, 1)


FAULTS = {
    "no folder": (lambda d: None, "no such folder"),
    "empty folder": (lambda d: d.mkdir(), "no image that can be read"),
    "one image": (lambda d: _save(d, "a"), "1 image, expected at least 2"),
    "some sidecars": (
        lambda d: (_save(d, "a", "b"), (d / "a.json").write_text("{}")),
        "no sidecar b",
    ),
}


def _save(folder, *names):
    folder.mkdir()
    for name in names:
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / f"{name}.png")


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_folders_are_told_in_one_line(folders, tmp_path, capsys, fault):
    make, expected = FAULTS[fault]
    make(tmp_path / "real")
    words = ["--real", tmp_path / "real", "--synthetic", folders / "synthetic"]
    assert command([str(w) for w in [*words, "--workdir", tmp_path / "run"]]) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("note: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_told_and_left_out(tmp_path, capsys):
    _save(tmp_path / "real", "a", "b", "c")
    (tmp_path / "real" / "b.png").write_bytes(b"none")
    assert read_folder(tmp_path / "real", (8, 8)).names == ("a.png", "c.png")
    assert "left out:" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_another_kind_is_refused(tmp_path, run):
    saved = json.loads((run / "config.json").read_text())
    toy = (
        "from jxrecon.runs import config\nfrom jxrecon.methods.base.method import untrained\n"
        "def get_config(size):\n"
        "    import dataclasses\n"
        "    e = config.find('cyclegan_xray', size)\n"
        "    return dataclasses.replace(e, name='toy', build=lambda s, p: untrained(None))\n"
    )
    (tmp_path / "toy.py").write_text(toy)
    (tmp_path / "config.json").write_text(json.dumps({**saved, "exp": str(tmp_path / "toy.py")}))
    with pytest.raises(InputError, match=r"expected one of jxrecon style"):
        open_style(tmp_path, [tmp_path / "toy.py"])


BRIGHTNESS = '''
"""A volume of the X-ray's mean line integral, in HU."""

import jax.numpy as jnp

from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, Reconstruction, no_step, no_terms


def build(settings, problem):
    def reconstruct(state, images, cameras, key, progress=None):
        return Reconstruction(jnp.full(problem.grid.shape, 100.0 * jnp.mean(images[0])), {})

    return Method(lambda key: jnp.zeros(1), no_step, no_terms, reconstruct)


def get_config(size=None):
    field, views = Field((4, 4, 4), (20.0, 20.0, 20.0)), Views(pixels=24, count=1)
    return Experiment(name="toy", size="tiny", field=field, views=views, schedule=Schedule(1, 1),
                      settings=None, build=build, kind=VOLUMES)
'''


@pytest.mark.slow
def test_reconstruct_takes_the_x_ray_in_the_synthetic_style(run, style, tmp_path):
    (tmp_path / "toy.py").write_text(BRIGHTNESS)
    experiment = config.find(str(tmp_path / "toy.py"))
    dataset = SimpleNamespace(train=SimpleNamespace(names=("a",)), rule="Nothing.", synthetic=True)
    start(tmp_path / "toy", experiment, str(tmp_path / "toy.py"), None, dataset)
    checkpoints = Checkpoints(tmp_path / "toy" / "checkpoints")
    checkpoints.save(1, jnp.zeros(1))
    checkpoints.close()
    camera = camera_at(0.0, shape=(24, 24), pixel_mm=16.0)
    xray = Radiograph(_picture(60, (24, 24)), camera, "x", np.zeros(3))
    write(tmp_path / "x.nii.gz", xray)
    words = ["--run", tmp_path / "toy", "--xray", tmp_path / "x.nii.gz", "--out", tmp_path / "out"]
    words += ["--trust", tmp_path / "toy.py"]
    assert reconstruct([str(w) for w in [*words, "--style", run]]) == 0
    hu, _ = read_volume(tmp_path / "out" / "x_recon.nii.gz")
    styled = style(xray).line_integrals
    assert abs(styled.mean() - xray.line_integrals.mean()) > 0.05
    np.testing.assert_allclose(hu, 100.0 * styled.mean(), rtol=0, atol=1.0)
    facts = json.loads((tmp_path / "out" / "x_recon_facts.json").read_text())
    assert facts["style"] == str(run)
