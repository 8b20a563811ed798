"""The displacement field in plain PyTorch: what `jxrecon.methods.surfaces.displacement_field` computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import conv
from .surfaces import LENGTH_MM, STEP_MM, Encoder, Scene, pool, standardised


class DisplacementField(nn.Module):
    """An X-ray and a reference -> the moved vertices, by displacements of the nodes of a grid.

    Args:
        scene: arguments of `Scene`.
        width, stages: of the encoder.
        nodes: along each axis of the grid.
        extent_mm: of the grid.
        hidden, layers: of the 3-D convolutions.
    """

    def __init__(
        self, scene: dict, width: int, stages: Sequence[int], nodes: int, extent_mm: float,
        hidden: int, layers: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.nodes, self.spacing_mm = nodes, extent_mm / (nodes - 1)
        self.scene = Scene(**scene)
        self.encoder = Encoder(2, width, stages)
        self.enter = conv(3, sum(self.encoder.features[1:]) + 3, hidden, 1)
        self.layer = nn.ModuleList(conv(3, hidden, hidden) for _ in range(layers))
        self.head = conv(3, hidden, 3, 1)

    def forward(self, image: Tensor, reference: Tensor, silhouette: Tensor) -> Tensor:
        """Line integrals [b, r, c], vertices [b, v, 3] mm, the mask of where they are seen [b, r, c]."""
        centre, n = reference.mean(1, keepdim=True), self.nodes
        nodes = centre + self._offsets(reference)
        levels = self.encoder(torch.stack([standardised(image), silhouette], 1))
        features = pool(levels[1:], self.scene.camera.place_of(nodes), image.shape[1:])
        x = torch.cat([features, nodes / LENGTH_MM], -1).transpose(1, 2)
        x = functional.relu(self.enter(x.reshape(*x.shape[:2], n, n, n)))
        for layer in self.layer:
            x = x + functional.relu(layer(x))
        field = STEP_MM * self.head(x)
        return reference + trilinear(field, (reference - centre) / self.spacing_mm + (n - 1) / 2)

    def _offsets(self, like: Tensor) -> Tensor:
        """Of the nodes from the centre, [1, nodes^3, 3] mm."""
        steps = torch.arange(self.nodes, dtype=like.dtype, device=like.device)
        axis = (steps - (self.nodes - 1) / 2) * self.spacing_mm
        return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3)


def trilinear(field: Tensor, place: Tensor) -> Tensor:
    """A field [b, c, n, n, n] between its nodes, at [b, v, 3]; the border's value beyond."""
    n = field.shape[2]
    place = place.clamp(0.0, n - 1.0)
    low = place.floor().clamp(max=n - 2.0)
    flat, total = field.flatten(2).transpose(1, 2), None
    for corner in range(8):
        step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=place.device)
        weight = torch.where(step > 0, place - low, 1.0 - (place - low)).prod(-1, keepdim=True)
        i, j, k = (low.long() + step).unbind(-1)
        index = ((i * n + j) * n + k)[..., None].expand(-1, -1, flat.shape[2])
        part = weight * flat.gather(1, index)
        total = part if total is None else total + part
    return total
