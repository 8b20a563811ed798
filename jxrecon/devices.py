"""Cases of a step one after the other, each on the device that has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jxrecon.types import PyTree


def cases_over(mesh: Mesh) -> AbstractContextManager[Any]:
    """Around what is traced: `each_case` then shares cases out over the mesh's axis "data"."""
    if mesh.size == 1:
        return nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def each_case(one: Callable[[Any, Any], Any], shared: PyTree, batch: PyTree) -> PyTree:
    """one(shared, case) for each case of a batch, stacked: `lax.map`, on every device over its own cases.

    Left to XLA, every device would gather the whole batch and work on all of it.

    Args:
        one: pure; it closes over no traced array.
        shared: arrays that every case needs.
        batch: arrays [b, ...].
    """
    mesh, count = jax.sharding.get_abstract_mesh(), len(jax.tree.leaves(batch)[0])
    parts = mesh.shape["data"] if "data" in mesh.axis_names else 1

    def own(shared: PyTree, batch: PyTree) -> PyTree:
        return lax.map(partial(one, shared), batch)

    if parts == 1 or count % parts:
        return own(shared, batch)
    spread = PartitionSpec("data")
    places = PartitionSpec(), spread
    return jax.shard_map(own, in_specs=places, out_specs=spread, check_vma=False)(shared, batch)
