"""Parameters of published PyTorch networks <-> ours: tables of names and the rules of layout, both ways.

A table is a tuple of `Parameter` and `Buffer` rows, made by one function a network. Everything is NumPy:
a state dict is a mapping from name to array, however it was read. Layouts differ by transposition alone,
so both ways are exact to the last bit. Adding a network means adding its table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jxrecon.types import InputError

Rule: TypeAlias = Literal["conv", "conv_transpose", "linear", "map", "swapped", "vector"]


class Parameter(NamedTuple):
    """One trained tensor.

    Attributes:
        torch: its name in the state dict.
        path: where it lies in our parameter tree.
        rule: how its axes are ordered there: "conv" [O, I, *k], "conv_transpose" [I, O, *k] (our transposed
            kernels are not flipped), "linear" [O, I], "map" [C, *k], TensorFlow's "swapped" [*k, O, I]; ours
            are [*k, I, O], [I, O] and [*k, C]; "vector" is any that is the same there.
    """

    torch: str
    path: tuple[str, ...]
    rule: Rule


class Buffer(NamedTuple):
    """The running statistics of a norm without parameters: unused, but part of the state dict.

    Attributes:
        torch: name of the norm: `.running_mean`, `.running_var`, `.num_batches_tracked` follow.
        weight: name of the convolution before or after it, which has as many channels,
        axis: along this axis of its PyTorch layout.
    """

    torch: str
    weight: str
    axis: int


Row: TypeAlias = Parameter | Buffer
Table: TypeAlias = tuple[Row, ...]
State: TypeAlias = Mapping[str, np.ndarray]

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""What PyTorch keeps for a norm, behind its name."""


_AXES: dict[Rule, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "conv": ((0, 1), (-1, -2)),
    "linear": ((0, 1), (-1, -2)),
    "conv_transpose": ((0, 1), (-2, -1)),
    "map": ((0,), (-1,)),
    "swapped": ((-2, -1), (-1, -2)),
    "vector": ((), ()),
}
"""Axes of PyTorch's tensors, and where they stand in ours."""


def to_ours(value: np.ndarray, rule: Rule) -> np.ndarray:
    """A tensor in PyTorch's layout -> ours."""
    theirs, ours = _AXES[rule]
    return np.moveaxis(value, theirs, ours)


def to_theirs(value: np.ndarray, rule: Rule) -> np.ndarray:
    """A tensor in our layout -> PyTorch's: the inverse of `to_ours`."""
    theirs, ours = _AXES[rule]
    return np.moveaxis(value, ours, theirs)


