"""Steps down a gradient change the weights where they are."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from jxrecon.nn.optimise import descend


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a copy is what XLA makes on CPU")
def test_a_step_copies_neither_weights_nor_the_means_of_adam():
    adam = optax.adam(1e-3)
    params = {name: jnp.eye(96) for name in "abc"}

    def step(params, state, x):
        def loss(params):
            y = x
            for w in params.values():
                y = jnp.tanh(y @ w)
            return jnp.sum(y)

        return descend(adam, jax.grad(loss)(params), state, params)

    shipped = {"xla_disable_hlo_passes": "cse_barrier_expander"}
    step = jax.jit(step, donate_argnums=(0, 1), compiler_options=shipped)
    compiled = step.lower(params, adam.init(params), jnp.ones((4, 96))).compile()
    assert not re.findall(r"= f32\[96,96\]\S* copy\(", compiled.as_text())
