"""How programs are compiled: XLA's options for the device at hand, and a check that they compile right."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.types import InputError

_ROWS = 32_769  # the length at which jaxlib 0.10.2 goes wrong, in the last row alone

_LEVEL = "xla_backend_optimization_level"
_OPTIONS = {_LEVEL: 1, "xla_disable_hlo_passes": "cse_barrier_expander"}
CPU_OPTIONS = {} if _LEVEL in os.environ.get("XLA_FLAGS", "") else _OPTIONS
"""On CPU a level that halves compile time, minutes for a GAN's step, and costs no measurable speed.

And without the pass that takes `lax.optimization_barrier` out before XLA fuses: with it `jax.checkpoint`,
which is made of these, saves no memory on CPU. What the user's XLA_FLAGS say holds."""


def jit(function: Callable, **arguments: Any) -> Any:
    """`jax.jit` with the options of this device; arguments as there."""
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options, **arguments)


def check_compiler() -> None:
    """Compiles a small batched product whose result is known; takes a fifth of a second.

    The product is that of jax#39103: `vmap(r -> sum((eye(3) @ r)^2))` over the rows (i, 0, 0). The
    last one is 2^30, exact in every float format, so also where matrices are multiplied in bf16.

    Raises:
        InputError: the number is wrong, so every number of this installation is in doubt.
    """
    rows = np.zeros((_ROWS, 3), np.float32)
    rows[:, 0] = np.arange(_ROWS)
    found = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)[-1]
    if found != 2.0**30:
        raise InputError(
            f"jaxlib {version('jaxlib')} computes {found:.5g} where {2.0**30:.5g} is right"
            " (jax#39103): install another version, such as jax==0.10.1"
        )
