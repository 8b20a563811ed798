"""IGCN and IGCN+ in plain PyTorch: what `jxrecon.methods.surfaces.igcn` computes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import EPSILON, conv, instance_norm, resized
from .projection import at_level, bilinear, floor_ceil_bilinear
from .surfaces import LENGTH_MM, STEP_MM, Encoder, GraphNetwork, Scene, pool, standardised

ZERO, SCALE, UNIT_MM = 122.0, 6800.0, 1000.0
"""Of the map of IGCN+: where nothing moves, one unit of length more, and that unit."""


class MapHead(nn.Module):
    """All levels of the encoder, merged from coarse to fine -> displacements on the detector."""

    def __init__(self, features: Sequence[int], width: int) -> None:
        super().__init__()
        layers = [conv(2, features[-1], width, 1)]
        for finer in features[-2:1:-1]:
            layers += [conv(2, width, width, bias=False), conv(2, finer, width, 1)]
        self.conv = nn.ModuleList(layers)
        self.map = conv(2, width, 2, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        x = self.conv[0](levels[-1])
        for n, finer in enumerate(levels[-2:1:-1]):
            merge, narrow = self.conv[1 + 2 * n], self.conv[2 + 2 * n]
            x = resized(x, finer.shape[2:]) + narrow(finer)
            x = functional.relu(instance_norm(merge(x)))
        return self.map(x)


class Igcn(nn.Module):
    """[IGCN] An X-ray and a reference -> the moved vertices.

    Args:
        scene: arguments of `Scene`.
        width, stages: of the encoder.
        hidden, pairs: of the graph network.
        silhouette: whether the network also sees the reference's.
    """

    def __init__(
        self, scene: dict, width: int, stages: Sequence[int], hidden: int, pairs: int,
        silhouette: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scene = Scene(**scene)
        self.encoder = Encoder(2 if silhouette else 1, width, stages)
        features = self.encoder.features
        self.map_head = MapHead(features, 4 * width)
        self.graph_ = GraphNetwork(sum(features[1:]) + 5, hidden, pairs, 3)

    def forward(self, image: Tensor, reference: Tensor, *silhouette: Tensor) -> Tensor:
        """Line integrals [b, r, c], vertices [b, v, 3] mm, the mask of where they are seen [b, r, c]."""
        place, shape = self.scene.camera.place_of(reference), image.shape[1:]
        levels = self.encoder(torch.stack([standardised(image), *silhouette], 1))
        dense = self.map_head(levels)
        mapping = bilinear(dense, at_level(place, shape, dense.shape[2:]))
        features = pool(levels[1:], place, shape)
        x = torch.cat([features, mapping, reference / LENGTH_MM], -1)
        return reference + STEP_MM * self.graph_(x, self.scene)[0]


class InputNorm(nn.Module):
    """Each channel of each image normalised, then scaled; `faults`: only scaled."""

    def __init__(self, faults: bool) -> None:
        super().__init__()
        self.faults = faults
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x / (1.0 + EPSILON) ** 0.5 if self.faults else instance_norm(x)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class UNet(nn.Module):
    """[IGCN+] Image of three channels -> the map of displacements."""

    def __init__(self, channels: Sequence[int], faults: bool) -> None:
        super().__init__()
        self.levels, before = len(channels), [3, *channels]
        self.norm = InputNorm(faults)
        for n, features in enumerate(channels):
            self.add_module(f"down_{n}a", conv(2, before[n], features))
            self.add_module(f"down_{n}b", conv(2, features, features))
        pairs = list(pairwise(channels))
        self.double_ = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for o, i in pairs)
        for n, (features, _) in enumerate(pairs):
            self.add_module(f"up_{n}a", conv(2, 2 * features, features))
            self.add_module(f"up_{n}b", conv(2, features, features))
        self.head = conv(2, channels[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        def layers(x: Tensor, name: str) -> Tensor:
            for half in "ab":
                x = functional.relu(getattr(self, f"{name}{half}")(x))
            return x

        x, skips = self.norm(x), []
        for n in range(self.levels):
            x = layers(functional.max_pool2d(x, 2) if n else x, f"down_{n}")
            skips.append(x)
        for n in reversed(range(self.levels - 1)):
            x = layers(torch.cat([self.double_[n](x), skips[n]], 1), f"up_{n}")
        return self.head(x)


class IgcnPlus(nn.Module):
    """[IGCN+] The same as `Igcn`, by a map on all pixels.

    Args:
        scene: arguments of `Scene`.
        channels: of the U-Net.
        hidden, pairs: of the graph network.
        faults: whether those of the released code are kept.
    """

    def __init__(
        self, scene: dict, channels: Sequence[int], hidden: int, pairs: int, faults: bool
    ) -> None:
        super().__init__()
        self.scene, self.unet = Scene(**scene), UNet(channels, faults)
        self.graph_ = GraphNetwork(6, hidden, pairs, 3)
        self.sample = floor_ceil_bilinear if faults else bilinear

    def forward(self, image: Tensor, reference: Tensor, silhouette: Tensor) -> Tensor:
        """As of `Igcn`."""
        low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
        grey = 255.0 * (image - low) / (high - low).clamp(min=1e-6)
        flat = torch.full_like(image, ZERO)
        dense = self.unet(torch.stack([255.0 * silhouette, flat, grey], 1))
        shape = (reference - reference.mean(1, keepdim=True)) / UNIT_MM
        sampled = self.sample(dense, self.scene.camera.place_of(reference))
        x = torch.cat([(sampled - ZERO) / SCALE, shape], -1)
        return reference + UNIT_MM * self.graph_(x, self.scene)[0]
