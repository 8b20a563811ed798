"""An evaluation of a toy run: what it writes, what it keeps when started again, what it refuses."""

import csv
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.acquisition import acquisition
from jxrecon.data.volumes import Dataset, VolumeSet
from jxrecon.evaluation.bench import recon_path
from jxrecon.evaluation.compare import evaluate_run
from jxrecon.evaluation.setting import Terms
from jxrecon.evaluation.table import KEYS, CaseTable
from jxrecon.experiment import Experiment, Field, Rival, Schedule, Views, Xrays
from jxrecon.io.nifti import read_volume
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, Problem
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.methods.volumes.mean_volume import mean_volume
from jxrecon.metrics import slices
from jxrecon.metrics.metric import COSTS
from jxrecon.metrics.volume import METRICS, case_metrics
from jxrecon.runs.run import Run, Trained
from jxrecon.types import InputError

KEY = jax.random.key(0)
EXPERIMENT = Experiment(
    name="toy",
    size="tiny",
    field=Field((8, 9, 10), (20.0, 20.0, 20.0)),
    views=Views(pixels=12),
    schedule=Schedule(steps=30, batch_size=2),
    settings=Views(pixels=12),
    kind=VOLUMES,
    rivals={"mean_volume": Rival(mean_volume, default=True), "other": Rival(mean_volume)},
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
    train = acquisition(DATASET.train, PROBLEM.grid, PROBLEM.cameras, Xrays())
    return method, jax.jit(method.fit)(method.init(KEY), train.everything())


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A finished evaluation: (run, state, results)."""
    folder = tmp_path_factory.mktemp("run")
    method, state = fitted()
    run = Run(folder, EXPERIMENT, None, PROBLEM, method, True, DATASET.rule)
    return run, state, evaluate(run, state)


def evaluate(run, state, out=None, all_results=False, **terms):
    """The evaluation of a checkpoint of step 30."""
    trained = Trained(run, state, 30)
    return evaluate_run(trained, DATASET, Terms(**terms), out=out, all_results=all_results)


def recon(folder, case, method="toy"):
    return recon_path(folder, method, 2, case, ".nii.gz")


def rows_of(folder, table="cases.csv"):
    with (folder / table).open(newline="") as file:
        return list(csv.DictReader(file))


def counting(run):
    """The run with a method that counts how often `reconstruct` is traced."""
    calls = []

    def reconstruct(*arguments, **keywords):
        calls.append(1)
        return run.method.reconstruct(*arguments, **keywords)

    return run._replace(method=run.method._replace(reconstruct=reconstruct)), calls


def test_every_case_has_a_volume_in_its_patients_frame(evaluated):
    run, _, _ = evaluated
    for i, name in enumerate(DATASET.validation.names):
        hu, affine = read_volume(recon(run.folder, name))
        assert hu.shape == PROBLEM.grid.shape
        np.testing.assert_allclose(affine, DATASET.validation.affines[i], atol=1e-4)


def test_the_table_holds_every_method_and_case_with_the_metrics_of_the_written_volume(evaluated):
    run, _, _ = evaluated
    rows = rows_of(run.folder)
    found = {(row["method"], row["case"]) for row in rows}
    assert found == {(m, c) for m in ("mean_volume", "toy") for c in DATASET.validation.names}
    assert len(rows) == 6
    for row in rows:
        if row["method"] == "toy":
            i = DATASET.validation.names.index(row["case"])
            hu, _ = read_volume(recon(run.folder, row["case"]))
            truth = DATASET.validation.hu[i].astype(np.float32)
            body, spacing = DATASET.validation.body[i], PROBLEM.grid.spacing_mm
            expected = case_metrics(truth, hu, body, PROBLEM.window, spacing)
            assert float(row["psnr_db"]) == pytest.approx(expected["psnr_db"], rel=1e-5)
            assert float(row["mae_hu_body"]) == pytest.approx(expected["mae_hu_body"], rel=1e-5)
    costs = rows_of(run.folder, "costs.csv")
    assert [[row[k] for k in KEYS] for row in costs] == [[row[k] for k in KEYS] for row in rows]
    assert all(float(row["seconds"]) > 0 for row in costs)


def test_the_summary_averages_the_table_and_names_its_conventions(evaluated):
    run, _, _ = evaluated
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["synthetic"] is True
    assert (summary["split"], summary["step"], summary["cases"]) == ("validation", 30, 3)
    assert set(summary["conventions"]) == {*METRICS, *COSTS}
    assert "line integrals of the field's voxels alone" in summary["xrays"]
    assert "with the noise of 20000 photons a pixel" in summary["xrays"]
    assert "inverse crime" in summary["xrays"]
    for method in ("mean_volume", "toy"):
        values = [float(r["psnr_db"]) for r in rows_of(run.folder) if r["method"] == method]
        (stated,) = (r["metrics"]["psnr_db"] for r in summary["results"] if r["method"] == method)
        assert stated["mean"] == pytest.approx(np.mean(values), abs=1e-3)
        assert stated["std"] == pytest.approx(np.std(values), abs=1e-3)
        assert stated["n"] == 3


def test_a_method_that_uses_the_xrays_beats_the_mean(evaluated):
    run, _, _ = evaluated
    results = json.loads((run.folder / "summary.json").read_text())["results"]
    metrics = {result["method"]: result["metrics"] for result in results}
    assert metrics["toy"]["psnr_db"]["mean"] > metrics["mean_volume"]["psnr_db"]["mean"] + 3
    for name in ("mae_hu_body", "reprojection_error", "reprojection_unseen"):
        assert metrics["toy"][name]["mean"] < metrics["mean_volume"][name]["mean"]


def test_started_again_nothing_is_computed_twice(evaluated):
    run, state, _ = evaluated
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*.nii.gz")}
    rows = rows_of(run.folder)
    again, calls = counting(run)
    evaluate(again, state)
    assert calls == []
    assert {p: p.stat().st_mtime_ns for p in run.folder.rglob("*.nii.gz")} == before
    assert rows_of(run.folder) == rows


def test_a_row_is_on_the_disk_before_the_next_is_computed(tmp_path, monkeypatch):
    path, synced = tmp_path / "cases.csv", []
    with CaseTable(path, {"toy": "f"}, ["psnr_db"]) as table:
        monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
        table.add(("toy", "2", "validation", "a"), {"psnr_db": 1.5})
        assert synced == [path.stat().st_size]
        table.add(("toy", "2", "validation", "b"), {"psnr_db": 2.5}, to_disk=False)
        rows = csv.DictReader(path.read_text().splitlines())
        assert [row["psnr_db"] for row in rows] == ["1.5", "2.5"]
        assert len(synced) == 1
        monkeypatch.undo()


def test_after_a_kill_only_the_missing_cases_are_computed(evaluated):
    run, state, _ = evaluated
    table, rows = run.folder / "cases.csv", rows_of(run.folder)
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]) + lines[-1][:30])  # killed in the middle of the last line
    lost = recon(run.folder, "val_000")  # a row whose volume is gone counts as missing
    lost.unlink()
    kept = recon(run.folder, "val_001")
    before = kept.stat().st_mtime_ns
    evaluate(run, state)
    assert kept.stat().st_mtime_ns == before
    assert lost.exists()
    assert sorted(map(str, rows_of(run.folder))) == sorted(map(str, rows))


def test_other_weights_are_evaluated_anew_while_the_baselines_are_kept(evaluated, tmp_path):
    run, state, _ = evaluated
    evaluate(run, state, out=tmp_path, limit=1)
    first = rows_of(tmp_path)
    worse = state._replace(weights=state.weights._replace(matrix=0 * state.weights.matrix))
    evaluate(run, worse, out=tmp_path, limit=1)
    second = rows_of(tmp_path)
    assert len(first) == len(second) == 2
    assert second[0] == first[0]  # the fingerprint of the baseline is the same
    assert float(second[1]["psnr_db"]) < float(first[1]["psnr_db"])


def test_cases_without_lpips_are_done_again_once_its_weights_are_there(
    evaluated, tmp_path, monkeypatch
):
    run, state, _ = evaluated
    monkeypatch.setattr(slices, "weights", lambda: None)
    evaluate(run, state, out=tmp_path, limit=1)
    assert {(row["lpips_alex"], row["lpips_alex_xray"]) for row in rows_of(tmp_path)} == {
        ("nan", "nan")
    }
    monkeypatch.setattr(slices, "weights", lambda: jnp.zeros(()))
    monkeypatch.setattr(slices, "case_metrics", told)
    for _ in range(2):  # the second time nothing is left to do
        evaluate(run, state, out=tmp_path, limit=1)
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


def test_limit_split_and_all_choose_cases_and_volumes(evaluated, tmp_path):
    run, state, _ = evaluated
    evaluate(run, state, split="train", out=tmp_path, limit=2, all_results=True)
    assert {row["case"] for row in rows_of(tmp_path)} == {"train_000", "train_001"}
    assert recon(tmp_path, "train_001", "mean_volume").exists()
    assert not recon(tmp_path, "train_002").exists()


@pytest.mark.parametrize(
    ("arguments", "named"), [({"split": "test"}, "test"), ({"limit": 0}, "--limit 0")]
)
def test_a_wrong_split_or_limit_is_one_clear_line(evaluated, arguments, named):
    run, state, _ = evaluated
    with pytest.raises(InputError, match=named):
        evaluate(run, state, **arguments)


def test_an_output_that_cannot_be_written_is_one_clear_line(evaluated, tmp_path):
    run, state, _ = evaluated
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        evaluate(run, state, out=tmp_path / "file" / "below")


def test_a_reconstruction_that_is_not_finite_is_reported_not_averaged_away(evaluated, tmp_path):
    run, state, _ = evaluated

    def broken(*arguments, **keywords):
        found = run.method.reconstruct(*arguments, **keywords)
        return found._replace(hu=found.hu * jnp.nan)

    method: Method = run.method._replace(reconstruct=broken)
    with pytest.raises(InputError, match="val_000"):
        evaluate(run._replace(method=method), state, out=tmp_path, limit=1)


def test_rivals_that_are_not_there_by_default_take_part_when_asked_for(evaluated, tmp_path):
    run, state, results = evaluated
    assert [c.name for c in results.contenders] == ["mean_volume", "toy"]
    trained = Trained(run, state, 30)
    found = evaluate_run(trained, DATASET, Terms(limit=1), also=["other"], out=tmp_path)
    assert [c.name for c in found.contenders] == ["mean_volume", "other", "toy"]
    with pytest.raises(InputError, match="method fdk: expected some of mean volume, other"):
        evaluate_run(trained, DATASET, also=["fdk"], out=tmp_path)


def test_a_test_split_is_evaluated_where_there_is_one(evaluated, tmp_path):
    run, state, _ = evaluated
    dataset = DATASET._replace(test=volume_set("test", 2, 2))
    results = evaluate_run(Trained(run, state, 30), dataset, Terms(split="test"), out=tmp_path)
    assert results.summary["split"] == "test"
    assert {row["case"] for row in rows_of(tmp_path)} == {"test_000", "test_001"}
