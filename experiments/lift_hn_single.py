"""Lift on head-and-neck CT from the frontal X-ray alone.

    jxrecon train --exp lift_hn_single --data DIR

All else as lift_hn; its rivals see one X-ray, too.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.runs.config import find


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of lift_hn."""
    base = find("lift_hn", size)
    return replace(base, name="lift_hn_single", views=replace(base.views, count=1))
