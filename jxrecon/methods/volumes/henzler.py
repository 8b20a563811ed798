"""Single-image tomography after Henzler et al. (Eurographics 2018): a 2-D encoder, a 3-D decoder, skips.

| equation | function | settings |
|---|---|---|
| x -> f(x), encoder-decoder with skips | Network | channels |
| residual learning: x + F(x) | Residual | blocks |
| L_2 = mean (f(x) - y)^2 over voxels, CT in [0, 1] | frontal_regression.train_step | - |
| Adam | build | learning_rate, betas |
| line integrals / 8 in [0, 1] | trained_views.fixed_range | - |

From what is published about it: an encoder from one X-ray to a code, a decoder to a coarse volume of fixed
size, skip connections, residual learning, squared error. Not verified, for want of the full text and code:
channels, number of blocks, norm, how a 2-D feature enters the 3-D decoder (here: reduced by a 1x1
convolution and repeated along the depth), the optimiser's figures. Left out: the paper's second step, which
fuses the coarse volume with the X-ray into a finer one; the problem's grid is the coarse volume. The X-ray
is that of the problem's first camera, meant to be frontal.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jxrecon.methods.base.frontal_regression import Model, frontal_method, paper_shape
from jxrecon.methods.base.method import Method, Problem
from jxrecon.nn.blocks import Conv, batch_norm
from jxrecon.types import InputError


@dataclass(frozen=True)
class Settings:
    """Everything of single-image tomography that a user may set.

    Attributes:
        channels: the encoder's from the X-ray's size on, each level half the size of the one before; the
            decoder has a quarter of them, at least 4, a level.
        blocks: residual blocks a level, of encoder and decoder each.
        learning_rate, betas: Adam's.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    blocks: int = 1
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)


class Residual(nn.Module):
    """x + F(x), F twice a norm, ReLU and a convolution of 3 taps: of images and of volumes."""

    @nn.compact
    def __call__(self, x: Float[Array, "n *space c"], train: bool) -> Float[Array, "n *space c"]:
        y = x
        for _ in range(2):
            y = Conv(x.shape[-1], bias="none")(nn.relu(batch_norm(train)(y)))
        return x + y


class Network(nn.Module):
    """Image [n, r, s] -> volume [n, rows, columns, depth].

    Encoder, level i at size / 2^i: convolution (of stride 2 for i > 0), residual blocks. The last level's
    channels become channels times depth by a 1x1 convolution. Decoder, from the last level up: the size
    doubled along all three axes, plus the encoder's features of that level, reduced and repeated along the
    depth, residual blocks. A 3^3 convolution ends it; another shape than the X-ray's is reached by
    trilinear resampling.
    """

    shape: tuple[int, int, int]  # the volume's (rows, columns, depth)
    settings: Settings

    @nn.compact
    def __call__(self, x: Float[Array, "n r s"], train: bool) -> Float[Array, "n rows columns d"]:
        x, skips, blocks = x[..., None], [], self.settings.blocks
        for i, features in enumerate(self.settings.channels):
            x = Conv(features, 3 if i else 7, 2 if i else 1, bias="none", name=f"down_{i}")(x)
            for _ in range(blocks):
                x = Residual()(x, train)
            skips.append(x)
        narrow = [max(4, features // 4) for features in self.settings.channels]
        depth = x.shape[1]
        x = Conv(narrow[-1] * depth, 1, name="code")(x)
        x = x.reshape(*x.shape[:3], depth, narrow[-1])
        for i in reversed(range(len(narrow))):
            if i < len(narrow) - 1:
                x = Conv(narrow[i], up=True, name=f"up_{i}")(nn.relu(batch_norm(train)(x)))
                skip = Conv(narrow[i], 1, name=f"skip_{i}")(nn.relu(batch_norm(train)(skips[i])))
                x = x + jnp.broadcast_to(skip[..., None, :], x.shape)
            for _ in range(blocks):
                x = Residual()(x, train)
        x = Conv(1, name="head")(nn.relu(batch_norm(train)(x)))[..., 0]
        if x.shape[1:] != self.shape:
            x = jax.image.resize(x, (x.shape[0], *self.shape), "linear")
        return x


def build(settings: Settings, problem: Problem) -> Method:
    """Single-image tomography for this problem.

    Raises:
        InputError: the X-ray is not square, or its size cannot be halved as often as there are levels.
    """
    pixels, factor = problem.cameras[0].shape, 2 ** (len(settings.channels) - 1)
    if pixels[0] != pixels[1] or pixels[0] % factor:
        raise InputError(
            f"henzler was given X-rays of {pixels} pixels, expected as many rows as columns, a multiple of"
            f" {factor} for its {len(settings.channels)} levels"
        )
    network = Network(paper_shape(problem), settings)
    adam = optax.adam(settings.learning_rate, *settings.betas)
    return frontal_method(Model("henzler", "L_2", network, adam, problem))
