"""The networks of IGCN: an image branch that sees and maps, and graph convolutions that move the vertices."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.mesh.aggregation import Aggregate
from jxrecon.nn.blocks import Conv, instance_norm
from jxrecon.nn.graph import GraphNetwork
from jxrecon.nn.perceptual_pooling import Encoder, at_level, bilinear, floor_ceil_bilinear, pool

PLUS_CHANNELS = (20, 40, 80, 160, 320, 640)
"""Of the U-Net of IGCN+ at each size, fine to coarse."""

ZERO, SCALE = 122.0, 6800.0
"""Values in the map of IGCN+: where nothing moves, and of one unit of length more."""


class MapHead(nn.Module):
    """The dense mapping M on the detector: all levels of the encoder, merged from coarse to fine.

    Every level is brought to `width` channels, added to the doubled one below it and convolved. It ends at
    a quarter of the image's size: displacements are smooth.
    """

    width: int

    @nn.compact
    def __call__(
        self, levels: Sequence[Float[Array, "b r_s c_s k_s"]]
    ) -> Float[Array, "b rows columns 2"]:
        x = Conv(self.width, 1)(levels[-1])
        for finer in levels[-2:1:-1]:
            x = jax.image.resize(x, (*finer.shape[:3], self.width), "linear")
            x = nn.relu(
                instance_norm(Conv(self.width, bias="none")(x + Conv(self.width, 1)(finer)))
            )
        return Conv(2, 1, name="map")(x)


class Igcn(nn.Module):
    """[IGCN Fig. 7] Image, vertices and where they are seen -> how they move, in units of 10 mm.

    The encoder is that of VGG-16 ("extended": by the map head). Vertex features are those of its stages 1
    to 4, M's displacement and the coordinates. Both heads are meant to start at zero.

    Attributes:
        width: channels of the encoder's first stage; 64 is VGG-16.
        stages: convolutions of the encoder at each size.
        hidden: channels of the graph convolutions.
        pairs: residual ones.
    """

    width: int
    stages: tuple[int, ...]
    hidden: int
    pairs: int

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b r c i"],
        place: Float[Array, "b v 2"],
        coordinates: Float[Array, "b v 3"],
        aggregate: Aggregate,
    ) -> tuple[Float[Array, "b v 3"], Float[Array, "b v 2"]]:
        """(displacement in the world, M(p) - p on the detector at the vertices' places, [row, column])."""
        levels = Encoder(self.width, self.stages, name="encoder")(image)
        dense = MapHead(4 * self.width, name="map_head")(levels)
        mapping = bilinear(dense, at_level(place, image.shape[1:3], dense.shape[1:3]))
        features = pool(levels[1:], place, image.shape[1:3])
        x = jnp.concatenate([features, mapping, coordinates], axis=-1)
        moved, _ = GraphNetwork(self.hidden, self.pairs, 3, name="graph")(x, aggregate)
        return moved, mapping


class UNet(nn.Module):
    """[IGCN+] Two 3x3 convolutions with ReLU at each size, five poolings, and back up with skips.

    Attributes:
        channels: those at each size, fine to coarse.
        faults: the input norm with its initial statistics, that is none, as in the authors' training;
            otherwise each channel of each image is normalised.
    """

    channels: Sequence[int]
    faults: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b r c 3"]) -> Float[Array, "b r c 3"]:
        def layers(x: Array, channels: int, name: str) -> Array:
            for half in "ab":
                x = nn.relu(Conv(channels, name=f"{name}{half}")(x))
            return x

        x = InputNorm(self.faults, name="norm")(x)
        skips = []
        for level, channels in enumerate(self.channels):
            x = layers(nn.max_pool(x, (2, 2), (2, 2)) if level else x, channels, f"down_{level}")
            skips.append(x)
        for level in reversed(range(len(self.channels) - 1)):
            x = Conv(self.channels[level], 2, padding=0, up=True, name=f"double_{level}")(x)
            x = layers(jnp.concatenate([x, skips[level]], -1), self.channels[level], f"up_{level}")
        return Conv(3, 1, name="head")(x)


class InputNorm(nn.Module):
    """gamma (x - mean) / sqrt(variance + 1e-5) + beta, a channel each; mean 0, variance 1 with `faults`."""

    faults: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b r c k"]) -> Float[Array, "b r c k"]:
        gamma = self.param("scale", nn.initializers.ones, x.shape[-1:]).astype(x.dtype)
        beta = self.param("bias", nn.initializers.zeros, x.shape[-1:]).astype(x.dtype)
        x = x / jnp.sqrt(jnp.asarray(1.0 + 1e-5, x.dtype)) if self.faults else instance_norm(x)
        return x * gamma[None, None, None] + beta[None, None, None]


class IgcnPlus(nn.Module):
    """[IGCN+] A dense 3-D displacement map by a U-Net, sampled at the vertices, and a graph network.

    Attributes:
        channels: the U-Net's, fine to coarse.
        hidden: channels of the graph convolutions.
        pairs: residual ones.
        faults: those of the released code: sampling gives 0 at integers, the norm does nothing.
    """

    channels: Sequence[int] = PLUS_CHANNELS
    hidden: int = 256
    pairs: int = 4
    faults: bool = False

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b r c 3"],
        place: Float[Array, "b v 2"],
        shape: Float[Array, "b v 3"],
        aggregate: Aggregate,
    ) -> tuple[Float[Array, "b v 3"], Float[Array, "b r c 3"]]:
        """(displacement of the vertices in the unit of `shape`, the map)."""
        dense = UNet(self.channels, self.faults, name="unet")(image)
        sampled = (floor_ceil_bilinear if self.faults else bilinear)(dense, place)
        x = jnp.concatenate([(sampled - ZERO) / SCALE, shape], axis=-1)
        return GraphNetwork(self.hidden, self.pairs, 3, name="graph")(x, aggregate)[0], dense
