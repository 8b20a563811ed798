"""The page of what metrics miss: its files, its numbers and sentences, and what it refuses."""

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest

from jxrecon.blind_spots import command
from jxrecon.data.volumes import Dataset, VolumeSet
from jxrecon.evaluation import blind_spots
from jxrecon.experiment import Field
from jxrecon.io.nifti import write_volume
from jxrecon.metrics.perturbations import PERTURBATIONS
from jxrecon.metrics.volume import case_metrics
from jxrecon.report import blind_spots as blind_spots_page
from jxrecon.runs.config import find
from jxrecon.units import Window

NAMES = [p.name for p in PERTURBATIONS]


def write_ct(path, seed):
    """A SYNTHETIC trunk: skin of fat, muscle, a lung and a spine that is not in the middle."""
    hu = np.full((22, 20, 16), -1000.0, np.float32)
    hu[2:20, 2:18] = -100.0
    hu[4:18, 4:16] = 50.0
    hu[5:10, 6:14, 2:14] = -850.0
    hu[12:15, 6:9] = 600.0
    hu += np.random.default_rng(seed).normal(0.0, 5.0, hu.shape)
    write_volume(path, hu, np.diag([5.0, 5.0, 6.0, 1.0]))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blind")
    files = [folder / "a_ct.nii.gz", folder / "b_ct.nii.gz"]
    for seed, path in enumerate(files):
        write_ct(path, seed)
    arguments = ["--ct", *map(str, files), "--no-lpips", "--out", str(folder / "out")]
    assert command(arguments) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def summary(out):
    return json.loads((out / "blind_spots.json").read_text())


