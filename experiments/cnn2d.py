"""2DCNN, the 2-D baseline of X2CT-GAN's paper, on head-and-neck CT: a volume from the frontal X-ray alone.

    jxrecon train --exp cnn2d                        # built-in SYNTHETIC population
    jxrecon train --exp cnn2d --data DIR             # real CT, NIfTI

Data, field of view and frontal camera are those of x2vision_hn, on as many voxels along every side: 32, 64
or 128. One frontal view, of twice as many pixels as the volume has voxels along an edge, as in the paper
(256 for 128). The paper's own numbers, on LIDC: 23.10 dB PSNR, .461 SSIM (reported, in its own convention,
x2ct-legacy, not verified).

Measured, size tiny, OpenKBP, X-rays of the whole patient with 20,000 photons a pixel, seed 0, 600 steps of
4, one minute on one core, 17 validation patients: 22.88 dB / 204.9 HU in the body, below the linear prior
from the same X-ray (24.79 / 154.8); all beside each other in experiments/README.md. Other sizes are not
trained.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.experiment import Experiment, Schedule, Views
from jxrecon.methods.volumes.cnn2d import Settings, build
from jxrecon.runs.config import find

_SIZES = {
    # Few channels, a higher rate: for CPU.
    "tiny": (Views(pixels=64, count=1), Settings(width=16, blocks=3, learning_rate=1e-3)),
    "small": (Views(pixels=128, count=1), Settings()),
    "paper": (Views(pixels=256, count=1), Settings()),
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
        base, name="cnn2d", views=views, schedule=schedule, settings=settings, build=build
    )
