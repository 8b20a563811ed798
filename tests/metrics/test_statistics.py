"""Paired tests against values worked by hand and against scipy, and their behaviour at the edges."""

import math

import numpy as np
import pytest
from scipy import stats

from jxrecon.metrics.statistics import compare, holm, interval, paired
from jxrecon.types import InputError


def test_signed_ranks_of_five_cases_are_those_worked_by_hand():
    # Differences 1, 2, 3, 4, -5: ranks for us 10, against 5. Of 32 sign patterns 13 reach at most
    # 5 on one side, so p = 26/32.
    test = paired(np.zeros(5), np.array([1.0, 2, 3, 4, -5]))
    assert test.rank_biserial == pytest.approx(5 / 15)
    patterns = [sum(k for k in range(1, 6) if n >> (k - 1) & 1) for n in range(32)]
    assert test.p_wilcoxon == pytest.approx(2 * sum(s <= 5 for s in patterns) / 32)
    assert test.mean_difference == pytest.approx(1.0)


def test_t_and_effect_size_of_three_cases_are_those_worked_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3), p of t with two degrees of freedom.
    test = paired(np.array([1.0, 1, 1]), np.array([2.0, 3, 4]))
    t = 2 * math.sqrt(3)
    assert test.cohen_dz == pytest.approx(2.0)
    assert test.p_t == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_p_values_are_scipys_on_many_cases_with_ties_and_zeros():
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 5, 60).astype(float)
    other = ours + rng.integers(-2, 4, 60)
    test = paired(ours, other)
    ranks = stats.wilcoxon(other, ours, zero_method="wilcox", correction=False, method="approx")
    assert test.p_wilcoxon == pytest.approx(ranks.pvalue, rel=1e-12)
    assert test.p_t == pytest.approx(stats.ttest_rel(other, ours).pvalue, rel=1e-12)


def test_exchanging_the_methods_turns_the_signs_and_keeps_p():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 20), rng.normal(0.5, 1, 20)
    one, other = paired(a, b), paired(b, a)
    assert one.mean_difference == -other.mean_difference
    assert one.cohen_dz == pytest.approx(-other.cohen_dz)
    assert one.rank_biserial == pytest.approx(-other.rank_biserial)
    assert (one.p_wilcoxon, one.p_t) == pytest.approx((other.p_wilcoxon, other.p_t))


def test_holm_is_the_textbook_example_in_any_order():
    # 4 x .005, 3 x .01, 2 x .03, then no smaller than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.02, math.nan, 0.01]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)
    assert holm([]) == []


def test_comparisons_made_together_are_corrected_for_their_number():
    rng = np.random.default_rng(2)
    ours = rng.normal(0, 1, 15)
    others = {name: ours + rng.normal(shift, 1, 15) for name, shift in zip("abc", (0.2, 1, 3))}
    tests = compare(ours, others)
    assert list(tests) == ["a", "b", "c"]
    for kind in ("p_wilcoxon", "p_t"):
        plain = [getattr(test, kind) for test in tests.values()]
        assert [getattr(test, f"{kind}_holm") for test in tests.values()] == holm(plain)
        assert getattr(tests["c"], f"{kind}_holm") == pytest.approx(3 * min(plain))
    assert compare(ours, {}) == {}


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        low, high = interval(rng.normal(1.0, 2.0, 40))
        held += low <= 1.0 <= high
    assert 51 <= held <= 60  # 57 expected; outside with probability below 1 %
    assert interval(np.arange(9.0)) == interval(np.arange(9.0))
    assert interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_the_interval_is_that_of_ten_thousand_means_drawn_at_once():
    values = np.random.default_rng(4).normal(size=7)
    means = values[np.random.default_rng(0).integers(0, 7, (10_000, 7))].mean(1)
    assert interval(values) == tuple(np.quantile(means, [0.025, 0.975]))


def test_equal_methods_differ_by_nothing():
    test = paired(np.arange(6.0), np.arange(6.0))
    assert (test.p_wilcoxon, test.p_t, test.cohen_dz, test.rank_biserial) == (1.0, 1.0, 0.0, 0.0)
    assert (test.low, test.high) == (0.0, 0.0)
    large = 1e6 * np.array([0.1, 0.7, 0.3, 12.9])
    rounded = paired(large, large + np.array([1e-9, -1e-9, 1e-9, 0.0]))
    assert (rounded.p_t, rounded.rank_biserial) == (1.0, 0.0)


def test_differences_that_are_all_equal_have_an_infinite_effect():
    values = np.array([0.1, 0.7, 0.3, 12.9, 5.1, 1e-3])
    for sign, unit in ((1, 1.0), (-1, 1.0), (1, 1e9)):
        test = paired(unit * values, unit * values + sign * 0.1)  # equal but for rounding
        assert test.cohen_dz == sign * math.inf
        assert test.p_t == 0.0
        assert test.rank_biserial == pytest.approx(sign)
        assert test.p_wilcoxon < 0.05


def test_a_single_case_gives_a_difference_and_no_p():
    test = paired(np.array([1.0]), np.array([3.0]))
    assert (test.n, test.mean_difference) == (1, 2.0)
    assert all(math.isnan(p) for p in (test.p_wilcoxon, test.p_t, test.low, test.cohen_dz))


def test_two_cases_can_never_be_significant_by_rank():
    assert paired(np.zeros(2), np.array([1.0, 2.0])).p_wilcoxon == 0.5


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("ours", "other", "message"),
    [
        ([1.0, 2.0], [1.0], r"shape \(2,\) and \(1,\)"),
        ([], [], r"shape \(0,\)"),
        ([1.0, math.nan], [1.0, 2.0], "1 of 2 cases"),
    ],
)
def test_values_that_are_no_pairs_are_refused(ours, other, message):
    with pytest.raises(InputError, match=f"rival: .*{message}"):
        compare(np.array(ours), {"rival": np.array(other)})
