"""X2CT-GAN's layers in plain PyTorch, with the tensor names of the published checkpoints.

Written from the layer tables, for proofs of the converters and for the benchmark: what it computes is
what `jxrecon.methods.volumes.x2ct` computes, its state dict is what `jxrecon.interop.weights` names. Volumes
are [n, c, D, H, W], views [n, 1, rows, columns]. InstanceNorm always takes the instance's statistics; its
running ones exist, because the published files hold them, and are neither read nor updated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import OfTheInstance


class Architecture(NamedTuple):
    """Of a generator without ablations: `jxrecon.methods.volumes.x2ct.networks.Architecture` has the same."""

    size: int
    views: int
    stem: int
    growth: int
    layers: Sequence[int]
    decoder: Sequence[int]
    dropout: float = 0.5

    @property
    def stages(self) -> int:
        """Of the encoder."""
        return len(self.layers)


TO_COMMON = ((0, 1, 3, 2, 4), (0, 1, 3, 4, 2))
"""(H, D, W) and (W, D, H) -> (D, H, W)."""
FROM_COMMON = ((0, 1, 3, 2, 4), (0, 1, 4, 2, 3))
"""Back."""


class _Norm2d(OfTheInstance, nn.InstanceNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=True)


class _Norm3d(OfTheInstance, nn.InstanceNorm3d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=True)


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _Norm2d(channels), nn.Conv2d(channels, 4 * growth, 1)
        self.norm2 = _Norm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, layers: int, growth: int) -> None:
        super().__init__()
        steps = (_DenseLayer(channels + j * growth, growth) for j in range(layers))
        self.conv_block = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x)


class _Link(nn.Module):
    """Connection-B: fewer channels, extruded along a new first axis, one 3-D convolution."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.compress_block = nn.Sequential(nn.Conv2d(channels, out, 1), _Norm2d(out), nn.ReLU())
        self.conv_block = nn.Sequential(*_conv(out, out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.compress_block(x)[:, :, None]
        return self.conv_block(x.expand(-1, -1, x.shape[-1], -1, -1))


class _Up(nn.Module):
    """Doubles the size. Two modules deep, as the names of its tensors say."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        step = nn.ConvTranspose3d(channels, out, 3, stride=2, padding=1, output_padding=1)
        self.block = nn.Module()
        self.block.block = nn.Sequential(step, _Norm3d(out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.block.block(x)


class _Head(nn.Conv3d):
    """7^3, in float64 a plane of taps after the other: PyTorch would unfold all 343 of every voxel."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return super().forward(x)
        taps, depth = self.weight.shape[2], x.shape[2]
        x = functional.pad(x, (0, 0, 0, 0, *self.padding[:1] * 2))
        planes = self.weight.split(1, 2)
        padding = (0, *self.padding[1:])
        steps = (
            functional.conv3d(x[:, :, k : k + depth], planes[k], padding=padding)
            for k in range(taps)
        )
        return sum(steps) + self.bias[:, None, None, None]


def _conv(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv3d(channels, out, 3, padding=1), _Norm3d(out), nn.ReLU()]


def _add_decoder(module: nn.Module, arch: Architecture, convs: int, apart: bool) -> None:
    """Adds the layers of a decoder; `apart`: the compress steps are modules of their own."""
    for level, channels in enumerate(arch.decoder):
        compress = _conv(2 * channels, channels) if level < arch.stages else []
        steps: list[nn.Module] = []
        if compress and apart:
            module.add_module(f"decoder_compress_layer{level - 1}", nn.Sequential(*compress))
        elif compress:
            steps += compress
        if level < arch.stages:
            for _ in range(convs if level else 1):
                steps += _conv(channels, channels)
        if level:
            steps.append(_Up(channels, arch.decoder[level - 1]))
        module.add_module(f"decoder_layer{level - 1}", nn.Sequential(*steps))
    head = _Head(arch.decoder[0], 1, 7, padding=3)
    module.decoder_layer = nn.Sequential(head, nn.ReLU())


class View(nn.Module):
    """Encoder and decoder of one view; by itself the single-view generator."""

    def __init__(self, arch: Architecture, apart: bool = False) -> None:
        super().__init__()
        self.arch = arch
        stem = nn.Conv2d(1, arch.stem, 7)
        parts = [nn.ReflectionPad2d(3), stem, _Norm2d(arch.stem), nn.ReLU()]
        self.encoder_layer = nn.Sequential(*parts)
        channels = arch.stem
        for i, layers in enumerate(arch.layers):
            link = nn.Sequential(_Link(channels, arch.decoder[i]))
            self.add_module(f"linker_layer{i}", link)
            down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
            parts = [_Norm2d(channels), nn.ReLU(), down, _DenseBlock(channels, layers, arch.growth)]
            channels += layers * arch.growth
            if i < arch.stages - 1:
                half = channels // 2
                parts += [_Norm2d(channels), nn.ReLU(), nn.Conv2d(channels, half, 1)]
                channels = half
            self.add_module(f"encoder_layer{i}", nn.Sequential(*parts))
        self.edge = arch.size // 2**arch.stages
        code = nn.Linear(channels, arch.decoder[-1] * self.edge**3)
        self.base_link = nn.Sequential(code, nn.Dropout(arch.dropout), nn.ReLU())
        _add_decoder(self, arch, convs=2, apart=apart)

    def encode(self, view: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features that each stage takes, and the volume of Connection-A."""
        x, features = self.encoder_layer(view), []
        for i in range(self.arch.stages):
            features.append(x)
            x = getattr(self, f"encoder_layer{i}")(x)
        code = self.base_link(x.mean((2, 3)))
        return features, code.reshape(-1, self.arch.decoder[-1], *(self.edge,) * 3)

    def join(self, level: int, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Concatenation with Connection-B of this level."""
        return torch.cat([x, getattr(self, f"linker_layer{level}")(features[level])], 1)

    def forward(self, view: Tensor) -> Tensor:
        """[n, 1, S, S] -> the volume [n, 1, D, H, W]."""
        features, x = self.encode(view)
        for level in reversed(range(self.arch.stages + 1)):
            if level < self.arch.stages:
                x = self.join(level, x, features)
            x = getattr(self, f"decoder_layer{level - 1}")(x)
        return self.decoder_layer(x).permute(TO_COMMON[0])


class Biplanar(nn.Module):
    """The generator of two views: `View` twice, and the decoder that fuses them (Connection-C)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.view1Model, self.view2Model = View(arch, apart=True), View(arch, apart=True)
        _add_decoder(self, arch, convs=1, apart=False)

    def forward(self, frontal: Tensor, lateral: Tensor) -> Tensor:
        """Two of [n, 1, S, S] -> the fused volume [n, 1, D, H, W]."""
        models = (self.view1Model, self.view2Model)
        encoded = [model.encode(view) for model, view in zip(models, (frontal, lateral))]
        xs, main = [code for _, code in encoded], None
        for level in reversed(range(self.arch.stages + 1)):
            name = f"layer{level - 1}"
            if level < self.arch.stages:
                joined = [m.join(level, x, f) for m, x, (f, _) in zip(models, xs, encoded)]
                xs = [getattr(m, f"decoder_compress_{name}")(x) for m, x in zip(models, joined)]
            mean = sum(x.permute(order) for x, order in zip(xs, TO_COMMON)) / 2
            whole = mean if main is None else torch.cat([mean, main], 1)
            main = getattr(self, f"decoder_{name}")(whole)
            if level:  # what the views make of the finest level goes nowhere
                back = [mean.permute(order) for order in FROM_COMMON]
                xs = [getattr(m, f"decoder_{name}")(x) for m, x in zip(models, back)]
        return self.decoder_layer(main)


def generator(arch: Architecture) -> nn.Module:
    """The generator of this architecture, without ablations."""
    return Biplanar(arch) if arch.views == 2 else View(arch)


class Discriminator(nn.Module):
    """3-D PatchGAN on the volume beside the views it came from."""

    def __init__(self, views: int = 2, features: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        channels, last = views + 1, len(features) - 1
        steps: list[nn.Module] = []
        for i, out in enumerate(features):
            stride = 1 if i == last else 2
            steps.append(nn.Conv3d(channels, out, 4, stride, padding=2, bias=i == 0))
            steps += ([_Norm3d(out)] if i else []) + [nn.LeakyReLU(0.2)]
            channels = out
        steps.append(nn.Conv3d(channels, 1, 4, padding=2))
        self.model = nn.Sequential(*steps)

    def forward(self, volume: Tensor, *views: Tensor) -> Tensor:
        """Scores of patches [n, 1, k, l, m]."""
        smeared = [v.unsqueeze(axis).expand_as(volume) for v, axis in zip(views, (3, 4))]
        return self.model(torch.cat([*smeared, volume], 1))


class X2CT(nn.Module):
    """The networks of a run: the generator, and the discriminator where there is one.

    Args:
        architecture: fields of `Architecture`.
        features: channels of the discriminator's layers but the last; empty: there is none (X2CT-CNN).
    """

    def __init__(self, architecture: dict, features: Sequence[int]) -> None:
        super().__init__()
        arch = Architecture(**architecture)
        self.generator = generator(arch)
        if features:
            self.discriminator = Discriminator(arch.views, features)

    def forward(self, *views: Tensor) -> Tensor:
        """X-rays [n, 1, S, S] in [0, 1] -> the volume [n, 1, D, H, W], window [0, 1]."""
        return self.generator(*views)
