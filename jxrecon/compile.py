"""How programs are compiled: XLA's options for the device at hand, and a check that they compile right."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
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

_EMITTERS = "xla_cpu_use_fusion_emitters"  # a flag that jaxlib 0.11 no longer has everywhere
_CHOOSES = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
_FREE = _CHOOSES and _EMITTERS not in os.environ.get("XLA_FLAGS", "")
ONCE_OPTIONS = {**CPU_OPTIONS, _EMITTERS: False} if _FREE else CPU_OPTIONS
"""For programs that run once on CPU: XLA's former emitters write slower loops, in less time."""

_LONG = 1.0
"""Seconds of compiling from which on its memory is worth giving back."""


def jit(function: Callable, once: bool = False, **arguments: Any) -> Any:
    """`jax.jit` with the options of this device; other arguments as there.

    Args:
        function: to be compiled.
        once: whether it runs once or a few times. On a CPU it is then compiled in about two thirds of the
            time, and its loops over numbers take up to four times theirs; convolutions and products do not.
    """
    _give_back_memory()
    on_cpu = ONCE_OPTIONS if once else CPU_OPTIONS
    options = on_cpu if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options, **arguments)


@cache
def _give_back_memory() -> None:
    """From now on what compiling freed goes back to the system, not into the reserve of glibc's `malloc`.

    After X2CT-GAN's step that is 2.7 GB, and XLA takes a program's buffers from elsewhere. Nothing is done
    on other systems, whose `malloc` gives back by itself.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def compiled(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("/backend_compile_duration") and duration_secs > _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)


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
