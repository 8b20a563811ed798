"""Pixel2Mesh in plain PyTorch: what `jxrecon.methods.surfaces.pixel2mesh` computes on an organ's template."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import conv
from .projection import at_level, bilinear
from .surfaces import LENGTH_MM, GraphConvolution, GraphNetwork, Scene, standardised

BLOCKS = 3


class Encoder(nn.Module):
    """Image -> features of stages 2 to 5; strides instead of pooling, no norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = 1
        for stage, layers in enumerate((2, 3, 3, 3, 3, 4)):
            made = nn.ModuleDict()
            for layer in range(layers):
                first = stage > 0 and layer == 0
                taps = 5 if first and stage > 3 else 3
                outputs, stride = width * 2**stage, 2 if first else 1
                made[str(layer + 1)] = conv(2, inputs, outputs, taps, stride=stride)
                inputs = outputs
            self.add_module(f"conv{stage}", made)

    def forward(self, image: Tensor) -> list[Tensor]:
        x, levels = image, []
        for stage in self.children():
            for layer in stage.values():
                x = functional.relu(layer(x))
            levels.append(x)
        return levels[2:]


class Pixel2Mesh(nn.Module):
    """An X-ray and a reference -> the moved vertices, in three blocks.

    Args:
        scene: arguments of `Scene`.
        width: of the encoder.
        hidden, pairs: of the graph networks.
    """

    def __init__(self, scene: dict, width: int, hidden: int, pairs: int) -> None:
        super().__init__()
        self.scene, self.encoder = Scene(**scene), Encoder(width)
        inputs = 3 + width * (4 + 8 + 16 + 32)
        sizes = [(inputs, 3), *[(inputs + hidden, 3)] * (BLOCKS - 2), (inputs + hidden, hidden)]
        self.gcn = nn.ModuleList(GraphNetwork(i, hidden, pairs, o, True) for i, o in sizes)
        self.head = GraphConvolution(hidden, 3, True)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Line integrals [b, r, c], vertices [b, v, 3] mm."""
        shape, vertices = image.shape[1:], reference / LENGTH_MM
        maps, memory = self.encoder(standardised(image)[:, None]), []
        for block, network in enumerate(self.gcn):
            place = self.scene.camera.place_of(LENGTH_MM * vertices)
            features = [bilinear(m, at_level(place, shape, m.shape[2:])) for m in maps]
            x = torch.cat([vertices, *features, *memory], -1)
            moved, *memory = network(x, self.scene)
            if block == BLOCKS - 1:
                moved = self.head(functional.relu(moved), self.scene)
            vertices = vertices + moved
        return LENGTH_MM * vertices
