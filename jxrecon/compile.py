"""How programs are compiled: XLA's options for the device at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

CPU_OPTIONS = {"xla_backend_optimization_level": 1}
"""Halves XLA:CPU's compile time, which is minutes for a GAN's step, and costs no measurable speed."""


def jit(function: Callable, **arguments: Any) -> Any:
    """`jax.jit` with the options of this device; arguments as there."""
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options, **arguments)
