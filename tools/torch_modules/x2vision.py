"""X2Vision's networks in plain PyTorch: the StyleGAN2 of volumes (or images), on a linear part or without.

What they compute is what `jxrecon.methods.volumes.x2vision` computes, where the equations stand. Volumes are
[b, 1, *space] in network units: the HU window is [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Rows

FILTER = (0.125, 0.375, 0.375, 0.125)
_CONV = {4: functional.conv2d, 5: functional.conv3d}
_TRANSPOSED = {4: functional.conv_transpose2d, 5: functional.conv_transpose3d}


def leaky_relu(x: Tensor) -> Tensor:
    """max(x, 0.2 x) times sqrt 2."""
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def filtered(
    x: Tensor, padding: tuple[int, int], gain: float = 1.0, up: bool = False, down: bool = False
) -> Tensor:
    """Along each axis: zeros between samples, zeros at the ends, the filter, every second sample."""
    taps = gain * torch.tensor(FILTER, dtype=x.dtype, device=x.device).reshape(1, 1, -1)
    for axis in range(2, x.ndim):
        lines = x.movedim(axis, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        if up:
            flat = torch.stack([flat, torch.zeros_like(flat)], -1).flatten(-2)
        stride = 2 if down else 1
        flat = functional.conv1d(functional.pad(flat, padding), taps, stride=stride)
        x = flat.reshape(*lines.shape[:-1], -1).movedim(-1, axis)
    return x


def upsampled(x: Tensor) -> Tensor:
    """Twice the samples along every axis."""
    return filtered(x, (2, 1), 2.0, up=True)


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Of the same size."""
    return _CONV[x.ndim](x, weight, padding=weight.shape[-1] // 2)


def convolved_up(x: Tensor, weight: Tensor) -> Tensor:
    """Of twice the size: a transposed convolution, then the filter."""
    return filtered(_TRANSPOSED[x.ndim](x, weight.transpose(0, 1), stride=2), (1, 1), 2.0)


def convolved_down(x: Tensor, weight: Tensor) -> Tensor:
    """Of half the size: the filter, then a convolution at every second sample."""
    if weight.shape[-1] == 1:
        return convolved(filtered(x, (1, 1), down=True), weight)
    return _CONV[x.ndim](filtered(x, (2, 2)), weight, stride=2)


def modulated(x: Tensor, weight: Tensor, styles: Tensor, up: bool, demodulate: bool) -> Tensor:
    """A convolution whose input channels are scaled by the styles, and whose outputs by their power."""
    ones = (1,) * (x.ndim - 2)
    convolve = convolved_up if up else convolved
    y = convolve(x * styles.reshape(*styles.shape, *ones), weight)
    if demodulate:
        power = weight.square().flatten(2).sum(2)
        sigma = torch.rsqrt(styles.square() @ power.T + 1e-8)
        y = y * sigma.reshape(*sigma.shape, *ones)
    return y


def _shaped(bias: Tensor, x: Tensor) -> Tensor:
    return bias.reshape(1, -1, *(1,) * (x.ndim - 2))


class Dense(nn.Module):
    """A linear layer of equalised learning rate; `start` is what the bias adds at first."""

    def __init__(
        self, inputs: int, outputs: int, lr: float = 1.0, start: float = 0.0, active: bool = False
    ) -> None:
        super().__init__()
        self.lr, self.active = lr, active
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), start / lr))

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs] -> [b, outputs]."""
        scale = self.lr / math.sqrt(self.weight.shape[1])
        y = x @ (self.weight * scale).T + self.bias * self.lr
        return leaky_relu(y) if self.active else y


class Conv(nn.Module):
    """A convolution of equalised learning rate, as in the discriminator; `shortcut`: linear, without bias."""

    def __init__(
        self, inputs: int, outputs: int, space: int, taps: int = 3, down: bool = False,
        shortcut: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.down = down
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(taps,) * space))
        self.bias = None if shortcut else nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, *space] -> [b, outputs, *space or half of it]."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        x = (convolved_down if self.down else convolved)(x, weight)
        if self.bias is not None:
            x = leaky_relu(x + _shaped(self.bias, x))
        return x * math.sqrt(0.5) if self.down else x


class Mapping(nn.Module):
    """z [b, w] -> style vector w [b, w]; without layers w is z."""

    def __init__(self, w_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        for n in range(layers):
            self.add_module(f"dense{n}", Dense(w_dim, w_dim, 0.01, active=True))

    def forward(self, z: Tensor) -> Tensor:
        if not self.layers:
            return z
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for n in range(self.layers):
            x = getattr(self, f"dense{n}")(x)
        return x


class StyledConv(nn.Module):
    """3 taps, modulated and demodulated, with noise, bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, space: int, w_dim: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.affine = Dense(w_dim, inputs, start=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(3,) * space))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        x = modulated(x, self.weight, self.affine(w), self.up, demodulate=True)
        if noise is not None:
            x = x + noise * self.noise_strength
        return leaky_relu(x + _shaped(self.bias, x))


