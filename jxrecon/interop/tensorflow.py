"""Tensors of the released TensorFlow codes of IGCN+ and Pixel2Mesh: their names and layouts.

Kernels are [*k, in, out] there as here, those of transposed convolutions [*k, out, in]; a graph convolution
has `weights_0`, and Pixel2Mesh's `weights_1` for the neighbours beside it. A checkpoint is read as an .npz,
which TensorFlow makes of it:

    reader = tf.train.load_checkpoint("gcn.ckpt")
    np.savez("gcn.npz", **{name: reader.get_tensor(name) for name in NAMES})
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon.interop.weights import Parameter, Rule, Table

_CONV = {"kernel": "W", "bias": "b"}


class Names(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        table: of the trained tensors.
        at_rest: tensors that its training leaves as they start: no output depends on others.
    """

    table: Table
    at_rest: dict[str, Float[np.ndarray, "..."]]


def igcn_plus(levels: int = 6, pairs: int = 4) -> Names:
    """IGCN+: a U-Net of so many sizes and a graph network of so many residual pairs."""
    norm = {"scale": "gamma", "bias": "beta"}
    rows = _rows("BatchNormalization", ("unet", "norm"), norm)
    mean, variance = (f"gcn/BatchNormalization/moving_{name}" for name in ("mean", "variance"))
    at_rest = {mean: np.zeros(3, np.float32), variance: np.ones(3, np.float32)}
    for n in range(2 * levels):
        rows += _rows(_numbered("Conv2D", n), ("unet", f"down_{n // 2}{'ab'[n % 2]}"), _CONV)
    for n in range(levels - 1):
        double = f"upsample_{levels - 1 - n}", ("unet", f"double_{n}")
        rows += _rows(*double, _CONV, "swapped")
        for half in "ab":
            name = f"conv{4 + levels - n}_1" + "_1" * (half == "b")
            rows += _rows(name, ("unet", f"up_{n}{half}"), _CONV)
    rows += _rows(f"Conv2D_{2 * levels}", ("unet", "head"), _CONV)
    leaves = {"kernel": "weights_0", "bias": "bias"}
    for n, layer in enumerate(_graph(pairs), 1):
        rows += _rows(f"graphconvolution_{n}_vars", ("graph", layer), leaves)
    return Names(tuple(rows), at_rest)


def pixel2mesh(pairs: int = 6) -> Names:
    """Pixel2Mesh: its encoder and three graph networks of so many residual pairs.

    Differs from the released checkpoint, which is of colour images and whose last layer but one has half as
    many channels: its shapes do not fit ours.
    """
    rows, number = [], 0
    for stage, layers in enumerate((2, 3, 3, 3, 3, 4)):
        for layer in range(layers):
            rows += _rows(
                _numbered("Conv2D", number), ("encoder", f"conv{stage}_{layer + 1}"), _CONV
            )
            number += 1
    leaves = {"self_kernel": "weights_0", "kernel": "weights_1", "bias": "bias"}
    paths = [(f"gcn_{block}", layer) for block in range(3) for layer in _graph(pairs)]
    for n, path in enumerate([*paths, ("head",)], 1):
        rows += _rows(f"graphconvolution_{n}_vars", path, leaves)
    return Names(tuple(rows), {})


def _graph(pairs: int) -> list[str]:
    return ["first", *(f"pair_{n}{half}" for n in range(pairs) for half in "ab"), "head"]


def _numbered(name: str, n: int) -> str:
    """Layers of one name are numbered from the second on."""
    return f"{name}_{n}" if n else name


def _rows(
    name: str, path: Sequence[str], leaves: dict[str, str], kernel: Rule = "vector"
) -> list[Parameter]:
    return [
        Parameter(
            f"gcn/{name}/{theirs}",
            ("params", *path, ours),
            kernel if ours == "kernel" else "vector",
        )
        for ours, theirs in leaves.items()
    ]
