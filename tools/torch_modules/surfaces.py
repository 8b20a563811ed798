"""What the PyTorch modules of surfaces share: constants of a run, pooling of features, graph convolutions.

They compute what `jxrecon.nn.perceptual_pooling` and `jxrecon.nn.graph` compute. Images are [b, c, rows,
columns], vertices [b, v, 3] in mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import conv, instance_norm
from .projection import Camera, at_level, bilinear

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
        self.camera = Camera(pixels)
        self.register_buffer("vertices", torch.zeros(vertices, 3))
        self.register_buffer("faces", torch.zeros(faces, 3, dtype=torch.int32))
        if neighbours:
            self.register_buffer("table", torch.zeros(neighbours, vertices, dtype=torch.int32))
            self.register_buffer("weights", torch.zeros(neighbours, vertices))

    def aggregate(self, x: Tensor) -> Tensor:
        """A X of features [b, v, c]: a weighted sum over each vertex's neighbours."""
        return (x[:, self.table.long()] * self.weights[None, :, :, None]).sum(1)


def standardised(image: Tensor) -> Tensor:
    """Images [b, rows, columns] of mean 0 and deviation 1."""
    centred = image - image.mean((1, 2), keepdim=True)
    return centred * torch.rsqrt(centred.square().mean((1, 2), keepdim=True) + 1e-8)


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
