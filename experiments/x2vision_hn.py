"""X2Vision on head-and-neck CT: a 3-D StyleGAN2 prior, then volumes from two X-rays.

    jxrecon train --exp x2vision_hn                        # built-in SYNTHETIC population
    jxrecon train --exp x2vision_hn --data DIR             # real CT, NIfTI

Field: 224 x 240 x 202 mm about the jaw (x left-right, y back-front, z foot-head). Views: frontal and
lateral cone beam, source-axis 1000 mm, source-detector 1500 mm, a detector of 384 x 384 mm.

Size small, SYNTHETIC subjects (128 and 8), X-rays of the whole body, 20,000 photons, seed 0, 160 steps:
X2Vision 31.23 dB / 78.2 HU (whole-volume PSNR in [-1024, 2000] HU / MAE in the body mask) beside linear
prior 32.12 / 70.8. Its linear part gives nearly all of that: 31.5 dB after 40 steps. With the paper's
mapping network and a table of codes (settings.prior.codes=table, architecture=orig, 960 steps) 26.21 /
159.3.

Size full, OpenKBP (72 patients learnt from, 4 for the deviations' factor), whole patients, 20,000 photons,
100 steps of 2, 17 minutes beside other work: X2Vision 26.46 dB / 133.4 HU with codes that vary over 45 mm
(25.18 / 154.7 alike everywhere, and with a share of the X-rays found less well), linear prior 24.93 / 156.4
(n = 17). These weights ship: jxrecon/weights/x2vision_hn.md.

Measured with codes=table on noise-free X-rays of the field alone (an inverse crime; today --set
xrays.of=field), seed 0, two CPU cores:

- Size small, OpenKBP, 76 training and 17 validation patients, schedule.steps=3200,
  settings.prior.warm_start_steps=2500, settings.latent.iterations=200, 41 minutes: X2Vision 28.13 dB /
  118.2 HU beside linear prior 28.22 / 109.7, nearest volume 24.17 / 160.3, mean volume 23.50 / 159.8.
- Size cube, OpenKBP, settings of this file, 80 minutes beside other work: from 1, 2, 4, 8 views X2Vision
  24.88 / 170.5, 26.88 / 134.7, 27.67 / 123.5, 27.92 / 120.1 beside linear prior 25.74 / 142.3, 26.82 / 127.8,
  27.14 / 123.1, 27.18 / 122.6. All methods side by side: experiments/README.md.

Sizes coarse, finer and full are for real patients' whole X-rays; a run of one can begin from a coarser one:

    jxrecon train --exp x2vision_hn --size coarse --data DIR --workdir A
    jxrecon train --exp x2vision_hn --size full --grow A --data DIR --workdir B

Their codes are places along 32 principal axes of the training volumes, with a linear part under the
generator (`codes`). Codes by an encoder network failed three times at size coarse (300 to 400 steps, held-
out patients 22.3 dB at best, no more than the mean volume): whitened, G learnt slower than the mean; as
they were, they collapsed. Codes along the axes, 128 of them, without the linear part: voxel loss 0.16 at
step 90, where the linear part starts at 0.006. After it 330 steps of coarse raised what held-out X-rays give
from 26.15 (step 100) to 26.28 dB (step 300), what held-out codes give not at all (27.86 to 27.87): 72
patients tell little beyond their axes. No adversarial step at these sizes: adversarial=none; 425 of them at
size finer cost 0.1 dB (README.md).

The warm start (auto-decoder) does most of it: quick validation PSNR on OpenKBP was 27.28 dB at its end and
27.44 dB after the adversarial game. Three times the learning rate did not learn faster over 200 steps.
Sizes medium and paper were never trained. The paper's own number (about 25.8 dB at two views, 3,000
patients) is reported elsewhere and unverified.
"""

from __future__ import annotations

from typing import Any

import jax

from jxrecon.data import scenes
from jxrecon.experiment import Experiment, Field, Population, Schedule, Variety, Views, Xrays
from jxrecon.kinds import VOLUMES
from jxrecon.methods.volumes.x2vision.latent import LatentSettings
from jxrecon.methods.volumes.x2vision.method import Settings, build
from jxrecon.methods.volumes.x2vision.prior import PriorSettings
from jxrecon.rivals import volume_rivals
from jxrecon.types import InputError

_EXTENT_MM = (224.0, 240.0, 201.6)


def _field(*shape: int) -> Field:
    return Field(shape, tuple(e / n for e, n in zip(_EXTENT_MM, shape)))


_FROM_COARSE = {
    levels: LatentSettings(
        iterations=last,
        starts=1,
        anchor=1.0,
        coarse_iterations=coarse,
        samples=8,
        local_mm=45.0,
        lambda_u=0.1,
    )
    for levels, coarse, last in ((3, (0,), 100), (4, (80,), 30), (5, (80, 20), 10))
}
"""Levels of a grown size -> its inversion: most steps on the coarse grid, where they cost little."""


