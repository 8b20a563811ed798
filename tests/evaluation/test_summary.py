"""What tables say of tests."""

import json
import math

from jxrecon.evaluation.summary import _spread, finite, label, ordered, p_value


def test_a_p_value_has_two_digits_and_says_where_there_is_none():
    test = {"p_wilcoxon_holm": 0.01234, "cohen_dz": -1.678, "p_t": None, "p_wilcoxon": math.nan}
    assert p_value(test) == "0.012"
    assert p_value(test, "cohen_dz") == "-1.7"
    assert p_value(test, "p_t") == p_value(test, "p_wilcoxon") == "n/a"
    assert p_value(None) == ""


def test_a_method_that_fails_has_a_dagger():
    marks = [label({"method": "a", "fails": fails}) for fails in (True, False, None)]
    assert marks == ["a †", "a", "a"]


def test_numbers_that_json_has_not_are_null_and_all_others_stay():
    found = finite({"a": [1.5, math.nan, {"b": -math.inf}], "c": 0, "d": "inf", "e": None})
    assert found == {"a": [1.5, None, {"b": None}], "c": 0, "d": "inf", "e": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_last_method_of_each_number_of_views_ends_a_block():
    results = [{"method": name, "views": views} for name in "ab" for views in (1, 2)]
    found = list(ordered({"views": [1, 2], "results": results}))
    assert [(one["method"], one["views"], last) for one, last in found] == [
        ("a", 1, False), ("b", 1, True), ("a", 2, False), ("b", 2, True)
    ]  # fmt: skip


def test_one_patient_has_a_mean_and_no_interval_two_have_one():
    units = {"x": "x", "y": "y"}
    rows = [
        {"case": name, "method": "m", "psnr_db": value}
        for name, value in (("x", 20.0), ("y", 30.0))
    ]
    alone, both = _spread(rows[:1], "psnr_db", units), _spread(rows, "psnr_db", units)
    assert (alone["mean"], alone["low"], alone["high"], alone["n"]) == (20.0, None, None, 1)
    assert both["low"] <= both["mean"] == 25.0 <= both["high"]
    assert both["low"] < both["high"]
