"""The layers of X2CT-GAN: InstanceNorm, convolutions, the blocks of its encoder and of its decoders.

Activations are [batch, *space, channel]. Parameters are float32, computed with in the activations' dtype.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jxrecon.nn import blocks
from jxrecon.nn.blocks import accurate, add_bias, kernel_and_bias
from jxrecon.nn.conv import conv

INIT_STD = 0.02  # of all kernels; biases start at 0


def _small(*arguments: Any) -> Array:
    return INIT_STD * jax.random.normal(*arguments)


init_params = functools.partial(blocks.init_variables, std=1.0, draw=_small)
"""N(0, 0.02) kernels and zero biases, for the inputs that a network will be called with."""


keep = functools.partial(checkpoint_name, name="kept")
"""Marks what norms and pooling give: with these no convolution has to be done again."""

recomputed = functools.partial(
    nn.remat, policy=jax.checkpoint_policies.save_only_these_names("kept")
)
"""A block of which the backward pass finds what was kept, and computes the rest anew."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def instance_norm(
    x: Float[Array, "n *space c"], weights: tuple[float, ...] = ()
) -> Float[Array, "n *space c"]:
    """(x - mean) / sqrt(variance + 1e-5) over space, of each channel of each sample.

    Each plane along the first spatial axis counts as often as `weights` says; empty: once.
    """
    return _norm(x, weights)[0]


def _norm(x: Array, weights: tuple[float, ...]) -> tuple[Array, tuple[Array, Array]]:
    wide = x.astype(accurate(x.dtype))
    share = _shares(wide, weights)
    centred = wide - _space_sum(wide * share)
    scale = 1.0 / jnp.sqrt(_space_sum(jnp.square(centred) * share) + 1e-5)
    y = lax.optimization_barrier((centred * scale).astype(x.dtype))  # else each reader norms anew
    y, scale = keep(y), keep(scale)
    return y, (y, scale)


def _norm_gradient(
    weights: tuple[float, ...], saved: tuple[Array, Array], g: Array
) -> tuple[Array]:
    """dx = scale (g - w (sum g + y sum g y)), w each voxel's share in the mean; keeps y alone."""
    y, scale = saved
    y, wide = y.astype(scale.dtype), g.astype(scale.dtype)
    common = _space_sum(wide) + y * _space_sum(wide * y)
    return ((scale * (wide - _shares(y, weights) * common)).astype(g.dtype),)


instance_norm.defvjp(_norm, _norm_gradient)


def _shares(x: Array, weights: tuple[float, ...]) -> Array:
    """Share of each voxel in the mean over space, broadcastable to `x`."""
    planes = jnp.asarray(weights or (1.0,) * x.shape[1], x.dtype)
    share = planes / (sum(weights or planes.shape) * math.prod(x.shape[2:-1]))
    return share.reshape(1, -1, *(1,) * (x.ndim - 2))


def _space_sum(x: Array) -> Array:
    """Sum over space, one axis after the other: one long float32 sum would lose three digits."""
    for axis in reversed(range(1, x.ndim - 1)):
        # Without the barrier XLA makes one sum of them again.
        x = lax.optimization_barrier(jnp.sum(x, axis, keepdims=True))
    return x


def space_mean(x: Float[Array, "n *space c"]) -> Float[Array, "n c"]:
    """Mean of each channel over space."""
    return jnp.mean(x.astype(accurate(x.dtype)), tuple(range(1, x.ndim - 1))).astype(x.dtype)


def norm_relu(
    x: Float[Array, "n *space c"], weights: tuple[float, ...] = ()
) -> Float[Array, "n *space c"]:
    """InstanceNorm, ReLU."""
    return nn.relu(instance_norm(x, weights))


Conv = functools.partial(blocks.Conv, bias="idle")
"""A convolution that a norm follows, unless `bias` says otherwise."""


