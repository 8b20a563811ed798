"""A comparison: equal terms for all, the same table after kills, honest marks, clear refusals."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.volumes import Dataset, VolumeSet
from jxrecon.evaluate import main, parser
from jxrecon.evaluation import volumes
from jxrecon.evaluation.bench import recon_path
from jxrecon.evaluation.compare import compare
from jxrecon.evaluation.contenders import choose
from jxrecon.evaluation.setting import Terms, make_setting
from jxrecon.experiment import Experiment, Field, Rival, Schedule, Views
from jxrecon.io.nifti import write_volume
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, Reconstruction, untrained
from jxrecon.methods.volumes.earlier_scan import earlier_scan
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.methods.volumes.mean_volume import mean_volume
from jxrecon.report.page import write_report
from jxrecon.runs.run import Run, Trained
from jxrecon.types import InputError


def volume_set(prefix, count, seed):
    """A ball of soft tissue of varying size around a ball of bone, in air."""
    rng = np.random.default_rng(seed)
    grid = FIELD.grid
    places = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    radius = np.linalg.norm((places - (np.array(grid.shape) - 1) / 2) * grid.spacing_mm, axis=-1)
    sizes = rng.uniform(50, 75, count)
    hu = np.stack([np.clip(60 - 40 * (radius - size), -1000, 60) for size in sizes])
    hu = np.where(radius < sizes[:, None, None, None] / 2, 700, hu)
    names = tuple(f"{prefix}_{i:03d}" for i in range(count))
    return VolumeSet(names, hu.astype(np.int16), hu > -500, np.stack([grid.affine] * count))


FIELD = Field((8, 9, 10), (20.0, 20.0, 20.0))
SEEN = []


def air(problem):
    """Sees nothing; notes what it was given."""

    def reconstruct(state, images, cameras, key, progress=None):
        jax.debug.callback(lambda *y: SEEN.append([np.array(v) for v in y]), *images)
        return Reconstruction(jnp.full(problem.grid.shape, -1000.0, jnp.float32), {})

    return untrained(reconstruct)


EXPERIMENT = Experiment(
    name="toy",
    size="tiny",
    field=FIELD,
    views=Views(pixels=12),
    schedule=Schedule(steps=30, batch_size=2),
    settings=Views(pixels=12),
    kind=VOLUMES,
    rivals={
        "mean volume": Rival(mean_volume, default=True),
        "linear prior": Rival(linear_prior, default=True),
        "air": Rival(air),
        "earlier scan": Rival(earlier_scan, needs_earlier=True),
    },
)
DATASET = Dataset(
    volume_set("train", 6, 0), volume_set("val", 4, 1), "Balls of tissue in air.", True
)


@pytest.fixture(autouse=True)
def without_weights(monkeypatch):
    monkeypatch.setattr(volumes.slices, "weights", lambda: None)


def setting_of(counts=(1, 2), **options):
    return make_setting(EXPERIMENT, DATASET, Terms(counts=counts, **options))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A finished comparison: (setting, methods, folder)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volumes.slices, "weights", lambda: None)
        out = tmp_path_factory.mktemp("comparison")
        setting = setting_of(photons=0.0)
        methods = choose(setting, ["linear-prior", "air", "earlier-scan"], [])
        write_report(compare(setting, methods, "linear prior", out))
    return setting, methods, out


def test_interrupted_twice_the_table_is_the_same_to_the_byte(compared, tmp_path, monkeypatch):
    setting, methods, whole = compared
    write, written = volumes.write_volume, []

    def dies(*arguments):
        written.append(1)
        if len(written) in (7, 12):
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(volumes, "write_volume", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            compare(setting, methods, "linear prior", tmp_path)
        with (tmp_path / "cases.csv").open("a") as file:
            file.write("linear prior,1,validation,val_0")  # a line that the kill tore
    compare(setting, methods, "linear prior", tmp_path)
    assert (tmp_path / "cases.csv").read_bytes() == (whole / "cases.csv").read_bytes()
    assert len(written) == 2 * 4 * len(methods) + 2, "what was done was done again"


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_numbers_are_those_of_the_first_evaluation(compared):
    """pinned.csv is of version 0.1.0's first comparison; equal to the last digit on one kind of machine."""
    pinned = rows_of(Path(__file__).parent / "pinned.csv")
    rows = rows_of(compared[2] / "cases.csv")
    assert len(rows) == len(pinned)
    for row, expected in zip(rows, pinned):
        for name, value in expected.items():
            if name in ("method", "views", "split", "case"):
                assert row[name] == value
            else:  # a voxel of HU that rounds the other way on another processor
                assert float(row[name]) == pytest.approx(
                    float(value), rel=5e-3, abs=5e-3, nan_ok=True
                )


