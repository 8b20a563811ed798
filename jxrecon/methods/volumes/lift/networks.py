"""A 3-D U-Net on the half grid with a light last level to the full one.

Every level halves the size; the finest works on voxels of the half grid. The last convolution makes the
eight full voxels of each (sub-pixel) of two volumes: what is added to the prior's MAP, and the logarithm of
the error's mean size. No norms: images differ little in brightness, and values mean HU.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.nn.blocks import Conv, init_variables
from jxrecon.nn.conv import depth_to_space
from jxrecon.types import Key, PyTree


class Output(NamedTuple):
    """What the network says, on the full grid, in units of the window's width.

    Attributes:
        change: to be added to the MAP.
        log_size: logarithm of the error's mean absolute size.
    """

    change: Float[Array, "b x y z"]
    log_size: Float[Array, "b x y z"]


class Block(nn.Module):
    """silu(skip x + conv(silu(conv x))): two 3^3 convolutions, a 1^3 one beside them."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b x y z i"]) -> Float[Array, "b x y z o"]:
        y = Conv(self.features, name="second")(nn.silu(Conv(self.features, name="first")(x)))
        return nn.silu(Conv(self.features, 1, name="skip")(x) + y)


class UNet(nn.Module):
    """The network.

    Attributes:
        widths: channels from the half grid down.
        dropout: rate of whole channels at the coarsest level, in training.
        start_log_size: what the second output is at the start.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96)
    dropout: float = 0.1
    start_log_size: float = -3.5

    @nn.compact
    def __call__(self, x: Float[Array, "b x y z i"], train: bool = False) -> Output:
        levels = []
        for n, width in enumerate(self.widths):
            x = Block(width, name=f"down_{n}")(_pooled(x) if n else x)
            levels.append(x)
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2, 3), deterministic=not train)(x)
        for n in reversed(range(len(self.widths) - 1)):
            # Differs from U-Net: what comes up is added, not concatenated, which costs a third on a CPU.
            width = self.widths[n]
            x = levels[n] + _doubled(Conv(width, 1, name=f"join_{n}")(x))
            x = Block(width, name=f"up_{n}")(x)
        parts = depth_to_space(Conv(16, name="last")(x), 2)
        return Output(parts[..., 0], parts[..., 1] + self.start_log_size)


def _pooled(x: Float[Array, "b x y z c"]) -> Float[Array, "b i j k c"]:
    """Means of blocks of eight."""
    b, *space, c = x.shape
    split = [size for n in space for size in (n // 2, 2)]
    return x.reshape(b, *split, c).mean((2, 4, 6))


def _doubled(x: Float[Array, "b i j k c"]) -> Float[Array, "b x y z c"]:
    """Linear interpolation to twice the size; the outer quarter voxel repeats the last value."""
    for axis in (1, 2, 3):
        before = jnp.take(x, np.maximum(np.arange(x.shape[axis]) - 1, 0), axis)
        after = jnp.take(x, np.minimum(np.arange(x.shape[axis]) + 1, x.shape[axis] - 1), axis)
        pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return x


def init_params(net: UNet, key: Key, shape: tuple[int, ...]) -> PyTree:
    """Normal kernels for inputs of this shape; the last one is 0, so that the start is the linear prior."""
    params = init_variables(net, key, jax.ShapeDtypeStruct(shape, jnp.float32))["params"]
    return {**params, "last": jax.tree.map(jnp.zeros_like, params["last"])}
