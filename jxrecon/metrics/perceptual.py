"""The gradient-SSIM distance of 2-D images: a differentiable perceptual distance without weights.

It stands where papers use a network's features and is never called by their name: LPIPS needs
trained weights, this needs none. Window means are products with banded matrices, no convolutions:
quick to compile and to run on a CPU too.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WINDOW = 7
"""Side of the uniform SSIM window in pixels (less where the image is smaller)."""

K1, K2 = 0.01, 0.03
"""Constants of Wang et al., IEEE TIP 2004."""

EDGE_FLOOR = 1e-3
"""Mean gradient, in ranges a pixel, below which an image counts as flat."""


@partial(jax.jit, static_argnames="levels")
def gradient_ssim_distance(
    a: Float[Array, "*batch rows columns"],
    b: Float[Array, "*batch rows columns"],
    levels: int = 3,
) -> Float[Array, "*batch"]:
    """Mean over the levels l of a pyramid of half dissimilarity, half difference of edges:

        d(a, b) = 1/L sum_l [ (1 - SSIM(a_l, b_l)) / 2  +  |grad a_l - grad b_l|_1 / (2 |grad b_l|_1) ]

    with a_0 = (a - min b) / (max b - min b), b_0 alike, and a_(l+1) the mean of 2x2 pixels of a_l.
    SSIM is the mean over uniform 7x7 windows with sample covariance and range 1 (scikit-image's
    default), grad the differences of neighbours along rows and columns, |.|_1 a mean. The first term
    sees brightness and structure, the second sharpness. Zero if and only if a = b. Not symmetric: b is
    the target and sets the units, and no gradient flows through these.

    Args:
        levels: how often the image is halved, plus one; less where a side would fall below 2 pixels.
    """
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    levels = max(1, min(levels, min(b.shape[-2:]).bit_length() - 1))
    a, b = _in_ranges_of(b, a), _in_ranges_of(b, b)
    total = jnp.zeros(b.shape[:-2], jnp.float32)
    for level in range(levels):
        if level:
            a, b = _halved(a), _halved(b)
        edges = jax.lax.stop_gradient(_mean_gradient(b)) + EDGE_FLOOR
        total += (1.0 - ssim(a, b)) / 2.0 + _mean_gradient(a - b) / (2.0 * edges)
    return total / levels


def ssim(
    a: Float[Array, "*batch rows columns"],
    b: Float[Array, "*batch rows columns"],
    data_range: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*batch"]:
    """Mean structural similarity (Wang et al. 2004) over the uniform windows that fit in the image."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    count = min(WINDOW, a.shape[-2]) * min(WINDOW, a.shape[-1])
    middle = jax.lax.stop_gradient(jnp.mean(b, axis=(-2, -1), keepdims=True))
    a, b = a - middle, b - middle  # variances are differences of squares: keep these small
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = _window_means(
        jnp.stack([a, b, a * a, b * b, a * b])
    )
    sample = count / (count - 1)
    var_a = sample * (mean_aa - mean_a * mean_a)
    var_b = sample * (mean_bb - mean_b * mean_b)
    cov = sample * (mean_ab - mean_a * mean_b)
    mean_a, mean_b = mean_a + middle, mean_b + middle
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    return jnp.mean(luminance * structure, axis=(-2, -1))


def _in_ranges_of(
    target: Float[Array, "*batch rows columns"], image: Float[Array, "*batch rows columns"]
) -> Float[Array, "*batch rows columns"]:
    """The image in units where the target spans [0, 1]; a flat target counts its own height as range."""
    low = jax.lax.stop_gradient(jnp.min(target, axis=(-2, -1), keepdims=True))
    high = jax.lax.stop_gradient(jnp.max(target, axis=(-2, -1), keepdims=True))
    height = jnp.maximum(jnp.maximum(jnp.abs(low), jnp.abs(high)), 1e-6)
    span = high - low
    return (image - low) / jnp.where(span > 1e-4 * height, span, height)


def _window_means(images: Float[Array, "*batch rows columns"]) -> Float[Array, "*batch r c"]:
    """Mean over every uniform window that fits: a banded matrix along rows, another along columns."""

    def band(size: int) -> np.ndarray:
        side = min(WINDOW, size)
        offset = np.arange(size)[None, :] - np.arange(size - side + 1)[:, None]
        return ((offset >= 0) & (offset < side)).astype(np.float32) / np.float32(side)

    rows, columns = images.shape[-2:]
    precision = jax.lax.Precision.HIGHEST
    images = jnp.einsum("...rc,sr->...sc", images, band(rows), precision=precision)
    return jnp.einsum("...sc,tc->...st", images, band(columns), precision=precision)


def _halved(image: Float[Array, "*batch rows columns"]) -> Float[Array, "*batch r c"]:
    """Mean of 2x2 pixels; an odd last row or column is left out."""
    rows, columns = (2 * (n // 2) for n in image.shape[-2:])
    image = image[..., :rows, :columns]
    along = (image[..., ::2, :] + image[..., 1::2, :]) / 2
    return (along[..., ::2] + along[..., 1::2]) / 2


def _mean_gradient(image: Float[Array, "*batch rows columns"]) -> Float[Array, "*batch"]:
    """Mean |difference of neighbours| along rows plus along columns."""
    down = jnp.mean(jnp.abs(image[..., 1:, :] - image[..., :-1, :]), axis=(-2, -1))
    across = jnp.mean(jnp.abs(image[..., 1:] - image[..., :-1]), axis=(-2, -1))
    return down + across
