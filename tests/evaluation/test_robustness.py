"""The suite of perturbations: what machines do to X-rays, rows like those of an evaluation, resuming."""

import csv
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_balls import (
    AROUND,
    CALLS,
    DATASET,
    EXPERIMENT,
    SETTING,
    condition,
    party,
)

from jxrecon import drr
from jxrecon.evaluate import command as evaluate
from jxrecon.evaluation import robustness as suite
from jxrecon.evaluation.compare import compare
from jxrecon.evaluation.contenders import choose
from jxrecon.evaluation.joined import joined
from jxrecon.evaluation.perturbations import PERTURBATIONS, conditions_of
from jxrecon.evaluation.robustness import Party, Room, nominal, robustness
from jxrecon.evaluation.setting import Terms, make_setting
from jxrecon.experiment import Machine
from jxrecon.report.robustness import styles_of, worst, write_page
from jxrecon.types import InputError

NAMES = ["angle-in-plane", "photons"]


def rows_of(folder):
    with (folder / "robustness_8x9x10.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return robustness([party()], tmp_path_factory.mktemp("suite"), NAMES, slow_cases=1)


@pytest.fixture(scope="module")
def room():
    return Room(SETTING, conditions_of(nominal(SETTING)))


def test_every_view_is_the_exact_projection_by_the_machine_that_was_perturbed(room):
    noiseless = nominal(SETTING)._replace(photons=None)
    mu = drr.hu_to_mu(jnp.asarray(DATASET.validation.scenes.hu[1], jnp.float32))
    for name, value in (
        ("angle in plane", 10.0),
        ("angle out of plane", -5.0),
        ("source-axis distance", 5.0),
        ("isocentre foot-head", 20.0),
    ):
        [change] = (p.change for p in PERTURBATIONS if p.name == name)
        taking = change(noiseless, value)
        images = room.images(1, condition(name, value)._replace(taking=taking))
        for camera, image in zip(taking.cameras, images):
            exact = drr.line_integrals(mu, AROUND.affine, camera, "siddon")
            np.testing.assert_allclose(image, exact, atol=2e-4)


def test_geometry_moves_what_it_says():
    plain = nominal(SETTING).cameras
    turned = condition("angle in plane", 5.0).taking.cameras
    np.testing.assert_array_equal(turned[0].source, plain[0].source)
    cosine = turned[1].source @ plain[1].source / 1000.0**2
    assert np.degrees(np.arccos(float(cosine))) == pytest.approx(5.0, abs=1e-2)
    assert float(turned[1].source[2]) == pytest.approx(0.0, abs=1e-3)
    raised = condition("angle out of plane", 5.0).taking.cameras[1]
    assert float(raised.source[2]) == pytest.approx(1000.0 * np.sin(np.radians(5.0)), abs=1e-2)
    assert float(raised.centre[2]) < 0.0
    far = condition("source-detector distance", 5.0).taking.cameras[0]
    assert float(jnp.linalg.norm(far.source - far.centre)) == pytest.approx(1575.0)
    np.testing.assert_array_equal(far.u, plain[0].u)
    shifted = condition("isocentre back-front", 20.0).taking.cameras
    for a, b in zip(shifted, plain):
        np.testing.assert_allclose(a.centre - b.centre, [0.0, 20.0, 0.0], atol=1e-4)


def test_exposures_and_storage_change_what_they_say(room):
    plain = [np.asarray(y) for y in room.images(0, condition("none", 0.0))]

    def seen(name, value):
        return [np.asarray(y) for y in room.images(0, condition(name, value))]

    assert np.array_equal(seen("mirrored", 2.0)[1], plain[1][:, ::-1])
    assert np.array_equal(seen("mirrored", 2.0)[0], plain[0])
    inverted = seen("inverted", 1.0)[0]
    np.testing.assert_allclose(inverted + plain[0], plain[0].max() + plain[0].min(), atol=1e-5)
    hidden = seen("truncation", 20.0)[0]  # 20 % of 12 columns at either side: 2
    assert (hidden[:, :2] == 0).all()
    assert (hidden[:, -2:] == 0).all()
    assert np.array_equal(hidden[:, 2:-2], plain[0][:, 2:-2])
    thick = plain[0] > 1.0
    assert seen("scatter", 2.0)[0][thick].mean() < plain[0][thick].mean() - 0.1
    assert seen("beam hardening", 60.0)[0][thick].mean() > 1.1 * plain[0][thick].mean()
    np.testing.assert_allclose(
        seen("gamma", 1.3)[0], 8 * (np.maximum(plain[0], 0) / 8) ** 1.3, atol=1e-5
    )
    blurred = seen("blur", 4.0)[0]
    assert 0.0 < np.abs(blurred - plain[0]).mean() < 0.2
    wild, calm = seen("photons", 1e3)[0], seen("photons", 1e6)[0]
    assert np.abs(wild - plain[0]).mean() > 2 * np.abs(calm - plain[0]).mean()


def test_without_perturbation_rows_are_those_of_an_evaluation(found, tmp_path):
    compare(SETTING, choose(SETTING, ["linear prior"]), None, tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        expected = {row["case"]: row for row in csv.DictReader(file)}
    rows = [r for r in rows_of(found.out) if r["perturbation"] == "none"]
    rows = {r["case"]: r for r in rows if r["method"] == "linear prior"}
    assert rows.keys() == expected.keys()
    for case, row in rows.items():
        for name in suite.METRICS:
            assert float(row[name]) == pytest.approx(float(expected[case][name]), rel=1e-4)


def test_all_cases_are_measured_under_all_conditions_and_few_by_slow_methods(found):
    rows = rows_of(found.out)
    assert len(rows) == (1 + 8 + 4) * (3 + 1)
    [field] = found.summary["fields"]
    assert {r["n"] for r in field["results"] if r["method"] == "counted"} == {1}
    mine = [r for r in field["results"] if r["method"] == "linear prior"]
    [base], [wild] = (
        [r for r in mine if (r["perturbation"], r["value"]) == key]
        for key in (("none", 0.0), ("photons", 1e3))
    )
    change = wild["psnr_db"]["mean"] - base["psnr_db"]["mean"]
    assert wild["psnr_db"]["change"] == pytest.approx(change, abs=1e-5)
    assert wild["psnr_db"]["low"] <= change <= wild["psnr_db"]["high"]
    written = json.loads((found.out / "robustness.json").read_text())
    assert written["fields"] == found.summary["fields"]


def test_a_killed_suite_goes_on_with_the_row_where_it_was(found, tmp_path):
    whole = (found.out / "robustness_8x9x10.csv").read_text()
    lines = whole.splitlines(keepends=True)
    table = tmp_path / "robustness_8x9x10.csv"
    table.write_text("".join(lines[:-3]) + lines[-3][:20])  # the last but two is torn
    jax.effects_barrier()
    CALLS.clear()
    robustness([party()], tmp_path, NAMES, slow_cases=1)
    jax.effects_barrier()
    assert len(CALLS) == 3
    assert table.read_text() == whole
    CALLS.clear()
    robustness([party()], tmp_path, NAMES, slow_cases=1)
    jax.effects_barrier()
    assert CALLS == []


def test_only_what_is_asked_for_is_counted_of_an_older_table(found, tmp_path):
    whole = (found.out / "robustness_8x9x10.csv").read_text()
    (tmp_path / "robustness_8x9x10.csv").write_text(whole)
    [field] = robustness([party(limit=2)], tmp_path, ["photons"], 1).summary["fields"]
    mine = [r for r in field["results"] if r["method"] == "linear prior"]
    assert {r["n"] for r in mine} == {2}
    assert len(mine) == 1 + 4
    assert (tmp_path / "robustness_8x9x10.csv").read_text() == whole


def test_the_page_shows_every_perturbation_and_method(found):
    text = write_page(found).read_text()
    assert "SYNTHETIC data" in text
    assert len(re.findall(r'<img src="data:image/png', text)) == 2
    assert not re.search(r'(src|href)="(?!data:)', text)
    for word in ("Angle in plane", "Photons", "linear prior", "counted", "8 x 9 x 10 voxels"):
        assert word in text
    assert "Truncation" not in text
    [field] = found.summary["fields"]
    losses = [
        r["psnr_db"]["change"]
        for r in field["results"]
        if (r["method"], r["perturbation"]) == ("linear prior", "photons")
    ]
    assert worst(field, "linear prior", "photons") == min(losses)


def test_calls_of_several_methods_and_fields_make_one_page(found, tmp_path):
    jax.effects_barrier()
    CALLS.clear()
    other = robustness([party(["mean volume", "counted"])], tmp_path / "b", ["photons"])
    small = json.loads((other.out / "robustness.json").read_text())
    small["fields"][0] |= {"name": "4x4x5", "field": "4 x 4 x 5 voxels"}
    small["hardware"] = "another machine"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "robustness.json").write_text(json.dumps(small))
    called = len(CALLS)
    folders = [found.out, other.out, tmp_path / "c"]
    page = joined(folders, tmp_path / "all")
    first, last = page.summary["fields"]
    own = found.summary["fields"][0]["results"]
    assert first["results"][: len(own)] == own  # "counted" is the first call's
    rest = first["results"][len(own) :]
    assert rest == [r for r in small["fields"][0]["results"] if r["method"] == "mean volume"]
    assert last == small["fields"][0]
    assert page.summary["hardware"] == f"{found.summary['hardware']}; another machine"
    text = write_page(page).read_text()
    for word in ("Angle in plane", "mean volume", "8 x 9 x 10 voxels", "4 x 4 x 5 voxels"):
        assert word in text
    written = (page.out / "robustness.json").read_bytes()
    assert joined(folders, page.out).summary == page.summary
    assert (page.out / "robustness.json").read_bytes() == written
    jax.effects_barrier()
    assert len(CALLS) == called  # nothing is computed


def test_the_command_joins_calls_and_computes_nothing_else(found, tmp_path, capsys):
    asked = ["--suite", "robustness", "--join", str(found.out)]
    assert evaluate([*asked, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "robustness.html").read_text() == write_page(found).read_text()
    mixed = [*asked, "--out", str(tmp_path), "--methods", "fdk"]
    for wrong, why in ((mixed, "without"), (asked[2:], "with")):
        assert evaluate(wrong) != 0
        assert f"--join: expected {why} --" in capsys.readouterr().err


def test_calls_that_cannot_stand_on_one_page_are_refused(found, tmp_path):
    told = json.loads((found.out / "robustness.json").read_text())

    def left(name, **other):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "robustness.json").write_text(json.dumps(told | other))
        return folder

    with pytest.raises(InputError, match=r"other seed than .*, expected calls of the same"):
        joined([found.out, left("seed", seed=1)], tmp_path / "out")
    xrays = [told["fields"][0] | {"xrays": "noise-free"}]
    with pytest.raises(InputError, match=r"other xrays than"):
        joined([found.out, left("xrays", fields=xrays)], tmp_path / "out")
    with pytest.raises(InputError, match="expected another folder than those that are joined"):
        joined([found.out], found.out)
    with pytest.raises(InputError, match=r"nothing: no robustness\.json in it"):
        joined([found.out, tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "seed" / "robustness.json").write_text("{}")
    with pytest.raises(InputError, match=r"robustness\.json: not of the robustness suite"):
        joined([tmp_path / "seed"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_remedy_changes_the_dash_of_a_methods_curve_and_keeps_its_colour():
    methods = ["fdk", "fdk, style", "fdk, pose found", "lift", "lift, pose found", "nerp"]
    styles = styles_of(methods)
    assert len({tuple(style.values()) for style in styles.values()}) == len(methods)
    assert len({styles[m]["color"] for m in methods[:3]}) == 1
    assert len({styles[m]["color"] for m in ("fdk", "lift", "nerp")}) == 3
    assert styles["fdk, pose found"]["linestyle"] == styles["lift, pose found"]["linestyle"]
    many = styles_of([str(n) for n in range(14)])
    assert len({tuple(style.values()) for style in many.values()}) == 14


def test_xrays_by_another_machine_are_told_and_cost(tmp_path):
    other = Machine(kvp=80.0, scatter=1.0)
    learnt = dataclasses.replace(EXPERIMENT.xrays, machine=other)
    knows = dataclasses.replace(EXPERIMENT, xrays=learnt)
    found = []
    for experiment, machine in ((EXPERIMENT, None), (EXPERIMENT, other), (knows, None)):
        setting = make_setting(experiment, DATASET, Terms(counts=(2,), limit=1, machine=machine))
        alone = Party(setting, choose(setting, ["linear prior"]))
        found.append(robustness([alone], tmp_path / str(len(found)), []).summary["fields"][0])
    ideal, wrong, right = (field["results"][0]["psnr_db"]["mean"] for field in found)
    assert wrong < ideal - 1
    assert right > wrong + 1
    said = [field["xrays"] for field in found]
    assert ["simulated machine" in text for text in said] == [False, True, True]
    assert ["from another machine's" in text for text in said] == [False, True, False]
    setting = make_setting(EXPERIMENT, DATASET, Terms(counts=(2,), limit=1, machine=other))
    compared = compare(setting, choose(setting, ["linear prior"]), None, tmp_path / "compared")
    same = compared.summary["results"][0]["metrics"]["psnr_db"]["mean"]
    assert same == pytest.approx(wrong, rel=1e-4)


def test_unknown_perturbations_are_refused():
    with pytest.raises(InputError, match="--perturbations blurr: expected some of angle in plane"):
        conditions_of(nominal(SETTING), ["blurr"])


def test_some_values_of_a_perturbation_are_asked_for_by_name():
    found = conditions_of(nominal(SETTING), ["source-axis distance", "angle-in-plane=-5,10"])
    assert [c.key for c in found] == [
        ("none", "0"),
        ("source-axis distance", "-5"),
        ("source-axis distance", "5"),
        ("angle in plane", "-5"),
        ("angle in plane", "10"),
    ]
    for asked in ("gamma=0.8", "gamma=", "gamma=0.7,x"):
        with pytest.raises(InputError, match=r"expected some of 0\.7,0\.85,1\.15,1\.3"):
            conditions_of(nominal(SETTING), [asked])
