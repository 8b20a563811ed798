"""The generator of X2CT-GAN: one dense encoder and 3-D decoder a view, and a third decoder that fuses them.

Level r works at size / 2^r; the paper's stage i takes level i to i + 1, its decoder layer i is level i + 1.
The three connections of the paper:
    A  the pooled code of an encoder becomes a small volume (`Encoder.code`)
    B  each encoder level, extruded along the viewing direction, joins the decoder (`Link`)
    C  both views' features, turned into one frame and averaged, join the fused decoder (`Generator`)

A view's volume has its viewing direction first: (H, D, W) frontal, (W, D, H) lateral, the common frame is
(D, H, W) (see the package). InstanceNorm has no parameters and always takes the instance's statistics.
Parameters come from `nn.blocks.init_variables` and are float32, activations are `dtype`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2ct.layers import (
    Compress,
    Conv,
    Layer,
    Link,
    Stage,
    norm_relu,
    recomputed,
)
from jxrecon.types import InputError


@dataclass(frozen=True)
class Architecture:
    """What a generator is made of; the defaults are the paper's biplanar network.

    | level | size | encoder channels | dense layers | decoder, Connection-B channels |
    |---|---|---|---|---|
    | 0 | S    | 64                 | 6  | 16 |
    | 1 | S/2  | 64 -> 256 -> 128   | 12 | 16 |
    | 2 | S/4  | 128 -> 512 -> 256  | 24 | 32 |
    | 3 | S/8  | 256 -> 1024 -> 512 | 16 | 64 |
    | 4 | S/16 | 512 -> 1024 -> 512 | 6  | 128 |
    | 5 | S/32 | 512 -> 704 -> pool |    | 256, no Connection-B |

    Attributes:
        size: voxels along each edge of the volume and pixels along each edge of the views.
        views: 1 (frontal) or 2 (frontal and lateral).
        stem: channels of the encoder at level 0.
        growth: channels that a dense layer adds; its bottleneck is four times as wide.
        layers: dense layers of each encoder stage; the stage from level r to r + 1 has layers[r].
        decoder: channels of the decoder at each level, one more than there are stages.
        connection_b: whether encoder levels join the decoder.
        fusion: whether the fused decoder exists (Connection-C beyond the bottleneck). Without it the two
            views meet at the bottleneck alone, each decodes on its own, the volume is their mean.
        write_back: whether the views go on with the mean that fusion forms, instead of their own features.
        dropout: rate behind the code in training.
        dtype: the activations'; bfloat16 pays on accelerators. Norms are computed in float32.
        remat: keep of each block what norms give; the backward pass recomputes the rest, no convolution.

    Raises:
        InputError: sizes do not fit: the bottleneck must have two voxels an edge or more, as
            InstanceNorm of a single one is zero.
    """

    size: int = 128
    views: int = 2
    stem: int = 64
    growth: int = 32
    layers: tuple[int, ...] = (6, 12, 24, 16, 6)
    decoder: tuple[int, ...] = (16, 16, 32, 64, 128, 256)
    connection_b: bool = True
    fusion: bool = True
    write_back: bool = True
    dropout: float = 0.5
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        step = 2**self.stages
        if self.size % step or self.size < 2 * step:
            raise InputError(
                f"x2ct size is {self.size}, expected a multiple of {step} of at least {2 * step}"
                f" for {self.stages} stages"
            )
        if self.views not in (1, 2):
            raise InputError(f"x2ct views is {self.views}, expected 1 or 2")
        if len(self.decoder) != self.stages + 1:
            raise InputError(
                f"x2ct decoder has {len(self.decoder)} levels, expected {self.stages + 1}:"
                f" one more than the stages"
            )

    @property
    def stages(self) -> int:
        """How often the encoder halves the size."""
        return len(self.layers)

    def scaled(self, width: float) -> Architecture:
        """All channel counts times `width`, at least 1 each."""

        stem, growth, *decoder = (
            max(1, round(channels * width)) for channels in (self.stem, self.growth, *self.decoder)
        )
        return with_fields(self, stem=stem, growth=growth, decoder=tuple(decoder))


def tiny(size: int = 32, **settings: Any) -> Architecture:
    """The reduced network for 32^3 on a CPU: the same blocks in three stages, bottleneck 4^3.

    | level | size | encoder channels | dense layers | decoder, Connection-B channels |
    |---|---|---|---|---|
    | 0 | 32 | 32               | 3 | 16 |
    | 1 | 16 | 32 -> 80 -> 40   | 6 | 16 |
    | 2 | 8  | 40 -> 136 -> 68  | 3 | 32 |
    | 3 | 4  | 68 -> 116 -> pool |  | 64, no Connection-B |

    `size` is a multiple of 8, at least 16; `settings` are other fields of `Architecture`.
    """
    fields = {"stem": 32, "growth": 16, "layers": (3, 6, 3), "decoder": (16, 16, 32, 64)}
    return Architecture(size=size, **{**fields, **settings})


class Volumes(NamedTuple):
    """What the generator gives.

    Attributes:
        volume: the reconstruction, [n, D, H, W, 1], >= 0 and not bounded above.
        views: each view's own, [n, H, D, W, 1] and [n, W, D, H, 1].
    """

    volume: Float[Array, "n d h w 1"]
    views: tuple[Float[Array, "n k l m 1"], ...]


class Encoder(nn.Module):
    """A view -> its features at every level but the last, and the volume of Connection-A."""

    arch: Architecture

    @nn.compact
    def __call__(
        self, view: Float[Array, "n s s"], deterministic: bool = True
    ) -> tuple[list[Float[Array, "n h w c"]], Float[Array, "n k k k c"]]:
        a = self.arch
        x = jnp.pad(view[..., None].astype(a.dtype), ((0, 0), (3, 3), (3, 3), (0, 0)), "reflect")
        x = norm_relu(Conv(a.stem, 7, padding=0, name="stem")(x))
        features = []
        stage = recomputed(Stage) if a.remat else Stage
        for i, layers in enumerate(a.layers):
            features.append(x)
            x = stage(layers, a.growth, i == a.stages - 1, name=f"stage_{i}")(x)
        edge, channels = a.size // 2**a.stages, a.decoder[-1]
        linear = nn.Dense(channels * edge**3, dtype=a.dtype, name="code")
        code = nn.relu(nn.Dropout(a.dropout)(linear(x), deterministic))
        # Channels first in the code, as in the authors' checkpoints.
        return features, jnp.moveaxis(code.reshape(-1, channels, edge, edge, edge), 1, -1)


class Decoder(nn.Module):
    """A decoder's parts by level; the generator runs them, coarse to fine."""

    arch: Architecture
    convs: int  # convolutions a level between bottleneck and finest, which have none and one
    linked: bool  # whether a view's Connection-B joins

    def setup(self) -> None:
        a = self.arch
        wrap = recomputed if a.remat else lambda module: module
        channels = a.decoder[:-1]
        self.compress = [wrap(Compress)(c, self.linked) for c in channels]
        convs = (1, *(self.convs,) * (a.stages - 1), 0)
        self.layer = [wrap(Layer)(k, up) for k, up in zip(convs, (0, *channels))]
        if self.linked and a.connection_b:
            self.link = [wrap(Link)(c) for c in channels]
        self.head = Conv(1, 7, bias="free")

    def join(self, level: int, x: Array, features: Float[Array, "n s s c"]) -> Array:
        """The compress step of a view's decoder: its volume and the encoder's features of this level."""
        linked = (self.link[level](features),) if self.arch.connection_b else ()
        return self.compress[level](x, *linked)

    def finish(self, x: Float[Array, "n s s s c"]) -> Float[Array, "n s s s 1"]:
        """ReLU, the 7^3 head and ReLU."""
        return nn.relu(self.head(nn.relu(x)))


