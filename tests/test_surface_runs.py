"""Runs that find surfaces, from training to a file: what they write, resume, compare and refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.evaluate import command as evaluate
from jxrecon.evaluation.bench import recon_path
from jxrecon.geometry import camera_at
from jxrecon.io import radiographs
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.mesh import Mesh
from jxrecon.methods.base.method import SurfaceProblem
from jxrecon.phantom.liver import liver_template
from jxrecon.reconstruct import command as reconstruct
from jxrecon.runs import config
from jxrecon.runs.run import open_run, restore
from jxrecon.train import command as train

TOY = '''"""Balls that move down by what their image's mean says: the smallest surface method that learns."""

from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import trimesh

from jxrecon.experiment import Experiment, Rival, Schedule, Views
from jxrecon.data.surfaces import SurfaceDataset, SurfaceSet
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import SurfaceMethod
from jxrecon.methods.surfaces.mean_shape import mean_shape
from jxrecon.methods.surfaces.zero_motion import zero_motion
from jxrecon.kinds import SURFACES

BALL = trimesh.creation.icosphere(subdivisions=1, radius=40.0)


@dataclass(frozen=True)
class Settings:
    rate: float = 0.2
    shift: float = 0.0


def build(settings, problem):
    def found(state, image, reference):
        down = state * jnp.mean(image, (-2, -1))[..., None, None]
        return reference + settings.shift + down * jnp.array([0.0, 0.0, -1.0]).reshape(
            (1,) * (reference.ndim - 1) + (3,))

    def error(state, batch):
        apart = jnp.linalg.norm(found(state, batch.image, batch.reference) - batch.target, axis=-1)
        return {"md_vertex_mm": jnp.mean(apart)}

    def train_step(state, batch, key):
        down = jnp.mean((batch.reference - batch.target)[..., 2])
        return state + settings.rate * (down / jnp.mean(batch.image) - state), error(state, batch)

    return SurfaceMethod(
        init=lambda key: jnp.zeros(()),
        train_step=train_step,
        eval_step=lambda state, batch, key: error(state, batch),
        reconstruct=found,
    )


def load(experiment, folder, cache):
    def some(count, seed):
        random = np.random.default_rng(seed)
        radius = random.uniform(0.8, 1.2, (count, 1, 1))
        reference = np.repeat(radius * BALL.vertices, 2, 0).astype(np.float32)
        image = random.uniform(1, 2, 2 * count).astype(np.float32)
        target = reference - 5 * image[:, None, None] * np.float32([0, 0, 1])
        rows, columns = experiment.views.cameras[0].shape
        return SurfaceSet(
            tuple(f"{seed}_{i // 2}_{i % 2}" for i in range(2 * count)),
            image[:, None, None] * np.ones((1, rows, columns), np.float32),
            reference, target, np.repeat(np.arange(count), 2).astype(np.int32))

    common = template(Mesh(BALL.vertices, BALL.faces))
    return SurfaceDataset(some(6, 0), some(3, 1), "Balls.", True, common, some(1, 2))


def get_config(size):
    return Experiment(
        name="toy", size="tiny", views=Views(pixels=16, count=1, detector_mm=240.0), load=load,
        schedule=Schedule(steps=8, batch_size=4, log_every=2, evaluate_every=4, save_every=4,
                          best="-md_vertex_mm"),
        settings=Settings(), build=build, kind=SURFACES,
        rivals={"zero motion": Rival(zero_motion, True), "mean shape": Rival(mean_shape, True)},
    )
