"""The table of any Linen network, read off its layers: which names and layouts they have in PyTorch.

| ours | PyTorch's |
|---|---|
| kernel [*k, i, o] | weight [o, i, *k]; [i, o, *k] of a layer with `up`, which is transposed |
| kernel, self_kernel [i, o] | weight, self_weight [o, i] |
| scale of a norm | weight |
| mean, var of a BatchNorm | running_mean, running_var |
| const [*k, c] | const [c, *k] |
| any other | as it is |

A module `name_3` is `name.3` there, as in a ModuleList; `BatchNorm_3`, which Linen numbers, `batch_norm.3`;
names that PyTorch's own modules have, as `double`, get an underscore: `double_`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from jxrecon.interop.weights import Parameter, Rule, Table

_NAMES = {
    "kernel": "weight",
    "self_kernel": "self_weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}

_TAKEN = "double|graph|code"
"""A method of every PyTorch module, and two of those that ONNX is made of."""


def table_of(
    network: nn.Module,
    inputs: Sequence[Any],
    places: Mapping[str, tuple[str, ...]],
    prefix: str = "",
    **arguments: Any,
) -> Table:
    """The table of a network's variables.

    Args:
        network: any whose parameters bear the names above.
        inputs: what it is called with: arrays, or their `jax.ShapeDtypeStruct`.
        places: collection, as "params" -> where it lies in the tree that the table is of.
        prefix: of the names in PyTorch, as "ema.".
        arguments: more of the call, static.
    """
    transposed: set[tuple[str, ...]] = set()

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if getattr(context.module, "up", False):
            transposed.add(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(
            lambda *x: network.init(jax.random.key(0), *x, **arguments), *inputs
        )
    rows = []
    for collection, place in places.items():
        for path, leaf in flatten_dict(shapes.get(collection, {})).items():
            rule = _rule(path[-1], leaf.ndim, path[:-1] in transposed)
            rows.append(Parameter(prefix + _torch_name(path), (*place, *path), rule))
    return tuple(rows)


def _rule(name: str, ndim: int, transposed: bool) -> Rule:
    if name == "const":
        return "map"
    if not name.endswith("kernel"):
        return "vector"
    if ndim == 2:
        return "linear"
    return "conv_transpose" if transposed else "conv"


def _torch_name(path: Sequence[str]) -> str:
    modules = [re.sub(rf"^({_TAKEN})(?=_|$)", r"\1_", name) for name in path[:-1]]
    modules = [re.sub(r"_(\d+)$", r".\1", name) for name in modules]
    modules = [re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in modules]
    return ".".join([*modules, _NAMES.get(path[-1], path[-1])])