def test_a_lost_volume_is_made_again(compared):
    setting, methods, out = compared
    before = (out / "cases.csv").read_bytes()
    lost = recon_path(out, "air", 2, setting.names[1], ".nii.gz")
    lost.unlink()
    compare(setting, methods, "linear prior", out)
    assert lost.exists()
    assert (out / "cases.csv").read_bytes() == before


@pytest.mark.parametrize("photons", [0.0, 500.0])
def test_every_method_is_given_the_same_xrays(tmp_path, photons):
    twin = dataclasses.replace(EXPERIMENT, rivals={"air": Rival(air), "vacuum": Rival(air)})
    setting = make_setting(twin, DATASET, Terms(counts=(2,), limit=2, photons=photons))
    SEEN.clear()
    compare(setting, choose(setting, ["air", "vacuum"], []), None, tmp_path)
    assert len(SEEN) == 4
    for one, other in zip(SEEN[:2], SEEN[2:]):
        np.testing.assert_array_equal(one, other)
    quiet = setting_of((2,), limit=2, photons=0.0)
    taken = list(SEEN)
    compare(quiet, choose(quiet, ["air"], []), None, tmp_path / "quiet")
    same = np.array_equal(taken[0], SEEN[4])
    assert same == (photons == 0.0)
    assert not np.array_equal(taken[0], taken[1])
    if photons:  # each view has noise of its own
        noise = [(noisy - ideal).ravel() for noisy, ideal in zip(taken[0], SEEN[4])]
        assert abs(np.corrcoef(noise)[0, 1]) < 0.3


def test_a_method_that_does_not_pass_the_linear_prior_is_said_to_fail(compared):
    summary = json.loads((compared[2] / "summary.json").read_text())
    fails = {(r["method"], r["views"]): r["fails"] for r in summary["results"]}
    assert fails["air", 1] is True
    assert fails["linear prior", 2] is None
    text = (compared[2] / "results.md").read_text()
    assert "air †" in text
    assert "linear prior †" not in text


def test_means_intervals_and_tests_are_those_of_the_table(compared):
    out = compared[2]
    summary = json.loads((out / "summary.json").read_text())
    lines = (out / "cases.csv").read_text().splitlines()
    column = lines[0].split(",").index("psnr_db")
    for result in summary["results"]:
        start = f"{result['method']},{result['views']},"
        values = [float(line.split(",")[column]) for line in lines if line.startswith(start)]
        spread = result["metrics"]["psnr_db"]
        assert spread["n"] == 4
        assert spread["mean"] == pytest.approx(np.mean(values), rel=1e-5)
        assert spread["low"] <= spread["mean"] <= spread["high"]
        assert ("psnr_db" in result["tests"]) == (result["method"] != "linear prior")
        for test in result["tests"].values():
            assert test["p_wilcoxon_holm"] >= test["p_wilcoxon"]


def test_a_simulated_earlier_scan_is_near_the_truth_and_marked(compared):
    summary = json.loads((compared[2] / "summary.json").read_text())
    found = {r["method"]: r["metrics"]["psnr_db"]["mean"] for r in summary["results"]}
    assert found["air"] + 5 < found["earlier scan"] < 60
    assert "SIMULATED" in summary["notes"]["earlier scan"]


