"""The network of Pixel2Mesh: an encoder, and three graph networks that each pool features and place vertices.

The paper's network starts from an ellipsoid and quarters its faces between the blocks; on an organ's
template all three blocks have the template's vertices. Both are this network: the meshes come in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jxrecon.geometry import Camera
from jxrecon.mesh.subdivision import unpool
from jxrecon.nn.blocks import Conv
from jxrecon.nn.graph import GraphConvolution, GraphNetwork
from jxrecon.nn.perceptual_pooling import at_level, bilinear

Vertices = Float[Array, "b v 3"]
Pooling = Callable[[Array, Array, Sequence[int]], Array]
"""(features [b, r, c, k], places on the image [b, v, 2], the image's shape) -> [b, v, k]."""


def centres(features: Array, place: Array, image: Sequence[int]) -> Array:
    """Levels cover the image's area; the border's value outside. What this project uses."""
    return bilinear(features, at_level(place, image, features.shape[1:3]))


class Encoder(nn.Module):
    """Pixel2Mesh's own VGG-16: strides instead of pooling, ReLU after every convolution, no norm.

    | stage | size | taps | channels |
    |---|---|---|---|
    | 0 | 1 | 3, 3 | width |
    | 1 | 1/2 | 3, 3, 3 | 2 width |
    | 2, 3 | 1/4, 1/8 | 3, 3, 3 | 4, 8 width |
    | 4 | 1/16 | 5, 3, 3 | 16 width |
    | 5 | 1/32 | 5, 3, 3, 3 | 32 width |

    Attributes:
        width: 16 in the paper.
        down: makes the strided convolutions, as `Conv`.
    """

    width: int = 16
    down: Callable[..., nn.Module] = Conv

    @nn.compact
    def __call__(self, x: Float[Array, "b r c i"]) -> list[Float[Array, "b r_s c_s k_s"]]:
        """Stages 2 to 5."""
        levels = []
        for stage, layers in enumerate((2, 3, 3, 3, 3, 4)):
            for layer in range(layers):
                first = stage and not layer
                make = self.down if first else Conv
                taps, stride = (5 if stage > 3 else 3, 2) if first else (3, 1)
                name = f"conv{stage}_{layer + 1}"
                x = nn.relu(make(self.width * 2**stage, taps, stride, name=name)(x))
            levels.append(x)
        return levels[2:]


class Level(NamedTuple):
    """The mesh of one block.

    Attributes:
        aggregate: D^-1 A, a `mesh.aggregation.Aggregate`.
        ends: [n, 2] the vertices between which the new ones of this mesh lie, appended to those of the
            block before; None if there are none.
    """

    aggregate: Any
    ends: Int[np.ndarray, "n 2"] | None = None


class Shapes(NamedTuple):
    """What each block started from and gave, coarse to fine, in the unit of the first mesh."""

    before: tuple[Vertices, ...]
    after: tuple[Vertices, ...]


class Pixel2Mesh(nn.Module):
    """[P2M Fig. 2] Image and initial vertices -> three surfaces, each from the one before.

    Attributes:
        camera: the X-ray's, in millimetres.
        unit_mm: unit of the vertices.
        width: channels of the encoder's first stage.
        hidden: channels of the graph convolutions.
        pairs: residual ones of each block.
        pooling: how features are sampled at places on the image.
        residual: whether a block adds to its vertices instead of giving their places.
        down: see `Encoder`.
    """

    camera: Camera
    unit_mm: float = 1.0
    width: int = 16
    hidden: int = 256
    pairs: int = 6
    pooling: Pooling = centres
    residual: bool = False
    down: Callable[..., nn.Module] = Conv

    @nn.compact
    def __call__(
        self, image: Float[Array, "b r c i"], vertices: Vertices, levels: Sequence[Level]
    ) -> Shapes:
        maps = Encoder(self.width, self.down, name="encoder")(image)
        before, after = [], []
        memory: list[Array] = []
        for block, level in enumerate(levels):
            place = self.camera.place_of(self.unit_mm * vertices)
            features = [self.pooling(m, place, image.shape[1:3]) for m in maps]
            x = jnp.concatenate([vertices, *features, *memory], axis=-1)
            if level.ends is not None:
                x, vertices = unpool(x, level.ends), unpool(vertices, level.ends)
            before.append(vertices)
            last = block == len(levels) - 1
            features_out = self.hidden if last else 3
            network = GraphNetwork(self.hidden, self.pairs, features_out, True, name=f"gcn_{block}")
            moved, *memory = network(x, level.aggregate)
            if last:
                head = GraphConvolution(3, self_weight=True, name="head")
                moved = head(nn.relu(moved), level.aggregate)
            vertices = vertices + moved if self.residual else moved
            after.append(vertices)
        return Shapes(tuple(before), tuple(after))
