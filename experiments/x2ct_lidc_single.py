"""X2CT-GAN on LIDC-IDRI from the frontal X-ray alone: the paper's single-view network.

    jxrecon train --exp x2ct_lidc_single --size paper --data DIR

All else as x2ct_lidc, reported numbers too. The weights that the authors published are those of epoch 30.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.runs.config import find


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of x2ct_lidc."""
    base = find("x2ct_lidc", size)
    return replace(base, name="x2ct_lidc_single", views=replace(base.views, count=1))
