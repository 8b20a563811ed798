"""Where world points are seen, and what an image shows there; as `jxrecon.geometry` and `perceptual_pooling`.

Points are in mm, places (row, column) with integers at the centres of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Camera(nn.Module):
    """A point source and a flat detector of so many rows and columns: constants of a run."""

    def __init__(self, pixels: Sequence[int]) -> None:
        super().__init__()
        self.pixels = tuple(pixels)
        for name in ("source", "centre", "u", "v"):
            self.register_buffer(name, torch.zeros(3))

    def place_of(self, points: Tensor) -> Tensor:
        """Where the rays through world points [b, p, 3] meet the detector."""
        along = points - self.source
        normal = torch.linalg.cross(self.u, self.v)
        depth = (self.centre @ normal - points @ normal) / (along @ normal)
        on_u, on_v = (
            points @ axis + depth * (along @ axis) - self.centre @ axis for axis in (self.u, self.v)
        )
        uu, vv, uv = self.u @ self.u, self.v @ self.v, self.u @ self.v
        scale = uu * vv - uv * uv
        row = (uu * on_v - uv * on_u) / scale + (self.pixels[0] - 1) / 2
        column = (vv * on_u - uv * on_v) / scale + (self.pixels[1] - 1) / 2
        return torch.stack([row, column], -1)


def bilinear(features: Tensor, place: Tensor) -> Tensor:
    """Features [b, c, rows, columns] between pixels, [b, v, c]; the border's value outside."""
    place, last = _within(features, place)
    low = torch.minimum(place.floor(), (last - 1.0).clamp(min=0.0))
    high = torch.minimum(low + 1.0, last)
    return _mixed(features, (low, 1.0 - (place - low)), (high, place - low))


def floor_ceil_bilinear(features: Tensor, place: Tensor) -> Tensor:
    """As the TensorFlow codes sample: zero where row or column is an integer."""
    place, _ = _within(features, place)
    low, high = place.floor(), place.ceil()
    return _mixed(features, (low, high - place), (high, place - low))


def _within(features: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = features.shape[2:]
    last = torch.tensor([rows - 1, columns - 1], dtype=place.dtype, device=place.device)
    return torch.minimum(place.clamp(min=0.0), last), last


def _mixed(features: Tensor, *ends: tuple[Tensor, Tensor]) -> Tensor:
    """The sum over the four corners; an end is (pixels, weights), both [b, v, 2]."""
    flat, columns = features.flatten(2).transpose(1, 2), features.shape[3]
    total = None
    for row, along_rows in ends:
        for column, along_columns in ends:
            index = (row[..., 0] * columns + column[..., 1]).long()[..., None]
            corner = flat.gather(1, index.expand(-1, -1, flat.shape[2]))
            part = (along_rows[..., 0] * along_columns[..., 1])[..., None] * corner
            total = part if total is None else total + part
    return total


def at_level(place: Tensor, image: Sequence[int], level: Sequence[int]) -> Tensor:
    """Places on an image -> on one of another shape that covers the same area."""
    ratio = [n / m for n, m in zip(level, image)]
    scale = torch.tensor(ratio, dtype=place.dtype, device=place.device)
    return (place + 0.5) * scale - 0.5
