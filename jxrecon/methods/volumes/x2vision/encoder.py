"""A start for the inversion: a network from X-rays to the style vector of the volume behind them.

    w(y) = F(y)

F learns the mean of w given the X-rays. It looks at averages of few pixels, so that it stays what it is when
the generator grows.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2vision.codes import averaged
from jxrecon.methods.volumes.x2vision.layers import Conv, Dense, leaky_relu
from jxrecon.methods.volumes.x2vision.networks import DiscriminatorBlock

THICK = 12.0
"""The line integral that becomes 1; above, no detector counts photons."""


class Encoder(nn.Module):
    """X-rays -> a vector: residual levels that halve the size, as in the discriminator.

    Attributes:
        channels: of the input's level and of each further one.
        features: of the vector.
    """

    channels: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b rows columns v"]) -> Float[Array, "b o"]:
        x = Conv(self.channels[0], name="input")(x)
        for n, width in enumerate(self.channels[1:]):
            x = DiscriminatorBlock(width, name=f"level{n}")(x)
        x = x.reshape(x.shape[0], -1)
        x = Dense(2 * self.features, activation=leaky_relu, name="dense")(x)
        return Dense(self.features, name="code")(x)


def stacked(
    images: tuple[Float[Array, "b rows columns"], ...], pixels: int
) -> Float[Array, "b r c v"]:
    """The views as channels of so many pixels: averages of blocks, or resampled; `THICK` is 1."""

    def sized(image: Float[Array, "b rows columns"]) -> Float[Array, "b r c"]:
        if any(n % pixels for n in image.shape[1:]):
            return jax.image.resize(image, (image.shape[0], pixels, pixels), "linear")
        return averaged(image, (pixels, pixels))

    return jnp.stack([jnp.minimum(sized(image), THICK) / THICK for image in images], -1)
