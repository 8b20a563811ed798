"""A toy field of view and X2Vision's smallest prior, for its tests."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jxrecon.experiment import Field, Views
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.x2vision.prior import PriorSettings

FIELD = Field((4, 6, 4), (50.0, 40.0, 50.0))
SETTINGS = PriorSettings(
    base=(2, 3, 2),
    channels=(8, 6),
    w_dim=6,
    mapping_layers=2,
    dtype="float32",
    warm_start_steps=2,
    path_length_weight=0.0,
)


def problem(pixels: int) -> Problem:
    """Four cases, two X-rays of so many pixels along each side."""
    return Problem(FIELD.grid, Views(pixels=pixels).cameras, FIELD.window, 4)


def boxes(count: int = 4) -> Float[np.ndarray, "n x y z"]:
    """Boxes of water in air, no two alike and none its own mirror image, HU."""
    x, y, z = np.meshgrid(*[np.arange(n) for n in FIELD.shape], indexing="ij")
    hu = [np.where((x >= i % 2) & (y > i // 2) & (z < 3), 40.0 * i, -1000.0) for i in range(count)]
    return np.stack(hu).astype(np.float32)
