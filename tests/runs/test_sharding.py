"""Where arrays lie; the test process has one device, so meshes of several are abstract or subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jxrecon.runs import sharding
from jxrecon.types import InputError, VolumeBatch

EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jxrecon.devices import cases_over, each_case
from jxrecon.runs import sharding
from jxrecon.types import InputError, VolumeBatch

mesh = sharding.make_mesh(model=2)
assert dict(mesh.shape) == {"data": 4, "model": 2}

tall = jax.ShapeDtypeStruct((512, 64), jnp.float32)
odd = jax.ShapeDtypeStruct((513, 64), jnp.float32)
prime = jax.ShapeDtypeStruct((257, 129), jnp.float32)
small = jax.ShapeDtypeStruct((64, 64), jnp.float32)
found = [s.spec for s in sharding.state_shardings([tall, odd, prime, small], mesh)]
P = jax.sharding.PartitionSpec
assert found == [P("model"), P(None, "model"), P(), P()], found

numbers = np.arange(512 * 64, dtype=np.float32).reshape(512, 64)
split = jax.device_put(numbers, sharding.state_shardings(tall, mesh))
assert split.addressable_shards[0].data.shape == (256, 64)
assert (sharding.to_host(split) == numbers).all()

batch = VolumeBatch(np.zeros((8, 2, 2, 2), np.float32), np.arange(8, dtype=np.int32))
placed = sharding.place(batch, sharding.batch_sharding(mesh, 8))
assert placed.hu.addressable_shards[0].data.shape == (2, 2, 2, 2)
assert (np.asarray(placed.index) == np.arange(8)).all()
try:
    sharding.batch_sharding(mesh, 6)
except InputError as error:
    assert "schedule.batch_size=6: expected a multiple of 4" in str(error), error
    assert "schedule.batch_size=8" in str(error), error
else:
    raise AssertionError("6 volumes were shared out over 4 devices")
whole = sharding.place(VolumeBatch(batch.hu[:6], batch.index[:6]), sharding.replicated(mesh))
assert whole.hu.addressable_shards[0].data.shape == (6, 2, 2, 2)
try:
    sharding.make_mesh(model=3)
except InputError as error:
    assert "--model-axis 3: expected a divisor of the 8 devices" in str(error), error
else:
    raise AssertionError("8 devices were split in threes")

def step(matrix, vectors):
    with cases_over(mesh):
        return each_case(lambda matrix, vector: jnp.tanh(matrix @ vector), matrix, vectors)

spread = sharding.batch_sharding(mesh, 8)
matrix, vectors = numbers[:4, :4] / 100, numbers[:8, :4] / 1000
arguments = sharding.place(matrix, sharding.replicated(mesh)), sharding.place(vectors, spread)
compiled = jax.jit(step, out_shardings=spread).lower(*arguments).compile()
assert "all-gather" not in compiled.as_text()
assert np.allclose(compiled(*arguments), np.tanh(vectors @ matrix.T), atol=1e-6)
print("all right")
"""


def test_eight_devices_share_state_and_batch_and_work_on_cases_of_their_own() -> None:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-c", EIGHT_DEVICES]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "all right\n", ended.stderr


def test_without_a_model_axis_everything_is_copied() -> None:
    leaf = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    layout = sharding.state_shardings({"kernel": leaf}, sharding.make_mesh())
    assert layout["kernel"].spec == PartitionSpec()


@pytest.mark.parametrize("model", [0, -1, 1000])
def test_wrong_number_of_model_devices_is_refused(model: int) -> None:
    with pytest.raises(InputError, match=f"--model-axis {model}: expected a divisor"):
        sharding.make_mesh(model)


def test_batch_keeps_its_values() -> None:
    hu = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    batch = VolumeBatch(hu, np.arange(3, dtype=np.int32))
    placed = sharding.place(batch, sharding.batch_sharding(sharding.make_mesh(), 3))
    assert isinstance(placed, VolumeBatch)
    np.testing.assert_array_equal(placed.hu, hu)


def test_random_keys_come_to_the_host_as_numbers() -> None:
    key = jax.random.key(3)
    np.testing.assert_array_equal(sharding.to_host(key), jax.random.key_data(key))