TO_COMMON = ((0, 2, 1, 3, 4), (0, 2, 3, 1, 4))
FROM_COMMON = ((0, 2, 1, 3, 4), (0, 3, 1, 2, 4))
"""(H, D, W) and (W, D, H) <-> (D, H, W): the order of the axes for `transpose`, batch and channel kept."""


class Generator(nn.Module):
    """Views -> volume: X2CT-GAN's generator, which is X2CT-CNN's network too."""

    arch: Architecture

    def setup(self) -> None:
        a = self.arch
        self.encoder = [Encoder(a) for _ in range(a.views)]
        self.decoder = [Decoder(a, 2, linked=True) for _ in range(a.views)]
        if a.views == 2 and a.fusion:
            self.fused = Decoder(a, 1, linked=False)

    def __call__(
        self, views: Sequence[Float[Array, "n s s"]], deterministic: bool = True
    ) -> Volumes:
        """Reconstructs.

        Args:
            views: as many as the architecture has, frontal then lateral, [n, size, size], in [0, 1].
            deterministic: without dropout. Otherwise the random stream "dropout" is needed.

        Raises:
            InputError: number or size of the views is not that of the architecture.
        """
        a = self.arch
        sizes = [view.shape[1:] for view in views]
        if sizes != [(a.size, a.size)] * a.views:
            raise InputError(
                f"x2ct views have sizes {sizes}, expected {a.views} of ({a.size}, {a.size})"
            )
        encoded = [e(v, deterministic) for e, v in zip(self.encoder, views)]
        features, xs = [f for f, _ in encoded], [x for _, x in encoded]
        fused = None
        for level in reversed(range(a.stages + 1)):
            if level < a.stages:
                xs = [d.join(level, x, f[level]) for d, x, f in zip(self.decoder, xs, features)]
            if a.views == 2 and (a.fusion or level == a.stages):
                mean = _mean([nn.relu(x) for x in xs])
                if a.write_back:
                    xs = [mean.transpose(order) for order in FROM_COMMON]
                if a.fusion:
                    joined = mean if fused is None else self.fused.compress[level](mean, fused)
                    fused = self.fused.layer[level](joined)
            xs = [d.layer[level](x) for d, x in zip(self.decoder, xs)]
        own = tuple(d.finish(x) for d, x in zip(self.decoder, xs))
        return Volumes(_mean(own) if fused is None else self.fused.finish(fused), own)


def _mean(volumes: Sequence[Float[Array, "n k l m c"]]) -> Float[Array, "n d h w c"]:
    """[X2CT Connection-C] The views' volumes, turned into the common frame and averaged."""
    common = [v.transpose(order) for v, order in zip(volumes, TO_COMMON)]
    return sum(common[1:], common[0]) / len(common)
