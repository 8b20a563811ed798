"""Convolutions as Flax modules, norms, and how the variables of a network start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.nn.conv import Padding, conv, conv_transpose
from jxrecon.types import Key, PyTree

EPSILON = 1e-5  # of both norms


def accurate(dtype: Any) -> Any:
    """float32, or float64 where that is what is computed in: for sums that bfloat16 cannot hold."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def compute_dtype(name: str) -> Any:
    """The dtype of activations; "auto" is bfloat16 on accelerators and float32 on CPU."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


class Conv(nn.Module):
    """Convolution of images or volumes with as many taps along every axis.

    Attributes:
        features: output channels.
        taps: the kernel's.
        stride: the same along all axes.
        padding: zeros at each end, see `conv`; None is half the kernel.
        bias: "free"; "none"; or "idle" where a norm follows, which undoes it: kept for the authors'
            checkpoints, its gradient is zero and is not computed.
        up: double the size instead (transposed, stride 2); `padding` None is 1 before and 0 after: for 3
            taps.
    """

    features: int
    taps: int = 3
    stride: int = 1
    padding: Padding = None
    bias: str = "free"
    up: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n *space i"]) -> Float[Array, "n *out o"]:
        ndim = x.ndim - 2
        shape = (*(self.taps,) * ndim, x.shape[-1], self.features)
        kernel, bias = kernel_and_bias(self, shape, self.bias)
        kernel = kernel.astype(x.dtype)
        if self.up:
            padding = [(1, 0)] * ndim if self.padding is None else self.padding
            return add_bias(conv_transpose(x, kernel, 2, padding), bias)
        return add_bias(conv(x, kernel, self.stride, self.padding), bias)


def kernel_and_bias(
    module: nn.Module, shape: tuple[int, ...], bias: str
) -> tuple[Array, Array | None]:
    """Parameters of a convolution, see `Conv`; meant for `init_variables`."""
    kernel = module.param("kernel", nn.initializers.zeros, shape)
    if bias == "none":
        return kernel, None
    vector = module.param("bias", nn.initializers.zeros, shape[-1:])
    return kernel, jax.lax.stop_gradient(vector) if bias == "idle" else vector


def add_bias(y: Float[Array, "n *space c"], bias: Float[Array, " c"] | None) -> Array:
    """A number a channel, or None."""
    if bias is None:
        return y
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + bias.shape)


def batch_norm(train: bool) -> nn.BatchNorm:
    """Over batch and space, with running statistics (a tenth of each batch) where not training."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=EPSILON)


def instance_norm(x: Float[Array, "n *space c"]) -> Float[Array, "n *space c"]:
    """(x - mean) / sqrt(variance + 1e-5) over space, of each channel of each sample."""
    space = tuple(range(1, x.ndim - 1))
    centred = x - jnp.mean(x, space, keepdims=True)
    variance = jnp.mean(jnp.square(centred), space, keepdims=True)
    return centred * jax.lax.rsqrt(variance + jnp.asarray(EPSILON, x.dtype))


def apply(network: nn.Module, params: PyTree, *inputs: Any) -> Any:
    """What a network of parameters alone gives; Linen's own `apply` may return changed variables too."""
    return network.apply({"params": params}, *inputs)


def init_variables(
    module: nn.Module,
    key: Key,
    *inputs: Any,
    std: float | None = None,
    draw: Callable[..., Array] = jax.random.normal,
    **arguments: Any,
) -> PyTree:
    """Normal kernels, zero biases, norms that do nothing yet: for the shapes that these inputs give.

    One flat draw is cut into pieces: Flax's own `init` compiles a random generator for every shape.
    Meant to be called under `jit`.

    Args:
        module: the network.
        key: random key.
        inputs: what it will be called with: arrays, or their `jax.ShapeDtypeStruct`.
        std: factor of all that is drawn; None is sqrt(2 / inputs of an output) of each [He et al. 2015].
        draw: (key, shape, dtype) -> numbers of spread 1, or of any other with `std` 1.
        arguments: more of the call, static.
    """
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **arguments), *inputs)
    leaves, structure = jax.tree.flatten_with_path(shapes)
    names = [path[-1].key for path, _ in leaves]
    sizes = [leaf.size if name.endswith("kernel") else 0 for name, (_, leaf) in zip(names, leaves)]
    flat = draw(key, (sum(sizes),), jnp.float32)
    filled = []
    for name, (_, leaf), drawn in zip(names, leaves, jnp.split(flat, np.cumsum(sizes)[:-1])):
        if drawn.size:
            scale = math.sqrt(2.0 / math.prod(leaf.shape[:-1])) if std is None else std
            filled.append(scale * drawn.reshape(leaf.shape))
        else:
            filled.append(jnp.full(leaf.shape, float(name in ("scale", "var")), jnp.float32))
    return jax.tree.unflatten(structure, filled)
