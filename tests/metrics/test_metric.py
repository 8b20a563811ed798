"""What tables say of a metric: its label, its convention, its digits."""

import math

import pytest

from jxrecon.metrics.metric import COSTS, Metric, named
from jxrecon.units import Window


def test_the_head_points_towards_better_and_costs_point_nowhere():
    assert Metric("a", "A", "").head == "A ↓"
    assert Metric("a", "A", "", better=1).head == "A ↑"
    assert COSTS["seconds"].head == "time [s]"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (Metric("a", "A", ""), 1.2345, "1.23"),
        (Metric("a", "A", "", digits=4), 0.12345, "0.1235"),
        (Metric("a", "A", ""), math.nan, "n/a"),
        (Metric("a", "A", ""), None, "n/a"),
        (Metric("a", "A", ""), math.inf, "inf"),
        (COSTS["seconds"], 0.01234, "0.012"),
        (COSTS["seconds"], 1.0, "1.00"),
        (COSTS["seconds"], 12.345, "12.35"),
        (COSTS["memory_mb"], 12.345, "12.3"),
    ],
)
def test_values_have_the_digits_that_mean_something(metric, value, text):
    assert metric.text(value) == text


def test_the_convention_names_the_window():
    metric = Metric("a", "A", "clipped to [{low:g}, {high:g}] HU, peak {range:g}")
    assert metric.says(Window(-1024.0, 2000.0)) == "clipped to [-1024, 2000] HU, peak 3024"
    assert named(metric)["a"].says(None) == metric.convention
