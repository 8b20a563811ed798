"""A net for LPIPS that needs no published weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.metrics.lpips import Lpips


@pytest.fixture(scope="session")
def net():
    """AlexNet's plan with few channels."""
    draw = np.random.default_rng(0)
    widths = (3, 4, 5, 6, 4, 5)
    sides = (11, 5, 3, 3, 3)
    groups = (
        [draw.normal(size=(k, k, i, o)) / k for k, i, o in zip(sides, widths, widths[1:])],
        [draw.uniform(size=o) / 10 for o in widths[1:]],
        [draw.uniform(size=o) for o in widths[1:]],
    )
    return Lpips(*(tuple(jnp.asarray(x, jnp.float32) for x in g) for g in groups), "alex")
