"""Image features at the places where an organ's vertices are seen: a VGG encoder and bilinear sampling."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.nn.blocks import Conv, instance_norm

STAGES = (2, 2, 3, 3, 3)
"""Convolutions at each size of VGG-16 (arXiv 1409.1556, configuration D)."""


class Encoder(nn.Module):
    """The thirteen 3x3 convolutions of VGG-16, each with InstanceNorm and ReLU, max pooling between sizes.

    Stage s sees 1/2^s of the size and has min(8, 2^s) width channels. Width 64 is VGG-16, which has no
    norm but starts from trained layers; this one starts from scratch.

    Attributes:
        width: channels of the first stage.
        stages: convolutions of each; more or fewer of them, too.
    """

    width: int
    stages: Sequence[int] = STAGES

    @nn.compact
    def __call__(self, image: Float[Array, "b r c i"]) -> list[Float[Array, "b r_s c_s k_s"]]:
        x, levels = image, []
        for stage, layers in enumerate(self.stages):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for _ in range(layers):
                conv = Conv(self.width * min(8, 2**stage), bias="none")
                x = nn.relu(instance_norm(conv(x)))
            levels.append(x)
        return levels


def bilinear(
    features: Float[Array, "b r c k"], place: Float[Array, "b v 2"]
) -> Float[Array, "b v k"]:
    """Linear interpolation between the four pixels around each (row, column); the border's value outside.

    Exact at integers; differentiable in features and places.
    """
    last = jnp.array([n - 1 for n in features.shape[1:3]], place.dtype)[None, None]
    place = jnp.clip(place, 0.0, last)
    low = jax.lax.stop_gradient(jnp.minimum(jnp.floor(place), jnp.maximum(last - 1.0, 0.0)))
    high = jnp.minimum(low + 1.0, last)
    return _mix(features, low, high, 1.0 - (place - low), place - low)


def floor_ceil_bilinear(
    features: Float[Array, "b r c k"], place: Float[Array, "b v 2"]
) -> Float[Array, "b v k"]:
    """The sampling of Pixel2Mesh's and IGCN+'s TensorFlow codes, zero where row or column is an integer.

    There floor and ceiling are one pixel, and both weights, the distances to the other, vanish: a fault,
    kept to compare numbers with those codes.
    """
    last = jnp.array([n - 1 for n in features.shape[1:3]], place.dtype)[None, None]
    place = jnp.clip(place, 0.0, last)
    low, high = (jax.lax.stop_gradient(f(place)) for f in (jnp.floor, jnp.ceil))
    return _mix(features, low, high, high - place, place - low)


def _mix(features: Array, low: Array, high: Array, near: Array, far: Array) -> Array:
    """The sum over the four corners of weight and feature; `near` belongs to `low`."""
    b, _, columns, k = features.shape
    pixels = features.reshape(b, -1, k)
    total = jnp.zeros((*low.shape[:2], k), features.dtype)
    for row, along_rows in ((low, near), (high, far)):
        for column, along_columns in ((low, near), (high, far)):
            index = (row[..., 0] * columns + column[..., 1]).astype(jnp.int32)
            weight = along_rows[..., 0] * along_columns[..., 1]
            total += weight[..., None] * jax.vmap(lambda p, i: p[i])(pixels, index)
    return total


def at_level(
    place: Float[Array, "b v 2"], image: Sequence[int], level: Sequence[int]
) -> Float[Array, "b v 2"]:
    """Places on an image of this shape -> on one of another shape that covers the same area.

    Pixels are areas: the first one of a level that pooling has halved lies at 0.5 of the image.
    """
    scale = jnp.array([n / m for n, m in zip(level, image, strict=True)], place.dtype)[None, None]
    return (place + 0.5) * scale - 0.5


def pool(
    levels: Sequence[Float[Array, "b r_s c_s k_s"]],
    place: Float[Array, "b v 2"],
    image: Sequence[int],
) -> Float[Array, "b v k"]:
    """The features of all levels at each vertex's place on the image, one after another."""
    sampled = [bilinear(f, at_level(place, image, f.shape[1:3])) for f in levels]
    return jnp.concatenate(sampled, axis=-1)