def test_the_table_has_every_case_pair_and_perturbation_before_and_after(out):
    rows = list(csv.DictReader((out / "blind_spots.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * len(PERTURBATIONS) * 2
    assert {row["case"] for row in rows} == {"a_ct.nii.gz", "b_ct.nii.gz"}
    assert {row["perturbation"] for row in rows} == set(NAMES)
    equal = [r for r in rows if r["pair"] == "truth" and r["state"] == "before"]
    assert all(r["psnr_db"] == "inf" and float(r["mae_hu_body"]) == 0 for r in equal)
    assert all(r["lpips_alex"] == "nan" for r in rows)


def test_air_around_adds_nine_decibels_and_no_error_in_the_body(summary):
    moved = summary["pairs"]["reconstruction"]["perturbations"]["8x air border"]
    assert moved["psnr_db"]["change"] == pytest.approx(10 * math.log10(8), abs=1e-3)
    assert moved["mae_hu_body"]["change"] == pytest.approx(0.0, abs=1e-4)
    assert moved["psnr_db"]["amount"] < 0  # "better"


def test_amounts_point_to_worse_and_shares_end_at_one(summary):
    for pair in summary["pairs"].values():
        for metric in ("psnr_db", "ssim_3d", "mae_hu_body", "bone_dice"):
            moved = [m[metric] for m in pair["perturbations"].values()]
            assert max(abs(m["share"]) for m in moved) == pytest.approx(1.0)
    worse = summary["pairs"]["truth"]["perturbations"]["left-right flip"]
    assert all(worse[name]["amount"] > 0 for name in ("psnr_db", "ssim_3d", "mae_hu_body"))


def test_means_are_those_of_the_metrics_themselves(summary):
    moved = summary["pairs"]["truth"]["perturbations"]["blur"]["mae_hu_body"]
    assert moved["before"] == 0.0
    assert moved["n"] == 2
    assert moved["change"] == pytest.approx(moved["after"])
    known = set(
        case_metrics(*[np.zeros((8, 8, 8))] * 2, np.ones((8, 8, 8), bool), Window(), (1, 1, 1))
    )
    assert known | {"lpips_alex"} == set(summary["conventions"])


def test_the_page_loads_nothing_and_shows_every_perturbation(out):
    page = (out / "blind_spots.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert re.findall(r'src="([^",]*),', page) == ["data:image/png;base64"] * len(PERTURBATIONS)
    for name in NAMES:
        assert page.count(f"<td>{name}</td>") == 2
    assert "patient data" in page
    assert "SYNTHETIC" not in page
    assert "LPIPS version" not in page  # not measured: no column
    assert not re.search(r">\s*(nan|None|inf)\b", page)


def test_readings_are_made_of_the_numbers():
    def moved(change, share):
        after = 26.0 + change
        return {"before": 26.0, "after": after, "change": change, "share": share, "n": 3}

    names = ["psnr_db", "mae_hu_body"]
    row = {"psnr_db": moved(-0.003, 0.001), "mae_hu_body": moved(-4.0, -0.5)}
    said = blind_spots_page.reading(row, names)
    assert "PSNR moves by -0.003 dB, in no digit that tables print" in said
    assert "1 of 2 hardly notice: PSNR [dB]" in said
    assert "1 of 2 call it better: MAE body [HU]" in said
    assert "all 2" not in said
    row = {"psnr_db": moved(-2.0, 1.0), "mae_hu_body": moved(4.0, 0.5)}
    said = blind_spots_page.reading(row, names)
    assert "no digit" not in said
    assert "most strongly moved on its own scale is PSNR [dB] (100%" in said
    assert "all 2 metrics call it worse" in said


@pytest.mark.parametrize(
    ("change", "text"),
    [(None, ""), (0.0, "±0"), (9.031, "+9.03"), (-0.0031, "-0.003"), (0.00002, "+0.00002")],
)
def test_changes_have_signs_and_enough_digits(change, text):
    assert blind_spots_page.signed(change) == text


def test_synthetic_subjects_are_called_so(tmp_path, monkeypatch):
    write_ct(tmp_path / "ct.nii.gz", 0)
    (case,) = blind_spots.from_files([tmp_path / "ct.nii.gz"])
    hu, body = np.stack([case.hu.astype(np.int16)] * 2), np.stack([case.body] * 2)
    volumes = VolumeSet(("one", "two"), hu, body, np.stack([np.eye(4)] * 2))
    dataset = Dataset(volumes, volumes, "SYNTHETIC boxes.", True)
    field = Field(case.hu.shape, (5.0, 5.0, 6.0))
    toy = dataclasses.replace(find("x2ct_hn", "tiny"), field=field, load=lambda *_: dataset)
    monkeypatch.setattr(blind_spots.config, "find", lambda name, size: toy)
    out = tmp_path / "out"
    arguments = ["--exp", "toy", "--limit", "1", "--no-lpips", "--out", str(out)]
    assert command(arguments) == 0
    page = (out / "blind_spots.html").read_text(encoding="utf-8")
    assert "SYNTHETIC data" in page
    assert "patient data" not in page
    found = json.loads((out / "blind_spots.json").read_text())
    assert found["cases"] == 1
    assert found["synthetic"]


def refused(capsys, *arguments):
    """The one line on stderr."""
    assert command([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    return said[0]


def test_bad_input_is_one_line(tmp_path, capsys):
    out = "--out", tmp_path / "out"
    absent = tmp_path / "absent.nii.gz"
    assert "no such folder" in refused(capsys, "--data", tmp_path / "none", *out)
    assert "absent.nii.gz" in refused(capsys, "--ct", absent, *out)
    assert "together" in refused(capsys, "--ct", absent, "--exp", "x2ct_hn", *out)
    assert "--limit 0" in refused(capsys, "--limit", 0, *out)
    assert "--blur-mm" in refused(capsys, "--blur-mm", "nan", *out)
    assert "no such experiment" in refused(capsys, "--exp", "nobody", *out)
    assert "expected an experiment of volumes" in refused(capsys, "--exp", "igcn_liver", *out)
    air = tmp_path / "air.nii.gz"
    write_volume(air, np.full((9, 9, 9), -1000.0), np.diag([4.0, 4.0, 4.0, 1.0]))
    assert "expected tissue" in refused(capsys, "--ct", air, *out)
    ct = tmp_path / "ct.nii.gz"
    write_ct(ct, 0)
    assert "at least 7" in refused(capsys, "--ct", ct, "--spacing-mm", 40, *out)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(blind_spots, "measure", lambda *_: pytest.fail("computed in vain"))
    ct = tmp_path / "ct.nii.gz"
    write_ct(ct, 0)
    said = refused(capsys, "--ct", ct, "--out", tmp_path / "file")
    assert "cannot be written" in said
