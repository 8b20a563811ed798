"""X2CT-CNN on LIDC-IDRI: the network of x2ct_lidc, trained on the voxels' squared error alone.

    jxrecon train --exp x2ct_cnn_lidc --size paper --data DIR

All else as x2ct_lidc, reported numbers too; --set views.count=1 is the single-view X2CT-CNN.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.runs.config import find


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of x2ct_lidc."""
    base = find("x2ct_lidc", size)
    settings = replace(base.settings, adversarial_weight=0.0, projection_weight=0.0)
    return replace(base, name="x2ct_cnn_lidc", settings=settings)
