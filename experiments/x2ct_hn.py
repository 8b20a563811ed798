"""X2CT-GAN on head-and-neck CT: a volume from frontal and lateral X-ray by a dense encoder-decoder.

    jxrecon train --exp x2ct_hn                        # built-in SYNTHETIC population
    jxrecon train --exp x2ct_hn --data DIR             # real CT, NIfTI

Data, field of view and cameras are those of x2vision_hn, on as many voxels along every side: 32, 64 or 128.
Beside it: x2ct_hn_single (frontal X-ray alone), x2ct_cnn_hn and x2ct_cnn_hn_single (without adversary).

Measured on noise-free X-rays of the field alone (an inverse crime; today --set xrays.of=field --set
xrays.noisy=0), size tiny, OpenKBP, one shared CPU core, seed 0, 2,000 steps (commit 97bffc2), the 17
validation patients, whole-volume PSNR / MAE in the body, linear prior from as many views beside it:

| | two views | one view |
|---|---|---|
| X2CT-GAN | 25.29 dB / 154 HU | 24.14 dB / 184 HU |
| X2CT-CNN | 28.10 dB / 113 HU | 25.96 dB / 145 HU |
| linear prior | 26.82 dB / 128 HU | 25.74 dB / 142 HU |

On X-rays of the whole patient with 20,000 photons a pixel, else as above (17 and 12 minutes, CNN 11 and 7):

| | two views | one view |
|---|---|---|
| X2CT-GAN | 25.09 dB / 149 HU | 23.41 dB / 189 HU |
| X2CT-CNN | 27.84 dB / 115 HU | 24.86 dB / 157 HU |
| X2CT-CNN without B / without C | 23.46 / 178, 26.08 / 143 | |
| linear prior | 25.98 dB / 139 HU | 24.77 dB / 155 HU |

Of the field's X-rays, bone Dice / LPIPS (AlexNet, slices): CNN 0.661 / 0.084 from two views, 0.549 / 0.143
from one; GAN 0.512 / 0.186 and 0.408 / 0.185; linear prior 0.627 / 0.094 and 0.586 / 0.120. All methods
side by side: experiments/README.md.

Measured, size tiny, OpenKBP, two shared CPU cores:

- Network alone (no adversary, no dropout, rate 2e-3 after 60 steps of warm-up), first four training cases,
  whole-volume PSNR on those four: two views 30.23 dB after 220 steps of 2 cases, one view 30.44 dB after 700
  steps of 1 case; about 140 to 170 CPU seconds each after 30 to 45 of compilation.
- CPU seconds a step of 4 SYNTHETIC cases on one core: two views 2.4 with adversary, 1.45 without; one view
  1.65 and 0.67.
- Without warm-up a rate of 2e-3 (at width 0.5), and with it b1 = 0.9 (one view), drove the head's ReLU to 0
  everywhere within 20 steps.

With --set schedule.steps=N set settings.constant_steps and settings.decay_steps too, to add up to N.
"""

from __future__ import annotations

import jax

from jxrecon.data import scenes
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.methods.volumes.x2ct.method import Settings, build
from jxrecon.rivals import volume_rivals
from jxrecon.types import InputError

_EXTENT_MM = (224.0, 240.0, 201.6)


def _cube(edge: int) -> Field:
    return Field((edge,) * 3, tuple(extent / edge for extent in _EXTENT_MM))


_LONG = {"constant_steps": 10_000, "decay_steps": 10_000}

_SIZES = {
    # Trains visibly in minutes on a CPU core: three stages, few channels, a higher rate.
    "tiny": {
        "field": _cube(32),
        "views": Views(pixels=32),
        "schedule": Schedule(
            steps=2000, batch_size=1, evaluate_every=250, evaluate_cases=4, save_every=250
        ),
        "population": Population(train=128, validation=8),
        "settings": Settings(
            architecture="tiny",
            discriminator=(32, 64, 128),
            learning_rate=1e-3,
            warmup_steps=60,
            constant_steps=600,
            decay_steps=1400,
        ),
    },
    # The paper's networks at half its resolution. Not measured.
    "small": {
        "field": _cube(64),
        "views": Views(pixels=64),
        "schedule": Schedule(steps=20_000, batch_size=4, evaluate_every=1000, save_every=1000),
        "population": Population(train=256, validation=12),
        "settings": Settings(**_LONG),
    },
    # The paper's networks at its resolution. Not measured.
    "paper": {
        "field": _cube(128),
        "views": Views(pixels=128),
        "schedule": Schedule(steps=20_000, batch_size=4, evaluate_every=1000, save_every=1000),
        "population": Population(train=256, validation=12),
        "settings": Settings(**_LONG, remat=True),
    },
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at `size`; None picks tiny on CPU, small on an accelerator."""
    if size is None:
        size = "tiny" if jax.default_backend() == "cpu" else "small"
    if size not in _SIZES:
        raise InputError(f"--size {size}: no such size, expected one of {', '.join(_SIZES)}")
    return Experiment(
        name="x2ct_hn",
        size=size,
        kind=VOLUMES,
        build=build,
        load=scenes.load,
        rivals=volume_rivals(),
        **_SIZES[size],
    )
