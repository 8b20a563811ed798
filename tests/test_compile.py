"""XLA computes right numbers here: jaxlib 0.10.2 does not on CPU (jax#39103), and says nothing."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.compile import jit

SHIPPED = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": True}


def test_a_vmapped_matrix_product_of_many_rows_matches_numpy():
    rows = np.zeros((32_769, 3), np.float32)
    rows[:, 0] = np.arange(32_769)
    product = jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))
    squares = jax.jit(product, compiler_options=SHIPPED)(rows)
    assert squares[-1] == 32_768.0**2  # 0.10.2 gives 1.0654e9
    np.testing.assert_allclose(squares, np.arange(32_769.0) ** 2, rtol=1e-6)


def test_a_program_that_runs_once_gives_the_same_numbers() -> None:
    x = np.linspace(-1.0, 1.0, 999, dtype=np.float32)

    def f(x: jax.Array) -> jax.Array:
        return jnp.cumsum(jnp.sin(x) @ jnp.outer(x, x))

    np.testing.assert_allclose(jit(f, once=True)(x), jit(f)(x), rtol=1e-4, atol=1e-3)


def test_what_the_users_flags_say_holds_for_programs_that_run_once() -> None:
    code = (
        "import os; os.environ['XLA_FLAGS'] = '--xla_cpu_use_fusion_emitters=true'; "
        "from jxrecon import compile; assert compile.ONCE_OPTIONS == compile.CPU_OPTIONS; "
        "assert compile.CPU_OPTIONS"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="others give back by themselves")
def test_memory_goes_back_to_the_system_after_a_long_compilation() -> None:
    code = """
import os
import jax
from jxrecon.compile import jit

def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

jit(abs)
blocks = [bytes(1000) for _ in range(100_000)]
last = bytes(1000)
del blocks
for seconds, given_back in ((0.1, False), (2.0, True)):
    before = resident()
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)
    assert (before - resident() > 80e6) == given_back, (before, resident())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