def _grown(levels: int, schedule: Schedule) -> dict[str, Any]:
    """One of the sizes that grow out of each other: moved and warped patients, codes along principal axes."""
    factor = 2 ** (levels - 3)
    x, y, z = (factor * n for n in (20, 24, 28))
    prior = PriorSettings(
        channels=(64, 48, 24, 16, 8)[:levels],
        architecture="skip",
        fade_in=levels > 3,
        codes="principal",
        adversarial="none",
        w_dim=32,
        warm_start_steps=schedule.steps,
        code_learning_rate=0.002,
        code_noise=0.05,
        ema_kimg=0.5,
        path_length_weight=0.0,
    )
    return {
        "field": _field(x, y, z),
        "views": Views(pixels=32 * factor),
        "schedule": schedule,
        "xrays": Xrays(photons=(1e4, 1e5), noisy=0.5, variety=Variety(amount=1.0)),
        "population": Population(train=128, validation=8),
        "settings": Settings(prior, _FROM_COARSE[levels], eval_iterations=80 // 4 ** (levels - 2)),
    }


_SIZES: dict[str, dict[str, Any]] = {
    # Minutes on two CPU cores.
    "small": {
        "field": _field(20, 24, 28),
        "views": Views(pixels=32),
        "schedule": Schedule(
            steps=160, batch_size=8, evaluate_every=40, evaluate_cases=4, save_every=40
        ),
        "population": Population(train=128, validation=8),
        "settings": Settings(
            PriorSettings(
                channels=(64, 32, 16),
                architecture="skip",
                codes="principal",
                w_dim=64,
                warm_start_steps=140,
                ema_kimg=1.0,
                path_length_weight=0.0,
            ),
            LatentSettings(iterations=150, starts=1, samples=8),
            eval_iterations=40,
        ),
    },
    # On X2CT's tiny grid, so that the two compare.
    "cube": {
        "field": _field(32, 32, 32),
        "views": Views(pixels=32),
        "schedule": Schedule(
            steps=3200, batch_size=8, evaluate_every=400, evaluate_cases=4, save_every=400
        ),
        "population": Population(train=128, validation=8),
        "settings": Settings(
            PriorSettings(
                base=(4, 4, 4),
                channels=(64, 64, 32, 16),
                w_dim=64,
                warm_start_steps=2900,
                ema_kimg=1.0,
                path_length_weight=0.0,
            ),
            LatentSettings(iterations=200, starts=1),
            eval_iterations=40,
        ),
    },
    # Half the full grid, for CPU: hours.
    "half": {
        "field": _field(40, 48, 56),
        "views": Views(pixels=64),
        "schedule": Schedule(
            steps=2400, batch_size=4, evaluate_every=400, evaluate_cases=4, save_every=200
        ),
        "population": Population(train=128, validation=8),
        "settings": Settings(
            PriorSettings(
                channels=(96, 64, 32, 16),
                w_dim=96,
                warm_start_steps=2200,
                ema_kimg=1.0,
                path_length_weight=0.0,
            ),
            LatentSettings(iterations=200, starts=1),
            eval_iterations=40,
        ),
    },
    # Real patients, from coarse to fine: each alone, or grown from a coarser one by --grow.
    "coarse": _grown(3, Schedule(1500, 4, evaluate_every=500, evaluate_cases=4, save_every=100)),
    "finer": _grown(4, Schedule(400, 4, evaluate_every=100, evaluate_cases=4, save_every=50)),
    "full": _grown(5, Schedule(100, 2, evaluate_every=50, evaluate_cases=2, save_every=10)),
    # The practical one for one GPU: full resolution, tapered channels. No result was measured yet.
    "medium": {
        "field": _field(80, 96, 112),
        "views": Views(pixels=128),
        "schedule": Schedule(steps=20_000, batch_size=4, evaluate_every=1000, save_every=1000),
        "population": Population(train=256, validation=12),
        "settings": Settings(
            PriorSettings(
                channels=(96, 96, 64, 32, 16), w_dim=96, warm_start_steps=8000, r1_gamma=1.0
            ),
            LatentSettings(),
        ),
    },
    # The reference's: 96 channels at every level, 10 style vectors, 2.43 M parameters. Not measured.
    "paper": {
        "field": _field(80, 96, 112),
        "views": Views(pixels=128),
        "schedule": Schedule(steps=200_000, batch_size=2, evaluate_every=5000, save_every=2500),
        "population": Population(train=256, validation=12),
        "settings": Settings(
            PriorSettings(channels=(96,) * 5, w_dim=96, remat=True), LatentSettings()
        ),
    },
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at `size`; None picks small on CPU, medium on an accelerator."""
    if size is None:
        size = "small" if jax.default_backend() == "cpu" else "medium"
    if size not in _SIZES:
        raise InputError(f"--size {size}: no such size, expected one of {', '.join(_SIZES)}")
    return Experiment(
        name="x2vision_hn",
        size=size,
        kind=VOLUMES,
        build=build,
        load=scenes.load,
        rivals=volume_rivals(),
        **_SIZES[size],
    )
