"""One step down a gradient with optax."""

from __future__ import annotations

import jax
import optax

from jxrecon.types import PyTree


def descend(
    optimiser: optax.GradientTransformation, gradient: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """Parameters and optimiser state after one update."""
    # optax raises floats to integer step counts, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state
