"""Convolutions as Flax modules, norms, and how the variables of a network start."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.nn.conv import conv, conv_transpose
from jxrecon.types import Key, PyTree

EPSILON = 1e-5  # of both norms


class Conv(nn.Module):
    """Convolution of images or volumes with as many taps along every axis.

    Attributes:
        features: output channels.
        taps: of the kernel.
        stride: the same along all axes.
        padding: zeros at each end, None is half the kernel.
        bias: whether there is one; not where a BatchNorm follows.
        up: double the size instead (transposed, 3 taps, stride 2, padding 1, output padding 1).
    """

    features: int
    taps: int = 3
    stride: int = 1
    padding: int | None = None
    bias: bool = True
    up: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n *space i"]) -> Float[Array, "n *out o"]:
        ndim = x.ndim - 2
        shape = (*(self.taps,) * ndim, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape).astype(x.dtype)
        if self.up:
            y = conv_transpose(x, kernel, 2, [(1, 0)] * ndim)
        else:
            y = conv(x, kernel, self.stride, self.padding)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, shape[-1:]).astype(x.dtype)
        return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def batch_norm(train: bool) -> nn.BatchNorm:
    """Over batch and space, with running statistics (a tenth of each batch) where not training."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=EPSILON)


def instance_norm(x: Float[Array, "n *space c"]) -> Float[Array, "n *space c"]:
    """(x - mean) / sqrt(variance + 1e-5) over space, of each channel of each sample."""
    space = tuple(range(1, x.ndim - 1))
    centred = x - jnp.mean(x, space, keepdims=True)
    return centred * jax.lax.rsqrt(
        jnp.mean(jnp.square(centred), space, keepdims=True) + jnp.asarray(EPSILON, x.dtype)
    )


def init_variables(
    module: nn.Module, key: Key, *inputs: Any, std: float | None = None, **arguments: Any
) -> PyTree:
    """Normal kernels, zero biases, norms that do nothing yet: for the shapes that these inputs give.

    One flat draw is cut into pieces: Flax's own `init` compiles a random generator for every shape.
    Meant to be called under `jit`.

    Args:
        module: the network.
        key: random key.
        inputs: what it will be called with: arrays, or their `jax.ShapeDtypeStruct`.
        std: of all kernels; None is sqrt(2 / inputs of an output) of each [He et al. 2015].
        arguments: more of the call, static.
    """
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **arguments), *inputs)
    leaves, structure = jax.tree.flatten_with_path(shapes)
    names = [path[-1].key for path, _ in leaves]
    kernels = [name.endswith("kernel") for name in names]
    count = sum(leaf.size for kernel, (_, leaf) in zip(kernels, leaves) if kernel)
    flat = jax.random.normal(key, (count,), jnp.float32)
    filled, start = [], 0
    for name, kernel, (_, leaf) in zip(names, kernels, leaves):
        if kernel:
            scale = math.sqrt(2.0 / math.prod(leaf.shape[:-1])) if std is None else std
            filled.append(scale * flat[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        else:
            filled.append(jnp.full(leaf.shape, float(name in ("scale", "var")), jnp.float32))
    return jax.tree.unflatten(structure, filled)
