"""2DCNN and Henzler's network in plain PyTorch: a volume from the frontal X-ray.

What they compute is what `jxrecon.methods.volumes.cnn2d` and `henzler` compute. X-rays are [n, rows, columns]
in [0, 1] (line integrals / 8), volumes [n, rows, columns, depth], along the X-ray's axes, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from .layers import BatchNorm, conv, doubling, resized


class Cnn2d(nn.Module):
    """Stem, two halvings, residual blocks, one doubling, head; all convolutions but the last with a norm.

    Args:
        shape: of the volume.
        width: channels of the first layer.
        blocks: residual ones.
    """

    def __init__(self, shape: Sequence[int], width: int, blocks: int) -> None:
        super().__init__()
        *self.shape, depth = shape
        layers = [conv(2, 1, width, 7, bias=False)]
        layers += [conv(2, n * width, 2 * n * width, stride=2, bias=False) for n in (1, 2)]
        layers += [conv(2, 4 * width, 4 * width, bias=False) for _ in range(2 * blocks)]
        layers += [doubling(2, 4 * width, 2 * width, bias=False)]
        norms = [BatchNorm(c * width) for c in (1, 2, 4, *(4,) * (2 * blocks), 2)]
        self.conv = nn.ModuleList([*layers, conv(2, 2 * width, depth, 7)])
        self.batch_norm = nn.ModuleList(norms)

    def forward(self, image: Tensor) -> Tensor:
        x, last = image[:, None], len(self.batch_norm) - 1

        def layer(n: int, x: Tensor) -> Tensor:
            return self.batch_norm[n](self.conv[n](x))

        for n in range(3):
            x = functional.relu(layer(n, x))
        for n in range(3, last, 2):
            x = x + layer(n + 1, functional.relu(layer(n, x)))
        x = resized(functional.relu(layer(last, x)), self.shape)
        return self.conv[-1](x).movedim(1, -1)


class Residual(nn.Module):
    """x + F(x), F twice a norm, ReLU and a convolution."""

    def __init__(self, space: int, channels: int) -> None:
        super().__init__()
        self.batch_norm = nn.ModuleList(BatchNorm(channels) for _ in range(2))
        self.conv = nn.ModuleList(conv(space, channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, layer in zip(self.batch_norm, self.conv):
            y = layer(functional.relu(norm(y)))
        return x + y


class Henzler(nn.Module):
    """2-D encoder, 3-D decoder, skips.

    Args:
        shape: of the volume.
        pixels: of the X-ray, along each axis.
        channels: the encoder's, a level.
        blocks: residual ones of a level.
    """

    def __init__(
        self, shape: Sequence[int], pixels: int, channels: Sequence[int], blocks: int
    ) -> None:
        super().__init__()
        self.shape, self.blocks, levels = tuple(shape), blocks, len(channels)
        narrow = [max(4, features // 4) for features in channels]
        self.narrow, self.depth = narrow[-1], pixels // 2 ** (levels - 1)
        down = [conv(2, 1, channels[0], 7, bias=False)]
        down += [conv(2, i, o, stride=2, bias=False) for i, o in pairwise(channels)]
        self.down = nn.ModuleList(down)
        self.code_ = conv(2, channels[-1], narrow[-1] * self.depth, 1)
        self.up = nn.ModuleList(doubling(3, i, o) for o, i in pairwise(narrow))
        self.skip = nn.ModuleList(conv(2, i, o, 1) for i, o in zip(channels, narrow[:-1]))
        encoder = [Residual(2, c) for c in channels for _ in range(blocks)]
        decoder = [Residual(3, c) for c in reversed(narrow) for _ in range(blocks)]
        self.residual = nn.ModuleList(encoder + decoder)
        norms = [c for n in reversed(range(levels - 1)) for c in (narrow[n + 1], channels[n])]
        self.batch_norm = nn.ModuleList(map(BatchNorm, [*norms, narrow[0]]))
        self.head = conv(3, narrow[0], 1)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image[:, None], []
        residual, norms = iter(self.residual), iter(self.batch_norm)

        def blocks(x: Tensor) -> Tensor:
            for _ in range(self.blocks):
                x = next(residual)(x)
            return x

        def active(x: Tensor) -> Tensor:
            return functional.relu(next(norms)(x))

        for down in self.down:
            x = blocks(down(x))
            skips.append(x)
        x = self.code_(x)
        x = x.reshape(x.shape[0], self.depth, self.narrow, *x.shape[2:]).permute(0, 2, 3, 4, 1)
        x = blocks(x)
        for n in reversed(range(len(self.up))):
            x = self.up[n](active(x))
            x = blocks(x + self.skip[n](active(skips[n]))[..., None])
        x = self.head(active(x))
        return resized(x, self.shape)[:, 0]
