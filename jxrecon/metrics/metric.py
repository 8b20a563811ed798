"""What a metric is: head of its column, what exactly was measured, which way is better, how many digits."""

from __future__ import annotations

import math
from typing import NamedTuple

from jxrecon.units import Window


class Metric(NamedTuple):
    """A number that tables show.

    Attributes:
        name: its key in cases.csv and summary.json.
        label: head of its column.
        convention: what exactly it is; {low:g}, {high:g} and {range:g} stand for the HU window.
        better: 1 where more is better, -1 where less is, 0 for what a result costs.
        digits: decimals that mean something.
    """

    name: str
    label: str
    convention: str
    better: int = -1
    digits: int = 2

    @property
    def head(self) -> str:
        """The label with an arrow towards better."""
        return self.label + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def text(self, value: float | None) -> str:
        """A value to as many digits as mean something; costs below 1 to two digits."""
        if value is None or math.isnan(value):
            return "n/a"
        if math.isinf(value):
            return "inf"
        return f"{value:.2g}" if not self.better and value < 1 else f"{value:.{self.digits}f}"

    def says(self, window: Window | None) -> str:
        """The convention with the HU window filled in."""
        if window is None:
            return self.convention
        return self.convention.format(low=window.low, high=window.high, range=window.range)


def named(*metrics: Metric) -> dict[str, Metric]:
    """Name -> metric, in the order of the tables."""
    return {metric.name: metric for metric in metrics}


COSTS = named(
    Metric("seconds", "time [s]", "time of one reconstruction, without compilation", better=0),
    Metric(
        "memory_mb",
        "memory [MB]",
        "working memory of the compiled reconstruction beside its arguments, 1e6 bytes, as the compiler "
        "counts it; the Python process comes on top",
        better=0,
        digits=1,
    ),
)
"""What a result costs. Depends on the machine."""
