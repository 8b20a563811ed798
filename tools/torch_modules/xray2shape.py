"""X-ray2Shape in plain PyTorch: what `jxrecon.methods.surfaces.xray2shape` computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .surfaces import LENGTH_MM, STEP_MM, Encoder, GraphNetwork, Scene, pool, standardised


class Xray2Shape(nn.Module):
    """An X-ray -> the mean shape, moved.

    Args:
        scene: arguments of `Scene`.
        width, stages: of the encoder.
        hidden, pairs: of the graph network.
    """

    def __init__(
        self, scene: dict, width: int, stages: Sequence[int], hidden: int, pairs: int
    ) -> None:
        super().__init__()
        self.scene = Scene(**scene)
        self.encoder = Encoder(1, width, stages)
        features = self.encoder.features
        self.whole = nn.Linear(features[-1], hidden)
        self.graph_ = GraphNetwork(hidden + sum(features[1:]) + 3, hidden, pairs, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Line integrals [b, r, c] -> vertices [b, v, 3] mm."""
        vertices = self.scene.vertices.expand(image.shape[0], -1, -1)
        levels = self.encoder(standardised(image)[:, None])
        whole = functional.relu(self.whole(levels[-1].mean((2, 3))))
        whole = whole[:, None].expand(-1, vertices.shape[1], -1)
        local = pool(levels[1:], self.scene.camera.place_of(vertices), image.shape[1:])
        x = torch.cat([whole, local, vertices / LENGTH_MM], -1)
        return vertices + STEP_MM * self.graph_(x, self.scene)[0]
