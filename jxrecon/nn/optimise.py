"""Steps down a gradient with optax, and the learning rates of adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jxrecon.types import PyTree


def descend(
    optimiser: optax.GradientTransformation, gradient: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """Parameters and optimiser state after one update."""
    # Nothing changes before all gradients are there: XLA would copy what is changed, as it cannot tell that
    # nobody reads the old numbers later.
    gradient, state, params = jax.lax.optimization_barrier((gradient, state, params))
    # optax raises floats to integer step counts, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state


def improve(
    optimiser: optax.GradientTransformation,
    objective: Callable[[PyTree], tuple[Float[Array, ""], Any]],
    params: PyTree,
    state: PyTree,
) -> tuple[PyTree, PyTree, Any]:
    """Parameters and optimiser state after one update, and what the objective gave beside its value."""
    gradient, rest = jax.grad(objective, has_aux=True)(params)
    return *descend(optimiser, gradient, state, params), rest


def falling_rate(settings: Any, step: Int[Array, ""], warmup_steps: int = 0) -> Float[Array, ""]:
    """A rate that rises from 0, is constant, then falls on a line to 0.

    Args:
        settings: its `learning_rate` is the constant rate, `constant_steps` the number of steps until it
            falls, those of the rise included, `decay_steps` that of the fall; 0: it stays.
        step: counted from 0.
        warmup_steps: number of steps of the rise.
    """
    time = step.astype(jnp.float32)
    rate = jnp.asarray(settings.learning_rate, jnp.float32)
    if warmup_steps:
        rate *= jnp.minimum(1.0, (time + 1.0) / warmup_steps)
    if settings.decay_steps:
        rate *= 1.0 - jnp.clip((time - settings.constant_steps) / settings.decay_steps, 0.0, 1.0)
    return rate
