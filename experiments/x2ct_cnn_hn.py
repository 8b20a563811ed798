"""X2CT-CNN on head-and-neck CT: the network of x2ct_hn, trained on the voxels' squared error alone.

    jxrecon train --exp x2ct_cnn_hn --data DIR

All else as x2ct_hn. The paper reports about 1 dB more PSNR than with the adversary, and blurrier volumes.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.runs.config import find


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of x2ct_hn."""
    base = find("x2ct_hn", size)
    settings = replace(base.settings, adversarial_weight=0.0, projection_weight=0.0)
    return replace(base, name="x2ct_cnn_hn", settings=settings)
