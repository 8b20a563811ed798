"""The networks of CycleGAN: a residual generator of images and a discriminator of 70x70 patches.

InstanceNorm without parameters, kernels N(0, 0.02). Every convolution has a bias, as the published
checkpoints do, though a norm behind it undoes all but its rounding.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.nn.blocks import Conv, instance_norm

INIT_STD = 0.02  # of all kernels


def reflect(x: Float[Array, "n r s c"], by: int) -> Float[Array, "n t u c"]:
    """The image mirrored about its outermost pixels, `by` more of them at every side."""
    return jnp.pad(x, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect")


class Block(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x))))), 3x3, reflection padding."""

    @nn.compact
    def __call__(self, x: Float[Array, "n r s c"]) -> Float[Array, "n r s c"]:
        y = Conv(x.shape[-1], padding=0, name="conv_0")(reflect(x, 1))
        y = nn.relu(instance_norm(y))
        return x + instance_norm(Conv(x.shape[-1], padding=0, name="conv_1")(reflect(y, 1)))


class Generator(nn.Module):
    """c7s1-w, d2w, d4w, residual blocks, u2w, uw, c7s1; images in [-1, 1] [Zhu appendix].

    | layer | channels | size |
    |---|---|---|
    | c7s1: reflection 3, conv 7 | width | s |
    | d: conv 3, stride 2, twice | 2, 4 width | s / 2, s / 4 |
    | blocks: 6 for 128 pixels, 9 for 256 and more | 4 width | s / 4 |
    | u: conv 3 transposed, stride 2, twice | 2 width, width | s / 2, s |
    | c7s1, tanh | channels | s |

    Attributes:
        width: channels of the first layer.
        blocks: residual ones.
        channels: the images'.
    """

    width: int = 64
    blocks: int = 9
    channels: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n r s c"]) -> Float[Array, "n r s c"]:
        x = Conv(self.width, 7, padding=0, name="stem")(reflect(x, 3))
        x = nn.relu(instance_norm(x))
        for i in (1, 2):
            x = Conv(2**i * self.width, stride=2, padding=1, name=f"down_{i}")(x)
            x = nn.relu(instance_norm(x))
        for i in range(self.blocks):
            x = Block(name=f"block_{i}")(x)
        for i in (1, 0):
            x = Conv(2**i * self.width, up=True, name=f"up_{i}")(x)
            x = nn.relu(instance_norm(x))
        return jnp.tanh(Conv(self.channels, 7, padding=0, name="head")(reflect(x, 3)))


class Discriminator(nn.Module):
    """C64-C128-C256-C512-1: 4x4 convolutions, padding 1, leaky ReLU 0.2; a score sees 70x70 pixels.

    | in -> out | stride | |
    |---|---|---|
    | channels -> width | 2 | |
    | width -> 2 width -> 4 width | 2 | InstanceNorm |
    | 4 width -> 8 width | 1 | InstanceNorm |
    | 8 width -> 1 | 1 | |

    Attributes:
        width: channels of the first layer.
    """

    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n r s c"]) -> Float[Array, "n k l 1"]:
        for i in range(4):
            stride = 1 if i == 3 else 2
            x = Conv(2**i * self.width, 4, stride, padding=1, name=f"conv_{i}")(x)
            x = nn.leaky_relu(instance_norm(x) if i else x, 0.2)
        return Conv(1, 4, padding=1, name="conv_4")(x)
