"""Resampling of images and volumes with a short separable FIR filter: up, filter, down along each axis.

The definition is that of StyleGAN2's upfirdn (true convolution, zeros outside); filters are given as the
taps of one axis, the filter of n dimensions is their outer product. Each axis is a sum of slices, and so is
its adjoint, which XLA does not find by itself: on CPU depthwise convolutions are a hundred times slower, and
products with a banded matrix grow with the square of the axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.nn.blocks import accurate

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
"""[1, 3, 3, 1] / 8, the filter of StyleGAN2 (arXiv 1912.04958); sums to one."""


def upfirdn_axis(
    x: Float[Array, "*shape"],
    axis: int,
    taps: Sequence[float],
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> Float[Array, "*resampled"]:
    """Along one axis: insert up - 1 zeros after each sample, pad, convolve with `taps`, keep every down-th.

    Args:
        x: any array.
        axis: the axis to resample.
        taps: the filter; convolved, so reversed against a correlation.
        up: samples per sample after zero insertion.
        down: one of so many samples is kept.
        padding: zeros before and after (after zero insertion); negative numbers cut.

    Returns:
        `x` with n -> (n up + before + after - len(taps)) // down + 1 along the axis.
    """
    axis %= x.ndim
    lines = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
    filtered = _filtered(lines, _Filter(tuple(map(float, taps)), up, down, padding, x.shape[axis]))
    return filtered.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


class _Filter(NamedTuple):
    """What `upfirdn_axis` does to lines of `size` samples.

    Row r of the result takes tap t, from the last one on, of sample (r down + t - before) / up, where that
    is a whole number.
    """

    taps: tuple[float, ...]
    up: int
    down: int
    padding: tuple[int, int]
    size: int

    @property
    def rows(self) -> int:
        """Samples of the result."""
        return (self.size * self.up + sum(self.padding) - len(self.taps)) // self.down + 1

    @property
    def adjoint(self) -> _Filter:
        """From the result back: of the same kind, with up and down exchanged."""
        before = len(self.taps) - 1 - self.padding[0]
        after = (self.size - 1) * self.up + 1 - self.rows * self.down + self.padding[0]
        return _Filter(self.taps[::-1], self.down, self.up, (before, after), self.rows)

    def parts(self, phase: int) -> list[tuple[int, float]]:
        """(first sample, tap) of the rows that are equal to `phase` modulo `up`; each is one slice of x."""
        found = (
            divmod(phase * self.down + t - self.padding[0], self.up) for t in range(len(self.taps))
        )
        return [(place, tap) for (place, rest), tap in zip(found, self.taps[::-1]) if not rest]


@partial(jax.jit, static_argnums=1)
def _filtered(x: Float[Array, "b n a"], how: _Filter) -> Float[Array, "b m a"]:
    """Traced once for all lines of a shape: networks and their derivatives have many of these."""
    return _sliced(x, how)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sliced(x: Float[Array, "b n a"], how: _Filter) -> Float[Array, "b m a"]:
    """Sums of slices of x, the rows of one phase after another."""
    parts = [how.parts(phase) for phase in range(how.up)]
    places = [place for phase in parts for place, _ in phase]
    count = -(-how.rows // how.up)  # rows of a phase
    reach = how.down * (count - 1) + 1  # of a slice
    low, end = min(places), max(places) + reach
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (-low, end - how.size, 0), (0, 0, 0)])
    x = lax.optimization_barrier(x)  # else each slice looks for the border anew
    wide = accurate(x.dtype)

    def rows(phase: list[tuple[int, float]]) -> Float[Array, "b count a"]:
        total = jnp.zeros((x.shape[0], count, x.shape[2]), wide)
        for place, tap in phase:
            part = lax.slice_in_dim(x, place - low, place - low + reach, how.down, 1)
            total = total + tap * part.astype(wide)
        return total.astype(x.dtype)

    y = jnp.stack([rows(phase) for phase in parts], 2)
    return y.reshape(x.shape[0], -1, x.shape[2])[:, : how.rows]


_sliced.defvjp(
    lambda x, how: (_filtered(x, how), None),
    lambda how, _, g: (_filtered(g, how.adjoint),),
)


def upfirdn(
    x: Float[Array, "b *space c"],
    taps: Sequence[float],
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Float[Array, "b *resampled c"]:
    """`upfirdn_axis` with the same filter along every spatial axis, times `gain`."""
    ndim = x.ndim - 2
    taps = np.asarray(taps) * gain ** (1 / ndim)
    for axis in range(1, 1 + ndim):
        x = upfirdn_axis(x, axis, tuple(taps), up, down, padding)
    return x


def halved(x: Float[Array, "x y z"]) -> Float[Array, "i j k"]:
    """The means of the blocks of eight voxels."""
    split = [size for n in x.shape for size in (n // 2, 2)]
    return x.reshape(split).mean((1, 3, 5))


def upsample2(
    x: Float[Array, "b *space c"], taps: Sequence[float] = BINOMIAL
) -> Float[Array, "b *double c"]:
    """Twice the samples along every spatial axis; a constant stays the same (gain 2 an axis)."""
    n = len(taps)
    return upfirdn(x, taps, up=2, padding=((n + 1) // 2, (n - 2) // 2), gain=2.0 ** (x.ndim - 2))


def downsample2(
    x: Float[Array, "b *space c"], taps: Sequence[float] = BINOMIAL
) -> Float[Array, "b *half c"]:
    """Half the samples along every spatial axis."""
    n = len(taps)
    return upfirdn(x, taps, down=2, padding=((n - 1) // 2, (n - 2) // 2))