class ToImage(nn.Module):
    """One tap, modulated: to the output's channel."""

    def __init__(self, inputs: int, space: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, start=1.0)
        self.weight = nn.Parameter(torch.randn(1, inputs, *(1,) * space))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) / math.sqrt(x.shape[1])
        y = modulated(x, self.weight, styles, up=False, demodulate=False)
        return y + _shaped(self.bias, y)


class SynthesisLevel(nn.Module):
    """Two styled convolutions, of which the first doubles the size; the coarsest level has but the second."""

    def __init__(self, inputs: int, outputs: int, space: int, w_dim: int, first: bool) -> None:
        super().__init__()
        if not first:
            self.conv0 = StyledConv(inputs, outputs, space, w_dim, up=True)
        self.conv1 = StyledConv(outputs, outputs, space, w_dim, up=False)

    def forward(self, x: Tensor, ws: Sequence[Tensor], noise: Sequence[Tensor | None]) -> Tensor:
        if len(ws) == 2:
            x = self.conv0(x, ws[0], noise[0])
        return self.conv1(x, ws[-1], noise[-1])


class Synthesis(nn.Module):
    """Style vectors [b, 2 levels, w], and one noise [b, 1, *space] a convolution -> volume [b, 1, *space]."""

    def __init__(
        self, base: Sequence[int], channels: Sequence[int], w_dim: int, architecture: str
    ) -> None:
        super().__init__()
        space, self.levels, self.skip = len(base), len(channels), architecture == "skip"
        self.const = nn.Parameter(torch.randn(channels[0], *base))
        for n, features in enumerate(channels):
            before = channels[max(n - 1, 0)]
            level = SynthesisLevel(before, features, space, w_dim, first=n == 0)
            self.add_module(f"level{n}", level)
            if self.skip or n == self.levels - 1:
                self.add_module(f"output{n}", ToImage(features, space, w_dim))

    def forward(self, ws: Tensor, *noise: Tensor) -> Tensor:
        maps = noise or (None,) * (2 * self.levels - 1)
        x = self.const.expand(ws.shape[0], *self.const.shape)
        image = None
        for n in range(self.levels):
            first, end = max(2 * n - 1, 0), 2 * n + 1
            level = getattr(self, f"level{n}")
            x = level(x, [ws[:, k] for k in range(first, end)], maps[first:end])
            if self.skip or n == self.levels - 1:
                output = getattr(self, f"output{n}")(x, ws[:, end])
                image = output if image is None else upsampled(image) + output
        return image