def from_torch(state: State, table: Table) -> dict[str, Any]:
    """A state dict -> our parameter tree, nested dictionaries below "params".

    Args:
        state: name -> array; the buffers of norms may be there or not, nothing else may be missing or more.

    Raises:
        InputError: a tensor is missing or unknown, named with how many more there are.
    """
    parameters = [row for row in table if isinstance(row, Parameter)]
    buffers = {f"{row.torch}.{b}" for row in table if isinstance(row, Buffer) for b in BUFFERS}
    known = {row.torch for row in parameters}
    missing = sorted(known - set(state))
    unknown = sorted(set(state) - known - buffers)
    for names, what in ((missing, "is missing"), (unknown, "is unknown")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise InputError(
                f"state dict: {names[0]} {what}{more}, expected {len(known)} tensors of the table"
            )
    ours = {row.path: to_ours(np.asarray(state[row.torch]), row.rule) for row in parameters}
    return {"params": unflatten_dict(ours)}


def to_torch(
    params: Mapping[str, Any], table: Table, buffers: State | None = None, copy: bool = True
) -> dict[str, np.ndarray]:
    """Our parameter tree -> a state dict that the published code loads strictly, in the table's order.

    Args:
        params: nested dictionaries below "params".
        buffers: name -> array of running statistics to keep, as those of the checkpoint once read; those
            that are not given are 0, 1 and 0, as PyTorch starts them. No output depends on them.
        copy: whether arrays are made contiguous, or are views of the parameters.

    Raises:
        InputError: a parameter of the table is missing, or the tree holds another number of them.
    """
    ours, state = flatten_dict(params["params"]), {}
    for row in table:
        if isinstance(row, Parameter):
            if row.path not in ours:
                raise InputError(f"parameters: {'/'.join(row.path)} is missing, expected {row}")
            value = to_theirs(np.asarray(ours[row.path]), row.rule)
            state[row.torch] = np.array(value, order="C") if copy else value
    if len(ours) != len(state):
        raise InputError(f"parameters: {len(ours)} tensors, expected the {len(state)} of the table")
    for row in table:
        if isinstance(row, Buffer):
            weight = state[row.weight]
            channels = weight.shape[row.axis]
            start = (np.zeros(channels, weight.dtype), np.ones(channels, weight.dtype), np.array(0))
            for name, value in zip(BUFFERS, start):
                key = f"{row.torch}.{name}"
                state[key] = np.asarray(value if buffers is None else buffers.get(key, value))
    return state


# X2CT-GAN (kylekma/X2CT): `{epoch}_net_G.pth`, `{epoch}_net_D.pth`.


def x2ct_generator(views: int = 2, layers: Sequence[int] = (6, 12, 24, 16, 6)) -> Table:
    """The generator: 708 tensors and 349 norms with two views, 338 and 167 with one."""
    rows: list[Row] = []
    for view in range(views):
        prefix = f"view{view + 1}Model." if views == 2 else ""
        rows += _x2ct_encoder(prefix, (f"encoder_{view}",), layers)
        path = (f"decoder_{view}",)
        for level in range(len(layers)):
            link, ours = f"{prefix}linker_layer{level}.0", (*path, f"link_{level}")
            rows += _conv(f"{link}.compress_block.0", (*ours, "reduce"), f"{link}.compress_block.1")
            rows += _conv(f"{link}.conv_block.0", (*ours, "conv"), f"{link}.conv_block.1")
        rows += _x2ct_decoder(prefix, path, len(layers), convs=2, apart=views == 2)
    if views == 2:
        rows += _x2ct_decoder("", ("fused",), len(layers), convs=1, apart=False)
    return tuple(rows)


def x2ct_discriminator(hidden: int = 4) -> Table:
    """The discriminator, for one view or two: 7 tensors and 3 norms.

    Args:
        hidden: layers but the last; published ones have 4.
    """
    rows: list[Row] = [*_conv("model.0", ("conv_0",))]
    for i in range(1, hidden):
        rows.append(Parameter(f"model.{3 * i - 1}.weight", (f"conv_{i}", "kernel"), "conv"))
        rows.append(Buffer(f"model.{3 * i}", f"model.{3 * i - 1}.weight", 0))
    return (*rows, *_conv(f"model.{3 * hidden - 1}", (f"conv_{hidden}",)))


def _conv(
    torch: str, path: tuple[str, ...], norm: str | None = None, rule: Rule = "conv"
) -> list[Row]:
    """Kernel and bias, and the norm behind them if there is one."""
    rows: list[Row] = [
        Parameter(f"{torch}.weight", (*path, "kernel"), rule),
        Parameter(f"{torch}.bias", (*path, "bias"), "vector"),
    ]
    if norm is not None:
        rows.append(Buffer(norm, f"{torch}.weight", 1 if rule == "conv_transpose" else 0))
    return rows


def _x2ct_encoder(prefix: str, path: tuple[str, ...], layers: Sequence[int]) -> list[Row]:
    rows = _conv(f"{prefix}encoder_layer.1", (*path, "stem"), f"{prefix}encoder_layer.2")
    for i, count in enumerate(layers):
        stage, ours = f"{prefix}encoder_layer{i}", (*path, f"stage_{i}")
        rows.append(Buffer(f"{stage}.0", f"{stage}.2.weight", 1))
        rows += _conv(f"{stage}.2", (*ours, "down"))
        for j in range(count):
            layer = f"{stage}.3.conv_block.{j}"
            rows.append(Buffer(f"{layer}.norm1", f"{layer}.conv1.weight", 1))
            rows += _conv(f"{layer}.conv1", (*ours, "dense", f"reduce_{j}"), f"{layer}.norm2")
            rows += _conv(f"{layer}.conv2", (*ours, "dense", f"grow_{j}"))
        if i < len(layers) - 1:
            rows.append(Buffer(f"{stage}.4", f"{stage}.6.weight", 1))
            rows += _conv(f"{stage}.6", (*ours, "transition"))
    return rows + _conv(f"{prefix}base_link.0", (*path, "code"), rule="linear")


def _x2ct_decoder(
    prefix: str, path: tuple[str, ...], stages: int, convs: int, apart: bool
) -> list[Row]:
    """`apart`: whether the compress step is a module of its own or the first one of the layer."""
    rows: list[Row] = []
    for level in reversed(range(stages + 1)):
        layer, ours = f"{prefix}decoder_layer{level - 1}", (*path, f"layer_{level}")
        step = 0
        if level < stages:
            compress = f"{prefix}decoder_compress_layer{level - 1}" if apart else layer
            rows += _conv(f"{compress}.0", (*path, f"compress_{level}"), f"{compress}.1")
            step = 0 if apart else 3
            for j in range(convs if level else 1):
                rows += _conv(f"{layer}.{step}", (*ours, f"conv_{j}"), f"{layer}.{step + 1}")
                step += 3
        if level:
            up = f"{layer}.{step}.block.block"
            rows += _conv(f"{up}.0", (*ours, "up"), f"{up}.1", "conv_transpose")
    return rows + _conv(f"{prefix}decoder_layer.0", (*path, "head"))


# CycleGAN (junyanz/pytorch-CycleGAN-and-pix2pix): `{epoch}_net_G_A.pth`, `{epoch}_net_D_A.pth`.


def cyclegan_generator(blocks: int = 9, statistics: bool = False) -> Table:
    """The residual generator: 4 blocks + 12 tensors.

    Args:
        blocks: residual ones, 6 or 9.
        statistics: whether checkpoints may hold running statistics of the norms, as those from before
            PyTorch 0.4 do: True to read any, False to write what the published code loads today.
    """
    rows: list[Row] = []
    for i, name in ((1, "stem"), (4, "down_1"), (7, "down_2")):
        rows += _conv(f"model.{i}", (name,), f"model.{i + 1}")
    for i in range(blocks):
        block = f"model.{10 + i}.conv_block"
        rows += _conv(f"{block}.1", (f"block_{i}", "conv_0"), f"{block}.2")
        rows += _conv(f"{block}.5", (f"block_{i}", "conv_1"), f"{block}.6")
    last = 10 + blocks
    for i, name in ((last, "up_1"), (last + 3, "up_0")):
        rows += _conv(f"model.{i}", (name,), f"model.{i + 1}", "conv_transpose")
    rows += _conv(f"model.{last + 7}", ("head",))
    return tuple(row for row in rows if statistics or isinstance(row, Parameter))


def cyclegan_discriminator(statistics: bool = False) -> Table:
    """The 70x70 PatchGAN: 10 tensors; `statistics` as of the generator."""
    rows: list[Row] = [*_conv("model.0", ("conv_0",))]
    for i in (1, 2, 3):
        rows += _conv(f"model.{3 * i - 1}", (f"conv_{i}",), f"model.{3 * i}")
    rows += _conv("model.11", ("conv_4",))
    return tuple(row for row in rows if statistics or isinstance(row, Parameter))