'''
OTHER = (
    TOY.replace('name="toy"', 'name="other"')
    .replace("shift: float = 0.0", "shift: float = 3.0")
    .replace(", some(1, 2))", ")")
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained runs toy/ and other/."""
    folder = tmp_path_factory.mktemp("surfaces")
    for name, text in (("toy", TOY), ("other", OTHER)):
        (folder / f"{name}.py").write_text(text)
        arguments = ["--exp", str(folder / f"{name}.py"), "--workdir", str(folder / name)]
        assert train(arguments) == 0
    return folder


def opened(runs: Path, name: str = "toy") -> list[str]:
    """Flags that open a run of the experiments above."""
    trust = (word for one in ("toy", "other") for word in ("--trust", str(runs / f"{one}.py")))
    return ["--run", str(runs / name), *trust]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_training_ends_in_a_table_meshes_tests_and_a_report(runs: Path) -> None:
    rows = rows_of(runs / "toy" / "cases.csv")
    assert [r["method"] for r in rows[::6]] == ["zero motion", "mean shape", "toy"]
    summary = json.loads((runs / "toy" / "summary.json").read_text())
    assert (summary["cases"], summary["organs"]) == (6, 3)
    results = {result["method"]: result for result in summary["results"]}
    means = {name: r["metrics"]["md_vertex_mm"]["mean"] for name, r in results.items()}
    assert means["toy"] < means["zero motion"]
    test = results["zero motion"]["tests"]["md_vertex_mm"]
    assert test["n"] == 3  # organs, not cases
    assert 0 < test["p_wilcoxon"] < 1
    found = read_mesh(recon_path(runs / "toy", "toy", 1, "1_0_0", ".ply"))
    np.testing.assert_array_equal(found.faces, read_mesh(runs / "toy" / "template.ply").faces)
    assert "toy" in (runs / "toy" / "report.html").read_text()


def test_the_best_checkpoint_is_the_one_with_the_smallest_distance(runs: Path) -> None:
    log = [json.loads(line) for line in (runs / "toy" / "metrics.jsonl").read_text().splitlines()]
    errors = {e["step"]: e["md_vertex_mm"] for e in log if e["split"] == "validation"}
    assert restore(open_run(runs / "toy", trust=[runs / "toy.py"]), "best")[1] == min(
        errors, key=errors.__getitem__
    )


def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(runs: Path, tmp_path: Path) -> None:
    arguments = [*opened(runs), "--out", str(tmp_path), "--limit", "3"]
    assert evaluate(arguments) == 0
    whole = (tmp_path / "cases.csv").read_text().splitlines()
    (tmp_path / "cases.csv").write_text("\n".join(whole[:5]) + "\ntoy,1,validation,1_0")
    lost = recon_path(tmp_path, "zero motion", 1, "1_1_0", ".ply")
    lost.unlink()
    assert evaluate(arguments) == 0
    assert sorted((tmp_path / "cases.csv").read_text().splitlines()) == sorted(whole)
    assert lost.exists()


def test_other_runs_stand_beside(runs: Path, tmp_path: Path) -> None:
    arguments = [
        *opened(runs),
        "--out",
        str(tmp_path),
        "--beside",
        str(runs / "other"),
    ]
    assert evaluate(arguments) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    results = {result["method"]: result for result in summary["results"]}
    assert list(results) == ["zero motion", "mean shape", "other", "toy"]
    assert results["other"]["tests"]["md_vertex_mm"]["mean_difference"] > 0


def test_organs_for_testing_are_evaluated_where_there_are_some(
    runs: Path, tmp_path: Path, capsys
) -> None:
    arguments = ["--split", "test", "--out", str(tmp_path)]
    assert evaluate([*opened(runs), *arguments]) == 0
    assert {row["case"] for row in rows_of(tmp_path / "cases.csv")} == {"2_0_0", "2_0_1"}
    capsys.readouterr()
    assert evaluate([*opened(runs, "other"), *arguments]) == 2
    assert "--split test: no cases in it; Balls." in capsys.readouterr().err


def test_a_run_of_volumes_or_the_same_one_cannot_stand_beside(runs: Path, capsys) -> None:
    arguments = [*opened(runs), "--beside", str(runs / "toy")]
    assert evaluate(arguments) == 2
    assert "two runs are named toy (toy)" in capsys.readouterr().err


MIDDLE = np.array([30.0, -20.0, 10.0])


def xray(folder: Path, isocentre: np.ndarray = MIDDLE) -> Path:
    """A uniform X-ray of 1.5 by a camera about `isocentre`, with its sidecar."""
    camera = camera_at(0.0, shape=(16, 16), pixel_mm=15.0, isocentre_mm=tuple(isocentre))
    path = folder / "xray.nii.gz"
    image = np.full((16, 16), 1.5, np.float32)
    radiographs.write(
        path, radiographs.Radiograph(image, camera, str(path), isocentre_mm=isocentre)
    )
    return path


def organ(folder: Path, runs: Path, shift: np.ndarray = MIDDLE) -> Path:
    mesh = read_mesh(runs / "toy" / "template.ply")
    path = folder / "organ.ply"
    write_mesh(path, Mesh(mesh.vertices + shift, mesh.faces))
    return path


def test_a_surface_is_found_in_the_world_of_its_x_ray(runs: Path, tmp_path: Path) -> None:
    arguments = [
        *opened(runs),
        "--xray",
        str(xray(tmp_path)),
        "--out",
        str(tmp_path / "out"),
    ]
    mesh = organ(tmp_path, runs)
    assert reconstruct([*arguments, "--mesh", str(mesh), "--format", "ply,stl,vtk"]) == 0
    found, reference = read_mesh(tmp_path / "out" / "xray.ply"), read_mesh(mesh)
    moved = found.vertices - reference.vertices
    assert np.abs(moved[:, :2]).max() < 1e-4
    assert np.ptp(moved[:, 2]) < 1e-3
    assert -9.0 < moved[0, 2] < -2.0
    for ending in ("stl", "vtk"):
        other = read_mesh(tmp_path / "out" / f"xray.{ending}")
        assert len(other.faces) == len(found.faces)
        np.testing.assert_allclose(
            np.sort(other.vertices, 0), np.sort(found.vertices, 0), rtol=0, atol=1e-3
        )
    assert (tmp_path / "out" / "xray_overlay.png").stat().st_size > 1000
    facts = json.loads((tmp_path / "out" / "xray_facts.json").read_text())
    assert facts["displacement_mm"]["mean"] == pytest.approx(float(-moved[0, 2]), abs=1e-3)


FAULTS = {
    "expected --mesh FILE": lambda f, r: [],
    "falls on the detector": lambda f, r: ["--mesh", str(organ(f, r, MIDDLE + 400.0))],
    "expected some of ply, stl, vtk": lambda f, r: ["--mesh", str(organ(f, r)), "--format", "step"],
    "nothing.ply": lambda f, r: ["--mesh", str(f / "nothing.ply")],
    "given 2 X-rays, expected one": lambda f, r: [
        "--mesh", str(organ(f, r)), "--xray", str(xray(f))
    ],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_done_is_told_in_one_line(runs: Path, tmp_path: Path, capsys, fault) -> None:
    arguments = [
        *opened(runs),
        "--xray",
        str(xray(tmp_path)),
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += FAULTS[fault](tmp_path, runs)
    assert reconstruct(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert fault in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [n for n in config.names() if n.endswith("_liver")])
@pytest.mark.parametrize("size", ["small", "paper"])
def test_every_size_of_every_liver_experiment_finds_a_surface(name: str, size: str) -> None:
    experiment = config.find(name, size)
    assert (experiment.name, experiment.size, experiment.views.count) == (name, size, 1)
    method = experiment.build(
        experiment.settings, SurfaceProblem(liver_template(), experiment.views.cameras[0], 4)
    )
    state = jax.eval_shape(method.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct(experiment.views.cameras[0].shape, jnp.float32)
    reference = jax.ShapeDtypeStruct((642, 3), jnp.float32)
    assert jax.eval_shape(method.reconstruct, state, image, reference).shape == (642, 3)
