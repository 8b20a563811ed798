"""What the PyTorch modules share: convolutions, norms and resampling of images and volumes, channels first.

They compute what `jxrecon.nn` computes. `space` is the number of spatial axes, 2 or 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5
"""Of all norms."""


def conv(space: int, inputs: int, outputs: int, taps: int = 3, **options: object) -> nn.Module:
    """A convolution that keeps the size at stride 1; options as of `torch.nn.Conv3d`."""
    made = {2: nn.Conv2d, 3: nn.Conv3d}[space]
    return made(inputs, outputs, taps, padding=taps // 2, **options)  # type: ignore[arg-type]


def doubling(space: int, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    """A transposed convolution of 3 taps that doubles the size."""
    made = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[space]
    return made(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias)


def instance_norm(x: Tensor) -> Tensor:
    """Each channel of each sample with mean 0 and variance 1 over space."""
    return functional.instance_norm(x, eps=EPSILON)


class OfTheInstance(nn.Module):
    """Before an instance norm of PyTorch: the instance's statistics, whatever running ones it keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x)


class BatchNorm(nn.Module):
    """Over batch and space; its running variance is that of the batch itself, not an estimate of more.

    For any number of spatial axes. Unlike PyTorch's it counts no batches, as ours does not.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, *space]."""
        if self.training:
            axes = [0, *range(2, x.ndim)]
            mean, variance = x.mean(axes), x.var(axes, unbiased=False)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(variance, 0.1)
            return functional.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=EPSILON
            )
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON
        )


def resized(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear resampling over the same extent, as `jax.image.resize`: smoothed where it gets smaller."""
    for axis, size in enumerate(shape, start=2):
        if x.shape[axis] != size:
            matrix = _weights(x.shape[axis], size).to(x)
            x = torch.matmul(x.movedim(axis, -1), matrix).movedim(-1, axis)
    return x


def _weights(old: int, new: int) -> Tensor:
    """[old, new]: what each old sample adds to each new one."""
    step = old / new
    place = (torch.arange(new, dtype=torch.float64) + 0.5) * step - 0.5
    away = (place[None] - torch.arange(old, dtype=torch.float64)[:, None]).abs()
    weights = (1.0 - away / max(step, 1.0)).clamp(min=0.0)
    return (weights / weights.sum(0)).float()


class Rows(nn.Module):
    """Arrays [k, *s] in 8 bits, each with its unit."""

    def __init__(self, count: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(count, *shape, dtype=torch.int8))
        self.register_buffer("unit", torch.zeros(count))

    def of(self, weights: Tensor) -> Tensor:
        """Their weighted sums, of weights [*b, k]."""
        return torch.tensordot(weights * self.unit, self.steps.to(weights), 1)

    def against(self, y: Tensor) -> Tensor:
        """The scalar product of each with y [*s]."""
        return (self.steps.to(y).flatten(1) @ y.flatten()) * self.unit
