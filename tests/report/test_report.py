"""The report: one file that needs no network, says what is synthetic, and shows the right slices."""

import base64
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jxrecon.data.volumes import Dataset, VolumeSet
from jxrecon.evaluation.bench import recon_path
from jxrecon.evaluation.compare import Results
from jxrecon.evaluation.contenders import Contender
from jxrecon.evaluation.setting import Terms, make_setting
from jxrecon.evaluation.summary import summarise
from jxrecon.evaluation.volumes import volume_judge
from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.geometry import camera_at
from jxrecon.io.nifti import write_volume
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.mean_volume import mean_volume
from jxrecon.metrics.metric import COSTS
from jxrecon.metrics.volume import METRICS
from jxrecon.report import slices
from jxrecon.report.page import verdict, write_report
from jxrecon.runs.config import to_dict
from jxrecon.runs.run import Run, Trained

EXPERIMENT = Experiment(
    name="toy",
    size="tiny",
    field=Field((6, 7, 8), (20.0, 20.0, 20.0)),
    views=Views(pixels=12),
    schedule=Schedule(steps=30, batch_size=2),
    settings=Views(pixels=12),
    kind=VOLUMES,
)
PROBLEM = Problem(EXPERIMENT.field.grid, EXPERIMENT.views.cameras, EXPERIMENT.field.window, 2)
NAMES = ("case_a", "case_b", "case_c", "case_d")
PSNR = {"case_a": 21.0, "case_b": 25.0, "case_c": 19.0, "case_d": 22.0}


def fake_row(method, case, psnr):
    metrics = dict.fromkeys([*METRICS, *COSTS], 0.5)
    where = {"method": method, "views": 2, "split": "validation", "case": case}
    return {**where, **metrics, "psnr_db": psnr}


def write(folder, synthetic, cases=NAMES):
    """A report about made-up numbers; returns its text."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, (len(NAMES), *PROBLEM.grid.shape)).astype(np.int16)
    volumes = VolumeSet(NAMES, hu, hu > 0, np.stack([PROBLEM.grid.affine] * len(NAMES)))
    dataset = Dataset(volumes, volumes, "Volumes <of> noise.", synthetic)
    method = mean_volume(PROBLEM)._replace(
        sample=lambda state, key, count: jax.random.normal(key, (count, *PROBLEM.grid.shape))
    )
    run = Run(folder, EXPERIMENT, None, PROBLEM, method, synthetic, dataset.rule)
    trained = Trained(run, method.init(jax.random.key(0)), 30)
    rows = [fake_row("mean volume", case, 20.0) for case in cases]
    rows += [fake_row("toy", case, PSNR[case]) for case in cases]
    for case in cases:
        write_volume(recon_path(folder, "toy", 2, case, ".nii.gz"), 0 * hu[0], PROBLEM.grid.affine)
    config = {"experiment": to_dict(EXPERIMENT), "versions": {"jax": "1.2.3"}, "git": "cafe"}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [{"step": s, "split": "train", "L_D": 1.0 / s} for s in range(1, 9)]
    lines += [{"step": 8, "split": "validation", "psnr_db": 20.0, "L_D": None}]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + '\n{"step": 9, "split": "tr')  # a killed run
    setting = make_setting(EXPERIMENT, dataset, Terms(limit=len(cases), counts=(2,)))
    contenders = [
        Contender(name, (2,), lambda problem: None, "0") for name in ("mean volume", "toy")
    ]
    summary = summarise(setting, contenders, rows, "toy", trained)
    path = write_report(Results(setting, contenders, rows, summary, folder, trained))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"), synthetic=True)


def test_the_report_loads_nothing_from_anywhere(page):
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 4  # strips, the cases of the method, samples, training curves
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert len(page) < 5e6


def test_synthetic_data_is_called_so_and_real_patients_are_guarded(page, tmp_path):
    assert "SYNTHETIC data" in page
    real = write(tmp_path, synthetic=False, cases=NAMES[:1])
    assert "SYNTHETIC" not in real
    assert "patient data" in real
    assert "best and median and worst 21.00 dB (case_a)" in real


def test_the_report_states_conventions_config_and_versions(page):
    assert "[-1024, 2000] HU" in page
    assert "noise-free" in page
    assert "jax 1.2.3" in page
    assert "&#34;batch_size&#34;: 2" in page
    assert "Volumes &lt;of&gt; noise." in page  # text is text, never markup


def test_best_median_and_worst_are_chosen_by_psnr(page):
    shown = re.findall(r"(\w+) [\d.]+ dB \((\w+)\)", page)
    assert shown == [("best", "case_b"), ("median", "case_a"), ("worst", "case_c")]


def test_the_verdict_compares_with_the_best_of_the_others():
    means = {"mean": 22.2, "linear": 25.3, "toy": 24.1}
    results = [
        {"method": m, "views": 2, "metrics": {"psnr_db": {"mean": mean}}, "tests": {}}
        for m, mean in means.items()
    ]
    judge, summary = volume_judge(), {"against": "toy", "results": results}
    said = verdict(judge, summary, 2)
    assert said == "toy: PSNR [dB] 24.10, 1.20 worse than the best of the others (linear, 25.30)."
    results[1]["tests"] = {"psnr_db": {"p_wilcoxon_holm": 0.031}}
    assert "25.30; p = 0.031, Wilcoxon, Holm-corrected)." in verdict(judge, summary, 2)
    assert "1.90 better than the best of the others (mean, 22.20" in verdict(
        judge, {**summary, "results": [results[0], results[2]]}, 2
    )
    assert verdict(judge, {**summary, "results": results[2:]}, 2) is None


def test_slices_are_shown_right_side_left_and_head_up():
    hu = np.zeros((6, 7, 8), np.float32)
    hu[5, 6, :] = 1.0  # right, front
    hu[5, :, 7] += 2.0  # right, head
    hu[3, 6, 7] = 9.0  # middle of x: front, head
    axes = Figure().subplots(1, 3)
    axial, coronal, sagittal = (
        np.asarray(slices.draw_slice(a, hu, np.ones(3), plane).get_array())
        for a, plane in zip(axes, slices.PLANES)
    )
    assert (axial.shape, coronal.shape, sagittal.shape) == ((7, 6), (8, 6), (8, 7))
    assert np.argwhere(axial).tolist() == [[0, 0]]  # top row, left column
    assert np.argwhere(coronal).tolist() == [[0, 0]]
    assert np.argwhere(sagittal).tolist() == [[0, 0]]


def test_slices_keep_their_proportions_in_mm():
    hu = np.zeros((6, 7, 8), np.float32)
    axes = Figure().subplots()
    slices.draw_slice(axes, hu, np.array([2.0, 3.0, 5.0]), slices.PLANES[1])
    assert axes.get_aspect() == pytest.approx(5.0 / 2.0)


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0, 135.0])
def test_the_angle_of_a_view_is_read_from_its_camera(angle):
    moved = camera_at(angle, isocentre_mm=(5.0, -8.0, 3.0))
    assert slices.angle_deg(moved) == pytest.approx(angle, abs=1e-3)
    assert jnp.isfinite(moved.centre).all()
