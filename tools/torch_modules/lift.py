"""Lift in plain PyTorch: the network of `jxrecon.methods.volumes.lift`, and all of a reconstruction by it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Rows, conv, resized
from .projection import Camera, bilinear

START_LOG_SIZE, LEAST_LOG_SIZE, MOST_LOG_SIZE = -3.5, -8.0, 0.0
THICK = STARVED = 12.0
"""The line integral that becomes 1; above it an X-ray says nothing."""
QUARTERS = ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25))
MU_WATER_PER_MM = 0.0192


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


class Prior(nn.Module):
    """The linear prior as it is handed on: X-rays in a row -> (its volume in HU, the X-rays it expects)."""

    def __init__(self, rank: int, half: Sequence[int], pixels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(tuple(half)))
        self.register_buffer("seen", torch.zeros(pixels))
        self.register_buffer("expected_mean", torch.zeros(pixels))
        self.components = Rows(rank, half)
        self.reading, self.expected = Rows(rank, [pixels]), Rows(rank, [pixels])

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        t = self.reading.against(y - self.seen)
        coarse = self.mean + self.components.of(t)
        fine = resized(coarse[None, None], [2 * n for n in coarse.shape])[0, 0] / 1000.0
        hu = 1000.0 * (fine.clamp(min=0.0) / MU_WATER_PER_MM - 1.0)
        return hu, self.expected_mean + self.expected.of(t)


class Reconstruction(nn.Module):
    """What lies before the network: the prior, the cameras and the places of the half grid's voxels.

    Args:
        half: voxels of the half grid.
        pixels: rows and columns of each X-ray.
        rank: of the prior.
        window_hu: HU range of the network.
    """

    def __init__(
        self, half: Sequence[int], pixels: Sequence[Sequence[int]], rank: int,
        window_hu: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.half, (self.low, self.high) = tuple(half), window_hu
        self.prior = Prior(rank, half, sum(r * c for r, c in pixels))
        self.cameras = nn.ModuleList(map(Camera, pixels))
        self.register_buffer("affine", torch.eye(4))

    def unit(self, hu: Tensor) -> Tensor:
        """HU -> [0, 1] over the window, clipped."""
        return (hu.clamp(self.low, self.high) - self.low) / (self.high - self.low)

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """Line integrals [rows, columns] -> (the prior's volume in [0, 1], the network's input)."""
        starved = [image.clamp(max=STARVED) for image in images]
        hu, expected = self.prior(torch.cat([image.flatten() for image in starved]))
        start, parts, end = self.unit(hu), [], 0
        i, j, k = self.half
        blocks = start.reshape(i, 2, j, 2, k, 2).permute(1, 3, 5, 0, 2, 4)
        parts.append(blocks.reshape(8, i, j, k))
        lines = [torch.arange(n, dtype=start.dtype, device=start.device) for n in self.half]
        index = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(1, -1, 3)
        points = index @ self.affine[:3, :3].T + self.affine[:3, 3]
        for image, camera in zip(starved, self.cameras):
            first, end = end, end + image.numel()
            left = image - expected[first:end].reshape(image.shape)
            parts.append(self._seen(torch.stack([image / THICK, left])[None], camera, points))
        axes = [torch.linspace(-1.0, 1.0, n, device=start.device) for n in self.half]
        parts.append(torch.stack(torch.meshgrid(*axes, indexing="ij")))
        return start, torch.cat(parts)[None]

    def _seen(self, stack: Tensor, camera: Camera, points: Tensor) -> Tensor:
        """Four samples [8, i, j, k] of an X-ray about the ray through every voxel."""
        spacing = self.affine[:3, :3].square().sum(0).sqrt().mean()
        far = (camera.centre - camera.source).norm() / camera.source.norm()
        steps = torch.stack([spacing * far / step.norm() for step in (camera.v, camera.u)])
        place = camera.place_of(points)
        samples = [
            bilinear(stack, place + steps * steps.new_tensor(quarter)) for quarter in QUARTERS
        ]
        return torch.cat(samples, -1)[0].T.reshape(-1, *self.half)


class Lift(nn.Module):
    """The network and its running mean, by which one reconstructs; and the factor on its deviations.

    Args:
        network: arguments of `UNet`.
        trained: whether the network itself is there: weights that ship are the running mean alone.
        reconstruction: arguments of `Reconstruction`, which weights that ship have; None: a run's linear
            prior holds its training volumes, and is left out.
    """

    def __init__(self, network: dict, trained: bool, reconstruction: dict | None) -> None:
        super().__init__()
        if trained:
            self.params = UNet(**network)
        self.ema = UNet(**network)
        self.register_buffer("scale", torch.ones(()))
        if reconstruction is not None:
            self.before = Reconstruction(**reconstruction)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Features -> as of `UNet`, by the running mean; or, where there is a prior, as of `reconstruct`."""
        return self.reconstruct(*given) if hasattr(self, "before") else self.ema(*given)

    def reconstruct(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """X-rays of the whole patient, line integrals [rows, columns] -> (CT, its deviation) [x, y, z] HU."""
        start, features = self.before(*images)
        change, log_size = self.ema(features)
        width = self.before.high - self.before.low
        hu = (start + change[0]).clamp(0.0, 1.0) * width + self.before.low
        size = log_size[0].clamp(LEAST_LOG_SIZE, MOST_LOG_SIZE).exp()
        return hu, self.scale * 2.0**0.5 * width * size
