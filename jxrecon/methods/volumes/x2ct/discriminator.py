"""The discriminator of X2CT-GAN: a 3-D PatchGAN that sees the volume beside the views it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2ct.layers import Conv, instance_norm

CONDITION_AXIS = (2, 3)
"""The axis of [n, D, H, W, c] that each view looks along: frontal along H, lateral along W."""


def condition(views: Sequence[Float[Array, "n s s"]]) -> Float[Array, "n d h w v"]:
    """Each view smeared back along its own direction: (D, W) over H, (D, H) over W; one a channel."""
    size = views[0].shape[1]
    volumes = [
        jnp.repeat(jnp.expand_dims(view, axis), size, axis)
        for view, axis in zip(views, CONDITION_AXIS)
    ]
    return jnp.stack(volumes, -1)


class Discriminator(nn.Module):
    """Scores of overlapping patches: 4^3 convolutions, padding 2, leaky ReLU 0.2, no pooling.

    | in -> out | stride | | size from 128 |
    |---|---|---|---|
    | views + 1 -> 64 | 2 | bias | 65 |
    | 64 -> 128  | 2 | InstanceNorm | 33 |
    | 128 -> 256 | 2 | InstanceNorm | 17 |
    | 256 -> 512 | 1 | InstanceNorm | 18 |
    | 512 -> 1   | 1 | bias | 19 |
    """

    features: tuple[int, ...] = (64, 128, 256, 512)  # of the hidden layers; all but the last halve
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, volume: Float[Array, "n d h w 1"], views: Sequence[Float[Array, "n s s"]]
    ) -> Float[Array, "n k l m 1"]:
        x = jnp.concatenate([condition(views).astype(self.dtype), volume.astype(self.dtype)], -1)
        for i, features in enumerate(self.features):
            stride = 1 if i == len(self.features) - 1 else 2
            bias = "none" if i else "free"
            x = Conv(features, 4, stride, padding=2, bias=bias, name=f"conv_{i}")(x)
            x = nn.leaky_relu(instance_norm(x) if i else x, 0.2)
        return Conv(1, 4, padding=2, bias="free", name=f"conv_{len(self.features)}")(x)
