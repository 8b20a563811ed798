"""What the PyTorch modules of surfaces share: the camera, pooling of features, graph convolutions.

They compute what `jxrecon.nn.perceptual_pooling`, `jxrecon.nn.graph` and `jxrecon.geometry` compute. Images
are [b, c, rows, columns], vertices [b, v, 3] in mm, places [b, v, 2] as (row, column), integers at the
centres of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import conv, instance_norm

LENGTH_MM, STEP_MM = 100.0, 10.0
"""Coordinates enter networks in the first unit, displacements leave them in the second."""


class Scene(nn.Module):
    """The camera, the template and its graph: constants of a run.

    Args:
        pixels: rows and columns of the X-ray.
        vertices, faces: counts of the template.
        neighbours: at most, of a vertex; 0: no graph is needed.
    """

    def __init__(
        self, pixels: Sequence[int], vertices: int, faces: int, neighbours: int = 0
    ) -> None:
        super().__init__()
        self.pixels = tuple(pixels)
        for name in ("source", "centre", "u", "v"):
            self.register_buffer(name, torch.zeros(3))
        self.register_buffer("vertices", torch.zeros(vertices, 3))
        self.register_buffer("faces", torch.zeros(faces, 3, dtype=torch.int32))
        if neighbours:
            self.register_buffer("table", torch.zeros(neighbours, vertices, dtype=torch.int32))
            self.register_buffer("weights", torch.zeros(neighbours, vertices))

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

    def aggregate(self, x: Tensor) -> Tensor:
        """A X of features [b, v, c]: a weighted sum over each vertex's neighbours."""
        return (x[:, self.table.long()] * self.weights[None, :, :, None]).sum(1)


def standardised(image: Tensor) -> Tensor:
    """Images [b, rows, columns] of mean 0 and deviation 1."""
    centred = image - image.mean((1, 2), keepdim=True)
    return centred * torch.rsqrt(centred.square().mean((1, 2), keepdim=True) + 1e-8)


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


def pool(levels: Sequence[Tensor], place: Tensor, image: Sequence[int]) -> Tensor:
    """The features of all levels at each vertex's place on the image."""
    return torch.cat([bilinear(f, at_level(place, image, f.shape[2:])) for f in levels], -1)


class Encoder(nn.Module):
    """The convolutions of VGG-16, each with InstanceNorm and ReLU: image -> features of each size."""

    def __init__(self, inputs: int, width: int, stages: Sequence[int]) -> None:
        super().__init__()
        self.stages, layers = tuple(stages), []
        for stage, count in enumerate(stages):
            outputs = width * min(8, 2**stage)
            for _ in range(count):
                layers.append(conv(2, inputs, outputs, bias=False))
                inputs = outputs
        self.conv = nn.ModuleList(layers)
        self.features = [width * min(8, 2**stage) for stage in range(len(stages))]

    def forward(self, image: Tensor) -> list[Tensor]:
        x, levels, layers = image, [], iter(self.conv)
        for stage, count in enumerate(self.stages):
            x = functional.max_pool2d(x, 2) if stage else x
            for _ in range(count):
                x = functional.relu(instance_norm(next(layers)(x)))
            levels.append(x)
        return levels


class GraphConvolution(nn.Module):
    """A X W' [+ X W0'] + b on features [b, v, inputs]."""

    def __init__(self, inputs: int, outputs: int, self_weight: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.xavier_uniform_(self.weight)
        self.self_weight = nn.Parameter(self.weight.detach().clone()) if self_weight else None
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        if self.weight.shape[0] < x.shape[-1]:
            y = scene.aggregate(x @ self.weight.T)
        else:
            y = scene.aggregate(x) @ self.weight.T
        if self.self_weight is not None:
            y = y + x @ self.self_weight.T
        return y + self.bias


class GraphNetwork(nn.Module):
    """One graph convolution in, residual pairs, a linear one out; gives its result and the last pair's."""

    def __init__(
        self, inputs: int, hidden: int, pairs: int, outputs: int, self_weight: bool = False
    ) -> None:
        super().__init__()
        self.pairs = pairs
        self.first = GraphConvolution(inputs, hidden, self_weight)
        for name in self._names():
            self.add_module(name, GraphConvolution(hidden, hidden, self_weight))
        self.head = GraphConvolution(hidden, outputs, self_weight)

    def _names(self) -> list[str]:
        return [f"pair_{pair}{half}" for pair in range(self.pairs) for half in "ab"]

    def forward(self, x: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
        def layer(x: Tensor, name: str) -> Tensor:
            return functional.relu(getattr(self, name)(x, scene))

        x, names = layer(x, "first"), self._names()
        for one, other in zip(names[::2], names[1::2]):
            x = (x + layer(layer(x, one), other)) / 2.0
        return self.head(x, scene), x
