"""Lift on head-and-neck CT: a network above the linear prior, from two X-rays of the whole patient.

    jxrecon train --exp lift_hn                        # built-in SYNTHETIC population
    jxrecon train --exp lift_hn --data DIR             # real CT, NIfTI

Ours, not one of the survey's methods. Field of view and cameras are those of x2vision_hn, the X-rays those of
the whole patient, projected anew at every step: patients turned, shifted, scaled, warped, mirrored, cameras
that stand a little wrong, half of the cases with photon noise. From the frontal X-ray alone: lift_hn_single.
"""

from __future__ import annotations

import jax

from jxrecon.data import scenes
from jxrecon.experiment import Experiment, Population, Schedule, Variety, Views, Xrays
from jxrecon.kinds import VOLUMES
from jxrecon.methods.volumes.lift.method import Settings, build
from jxrecon.rivals import volume_rivals
from jxrecon.runs.config import find
from jxrecon.types import InputError

_SIZES = {
    # As x2vision_hn's small, half and medium: 20x24x28, 40x48x56 and 80x96x112 voxels. Full takes about an
    # hour on one CPU core.
    "tiny": ("small", 32, 600, Settings(widths=(16, 32), steps=600)),
    "half": ("half", 64, 2400, Settings(widths=(16, 32, 64), steps=2400)),
    "full": ("medium", 128, 2400, Settings(steps=2400)),
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at `size`; None picks tiny on CPU, full on an accelerator."""
    if size is None:
        size = "tiny" if jax.default_backend() == "cpu" else "full"
    if size not in _SIZES:
        raise InputError(f"--size {size}: no such size, expected one of {', '.join(_SIZES)}")
    field_of, pixels, steps, settings = _SIZES[size]
    return Experiment(
        name="lift_hn",
        size=size,
        kind=VOLUMES,
        field=find("x2vision_hn", field_of).field,
        views=Views(pixels=pixels),
        xrays=Xrays(photons=(1e4, 1e5), noisy=0.5, variety=Variety(amount=1.0)),
        schedule=Schedule(
            steps, batch_size=1, evaluate_every=150, evaluate_cases=4, save_every=150
        ),
        population=Population(train=128, validation=8),
        settings=settings,
        build=build,
        load=scenes.load,
        rivals=volume_rivals(),
    )
