"""CycleGAN between real and synthetic X-rays: real ones in the style that reconstruction was trained on.

    jxrecon style --real DIR --synthetic DIR --workdir RUN
    jxrecon reconstruct --style RUN --run ... --xray ...

    jxrecon style --run RUN --machine room --workdir STYLE      # X-rays of a run and of a simulated machine

Two folders of images that need not show the same patients, best of one body part and one view. `jxrecon
project CT --out DIR` makes synthetic ones. X2CT-GAN's authors used 1,000 real frontal chest X-rays of 320
pixels and never released the weights (reported, not verified).

Not trained yet: no size has a measured result. A step of size 64 takes 0.15 CPU seconds on two cores.
Published CycleGAN checkpoints (latest_net_G_A.pth, ...) become a run by tools/from_torch.py, and runs such
checkpoints by tools/to_torch.py. Their layers written out in PyTorch, at full size (3 channels, 9 blocks)
with random weights, gave the same images to 4e-14 in float64; no published file was at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.kinds import STYLES
from jxrecon.methods.styles.cyclegan.method import Settings, build
from jxrecon.types import InputError

_SIZES = {
    # For CPU.
    "64": (
        Schedule(steps=2000, batch_size=1, evaluate_every=500, save_every=500, best=""),
        Settings(width=16, blocks=3, constant_steps=1000, decay_steps=1000),
    ),
    # The paper's networks of either size, 200 times 1,000 images.
    "128": (
        Schedule(steps=200_000, batch_size=1, evaluate_every=5000, save_every=5000, best=""),
        Settings(blocks=6, constant_steps=100_000, decay_steps=100_000),
    ),
    "256": (
        Schedule(steps=200_000, batch_size=1, evaluate_every=5000, save_every=5000, best=""),
        Settings(blocks=9, constant_steps=100_000, decay_steps=100_000),
    ),
}


def _load(experiment: Experiment, folder: Path | None, cache: Path | None) -> Any:
    raise InputError(
        "cyclegan_xray learns from two folders of images, not from CT: see jxrecon style --help"
    )


def get_config(size: str | None = None) -> Experiment:
    """The experiment at `size` pixels; None picks 64 on CPU, 256 on an accelerator."""
    if size is None:
        size = "64" if jax.default_backend() == "cpu" else "256"
    if size not in _SIZES:
        raise InputError(f"--size {size}: no such size, expected one of {', '.join(_SIZES)}")
    schedule, settings = _SIZES[size]
    return Experiment(
        name="cyclegan_xray",
        size=size,
        field=Field((int(size), int(size), 1), (1.0, 1.0, 1.0)),
        views=Views(pixels=int(size), count=1),
        schedule=schedule,
        settings=settings,
        kind=STYLES,
        build=build,
        load=_load,
    )
