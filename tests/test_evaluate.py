"""An evaluation of a toy run: what it writes, what it keeps when started again, what it refuses."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.volumes import Dataset, VolumeSet
from jxrecon.evaluate import evaluate, with_optional
from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.io.nifti import read_volume
from jxrecon.methods.base.method import Method, Problem
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.methods.volumes.mean_volume import mean_volume
from jxrecon.metrics import slices
from jxrecon.metrics.volume import CONVENTIONS, case_metrics
from jxrecon.runs.run import Run
from jxrecon.types import InputError, VolumeBatch

KEY = jax.random.key(0)
EXPERIMENT = Experiment(
    name="toy",
    size="tiny",
    field=Field((8, 9, 10), (20.0, 20.0, 20.0)),
    views=Views(pixels=12),
    schedule=Schedule(steps=30, batch_size=2),
    settings=Views(pixels=12),
    baselines={"mean_volume": mean_volume},
)
PROBLEM = Problem(EXPERIMENT.field.grid, EXPERIMENT.views.cameras, EXPERIMENT.field.window, 6)


def volume_set(prefix, count, seed):
    """A ball of soft tissue of varying size in air."""
    rng, grid = np.random.default_rng(seed), PROBLEM.grid
    places = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    radius = np.linalg.norm((places - (np.array(grid.shape) - 1) / 2) * grid.spacing_mm, axis=-1)
    sizes = rng.uniform(50, 75, count)
    hu = np.stack([np.clip(60 - 40 * (radius - size), -1000, 60) for size in sizes])
    affine = np.array(grid.affine)
    affine[:3, 3] += [5.0, -7.0, 11.0]
    names = tuple(f"{prefix}_{i:03d}" for i in range(count))
    return VolumeSet(names, hu.astype(np.int16), hu > -500, np.stack([affine] * count))


DATASET = Dataset(
    volume_set("train", 6, 0), volume_set("val", 3, 1), "Balls of tissue in air.", True
)


def fitted():
    method = linear_prior(PROBLEM)
    batch = VolumeBatch(jnp.asarray(DATASET.train.hu, jnp.float32), jnp.arange(6))
    return method, jax.jit(method.train_step)(method.init(KEY), batch, KEY)[0]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A finished evaluation: (run, state)."""
    folder = tmp_path_factory.mktemp("run")
    method, state = fitted()
    run = Run(folder, EXPERIMENT, None, PROBLEM, method, True, DATASET.rule)
    evaluate(run, state, DATASET, step=30)
    return run, state


@pytest.fixture
def no_report(monkeypatch):
    """Leaves the report out where the test is not about it: drawing takes seconds."""
    monkeypatch.setattr("jxrecon.evaluate.write_report", lambda *arguments: None)


def rows_of(folder):
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def counting(run):
    """The run with a method that counts how often `reconstruct` is traced."""
    calls = []

    def reconstruct(*arguments, **keywords):
        calls.append(1)
        return run.method.reconstruct(*arguments, **keywords)

    return run._replace(method=run.method._replace(reconstruct=reconstruct)), calls


def test_every_case_has_a_volume_in_its_patients_frame(evaluated):
    run, _ = evaluated
    for i, name in enumerate(DATASET.validation.names):
        hu, affine = read_volume(run.folder / "recon" / f"{name}.nii.gz")
        assert hu.shape == PROBLEM.grid.shape
        np.testing.assert_allclose(affine, DATASET.validation.affines[i], atol=1e-4)


def test_the_table_holds_every_method_and_case_with_the_metrics_of_the_written_volume(evaluated):
    run, _ = evaluated
    rows = rows_of(run.folder)
    found = {(row["method"], row["case"]) for row in rows}
    assert found == {(m, c) for m in ("mean_volume", "toy") for c in DATASET.validation.names}
    assert len(rows) == 6
    for row in rows:
        if row["method"] == "toy":
            i = DATASET.validation.names.index(row["case"])
            hu, _ = read_volume(run.folder / "recon" / f"{row['case']}.nii.gz")
            truth = DATASET.validation.hu[i].astype(np.float32)
            body, spacing = DATASET.validation.body[i], PROBLEM.grid.spacing_mm
            expected = case_metrics(truth, hu, body, PROBLEM.window, spacing)
            assert float(row["psnr_db"]) == pytest.approx(expected["psnr_db"], rel=1e-5)
            assert float(row["mae_hu_body"]) == pytest.approx(expected["mae_hu_body"], rel=1e-5)
        assert float(row["seconds"]) > 0


def test_the_summary_averages_the_table_and_names_its_conventions(evaluated):
    run, _ = evaluated
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["synthetic"] is True
    assert (summary["split"], summary["step"], summary["cases"]) == ("validation", 30, 3)
    assert set(summary["conventions"]) == set(CONVENTIONS)
    assert "noise-free" in summary["xrays"]
    for method in ("mean_volume", "toy"):
        values = [float(r["psnr_db"]) for r in rows_of(run.folder) if r["method"] == method]
        stated = summary["metrics"][method]["psnr_db"]
        assert stated["mean"] == pytest.approx(np.mean(values), abs=1e-3)
        assert stated["std"] == pytest.approx(np.std(values), abs=1e-3)
        assert stated["n"] == 3


def test_a_method_that_uses_the_xrays_beats_the_mean(evaluated):
    run, _ = evaluated
    metrics = json.loads((run.folder / "summary.json").read_text())["metrics"]
    assert metrics["toy"]["psnr_db"]["mean"] > metrics["mean_volume"]["psnr_db"]["mean"] + 3
    for name in ("mae_hu_body", "reprojection_error", "reprojection_unseen"):
        assert metrics["toy"][name]["mean"] < metrics["mean_volume"][name]["mean"]


