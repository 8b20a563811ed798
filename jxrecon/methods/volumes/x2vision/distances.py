"""[X2Vision L_p] The distance of X-rays that is minimised: LPIPS as in the paper, or one without weights.

LPIPS's weights are read when a function is traced and become constants of what is compiled: they belong
to no state and no checkpoint, and a run that never needs them opens without. What that costs with VGG16,
measured on 2 busy CPU cores: 2 s of tracing and 300 MB of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, Float

from jxrecon.metrics.lpips import load
from jxrecon.metrics.lpips_weights import Net
from jxrecon.metrics.perceptual import gradient_ssim_distance
from jxrecon.metrics.slices import image_lpips
from jxrecon.types import InputError

Distance = Callable[
    [Float[Array, "b rows columns"], Float[Array, "b rows columns"]], Float[Array, " b"]
]
"""(image, target) -> one number an image."""


def _lpips(net: Net) -> Distance:
    # Behind the barrier XLA does not compute with the constants while it compiles: 4 s less of 19.
    return partial(image_lpips, jax.lax.optimization_barrier(load(net)))


DISTANCES: dict[str, Callable[[], Distance]] = {
    "gradient_ssim": lambda: gradient_ssim_distance,
    "lpips_vgg": partial(_lpips, "vgg"),
    "lpips_alex": partial(_lpips, "alex"),
}
"""Value of `distance` in the settings -> (() -> the distance)."""


def check(name: str, field: str) -> None:
    """Checks that there is such a distance; its weights need not be installed.

    Raises:
        InputError: there is none of this name; the line names the settings' field.
    """
    if name not in DISTANCES:
        raise InputError(f"{field}={name}: expected one of {', '.join(DISTANCES)}")


def named(name: str) -> Distance:
    """The distance of this name, its weights read.

    Raises:
        InputError: LPIPS's weights are not installed; the line says how to.
    """
    return DISTANCES[name]()
