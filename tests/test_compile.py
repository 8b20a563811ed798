"""XLA computes right numbers here: jaxlib 0.10.2 does not on CPU (jax#39103), and says nothing."""

import jax
import jax.numpy as jnp
import numpy as np

SHIPPED = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": True}


def test_a_vmapped_matrix_product_of_many_rows_matches_numpy():
    rows = np.zeros((32_769, 3), np.float32)
    rows[:, 0] = np.arange(32_769)
    product = jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))
    squares = jax.jit(product, compiler_options=SHIPPED)(rows)
    assert squares[-1] == 32_768.0**2  # 0.10.2 gives 1.0654e9
    np.testing.assert_allclose(squares, np.arange(32_769.0) ** 2, rtol=1e-6)
