"""Single-image tomography (Henzler et al. 2018) on head-and-neck CT: a volume from the frontal X-ray alone.

    jxrecon train --exp henzler                        # built-in SYNTHETIC population
    jxrecon train --exp henzler --data DIR             # real CT, NIfTI

Data, field of view and frontal camera are those of x2vision_hn, on as many voxels along every side: 32, 64
or 128. One frontal view, of as many pixels as the volume has voxels along an edge. The paper's numbers are
of mammals' skulls in other units: nothing here compares with them.

Measured, size tiny, OpenKBP, X-rays of the whole patient with 20,000 photons a pixel, seed 0, 600 steps of
4, two minutes on one core, 17 validation patients: 23.07 dB / 201.2 HU in the body, below the linear prior
from the same X-ray (24.77 / 154.7); all beside each other in experiments/README.md. Other sizes are not
trained.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment, Schedule, Views
from jxrecon.methods.volumes.henzler import Settings, build
from jxrecon.runs.config import find

_SIZES = {
    # Few channels, a higher rate: for CPU.
    "tiny": (Views(pixels=32, count=1), Settings(channels=(16, 32, 64, 128), learning_rate=1e-3)),
    "small": (Views(pixels=64, count=1), Settings(channels=(32, 64, 128, 256))),
    "paper": (Views(pixels=128, count=1), Settings()),
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of x2ct_hn."""
    base = find("x2ct_hn", size)
    views, settings = _SIZES[base.size]
    schedule = base.schedule
    if base.size == "tiny":
        schedule = Schedule(
            steps=600, batch_size=4, evaluate_every=150, evaluate_cases=4, save_every=150
        )
    return replace(
        base, name="henzler", views=views, schedule=schedule, settings=settings, build=build
    )
