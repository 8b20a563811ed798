"""Pixel2Mesh's blocks on the livers of igcn_liver: the same input and output, its losses.

    jxrecon train --exp p2m_liver --data OUT

All else as igcn_liver; measured there with it: MD 1.88 +- 1.34 mm.
Size small is narrower, has a rate ten times the paper's and fewer steps.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.methods.surfaces.pixel2mesh.method import Settings, build
from jxrecon.runs.config import find

_SETTINGS = {
    "small": Settings(width=8, hidden=32, learning_rate=3e-4, decay_steps=1200),
    "paper": Settings(width=64, decay_steps=20_000),
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of igcn_liver."""
    base = find("igcn_liver", size)
    return replace(base, name="p2m_liver", settings=_SETTINGS[base.size], build=build)
