"""What a PyTorch twin of a run's networks is, and the way of tensors between both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from tensor_files import Tensors

from jxrecon.geometry import Camera, vectors
from jxrecon.interop import weights as convert
from jxrecon.interop.tensorflow import Names
from jxrecon.interop.weights import Parameter, Row, Table
from jxrecon.types import InputError, PyTree, shown


class Trial(NamedTuple):
    """One comparison of both frameworks.

    Attributes:
        part: name of the PyTorch submodule; "": the whole module.
        inputs: in PyTorch's layout, as the submodule takes them.
        ours: (state, *inputs) -> what ours gives, in PyTorch's layout.
    """

    part: str
    inputs: tuple[np.ndarray, ...]
    ours: Callable[..., Any]


class Twin(NamedTuple):
    """A run's networks as one PyTorch module.

    Attributes:
        network: name in `torch_modules`.
        arguments: what it is built with; plain numbers, lists and dicts.
        table: of the tensors that the state holds; paths are those in the state.
        constants: tensors of the module that follow from the rest.
        trials: makes the comparisons; the first is of the whole module.
        tensorflow: the tensors as the released TensorFlow code names them, where there is one.
    """

    network: str
    arguments: dict[str, Any]
    table: Table
    constants: Tensors
    trials: Callable[[], tuple[Trial, ...]]
    tensorflow: Names | None = None


def tensors_of(twin: Twin, state: PyTree, tensorflow: bool = False) -> Tensors:
    """The state dict; or the same tensors as the released TensorFlow code has them.

    Raises:
        InputError: the state lacks a parameter.
    """
    leaves = leaves_of(state)
    paths = {row.path for row in twin.table if isinstance(row, Parameter)}
    held = {path: np.asarray(leaf) for path, leaf in leaves.items() if path in paths}
    params = {"params": unflatten_dict(held)}
    if tensorflow and twin.tensorflow is not None:
        return {**convert.to_torch(params, twin.tensorflow.table), **twin.tensorflow.at_rest}
    return {**convert.to_torch(params, twin.table), **twin.constants}


def with_tensors(twin: Twin, state: PyTree, tensors: Tensors) -> PyTree:
    """The state with the weights of a state dict.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    if twin.tensorflow is not None and any("/" in name for name in tensors):
        table, at_rest = twin.tensorflow
        for name, array in at_rest.items():
            if not np.array_equal(tensors.get(name, array), array):
                raise InputError(f"{name} is {tensors[name]}, expected {array} as it starts")
        trained = {name: value for name, value in tensors.items() if name not in at_rest}
        return _filled(state, flatten_dict(convert.from_torch(trained, table)["params"]))
    own = {name: value for name, value in tensors.items() if name not in twin.constants}
    if missing := sorted(twin.constants.keys() - tensors.keys()):
        raise InputError(
            f"state dict: {missing[0]} is missing, expected {twin.network}'s constants"
        )
    return _filled(state, flatten_dict(convert.from_torch(own, twin.table)["params"]))


def _filled(state: PyTree, given: dict[tuple[str, ...], Any]) -> PyTree:
    def replaced(place: Any, leaf: Any) -> Any:
        value = given.get(names_of(place))
        if value is None:
            return leaf
        if (value.shape, value.dtype) != (leaf.shape, leaf.dtype):
            raise InputError(
                f"state dict: {'/'.join(names_of(place))} is {value.dtype} {shown(value.shape)}, expected "
                f"{leaf.dtype} {leaf.shape}"
            )
        return jnp.asarray(value)

    return jax.tree_util.tree_map_with_path(replaced, state)


def leaves_of(state: PyTree) -> dict[tuple[str, ...], Any]:
    return {names_of(place): leaf for place, leaf in jax.tree_util.tree_leaves_with_path(state)}


def names_of(place: Any) -> tuple[str, ...]:
    """A path of a tree as plain names."""
    return tuple(jax.tree_util.keystr((part,), simple=True) for part in place)


def first(x: Any) -> Any:
    """Channels last -> first."""
    return jnp.moveaxis(x, -1, 1)


def last(x: Any) -> Any:
    """Channels first -> last."""
    return jnp.moveaxis(x, 1, -1)


def normal(*shape: int) -> np.ndarray:
    """Made-up numbers, always the same."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def below(table: Table, prefix: str, place: tuple[str, ...]) -> Iterable[Row]:
    """A table of one network -> its rows in a table of many."""
    for row in table:
        if isinstance(row, Parameter):
            yield row._replace(torch=prefix + row.torch, path=(*place, *row.path))
        else:
            yield row._replace(torch=prefix + row.torch, weight=prefix + row.weight)


def camera_buffers(camera: Camera, prefix: str) -> Tensors:
    """The tensors of `torch_modules.projection.Camera`."""
    named = zip(("source", "centre", "u", "v"), vectors(camera))
    return {f"{prefix}{name}": vector.astype(np.float32) for name, vector in named}


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
