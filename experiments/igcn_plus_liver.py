"""IGCN+, the dense displacement map as the authors released it, on the livers of igcn_liver.

    jxrecon train --exp igcn_plus_liver --data OUT

All else as igcn_liver; measured there with it: MD 1.54 +- 0.94 mm. Size small has a narrower network.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.methods.surfaces.igcn.plus import Settings, build
from jxrecon.runs.config import find

_SETTINGS = {
    "small": Settings(
        channels=(8, 16, 32, 64, 128), hidden=64, learning_rate=1e-3, decay_steps=1200
    ),
    "paper": Settings(decay_steps=20_000),
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of igcn_liver."""
    base = find("igcn_liver", size)
    return replace(base, name="igcn_plus_liver", settings=_SETTINGS[base.size], build=build)
