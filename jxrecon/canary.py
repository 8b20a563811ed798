"""A check that this jaxlib compiles right: 0.10.2 computes wrong numbers on CPU without a word."""

from __future__ import annotations

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.types import InputError

_ROWS = 32_769  # the length at which jaxlib 0.10.2 goes wrong, in the last row alone


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