class DenseBlock(nn.Module):
    """Layers that each read all that came before, normed, and append `growth` channels.

    InstanceNorm without parameters treats each channel alone, so what every layer, and what follows the
    block, would norm anew is normed once, when it is made. `pooled` gives the mean over space of the raw
    channels instead, [n, o]; then biases matter.
    """

    layers: int
    growth: int
    pooled: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"]) -> Array:
        bias = "free" if self.pooled else "idle"
        normed, means = norm_relu(x), [space_mean(x)]
        for j in range(self.layers):
            y = Conv(4 * self.growth, 1, name=f"reduce_{j}")(normed)
            y = Conv(self.growth, 3, bias=bias, name=f"grow_{j}")(norm_relu(y))
            normed = jnp.concatenate([normed, norm_relu(y)], -1)
            means.append(space_mean(y))
        return keep(jnp.concatenate(means, -1)) if self.pooled else normed


class Stage(nn.Module):
    """One stage of the encoder: halve the size, a dense block, halve the channels.

    The last stage ends in the mean over space instead, [n, o].
    """

    layers: int
    growth: int
    last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"]) -> Array:
        bias = "free" if self.last else "idle"
        x = Conv(x.shape[-1], 3, stride=2, bias=bias, name="down")(norm_relu(x))
        x = DenseBlock(self.layers, self.growth, self.last, name="dense")(x)
        return x if self.last else Conv(x.shape[-1] // 2, 1, name="transition")(x)


def lengthen(planes: Float[Array, "n k h w c"], depth: int) -> Float[Array, "n d h w c"]:
    """An odd number k of planes with the middle one repeated, or left out, to make `depth` >= k - 1."""
    ends = planes.shape[1] // 2
    shape = (planes.shape[0], depth - 2 * ends, *planes.shape[2:])
    middle = jnp.broadcast_to(planes[:, ends : ends + 1], shape)
    return jnp.concatenate([planes[:, :ends], middle, planes[:, ends + 1 :]], 1)


class Link(nn.Module):
    """Connection-B: channels reduced, extruded along the viewing direction, one 3-D convolution.

    An extruded image has three different planes after a 3^3 convolution: the first, the last and all
    between. Only these are computed (`lengthen` gives the volume), with their weight in the norm.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "n s s i"]) -> Float[Array, "n 3 s s o"]:
        size = x.shape[1]
        x = norm_relu(Conv(self.features, 1, name="reduce")(x))
        planes = jnp.broadcast_to(x[:, None], (x.shape[0], 3, *x.shape[1:]))
        planes = Conv(self.features, 3, name="conv")(planes)
        return norm_relu(planes, (1.0, size - 2.0, 1.0))


class Compress(nn.Module):
    """What joins at a decoder level: ReLU, concatenation along channels, a 3^3 convolution, norm.

    A block of a decoder begins with the ReLU that ends the one before, so that what is kept between them is
    what the norm gave, which its gradient needs too, and not its ReLU beside it.

    `extruded`: what joins last is the three planes of a `Link`, which enter as they are.
    """

    features: int
    extruded: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n s s s i"], *joining: Array) -> Float[Array, "n s s s o"]:
        channels = x.shape[-1] + sum(y.shape[-1] for y in joining)
        kernel, bias = kernel_and_bias(self, (3, 3, 3, channels, self.features), "idle")
        kernel = kernel.astype(x.dtype)
        x, *others = [nn.relu(y) for y in (x, *joining)]
        if others and self.extruded:
            # Five different planes follow from three: a convolution of an image's cost, not a volume's.
            planes = conv(lengthen(others[0], 5), kernel[..., x.shape[-1] :, :])
            y = conv(x, kernel[..., : x.shape[-1], :]) + lengthen(planes, x.shape[1])
            y = lax.optimization_barrier(y)  # else both terms are kept
        else:
            y = conv(jnp.concatenate([x, *others], -1), kernel)
        return instance_norm(add_bias(y, bias))


class Layer(nn.Module):
    """One level of a decoder: `convs` times ReLU, 3^3 convolution, norm, then once more, doubling the size.

    `up` is that one's output channels; 0: there is none. Why the ReLU comes first: see `Compress`.
    """

    convs: int
    up: int

    @nn.compact
    def __call__(self, x: Float[Array, "n s s s i"]) -> Float[Array, "n t t t o"]:
        for j in range(self.convs):
            x = instance_norm(Conv(x.shape[-1], name=f"conv_{j}")(nn.relu(x)))
        return instance_norm(Conv(self.up, up=True, name="up")(nn.relu(x))) if self.up else x
