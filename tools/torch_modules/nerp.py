"""NeRP's network in plain PyTorch, with the tensor names of the published code.

What it computes is what `jxrecon.methods.volumes.nerp` computes.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

W0 = 30.0


class Sine(nn.Module):
    """sin(30 (x W' + b)), or linear where it is the last layer."""

    def __init__(self, inputs: int, outputs: int, last: bool) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(inputs, outputs), last

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if self.last else torch.sin(W0 * y)


class Nerp(nn.Module):
    """Coordinates [n, 3] from 0 to 1 across the grid -> attenuation [n, 1], 1 at the window's upper end.

    Args:
        network: "siren" or "ffn".
        features: number of frequencies.
        width: of the hidden layers.
        depth: linear layers.
    """

    def __init__(self, network: str, features: int, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("B", torch.randn(features, 3))
        sizes = [2 * features, *[width] * (depth - 1), 1]
        layers: list[nn.Module] = []
        for n, (i, o) in enumerate(pairwise(sizes)):
            last = n == depth - 1
            if network == "siren":
                layers.append(Sine(i, o, last))
            else:
                layers += [nn.Linear(i, o), nn.Sigmoid() if last else nn.ReLU()]
        self.model = nn.Sequential(*layers)

    def forward(self, points: Tensor) -> Tensor:
        angle = 2 * math.pi * (points @ self.B.T)
        return self.model(torch.cat([torch.sin(angle), torch.cos(angle)], -1))