def test_started_again_nothing_is_computed_twice(no_report, evaluated):
    run, state = evaluated
    before = {p: p.stat().st_mtime_ns for p in (run.folder / "recon").iterdir()}
    rows = rows_of(run.folder)
    again, calls = counting(run)
    evaluate(again, state, DATASET, step=30)
    assert calls == []
    assert {p: p.stat().st_mtime_ns for p in (run.folder / "recon").iterdir()} == before
    assert rows_of(run.folder) == rows


def test_after_a_kill_only_the_missing_cases_are_computed(no_report, evaluated):
    run, state = evaluated
    table, rows = run.folder / "cases.csv", rows_of(run.folder)
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]) + lines[-1][:30])  # killed in the middle of the last line
    lost = run.folder / "recon" / "val_000.nii.gz"  # a row whose volume is gone counts as missing
    lost.unlink()
    kept = run.folder / "recon" / "val_001.nii.gz"
    before = kept.stat().st_mtime_ns
    evaluate(run, state, DATASET, step=30)
    assert kept.stat().st_mtime_ns == before
    assert lost.exists()

    def plain(row):
        return {k: v for k, v in row.items() if k != "seconds"}

    assert sorted(map(str, map(plain, rows_of(run.folder)))) == sorted(map(str, map(plain, rows)))


def test_other_weights_are_evaluated_anew_while_the_baselines_are_kept(
    no_report, evaluated, tmp_path
):
    run, state = evaluated
    evaluate(run, state, DATASET, out=tmp_path, limit=1)
    first = rows_of(tmp_path)
    worse = state._replace(fit=state.fit._replace(gain=0 * state.fit.gain))
    evaluate(run, worse, DATASET, out=tmp_path, limit=1)
    second = rows_of(tmp_path)
    assert len(first) == len(second) == 2
    assert second[0] == first[0]
    assert float(second[1]["psnr_db"]) < float(first[1]["psnr_db"])


def test_cases_without_lpips_are_done_again_once_its_weights_are_there(
    no_report, evaluated, tmp_path, monkeypatch
):
    run, state = evaluated
    monkeypatch.setattr(slices, "weights", lambda: None)
    evaluate(run, state, DATASET, out=tmp_path, limit=1)
    assert {(row["lpips_alex"], row["lpips_alex_xray"]) for row in rows_of(tmp_path)} == {
        ("nan", "nan")
    }
    monkeypatch.setattr(slices, "weights", lambda: jnp.zeros(()))
    monkeypatch.setattr(slices, "case_metrics", told)
    for _ in range(2):  # the second time nothing is left to do
        evaluate(run, state, DATASET, out=tmp_path, limit=1)
        rows = rows_of(tmp_path)
        assert len(rows) == 2
        assert {row["lpips_alex_xray"] for row in rows} == {"2"}
        monkeypatch.setattr(slices, "case_metrics", None)


def told(weights, truth, recon, body, window, truth_images, recon_images):
    """What `slices.case_metrics` is given: the truth's X-rays first, one a view, those of the recon next."""
    assert weights is not None
    return {
        "lpips_alex": jnp.sum(jnp.abs(recon - truth)),
        "lpips_alex_xray": jnp.asarray(len(truth_images), jnp.float32),
    }


def test_limit_split_and_all_choose_cases_and_volumes(no_report, evaluated, tmp_path):
    run, state = evaluated
    evaluate(run, state, DATASET, split="train", out=tmp_path, limit=2, all_volumes=True)
    assert {row["case"] for row in rows_of(tmp_path)} == {"train_000", "train_001"}
    assert (tmp_path / "recon" / "mean_volume" / "train_001.nii.gz").exists()
    assert not (tmp_path / "recon" / "train_002.nii.gz").exists()


@pytest.mark.parametrize(
    ("arguments", "named"), [({"split": "test"}, "test"), ({"limit": 0}, "--limit 0")]
)
def test_a_wrong_split_or_limit_is_one_clear_line(evaluated, arguments, named):
    run, state = evaluated
    with pytest.raises(InputError, match=named):
        evaluate(run, state, DATASET, **arguments)


def test_an_output_that_cannot_be_written_is_one_clear_line(evaluated, tmp_path):
    run, state = evaluated
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        evaluate(run, state, DATASET, out=tmp_path / "file" / "below")


def test_a_reconstruction_that_is_not_finite_is_reported_not_averaged_away(
    no_report, evaluated, tmp_path
):
    run, state = evaluated

    def broken(*arguments, **keywords):
        found = run.method.reconstruct(*arguments, **keywords)
        return found._replace(hu=found.hu * jnp.nan)

    method: Method = run.method._replace(reconstruct=broken)
    with pytest.raises(InputError, match="val_000"):
        evaluate(run._replace(method=method), state, DATASET, out=tmp_path, limit=1)


def test_optional_baselines_take_part_when_asked_for_by_name(tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, optional={"other": mean_volume})
    run = Run(tmp_path, experiment, None, PROBLEM, mean_volume(PROBLEM), True, "")
    assert list(with_optional(run, []).experiment.baselines) == ["mean_volume"]
    assert list(with_optional(run, ["other"]).experiment.baselines) == ["mean_volume", "other"]
    with pytest.raises(InputError, match="--also fdk: expected one of other"):
        with_optional(run, ["fdk"])
