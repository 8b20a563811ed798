"""What tables say of tests."""

import math

from jxrecon.evaluation.summary import label, p_value


def test_a_p_value_has_two_digits_and_says_where_there_is_none():
    test = {"p_wilcoxon_holm": 0.01234, "cohen_dz": -1.678, "p_t": None, "p_wilcoxon": math.nan}
    assert p_value(test) == "0.012"
    assert p_value(test, "cohen_dz") == "-1.7"
    assert p_value(test, "p_t") == p_value(test, "p_wilcoxon") == "n/a"
    assert p_value(None) == ""


def test_a_method_that_fails_has_a_dagger():
    marks = [label({"method": "a", "fails": fails}) for fails in (True, False, None)]
    assert marks == ["a †", "a", "a"]
