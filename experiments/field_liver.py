"""Displacement-field 2D/3D registration (after Miura 2022) on the livers of igcn_liver.

    jxrecon train --exp field_liver --data OUT

All else as igcn_liver; measured there with it: MD 1.25 +- 0.89 mm.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.methods.surfaces.displacement_field import Settings, build
from jxrecon.runs.config import find

_SETTINGS = {
    "small": Settings(width=8, decay_steps=1200),
    "paper": Settings(width=64, nodes=20, hidden=64, decay_steps=20_000),
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of igcn_liver."""
    base = find("igcn_liver", size)
    return replace(base, name="field_liver", settings=_SETTINGS[base.size], build=build)
