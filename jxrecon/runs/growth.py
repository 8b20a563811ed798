"""A run that begins where another one ended: what both states hold alike is taken over.

A generator grows so from a coarse grid to a fine one: its old levels are kept, the new one starts afresh.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from jxrecon.types import PyTree


def grown(fresh: PyTree, old: PyTree) -> PyTree:
    """`fresh` with every number of the same name, shape and dtype from `old`; counts begin anew.

    Counts are the whole numbers: steps done, by the method and by its optimisers. An optimiser that counts
    from 0 above the old running squares takes small steps at first, full ones where weights are fresh.

    Args:
        fresh: what a method's `init` gives.
        old: the state of a method with other sizes.
    """
    known = _named(old)
    leaves, structure = tree_flatten_with_path(fresh)
    taken = [
        known[keystr(path)] if _fits(leaf, known.get(keystr(path))) else leaf
        for path, leaf in leaves
    ]
    return jax.tree.unflatten(structure, taken)


def shared(fresh: PyTree, old: PyTree) -> tuple[int, int]:
    """(numbers that `grown` takes over, numbers in all); `fresh` may be abstract."""
    known = _named(old)
    leaves, _ = tree_flatten_with_path(fresh)
    sizes = [(leaf.size, _fits(leaf, known.get(keystr(path)))) for path, leaf in leaves]
    return sum(size for size, fits in sizes if fits), sum(size for size, _ in sizes)


def _named(state: PyTree) -> dict[str, Any]:
    return {keystr(path): leaf for path, leaf in tree_flatten_with_path(state)[0]}


def _fits(leaf: Any, other: Any) -> bool:
    """Whether the other may stand in the leaf's place."""
    if other is None or leaf.shape != other.shape or leaf.dtype != other.dtype:
        return False
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))
