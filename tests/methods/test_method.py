"""What all methods share: how often a compiled loop tells of its progress."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.methods.base.method import tell


@pytest.mark.parametrize("iterations", [7, 100, 110])
def test_a_loop_tells_of_its_progress_from_start_to_end_some_twenty_times(iterations):
    heard = []

    def hear(iteration, objective):
        assert objective == 2 * iteration
        heard.append(int(iteration))

    def step(_, n):
        return tell(hear, n, 2 * n, iterations), None

    jax.block_until_ready(jax.jit(lambda: jax.lax.scan(step, None, jnp.arange(iterations)))())
    jax.effects_barrier()
    assert min(iterations, 20) <= len(heard) <= 2 * 20
    gaps = np.diff(sorted(heard), prepend=0, append=iterations)
    assert gaps.max() <= max(1, iterations / 20)


def test_nobody_is_told_where_nobody_listens():
    assert "callback" not in str(jax.make_jaxpr(lambda n: tell(None, n, 2 * n, 10))(3))
