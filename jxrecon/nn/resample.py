"""Resampling of images and volumes with a short separable FIR filter: up, filter, down along each axis.

The definition is that of StyleGAN2's upfirdn (true convolution, zeros outside); filters are given as the
taps of one axis, the filter of n dimensions is their outer product. Each axis is one product with a small
constant matrix: on CPU up to three times faster backward than shifted sums, and a hundred times faster than
depthwise convolutions, which XLA compiles badly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
"""[1, 3, 3, 1] / 8, the filter of StyleGAN2 (arXiv 1912.04958); sums to one."""


def upfirdn_axis(
    x: Float[Array, "*shape"],
    axis: int,
    taps: Sequence[float],
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> Float[Array, "*resampled"]:
    """Along one axis: insert up - 1 zeros after each sample, pad, convolve with `taps`, keep every down-th.

    Args:
        x: any array.
        axis: the axis to resample.
        taps: the filter; convolved, so reversed against a correlation.
        up: samples per sample after zero insertion.
        down: one of so many samples is kept.
        padding: zeros before and after (after zero insertion); negative numbers cut.

    Returns:
        `x` with n -> (n up + before + after - len(taps)) // down + 1 along the axis.
    """
    axis %= x.ndim
    matrix = jnp.asarray(_matrix(x.shape[axis], taps, up, down, padding), x.dtype)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    lines = x.reshape(math.prod(before), x.shape[axis], math.prod(after))
    matrices = jnp.broadcast_to(matrix, (lines.shape[0], *matrix.shape))
    y = jnp.matmul(matrices, lines, precision="highest")
    return y.reshape(*before, matrix.shape[0], *after)


def _matrix(
    size: int, taps: Sequence[float], up: int, down: int, padding: tuple[int, int]
) -> np.ndarray:
    """What `upfirdn_axis` does to `size` samples, as a matrix [out, in]."""
    out = (size * up + sum(padding) - len(taps)) // down + 1
    matrix = np.zeros((out, size))
    for row in range(out):
        for tap, value in enumerate(reversed(taps)):
            sample, zero = divmod(row * down + tap - padding[0], up)
            if not zero and 0 <= sample < size:
                matrix[row, sample] = value
    return matrix


def upfirdn(
    x: Float[Array, "b *space c"],
    taps: Sequence[float],
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Float[Array, "b *resampled c"]:
    """`upfirdn_axis` with the same filter along every spatial axis, times `gain`."""
    ndim = x.ndim - 2
    taps = np.asarray(taps) * gain ** (1 / ndim)
    for axis in range(1, 1 + ndim):
        x = upfirdn_axis(x, axis, tuple(taps), up, down, padding)
    return x


def halved(x: Float[Array, "x y z"]) -> Float[Array, "i j k"]:
    """The means of the blocks of eight voxels."""
    split = [size for n in x.shape for size in (n // 2, 2)]
    return x.reshape(split).mean((1, 3, 5))


def upsample2(
    x: Float[Array, "b *space c"], taps: Sequence[float] = BINOMIAL
) -> Float[Array, "b *double c"]:
    """Twice the samples along every spatial axis; a constant stays the same (gain 2 an axis)."""
    n = len(taps)
    return upfirdn(x, taps, up=2, padding=((n + 1) // 2, (n - 2) // 2), gain=2.0 ** (x.ndim - 2))


def downsample2(
    x: Float[Array, "b *space c"], taps: Sequence[float] = BINOMIAL
) -> Float[Array, "b *half c"]:
    """Half the samples along every spatial axis."""
    n = len(taps)
    return upfirdn(x, taps, down=2, padding=((n - 1) // 2, (n - 2) // 2))