def test_earlier_scans_from_files_are_brought_to_the_cases(tmp_path):
    truth, cases = DATASET.validation, tmp_path / "scans"
    for name, hu, affine in zip(truth.names[:2], truth.hu, truth.affines):
        write_volume(cases / f"{name}.nii.gz", hu, affine)
    setting = setting_of((1,), limit=2, earlier=cases)
    compare(setting, choose(setting, ["earlier-scan"], []), None, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "SIMULATED" not in summary["notes"]["earlier scan"]
    assert summary["results"][0]["metrics"]["mae_hu_body"]["mean"] < 1
    with pytest.raises(InputError, match="expected the earlier scan of case val_002"):
        setting_of((1,), earlier=cases)


def test_the_report_is_one_file_with_every_method_and_case(compared):
    page = (compared[2] / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    for name in ("air", "earlier scan", "linear prior"):
        assert f"<summary>{name}, 2 views" in page
    assert "SYNTHETIC data" in page


def test_unseen_views_are_between_the_finest():
    angles = sorted(
        float(np.rad2deg(np.arctan2(-c.source[0], c.source[1]))) for c in setting_of((1, 4)).unseen
    )
    np.testing.assert_allclose(angles, [22.5, 67.5, 112.5, 157.5], atol=1e-3)


def test_a_method_for_its_own_views_takes_part_there_alone(tmp_path):
    setting = setting_of((1, 2, 4))
    reconstruct = air(setting.problem(2)).reconstruct
    own = untrained(reconstruct)._replace(own_views=True)
    runs = [
        Trained(
            Run(tmp_path / name, EXPERIMENT, None, setting.problem(2), method, True, ""), (), 30
        )
        for name, method in (("one", own), ("other", untrained(reconstruct)))
    ]
    found = choose(setting, [], runs)
    assert [(c.name, c.counts) for c in found] == [("toy (one)", (2,)), ("toy (other)", (1, 2, 4))]
    assert isinstance(own, Method)


def test_runs_are_given_a_start_and_an_earlier_scan_where_they_take_them(tmp_path, monkeypatch):
    """A method that gives back what it was given; by itself it sees air."""

    class Clock(volumes.Timed):
        def __call__(self, *arguments):
            return super().__call__(*arguments)[0], {"seconds": 1.5, "memory_mb": 8.0}

    monkeypatch.setattr(volumes, "Timed", Clock)

    def reconstruct(state, images, cameras, key, progress=None, start=None, earlier=None):
        told = next((v for v in (earlier, start) if v is not None), jnp.full(FIELD.shape, -1000.0))
        return Reconstruction(told, {})

    def trained(name, method, label):
        experiment = dataclasses.replace(EXPERIMENT, name=label)
        problem = setting_of().problem(2)
        return Trained(Run(tmp_path / name, experiment, None, problem, method, True, ""), (), 3)

    water = untrained(lambda *_: Reconstruction(jnp.zeros(FIELD.shape), {}))
    echo = untrained(reconstruct)._replace(hints=("start", "earlier"))
    given, other = trained("echo", echo, "echo"), trained("water", water, "water")
    setting = setting_of(counts=(2,), start=other, limit=1)
    contenders = choose(setting, ["earlier scan"], [given])
    names = [contender.name for contender in contenders]
    assert names == ["earlier scan", "echo with prior", "echo from water", "echo"]
    assert [c.name for c in choose(setting_of(start=other), [], [given])] == names[2:]
    rows = compare(setting, contenders, "echo", tmp_path / "out").rows
    costs = {row["method"]: (row["seconds"], row["memory_mb"]) for row in rows}
    assert costs.pop("echo from water") == (3.0, 8.0)  # one after the other
    assert set(costs.values()) == {(1.5, 8.0)}
    found = {row["method"]: row["psnr_db"] for row in rows}
    assert found["echo with prior"] == found["earlier scan"]
    plain = setting_of(counts=(2,), limit=1)
    from_water = compare(plain, choose(plain, [], [other]), "water", tmp_path / "water").rows
    assert found["echo from water"] == from_water[0]["psnr_db"] != found["echo"]
    with pytest.raises(InputError, match="no run can start from a volume"):
        choose(setting, [], [other])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"counts": ()}, "expected different numbers"),
        ({"counts": (2, 2)}, "--views 2,2"),
        ({"counts": (0,)}, "--views 0"),
        ({"photons": -1.0}, "--photons -1"),
        ({"limit": 0}, "--limit 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        setting_of(**{"counts": (1,), **options})


def test_unknown_methods_and_runs_of_other_fields_are_refused(tmp_path):
    setting = setting_of()
    with pytest.raises(InputError, match="method magic: expected some of mean volume"):
        choose(setting, ["magic"], [])
    with pytest.raises(InputError, match="--against magic"):
        compare(setting, choose(setting, ["air"], []), "magic", tmp_path)
    finer = dataclasses.replace(EXPERIMENT, field=Field((16, 18, 20), (10.0, 10.0, 10.0)))
    run = Run(tmp_path, finer, None, setting.problem(2), air(setting.problem(2)), True, "")
    with pytest.raises(InputError, match="other field"):
        choose(setting, [], [Trained(run, (), 30)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to evaluate"),
        (["--methods", "fdk"], "--out"),
        (["--run", "x", "--views", "1"], "expected one run or a comparison"),
        (["--methods", "fdk", "--out", "x", "--views", "one"], "--views one"),
        (["--methods", "fdk", "--out", "x", "--data", "/no/folder"], "no such folder"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, words):
    with pytest.raises(InputError, match=words) as refusal:
        main(parser().parse_args(arguments))
    assert "\n" not in str(refusal.value)


def test_a_metric_without_values_is_left_out_of_the_tables_and_said_so(compared):
    tables, *notes = (compared[2] / "results.md").read_text().split("\n- ")
    assert "LPIPS" not in tables
    [note] = (n for n in notes if n.startswith("LPIPS, of which no case has a number"))
    assert "n/a where its weights are not installed" in note
