"""Where arrays lie: a mesh of devices with the axes (data, model), one process or many."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jxrecon.types import InputError, PyTree

_HEARTBEAT_SECONDS = 20  # without a sign of life from a process
_LONGEST_EVALUATION = 86_400  # seconds that the others wait for the first process, which evaluates

_SMALLEST_SPLIT = 2**14  # elements; below it a gather costs more than the memory it saves


def make_mesh(model: int = 1) -> Mesh:
    """All devices as a mesh [data, model].

    Args:
        model: devices that share one copy of the state; 1 keeps a copy on every device.

    Raises:
        InputError: `model` does not divide the number of devices.
    """
    devices = jax.device_count()
    if model < 1 or devices % model:
        raise InputError(f"--model-axis {model}: expected a divisor of the {devices} devices found")
    # Auto: with the default Explicit axes a convolution by a sharded kernel raises.
    shape = (devices // model, model)
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def state_shardings(abstract: PyTree, mesh: Mesh) -> PyTree:
    """How a state is laid out: big leaves split over "model", all else copied to every device.

    A leaf is split along its longest axis that the mesh's model axis divides; without such an axis, or
    with fewer than 2^14 elements, it is copied.

    Args:
        abstract: the state as `jax.eval_shape` gives it.
        mesh: of `make_mesh`.
    """
    count = mesh.shape["model"]

    def layout(leaf: Any) -> NamedSharding:
        axes = [i for i, n in enumerate(leaf.shape) if n % count == 0]
        if count == 1 or leaf.size < _SMALLEST_SPLIT or not axes:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "model"))

    return jax.tree.map(layout, abstract)


def with_shardings(abstract: PyTree, shardings: PyTree) -> PyTree:
    """Shapes and dtypes of `jax.eval_shape` with the place where each array is to lie."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def batch_sharding(mesh: Mesh, size: int) -> NamedSharding:
    """The leading axis of every array of a batch, `size` long, over "data".

    Raises:
        InputError: the devices cannot share the batch evenly.
    """
    parts = mesh.shape["data"]
    if size % parts:
        raise InputError(
            f"schedule.batch_size={size}: expected a multiple of {parts}, the devices that share a"
            f" batch (--set schedule.batch_size={-(-size // parts) * parts})"
        )
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(batch: PyTree, sharding: NamedSharding) -> PyTree:
    """A batch of NumPy arrays on the devices; every process hands in the same, whole batch."""
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array, array.shape), batch
    )


def to_host(leaf: Any) -> np.ndarray:
    """The whole of an array in host memory, however it is spread; keys as their raw numbers.

    With several processes, all of them have to call it, in the same order.
    """
    if isinstance(leaf, jax.Array):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def to_process(leaf: jax.Array) -> np.ndarray | jax.Array:
    """An array of several processes as one of this process alone; keys stay keys.

    All processes have to call it, in the same order.
    """
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(to_host(leaf)), impl=jax.random.key_impl(leaf))
    return to_host(leaf)


def lost(error: object) -> NoReturn:
    """Ends this process in a line: another one of the training is gone, and nothing can go on without it."""
    with suppress(OSError):
        os.write(2, f"{_LOST} ({' '.join(str(error).split())[:200]})\n".encode())
    os._exit(1)


_LOST = "error: another process of this training was lost: start all of them again to go on"

_FILTER = r"""
import os, re, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
rest, told, fatal = b"", False, False
while part := os.read(0, 65536):
    *lines, rest = (rest + part).splitlines(keepends=True) or [b""]
    if not re.match(rb"F[0-9]", rest):
        lines, rest = [*lines, rest], b""
    for line in lines:
        fatal = fatal or re.match(rb"F[0-9]{4} ", line) is not None
        told = told or line.startswith(b"error: another process")
        if not fatal:
            os.write(2, line)
if (fatal or rest) and not told:
    os.write(2, sys.argv[1].encode() + b"\n")
"""
"""Hands stderr on, up to what C++ says when it ends the process."""


def _without_stacks() -> None:
    """Where the first process is gone, C++ ends the others with a stack: one line in its place.

    No handler hears of it, so what this process writes to stderr passes another one, which ends with it.
    """
    reader, writer = os.pipe()
    subprocess.Popen([sys.executable, "-c", _FILTER, _LOST], stdin=reader, start_new_session=True)
    os.dup2(writer, 2)
    os.close(reader)
    os.close(writer)


def join_processes() -> None:
    """Joins the other processes of a training; before JAX computes anything.

    The cluster tells of them, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do.

    Raises:
        InputError: nothing tells of them, or they cannot be reached.
    """
    try:
        count, number = (
            int(os.environ[name]) if name in os.environ else None
            for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        )
        _without_stacks()
        jax.distributed.initialize(
            num_processes=count,
            process_id=number,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_LONGEST_EVALUATION,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--distributed: {error}; expected a cluster that jax.distributed knows, or"
            " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
