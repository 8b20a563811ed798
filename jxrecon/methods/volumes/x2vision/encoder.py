"""Codes from volumes instead of a table of them: what the prior's augmented training stands on.

    z = (E(v) - m) / s       m, C: running mean and covariance of E(v), s^2 = tr(C) / d
    z ~ N(0, C / s^2)        for random volumes
    w(y) = F(y)              F: X-rays -> the style vector of the volume behind them

A table holds a code for each training volume as it is and knows none of one that was moved or bent; E gives
codes of any. One factor for all directions, because the two other ways were tried and failed: left as they
are, codes differ from patient to patient by less than their mean and the noise on them, and G shows the mean
volume; whitened, a hundred directions that say nothing yet are as large as those that do, and G learns slower
than the mean. Random z have the first two moments of the codes of training volumes. F learns the mean of w
given the X-rays, a start for the inversion. Both look at averages of a coarse level, so that they stay what
they are when the generator grows.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jxrecon.methods.volumes.x2vision.layers import Conv, Dense, leaky_relu
from jxrecon.methods.volumes.x2vision.networks import DiscriminatorBlock
from jxrecon.types import Key

THICK = 12.0
"""The line integral that becomes 1; above, no detector counts photons."""

RIDGE = 1e-5
"""Added to the variance of random codes, of mean 1, in every direction, so that it has a root."""

MEMORY = 0.998
"""Of the running moments, a step."""


class Encoder(nn.Module):
    """Volumes or X-rays -> a vector: residual levels that halve the size, as in the discriminator.

    Attributes:
        channels: of the input's level and of each further one.
        features: of the vector.
    """

    channels: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b o"]:
        x = Conv(self.channels[0], name="input")(x)
        for n, width in enumerate(self.channels[1:]):
            x = DiscriminatorBlock(width, name=f"level{n}")(x)
        x = x.reshape(x.shape[0], -1)
        x = Dense(2 * self.features, activation=leaky_relu, name="dense")(x)
        return Dense(self.features, name="code")(x)


class Moments(NamedTuple):
    """Attributes: mean, covariance: of E(v) over what training has shown."""

    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]


def first_moments(features: int) -> Moments:
    """Of N(0, I)."""
    return Moments(jnp.zeros(features), jnp.eye(features))


def followed(moments: Moments, raw: Float[Array, "b d"], step: Int[Array, ""]) -> Moments:
    """The moments after a batch; the first batches count for more."""
    time = step.astype(jnp.float32)
    keep = jnp.minimum(MEMORY, (time + 1.0) / (time + 4.0))
    mean = moments.mean + (1.0 - keep) * (jnp.mean(raw, axis=0) - moments.mean)
    away = raw - mean[None]
    spread = jnp.matmul(away.T, away, precision="highest") / raw.shape[0]
    return Moments(mean, keep * moments.covariance + (1.0 - keep) * spread)


def standardised(moments: Moments, raw: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """z of E(v); the moments are constants."""
    mean, covariance = jax.lax.stop_gradient(moments)
    return (raw - mean[None]) / jnp.sqrt(jnp.trace(covariance) / raw.shape[1])


def random_codes(
    moments: Moments | tuple[()], key: Key, shape: tuple[int, int]
) -> Float[Array, "b d"]:
    """z ~ N(0, C / s^2), or N(0, I) where there are no moments."""
    z = jax.random.normal(key, shape)
    if not moments:
        return z
    relative = moments.covariance * (shape[1] / jnp.trace(moments.covariance))
    root = jnp.linalg.cholesky(relative + RIDGE * jnp.eye(shape[1], dtype=relative.dtype))
    return jnp.matmul(z, root.T, precision="highest")


def averaged(x: Float[Array, "b *space"], shape: tuple[int, ...]) -> Float[Array, "b *coarse"]:
    """Means of equal blocks, down to `shape`; an axis that is that short already stays."""
    split = [size for n, m in zip(x.shape[1:], shape) for size in (min(n, m), max(n // m, 1))]
    blocks = x.reshape(x.shape[0], *split)
    return jnp.mean(blocks, axis=tuple(range(2, 2 * len(shape) + 1, 2)))


def stacked(
    images: tuple[Float[Array, "b rows columns"], ...], pixels: int
) -> Float[Array, "b r c v"]:
    """The views as channels, averaged to `pixels` along each axis, `THICK` is 1."""
    views = [jnp.minimum(averaged(image, (pixels, pixels)), THICK) / THICK for image in images]
    return jnp.stack(views, -1)
