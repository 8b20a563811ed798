"""Single-image tomography (Henzler et al. 2018) on head-and-neck CT: a volume from the frontal X-ray alone.

    python -m jxrecon.train --exp henzler                        # built-in SYNTHETIC population
    python -m jxrecon.train --exp henzler --data DIR             # real CT, NIfTI

Data, field of view and frontal camera are those of x2vision_hn, on as many voxels along every side: 32, 64
or 128. One frontal view, of as many pixels as the volume has voxels along an edge. The paper's numbers are
of mammals' skulls in other units: nothing here compares with them.

Not trained here: no size has a measured result yet.
"""

from __future__ import annotations

import jax

from jxrecon.config import Experiment, Field, Population, Schedule, Views
from jxrecon.data import volumes
from jxrecon.methods.cgls import cgls
from jxrecon.methods.fdk import fdk
from jxrecon.methods.henzler import Settings, build
from jxrecon.methods.linear_prior import linear_prior
from jxrecon.methods.mean_volume import mean_volume
from jxrecon.methods.nearest import nearest
from jxrecon.methods.sirt import sirt
from jxrecon.methods.tv import tv
from jxrecon.types import InputError

_EXTENT_MM = (224.0, 240.0, 201.6)


def _cube(edge: int) -> Field:
    return Field((edge,) * 3, tuple(extent / edge for extent in _EXTENT_MM))


_SIZES = {
    # Few channels, a higher rate: for CPU.
    "tiny": {
        "field": _cube(32),
        "views": Views(pixels=32, count=1),
        "schedule": Schedule(
            steps=600, batch_size=4, evaluate_every=150, evaluate_cases=4, save_every=150
        ),
        "population": Population(train=128, validation=8),
        "settings": Settings(channels=(16, 32, 64, 128), learning_rate=1e-3),
    },
    "small": {
        "field": _cube(64),
        "views": Views(pixels=64, count=1),
        "schedule": Schedule(steps=20_000, batch_size=4, evaluate_every=1000, save_every=1000),
        "population": Population(train=256, validation=12),
        "settings": Settings(channels=(32, 64, 128, 256)),
    },
    "paper": {
        "field": _cube(128),
        "views": Views(pixels=128, count=1),
        "schedule": Schedule(steps=20_000, batch_size=4, evaluate_every=1000, save_every=1000),
        "population": Population(train=256, validation=12),
        "settings": Settings(),
    },
}


def get_config(size: str | None = None) -> Experiment:
    """The experiment at `size`; None picks tiny on CPU, small on an accelerator."""
    if size is None:
        size = "tiny" if jax.default_backend() == "cpu" else "small"
    if size not in _SIZES:
        raise InputError(f"--size {size}: no such size, expected one of {', '.join(_SIZES)}")
    return Experiment(
        name="henzler",
        size=size,
        build=build,
        load=volumes.load,
        baselines={
            "mean volume": mean_volume,
            "nearest volume": nearest,
            "linear prior": linear_prior,
        },
        optional={"fdk": fdk, "sirt": sirt, "cgls": cgls, "tv": tv},
        **_SIZES[size],
    )
