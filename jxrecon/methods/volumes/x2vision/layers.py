"""The layers of StyleGAN2, for images and volumes alike: equalised learning rate, modulation, resampling.

Equations are those of StyleGAN2 (arXiv 1912.04958) in the numerics of StyleGAN2-ADA (arXiv 2006.06676).
Activations are [batch, *space, channel]. Weights are kept in float32 and computed with in `dtype`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jxrecon.nn.blocks import accurate, add_bias
from jxrecon.nn.conv import conv, conv_transpose
from jxrecon.nn.resample import BINOMIAL, downsample2, upfirdn


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0.2 x) times sqrt 2, which keeps the variance."""
    return jnp.where(x < 0, x * 0.2, x) * math.sqrt(2)


def bias_act(
    x: Float[Array, "b *space c"],
    bias: Float[Array, " c"] | None,
    activation: Callable[[Array], Array] | None = None,
    gain: float = 1.0,
    limit: float | None = None,
) -> Float[Array, "b *space c"]:
    """gain * activation(x + bias), clamped to +-limit * gain unless that is None; bfloat16 needs it (256)."""
    x = add_bias(x, bias)
    if activation is not None:
        x = activation(x)
    x = x * gain
    return x if limit is None else jnp.clip(x, -limit * gain, limit * gain)


