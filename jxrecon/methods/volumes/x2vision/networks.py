"""The networks of the manifold: a StyleGAN2 of volumes (or images), mapping, synthesis, discriminator.

StyleGAN2 (arXiv 1912.04958) carried over to 3-D: a generator without skip outputs (one output layer at
the end), a residual discriminator. The number of dimensions is that of `base`. Level 0 is the coarsest,
of size `base`; each further level doubles the size.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2vision.layers import (
    Conv,
    Dense,
    StyledConv,
    ToImage,
    conv_down2,
    conv_up2,
    leaky_relu,
    minibatch_deviation,
)
from jxrecon.nn.blocks import accurate
from jxrecon.nn.resample import upsample2
from jxrecon.types import Key

Noise = tuple[Float[Array, "_ ... 1"], ...]
"""Standard normal noise [b, *space, 1], one a convolution of the synthesis network, coarsest first."""


_NORMAL, _NOTHING = nn.initializers.normal(1.0), nn.initializers.zeros


def _limit(dtype: Any) -> float | None:
    return 256.0 if dtype == jnp.bfloat16 else None  # conv_clamp of StyleGAN2-ADA


class Mapping(nn.Module):
    """z ~ N(0, I) -> style vector w: normalisation and fully connected layers of a low learning rate.

    Without layers w is z.
    """

    w_dim: int
    layers: int = 8
    lr_multiplier: float = 0.01

    @nn.compact
    def __call__(self, z: Float[Array, "b z"]) -> Float[Array, "b w"]:
        if not self.layers:
            return z
        x = z * lax.rsqrt(jnp.mean(jnp.square(z), axis=1, keepdims=True) + 1e-8)
        for i in range(self.layers):
            x = Dense(self.w_dim, self.lr_multiplier, activation=leaky_relu, name=f"dense{i}")(x)
        return x


class SynthesisBlock(nn.Module):
    """One level of the generator: two styled convolutions of which the first doubles the size."""

    features: int
    up: bool = True  # the coarsest level has but its second convolution
    limit: float | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *space i"],
        ws: tuple[Float[Array, "b w"], ...],
        noise: tuple[Float[Array, "#b *out 1"] | None, ...],
    ) -> Float[Array, "b *out o"]:
        if self.up:
            conv0 = StyledConv(self.features, convolve=conv_up2, limit=self.limit, name="conv0")
            x = conv0(x, ws[0], noise[0])
        return StyledConv(self.features, limit=self.limit, name="conv1")(x, ws[-1], noise[-1])


class Synthesis(nn.Module):
    """Style vectors and noise -> volume, from a learned constant.

    The architecture "orig" has one output layer at the end; "skip" one a level, upsampled and summed.
    """

    base: tuple[int, ...]  # size of the coarsest level, 2 or 3 axes
    channels: tuple[int, ...]  # each level's, coarsest first
    w_dim: int
    out_channels: int = 1
    architecture: str = "orig"
    dtype: Any = jnp.float32  # the activations'; output and weights are float32
    remat: bool = False  # recompute each level in the backward pass instead of keeping activations
    fade_in: bool = False  # the finest output starts at zero: a level added to a trained generator
    linear: bool = False  # all outputs start at zero: what a linear prior cannot show

    @property
    def num_ws(self) -> int:
        """Style vectors: one a convolution and one for the last output layer."""
        return 2 * len(self.channels)

    @property
    def noise_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Spatial size of each convolution's noise, coarsest first: one at level 0, then two a level."""
        sizes = [tuple(n * 2**level for n in self.base) for level in range(len(self.channels))]
        return (sizes[0], *(size for size in sizes[1:] for _ in range(2)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return self.noise_shapes[-1]

    @nn.compact
    def __call__(
        self, ws: Float[Array, "b n w"], noise: Noise | None = None
    ) -> Float[Array, "b *space o"]:
        """Args: style vectors [b, num_ws, w_dim]; noise of `noise_shapes`, batch b or 1, None: without.

        Returns:
            [b, *base * 2^(levels - 1), out_channels], unbounded.
        """
        count, limit = len(self.noise_shapes), _limit(self.dtype)
        w = tuple(jnp.moveaxis(ws, 1, 0))
        maps: tuple[Array | None, ...] = (None,) * count if noise is None else noise
        shape = (*self.base, self.channels[0])
        const = self.param("const", nn.initializers.normal(1.0), shape)
        x = jnp.broadcast_to(const.astype(self.dtype), (ws.shape[0], *shape))
        outputs = []
        block = nn.remat(SynthesisBlock) if self.remat else SynthesisBlock
        for level, features in enumerate(self.channels):
            first, end = max(2 * level - 1, 0), 2 * level + 1
            layer = block(features, level > 0, limit, name=f"level{level}")
            x = layer(x, w[first:end], maps[first:end])
            if self.architecture == "skip" or end == count:
                nothing = self.linear or (self.fade_in and end == count)
                start = _NOTHING if nothing else _NORMAL
                to_image = ToImage(self.out_channels, limit, start, name=f"output{level}")
                output = to_image(x, w[end])
                outputs.append(output.astype(accurate(self.dtype)))
        return reduce(lambda image, output: upsample2(image) + output, outputs)


class DiscriminatorBlock(nn.Module):
    """A residual level: two convolutions and a 1x1 shortcut, both to half the size."""

    features: int
    limit: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *half o"]:
        down = partial(Conv, self.features, convolve=conv_down2, gain=math.sqrt(0.5))
        shortcut = down(1, use_bias=False, activation=None, name="skip")(x)
        x = Conv(x.shape[-1], limit=self.limit, name="conv0")(x)
        return shortcut + down(limit=self.limit, name="conv1")(x)


class DiscriminatorHead(nn.Module):
    """The coarsest level: minibatch standard deviation, one convolution, two dense layers -> logit."""

    group: int = 4
    limit: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b 1"]:
        features = x.shape[-1]
        x = Conv(features, limit=self.limit, name="conv")(minibatch_deviation(x, self.group))
        x = Dense(features, activation=leaky_relu, name="dense")(x.reshape(x.shape[0], -1))
        return Dense(1, name="logit")(x)


class Discriminator(nn.Module):
    """Volume -> logit of being real. What is not explained here is as in `Synthesis`."""

    base: tuple[int, ...]
    channels: tuple[int, ...]
    mbstd_group: int = 4  # samples a group of the minibatch standard deviation
    dtype: Any = jnp.float32  # the activations'; the last level is computed in float32
    remat: bool = False

    @nn.compact
    def __call__(self, volume: Float[Array, "b *space c"]) -> Float[Array, "b 1"]:
        limit = _limit(self.dtype)
        x = Conv(self.channels[-1], 1, limit=limit, name="input")(volume.astype(self.dtype))
        block = nn.remat(DiscriminatorBlock) if self.remat else DiscriminatorBlock
        for level in range(len(self.channels) - 1, 0, -1):
            x = block(self.channels[level - 1], limit, name=f"level{level}")(x)
        x = x.astype(accurate(self.dtype))
        return DiscriminatorHead(self.mbstd_group, limit, name="level0")(x)


def draw_noise(key: Key, noise_shapes: tuple[tuple[int, ...], ...], batch: int) -> Noise:
    """Standard normal noise for `Synthesis`: one draw, cut up (each `jax.random` call compiles slowly)."""
    sizes = [math.prod(shape) for shape in noise_shapes]
    flat = jax.random.normal(key, (batch, sum(sizes)))
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=1)
    return tuple(part.reshape(batch, *shape, 1) for part, shape in zip(parts, noise_shapes))
