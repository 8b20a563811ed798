"""A generator's samples beside real cases: as distributions, how varied they are, whether they are copies.

Items of a population are arrays of one shape: volumes, X-rays, features. All distances are root mean squares
over an item's numbers, in their unit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jxrecon.metrics.lpips import Lpips, features
from jxrecon.metrics.slices import rgb
from jxrecon.types import Key

SLICES = 128
"""Directions of a sliced Wasserstein distance."""


def sliced_wasserstein(
    a: Float[Array, "n *item"], b: Float[Array, "m *item"], key: Key, slices: int = SLICES
) -> Float[Array, ""]:
    """sqrt mean_s W_2(a . s, b . s)^2 along random directions s ~ N(0, I / numbers of an item).

    A shift of all numbers by c gives about |c|: the unit is that of the items. Populations of unlike sizes
    are compared by quantiles.
    """
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    size = a.shape[1]
    directions = jax.random.normal(key, (size, slices)) / jnp.sqrt(jnp.float32(size))
    level = (jnp.arange(max(len(a), len(b)), dtype=jnp.float32) + 0.5) / max(len(a), len(b))
    along = [
        jnp.quantile(jnp.matmul(x, directions, precision="highest"), level, axis=0) for x in (a, b)
    ]
    return jnp.sqrt(jnp.mean(jnp.square(along[0] - along[1])))


def distances(a: Float[Array, "n *item"], b: Float[Array, "m *item"]) -> Float[Array, "n m"]:
    """Between every item of one and every item of the other population."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return lax.map(lambda x: jnp.sqrt(jnp.mean(jnp.square(b - x[None]), axis=1)), a)


def spread(a: Float[Array, "n *item"]) -> Float[Array, ""]:
    """Mean distance of two different items."""
    n = len(a)
    return jnp.sum(distances(a, a)) / (n * (n - 1))


def nearest(a: Float[Array, "n *item"], b: Float[Array, "m *item"]) -> Float[Array, " n"]:
    """Distance of each item to the nearest of the other population that is not itself."""
    found = distances(a, b)
    return jnp.min(jnp.where(found > 0.0, found, jnp.inf), axis=1)


def feature_distance(
    params: Lpips, a: Float[Array, "n rows columns"], b: Float[Array, "m rows columns"]
) -> Float[Array, ""]:
    """Squared distance of two populations' mean LPIPS features, mean over layers: 0 for equal ones.

    Features are those that LPIPS compares, of unit length over channels, averaged over images and their
    pixels. The range of both populations is [-1, 1].
    """
    low = jnp.minimum(jnp.min(a), jnp.min(b))
    high = jnp.maximum(jnp.max(a), jnp.max(b))

    def means(images: Float[Array, "n rows columns"]) -> list[Float[Array, " c"]]:
        shown = rgb((images - low) / (high - low) * 2.0 - 1.0)
        layers = features(params, shown)
        unit = [f / (jnp.sqrt(jnp.sum(f**2, -1, keepdims=True)) + 1e-10) for f in layers]
        return [jnp.mean(f, axis=(0, 1, 2)) for f in unit]

    return jnp.mean(jnp.stack([jnp.sum((f - g) ** 2) for f, g in zip(means(a), means(b))]))
