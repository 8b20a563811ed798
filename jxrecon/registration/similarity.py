"""How alike two images are, whatever their brightness and contrast: correlation of their derivatives.

Pure functions of two images and, where some pixels are not to be trusted, of their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

Image: TypeAlias = Float[Array, "rows columns"]

LEAST_PIXELS = 8
"""An image is not halved below so many rows or columns."""

_TINY = 1e-20


def correlation(a: Image, b: Image, weight: Image | None = None) -> Float[Array, ""]:
    """Normalised cross-correlation, -1 to 1; 0 where an image is constant.

    sum w (a - mean a)(b - mean b) / sqrt(sum w (a - mean a)^2 sum w (b - mean b)^2), means weighted.
    """
    weight = jnp.ones_like(a) if weight is None else weight
    weight = weight / (weight.sum() + _TINY)
    a, b = (x - (weight * x).sum() for x in (a, b))
    square = (weight * a * a).sum() * (weight * b * b).sum()
    return (weight * a * b).sum() / jnp.sqrt(square + _TINY)


def gradient_correlation(a: Image, b: Image, weight: Image | None = None) -> Float[Array, ""]:
    """Mean correlation of the differences between neighbouring columns and between rows."""
    weight = jnp.ones_like(a) if weight is None else weight
    across = correlation(a[:, 1:] - a[:, :-1], b[:, 1:] - b[:, :-1], weight[:, 1:] * weight[:, :-1])
    down = correlation(a[1:] - a[:-1], b[1:] - b[:-1], weight[1:] * weight[:-1])
    return (across + down) / 2


def multiscale_gradient_correlation(
    a: Image, b: Image, weight: Image | None = None, levels: int = 3
) -> Float[Array, ""]:
    """Mean gradient correlation of the images and of their averages over 2 x 2, 4 x 4, ... pixels.

    Fewer levels where an image has fewer than `LEAST_PIXELS` rows or columns.
    """
    weight = jnp.ones_like(a) if weight is None else weight
    values = [gradient_correlation(a, b, weight)]
    while len(values) < levels and min(a.shape) >= 2 * LEAST_PIXELS:
        # Pixels count in an average by their weight.
        total = averaged(weight, (2, 2))
        a, b = (averaged(x * weight, (2, 2)) / (total + _TINY) for x in (a, b))
        weight = total
        values.append(gradient_correlation(a, b, weight))
    return jnp.stack(values).mean()


def averaged(x: Any, blocks: Sequence[int]) -> Any:
    """Means over blocks of pixels or voxels; what fills no block at an axis' end is left out."""
    counts = [n // block for n, block in zip(x.shape, blocks)]
    x = x[tuple(slice(count * block) for count, block in zip(counts, blocks))]
    for axis, (count, block) in enumerate(zip(counts, blocks)):
        if block > 1:
            x = x.reshape(*x.shape[:axis], count, block, *x.shape[axis + 1 :]).mean(axis + 1)
    return x
