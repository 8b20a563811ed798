"""Paired tests: is one method better than another on the same cases, and by how much.

Wilcoxon's signed-rank test and the paired t test, each with an effect size, the mean difference with a
bootstrap interval, and Holm's correction over all comparisons that are made together.

Differences are other minus ours, so that for an error a positive one speaks for us. Cases must be
independent: of several cases of one patient, hand in their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon.types import InputError

RESAMPLES = 10_000
"""Of the bootstrap."""

EXACT = 50
"""Up to so many cases, where no difference is zero or tied, Wilcoxon's p is exact."""


class PairedTest(NamedTuple):
    """Two methods on the same cases. What cannot be computed is NaN: tests need two cases.

    Attributes:
        n: cases.
        mean_difference: other minus ours, in the unit of the values.
        low, high: 95 % interval of the mean difference: percentile bootstrap over cases, fixed seed.
        cohen_dz: mean difference over the standard deviation (n - 1) of the differences; infinite,
            with its sign, where all differences are equal but not zero, 0 where they are all zero.
        rank_biserial: (sum of ranks that favour us - sum of the others) / their sum, -1 to 1; zero
            differences have no rank; 0 where all are zero (Kerby 2014).
        p_wilcoxon: signed-rank test, two-sided, zeros left out; exact up to 50 cases without ties and
            zeros, else by the normal approximation with correction for ties. 1 where all are zero.
        p_t: paired t test, two-sided; 0 where all differences are equal but not zero, 1 where zero.
        p_wilcoxon_holm, p_t_holm: corrected over the comparisons made together, each kind of test by
            itself; the same as without where there is one.
    """

    n: int
    mean_difference: float
    low: float
    high: float
    cohen_dz: float
    rank_biserial: float
    p_wilcoxon: float
    p_t: float
    p_wilcoxon_holm: float
    p_t_holm: float


def paired(ours: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> PairedTest:
    """One comparison of values of the same cases in the same order, without others to correct for.

    Raises:
        InputError: the lengths differ, there is no case, or a value is not finite.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(f"values of shape {a.shape} and {b.shape}, expected one a case in both")
    if count := int((~np.isfinite(a) | ~np.isfinite(b)).sum()):
        raise InputError(
            f"{count} of {len(a)} cases have a value that is not finite, expected none"
        )
    difference = b - a
    # Rounding leaves equal differences unequal in their last digit, whose t would be enormous.
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
    difference = np.where(np.abs(difference) <= 1e-12 * scale, 0.0, difference)
    mean, nan = float(difference.mean()), float("nan")
    ranks = _rank_biserial(difference)
    if len(a) < 2:
        return PairedTest(1, mean, nan, nan, nan, ranks, nan, nan, nan, nan)
    if np.ptp(difference) <= 1e-12 * scale:
        size, p_t = (math.copysign(math.inf, mean), 0.0) if mean else (0.0, 1.0)
    else:
        from scipy import stats  # takes half a second, and most commands test nothing

        size, p_t = mean / float(difference.std(ddof=1)), float(stats.ttest_rel(b, a).pvalue)
    p = _wilcoxon(difference)
    return PairedTest(len(a), mean, *interval(difference), size, ranks, p, p_t, p, p_t)


def compare(
    ours: Float[np.ndarray, " n"], others: Mapping[str, Float[np.ndarray, " n"]]
) -> dict[str, PairedTest]:
    """Our method against each of the others, by name, corrected for their number.

    Raises:
        InputError: as `paired` does, with the method's name.
    """
    tests = {}
    for name, values in others.items():
        try:
            tests[name] = paired(ours, values)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    by_rank = holm([test.p_wilcoxon for test in tests.values()])
    by_mean = holm([test.p_t for test in tests.values()])
    return {
        name: test._replace(p_wilcoxon_holm=w, p_t_holm=t)
        for (name, test), w, t in zip(tests.items(), by_rank, by_mean)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected by Holm's step-down procedure (Scand. J. Statist. 6, 1979), in the order given.

    The smallest is multiplied by their number, the next by one less, and so on; none becomes smaller
    than the one before it, nor larger than 1. NaN stays and is not counted.
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in corrected]


def interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, 10,000 resamples, always the same."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    at_once = max(1, 10**7 // len(values))
    means = [
        values[rng.integers(0, len(values), (min(at_once, RESAMPLES - done), len(values)))].mean(1)
        for done in range(0, RESAMPLES, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wilcoxon(difference: np.ndarray) -> float:
    from scipy import stats

    nonzero = difference[difference != 0]
    if len(nonzero) < 2:
        return 1.0  # of one rank the approximation would have no variance to speak of
    plain = len(difference) == len(np.unique(np.abs(nonzero))) <= EXACT
    return float(stats.wilcoxon(nonzero, method="exact" if plain else "approx").pvalue)


def _rank_biserial(difference: np.ndarray) -> float:
    from scipy import stats

    nonzero = difference[difference != 0]
    if not len(nonzero):
        return 0.0
    ranks = stats.rankdata(np.abs(nonzero))
    return float(np.sum(ranks * np.sign(nonzero)) / ranks.sum())
