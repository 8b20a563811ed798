"""What tables say of tests."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jxrecon.evaluation.summary import finite, label, markdown, ordered, p_value, summarise
from jxrecon.evaluation.surfaces import surface_judge
from jxrecon.metrics.metric import COSTS


def summary_of(units):
    """(summary, judge) of made-up numbers: two methods from one view, the first from two as well."""
    judge = surface_judge()._replace(
        unit_of=lambda cases, place: units[place], terms=lambda _: {"field": "F", "xrays": "X"}
    )
    names = [f"c{place}" for place in range(len(units))]
    terms = SimpleNamespace(split="validation", photons=None, seed=0)
    setting = SimpleNamespace(
        judge=judge, cases=None, names=names, counts=(1, 2), terms=terms,
        dataset=SimpleNamespace(rule="Rule.", synthetic=True),
        experiment=SimpleNamespace(field=None),
    )  # fmt: skip
    rows = [
        {"method": method, "views": count, "case": name}
        | dict.fromkeys([*judge.metrics, *COSTS], 2.0 + place * place)
        for method, count in (("a", 1), ("b", 1), ("a", 2))
        for place, name in enumerate(names)
    ]
    return summarise(setting, [], rows, "a"), judge


def test_a_p_value_has_two_digits_and_says_where_there_is_none():
    test = {"p_wilcoxon_holm": 0.01234, "cohen_dz": -1.678, "p_t": None, "p_wilcoxon": math.nan}
    assert p_value(test) == "0.012"
    assert p_value(test, "cohen_dz") == "-1.7"
    assert p_value(test, "p_t") == p_value(test, "p_wilcoxon") == "n/a"
    assert p_value(None) == ""


def test_a_method_that_fails_has_a_dagger():
    marks = [label({"method": "a", "fails": fails}) for fails in (True, False, None)]
    assert marks == ["a †", "a", "a"]


def test_numbers_without_a_value_are_null_at_any_depth_and_others_stay():
    told = {"a": [1.5, math.nan, {"b": -math.inf}], "c": 3, "d": "x", "e": True, "f": None}
    assert finite(told) == {"a": [1.5, None, {"b": None}], "c": 3, "d": "x", "e": True, "f": None}


def test_blocks_are_of_one_number_of_views_and_end_with_their_last_method():
    found = [(r["views"], r["method"], ends) for r, ends in ordered(summary_of([0, 1, 2])[0])]
    assert found == [(1, "a", False), (1, "b", True), (2, "a", True)]


@pytest.mark.parametrize("units", [[0, 1, 2], [0, 0, 0]])
def test_an_interval_is_told_where_there_are_two_units_and_holds_the_mean(units):
    summary, judge = summary_of(units)
    spread = summary["results"][0]["metrics"][judge.judged]
    assert spread["mean"] == pytest.approx(np.mean([2, 3, 6]))
    several = len(set(units)) > 1
    if several:
        assert 2.0 <= spread["low"] < spread["mean"] < spread["high"] <= 6.0
    else:
        assert (spread["low"], spread["high"]) == (None, None)
    row = next(r for r in markdown(summary, judge).splitlines() if r.startswith("| 1 | b |"))
    assert ("[" in row) == several


def test_the_tables_of_markdown_are_as_wide_in_every_row():
    summary, judge = summary_of([0, 1, 2])
    lines = markdown(summary, judge).splitlines()
    heads = [n for n, line in enumerate(lines) if line.startswith("| views |")]
    assert len(heads) == 2
    for n in heads:
        table = [line.strip("|").split("|") for line in lines[n : n + 5]]
        assert {len(row) for row in table} == {len(table[0])}
        assert {cell.strip() for cell in table[1]} == {"---"}
