"""X2CT-GAN on head-and-neck CT from the frontal X-ray alone: the single-view network.

    jxrecon train --exp x2ct_hn_single --data DIR

All else as x2ct_hn; its rivals see one X-ray, too. The paper reports about 4 dB between one view and two.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.runs.config import find


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of x2ct_hn."""
    base = find("x2ct_hn", size)
    return replace(base, name="x2ct_hn_single", views=replace(base.views, count=1))
