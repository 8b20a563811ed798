"""Lift's network in plain PyTorch: what `jxrecon.methods.volumes.lift.networks` computes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import conv

START_LOG_SIZE = -3.5


class Block(nn.Module):
    """silu(skip x + conv(silu(conv x)))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = conv(3, inputs, outputs), conv(3, outputs, outputs)
        self.skip = conv(3, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, i, j, k] -> [b, outputs, i, j, k]."""
        y = self.second(functional.silu(self.first(x)))
        return functional.silu(self.skip(x) + y)


class UNet(nn.Module):
    """Features of the half grid [b, c, i, j, k] -> (change of the prior's volume, log of the error's size).

    Both [b, 2i, 2j, 2k] in units of the HU window's width.
    """

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        before = [inputs, *widths[:-1]]
        self.down = nn.ModuleList(Block(i, o) for i, o in zip(before, widths))
        self.join = nn.ModuleList(conv(3, i, o, 1) for o, i in pairwise(widths))
        self.up = nn.ModuleList(Block(o, o) for o in widths[:-1])
        self.last = conv(3, widths[0], 16)
        self.dropout = nn.Dropout3d(dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x, levels = features, []
        for n, down in enumerate(self.down):
            x = down(functional.avg_pool3d(x, 2) if n else x)
            levels.append(x)
        x = self.dropout(x)
        for n in reversed(range(len(self.up))):
            x = functional.interpolate(self.join[n](x), scale_factor=2.0, mode="trilinear")
            x = self.up[n](levels[n] + x)
        change, log_size = _full(self.last(x)).unbind(1)
        return change, log_size + START_LOG_SIZE


def _full(x: Tensor) -> Tensor:
    """[b, 16, i, j, k] -> [b, 2, 2i, 2j, 2k]: sub-pixels are channels, the two outputs change first."""
    b, _, i, j, k = x.shape
    parts = x.reshape(b, 2, 2, 2, 2, i, j, k).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return parts.reshape(b, 2, 2 * i, 2 * j, 2 * k)


class Lift(nn.Module):
    """The network and its running mean, by which one reconstructs; and the factor on its deviations.

    Args:
        network: arguments of `UNet`.
        trained: whether the network itself is there: weights that ship are the running mean alone.
    """

    def __init__(self, network: dict, trained: bool) -> None:
        super().__init__()
        if trained:
            self.params = UNet(**network)
        self.ema = UNet(**network)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """As of `UNet`, by the running mean."""
        return self.ema(features)