class Axes(nn.Module):
    """The linear part of a prior of principal codes: of volumes, and back.

    Args:
        grid: voxels of the volume.
        coarse: of the level that codes are made of.
        moving: of the level that what volumes differ by is kept on.
        features: of a code.
        rounded: whether that is in 8 bits, as in weights that ship.
    """

    def __init__(
        self, grid: Sequence[int], coarse: Sequence[int], moving: Sequence[int], features: int,
        rounded: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rounded = rounded
        self.register_buffer("mean", torch.zeros(tuple(coarse)))
        self.register_buffer("rows", torch.zeros(features, math.prod(coarse)))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("middle", torch.zeros(tuple(grid)))
        if rounded:
            self.moves = Rows(features, moving)
        else:
            self.register_buffer("moves", torch.zeros(features, *moving))

    def code(self, volumes: Tensor) -> Tensor:
        """Volumes [b, 1, *grid] -> z [b, features]."""
        blocks = [n // m for n, m in zip(self.middle.shape, self.mean.shape)]
        away = functional.avg_pool3d(volumes, blocks)[:, 0] - self.mean
        return (away.flatten(1) @ self.rows.T) * (self.deviation / self.spread)

    def forward(self, z: Tensor) -> Tensor:
        """z -> the linear volume [b, 1, *grid]."""
        z = z / torch.where(self.deviation > 0, self.deviation, torch.ones_like(self.deviation))
        moved = self.moves.of(z) if self.rounded else torch.tensordot(z, self.moves, 1)
        moved = moved[:, None]
        while moved.shape[2:] != self.middle.shape:
            moved = upsampled(moved)
        return self.middle + moved


class Generator(nn.Module):
    """Mapping and synthesis, on the linear part of `Axes` where its arguments are given: z -> volume."""

    def __init__(
        self, base: Sequence[int], channels: Sequence[int], w_dim: int, mapping_layers: int,
        architecture: str, axes: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mapping = Mapping(w_dim, mapping_layers)
        self.synthesis = Synthesis(base, channels, w_dim, architecture)
        self.axes = None if axes is None else Axes(**axes)

    def forward(self, z: Tensor, *noise: Tensor) -> Tensor:
        """One w for all layers; without noise unless it is given."""
        w = self.mapping(z)
        ws = w[:, None].expand(-1, 2 * self.synthesis.levels, -1)
        volume = self.synthesis(ws, *noise)
        return volume if self.axes is None else volume + self.axes(w)


class DiscriminatorLevel(nn.Module):
    """Two convolutions and a shortcut beside them, to half the size."""

    def __init__(self, inputs: int, outputs: int, space: int) -> None:
        super().__init__()
        self.skip = Conv(inputs, outputs, space, taps=1, down=True, shortcut=True)
        self.conv0 = Conv(inputs, inputs, space)
        self.conv1 = Conv(inputs, outputs, space, down=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv1(self.conv0(x))


def channels_last(x: Tensor) -> Tensor:
    """[b, c, *space] -> [b, space * c]: the order of what dense layers read."""
    return x.movedim(1, -1).flatten(1)


class DiscriminatorHead(nn.Module):
    """The coarsest level: deviation over groups of up to four samples, a convolution, two dense layers."""

    def __init__(self, channels: int, base: Sequence[int]) -> None:
        super().__init__()
        self.conv = Conv(channels + 1, channels, len(base))
        self.dense = Dense(channels * math.prod(base), channels, active=True)
        self.logit = Dense(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        group = max(g for g in range(1, min(4, b) + 1) if b % g == 0)
        groups = x.reshape(group, b // group, *x.shape[1:])
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().flatten(1).mean(1).repeat(group)
        more = deviation.reshape(b, *(1,) * (x.ndim - 1)).expand(b, 1, *x.shape[2:])
        x = self.conv(torch.cat([x, more], 1))
        return self.logit(self.dense(channels_last(x)))


class Discriminator(nn.Module):
    """Volume [b, 1, *space] -> logit of being real [b, 1]."""

    def __init__(self, base: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        space, self.top = len(base), len(channels) - 1
        self.input = Conv(1, channels[-1], space, taps=1)
        for n in range(self.top, 0, -1):
            level = DiscriminatorLevel(channels[n], channels[n - 1], space)
            self.add_module(f"level{n}", level)
        self.level0 = DiscriminatorHead(channels[0], base)

    def forward(self, volume: Tensor) -> Tensor:
        x = self.input(volume)
        for n in range(self.top, -1, -1):
            x = getattr(self, f"level{n}")(x)
        return x


class Encoder(nn.Module):
    """X-rays, stacked [b, c, *shape] -> a vector [b, features]."""

    def __init__(
        self, inputs: int, shape: Sequence[int], channels: Sequence[int], features: int
    ) -> None:
        super().__init__()
        space, self.levels = len(shape), len(channels) - 1
        self.input = Conv(inputs, channels[0], space)
        for n in range(self.levels):
            level = DiscriminatorLevel(channels[n], channels[n + 1], space)
            self.add_module(f"level{n}", level)
        left = math.prod(size // 2**self.levels for size in shape)
        self.dense = Dense(left * channels[-1], 2 * features, active=True)
        self.code_ = Dense(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        for n in range(self.levels):
            x = getattr(self, f"level{n}")(x)
        return self.code_(self.dense(channels_last(x)))


class X2Vision(nn.Module):
    """All networks of a run, and beside them what a reconstruction needs of its training.

    Args:
        generator: arguments of `Generator`: of the one that is trained and of its running mean, `ema`.
        encoder: those of `Encoder`, from X-rays to w, beside principal codes; None: codes are a table.
        trained: whether what only training needs is there: weights that ship are the running mean alone.
        arrays: name -> shape: `codes`, a table of z; `w_mean`, `w_std`, `w_axes`, `w_scales`, the statistics
            of w over 10,000 random z; with principal codes `residual` and `scale` of the deviations.
    """

    def __init__(
        self, generator: dict, encoder: dict | None, trained: bool, arrays: dict[str, Sequence[int]]
    ) -> None:
        super().__init__()
        self.ema = Generator(**generator)
        if encoder is not None:
            self.ema.encoder = Encoder(**encoder)
        if trained:
            self.generator = Generator(**generator)
            self.discriminator = Discriminator(generator["base"], generator["channels"])
        if trained and encoder is not None:
            self.encoder = Encoder(**encoder)
        for name, shape in arrays.items():
            self.register_buffer(name, torch.zeros(tuple(shape)))

    def forward(self, z: Tensor) -> Tensor:
        """Codes -> volume by the running mean, without noise."""
        return self.ema(z)