def conv_up2(
    x: Float[Array, "b *space i"],
    kernel: Float[Array, "*k i o"],
    taps: tuple[float, ...] = BINOMIAL,
) -> Float[Array, "b *double o"]:
    """Twice the size: the kernel (true convolution) on the zero-inserted input, then the filter.

    The two commute: this order costs a quarter of convolving the upsampled input.
    """
    k, n, ndim = kernel.shape[0], len(taps), x.ndim - 2
    pads = ((n + 1) // 2 + k // 2 - k + 1, (n - 2) // 2 + k // 2 - k + 2)
    return upfirdn(conv_transpose(x, kernel), taps, padding=pads, gain=2.0**ndim)


def conv_down2(
    x: Float[Array, "b *space i"],
    kernel: Float[Array, "*k i o"],
    taps: tuple[float, ...] = BINOMIAL,
) -> Float[Array, "b *half o"]:
    """Half the size: the filter, then the kernel (correlation) at every second position."""
    k, n = kernel.shape[0], len(taps)
    if k == 1:
        return conv(downsample2(x, taps), kernel)
    x = upfirdn(x, taps, padding=((n - 1) // 2 + k // 2, (n - 2) // 2 + k // 2))
    return conv(x, kernel, stride=2, padding=0)


def modulated_conv(
    x: Float[Array, "b *space i"],
    kernel: Float[Array, "*k i o"],
    styles: Float[Array, "b i"],
    convolve: Callable[[Array, Array], Array] = conv,
    demodulate: bool = True,
) -> Float[Array, "b *out o"]:
    """Convolution with a kernel scaled per sample, w'_kio = s_i w_kio [StyleGAN2 Eq. 1], and demodulated,
    w'' = w' / sqrt(sum_ki w'^2 + 1e-8) [Eq. 3].

    Scales the activations before and after one ordinary convolution instead of a kernel per sample.
    Demodulation is computed in float32 and forgives any scale: in bfloat16 kernel and styles are
    normalised first.

    Args:
        x: activations in the dtype to compute in.
        kernel: [*taps, i, o].
        styles: scale of each input channel.
        convolve: (x, kernel) -> the convolution meant: `conv`, `conv_up2` or `conv_down2`.
        demodulate: whether the output variance is restored.
    """
    wide, axes = accurate(x.dtype), tuple(range(x.ndim - 1))
    kernel, styles = kernel.astype(wide), styles.astype(wide)
    if demodulate and x.dtype == jnp.bfloat16:
        largest = _largest(kernel, axes)
        kernel = kernel / (largest * math.sqrt(math.prod(kernel.shape[:-1])))
        styles = styles / _largest(styles, (1,))
    y = convolve(x * jnp.expand_dims(styles, axes[1:]).astype(x.dtype), kernel.astype(x.dtype))
    if demodulate:
        power = jnp.sum(jnp.square(kernel), axis=axes[:-1])
        sigma = lax.rsqrt(jnp.matmul(jnp.square(styles), power, precision="highest") + 1e-8)
        y = y * jnp.expand_dims(sigma, axes[1:]).astype(x.dtype)
    return y


def _largest(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """The largest magnitude along these axes, which stay; 1 where all are 0, which are then left so."""
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    return jnp.where(largest > 0, largest, 1.0)


def minibatch_deviation(
    x: Float[Array, "b *space c"], group: int = 4, features: int = 1
) -> Float[Array, "b *space d"]:
    """`x` with the standard deviation over groups of samples, averaged, as `features` more channels.

    Sample n belongs to group n mod (b / group), as in StyleGAN2. The group is shrunk to the largest
    that divides the batch. Progressive GANs, arXiv 1710.10196 section 3.
    """
    b, *space, c = x.shape
    group = max(g for g in range(1, min(group, b) + 1) if b % g == 0)
    groups = x.reshape(group, b // group, *space, features, c // features)
    deviation = jnp.sqrt(jnp.var(groups, axis=0) + 1e-8)  # [b / group, *space, f, c / f]
    mean = jnp.mean(deviation, axis=(*range(1, 1 + len(space)), -1))  # [b / group, f]
    mean = jnp.tile(mean, (group, 1)).reshape(b, *(1,) * len(space), features)
    return jnp.concatenate([x, jnp.broadcast_to(mean, (b, *space, features))], -1)


class Dense(nn.Module):
    """Linear layer of equalised learning rate: weights ~ N(0, 1) / lr, scaled by lr / sqrt(inputs)."""

    features: int
    lr: float = 1.0  # learning rate of this layer against the others'
    bias_init: float = 0.0  # what the bias adds at the start
    activation: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1 / self.lr), shape)
        start = nn.initializers.constant(self.bias_init / self.lr)
        bias = self.param("bias", start, (self.features,))
        y = x @ (kernel * (self.lr / math.sqrt(shape[0]))).astype(x.dtype)
        return bias_act(y, bias * self.lr, self.activation)


class Conv(nn.Module):
    """Convolution of equalised learning rate with bias and activation, as in the discriminator."""

    features: int
    taps: int = 3
    convolve: Callable[[Array, Array], Array] = conv  # or `conv_up2`, `conv_down2`
    use_bias: bool = True
    activation: Callable[[Array], Array] | None = leaky_relu
    gain: float = 1.0  # this and the next: see `bias_act`
    limit: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        shape = (*(self.taps,) * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = kernel / math.sqrt(math.prod(shape[:-1]))
        y = self.convolve(x, kernel.astype(x.dtype))
        return bias_act(y, bias, self.activation, self.gain, self.limit)


class StyledConv(nn.Module):
    """A 3-tap convolution of the generator: modulated by a style vector, with noise, bias and leaky ReLU."""

    features: int
    convolve: Callable[[Array, Array], Array] = conv
    gain: float = 1.0
    limit: float | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *space i"],
        w: Float[Array, "b w"],
        noise: Float[Array, "#b *out 1"] | None,
    ) -> Float[Array, "b *out o"]:
        styles = Dense(x.shape[-1], bias_init=1.0, name="affine")(w)
        shape = (*(3,) * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = modulated_conv(x, kernel, styles, self.convolve)
        if noise is not None:
            y = y + (noise * strength.astype(noise.dtype)).astype(y.dtype)
        return bias_act(y, bias, leaky_relu, self.gain, self.limit)


class ToImage(nn.Module):
    """The 1x1 modulated convolution to the output channels; not demodulated, no activation."""

    features: int
    limit: float | None = None
    start: nn.initializers.Initializer = nn.initializers.normal(1.0)  # of the kernel

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *space i"], w: Float[Array, "b w"]
    ) -> Float[Array, "b *space o"]:
        styles = Dense(x.shape[-1], bias_init=1.0, name="affine")(w) / math.sqrt(x.shape[-1])
        shape = (*(1,) * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", self.start, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = modulated_conv(x, kernel, styles, demodulate=False)
        return bias_act(y, bias, limit=self.limit)
