"""X-ray2Shape (Tong 2020) on the livers of igcn_liver: from the MEAN shape, without the patient's own.

    jxrecon train --exp xray2shape_liver --data OUT

All else as igcn_liver; measured there with it: MD 10.63 +- 2.03 mm.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment
from jxrecon.methods.surfaces.xray2shape import Settings, build
from jxrecon.runs.config import find

_SETTINGS = {
    "small": Settings(width=8, decay_steps=1200),
    "paper": Settings(width=64, hidden=256, decay_steps=20_000),
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of igcn_liver."""
    base = find("igcn_liver", size)
    return replace(base, name="xray2shape_liver", settings=_SETTINGS[base.size], build=build)
