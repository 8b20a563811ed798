"""Codes of volumes along principal axes: a linear encoder and decoder under the generator.

    z = D S^-1 V' (v - m)        w = z, no mapping network
    G(w, n) = M + U D^-1 w + synthesis(w, n)

m, V, S: mean, principal axes and deviations of training volumes and mirror images, averaged to a coarse
level; D = c S^(1/2), of mean square 1: the deviations of z, so that random z ~ N(0, D^2). M is the mean on
the whole grid, where z = 0; U what volumes differ by along the axes, regressed on a grid half as fine. All
are found in closed form before the first step and stay. The synthesis network starts at zero and learns what
the linear part cannot show: the prior begins as the linear one and gets better.

A table holds a code for each training volume as it is and knows none of one that was moved or bent; these are
codes of any volume. An encoder network in their place was tried three times and failed: codes collapsed, or G
learnt slower than the mean.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2vision.local import spread_out
from jxrecon.nn.resample import upsample2
from jxrecon.rounded import Rows, rows
from jxrecon.types import Key, PyTree

FLAT = 1e-5
"""Directions whose variance is this share of the largest, or less, give no code."""


class Axes(NamedTuple):
    """The linear part of a prior, in network units.

    Attributes:
        mean: m, of training volumes and mirror images on the coarse level.
        rows: V', one axis a row, of length 1; zeros where training volumes do not differ.
        spread: S, of volumes along them.
        deviation: D, of z.
        middle: M, the mean on the whole grid.
        moves: U', how a volume differs for one deviation along each axis; of weights that ship in 8 bits.
    """

    mean: Float[Array, "i j k"]
    rows: Float[Array, "d coarse"]
    spread: Float[Array, " d"]
    deviation: Float[Array, " d"]
    middle: Float[Array, "x y z"]
    moves: Float[Array, "d fx fy fz"] | Rows

    def code(self, volumes: Float[Array, "b x y z"]) -> Float[Array, "b d"]:
        """z of volumes on the whole grid."""
        away = averaged(volumes, self.mean.shape) - self.mean[None]
        along = jnp.matmul(away.reshape(away.shape[0], -1), self.rows.T, precision="highest")
        return along * (self.deviation / self.spread)[None]

    def volume(
        self,
        z: Float[Array, "b d"],
        shape: tuple[int, ...],
        local: Float[Array, "b d i j k"] | None = None,
    ) -> Float[Array, "b x y z 1"]:
        """The linear volume, averaged to a level's shape; `local`: of codes that vary from place to place."""
        return averaged(self.middle[None], shape)[..., None] + self.moved(z, shape, local)

    def moved(
        self,
        z: Float[Array, "b d"],
        shape: tuple[int, ...],
        local: Float[Array, "b d i j k"] | None = None,
    ) -> Float[Array, "b x y z 1"]:
        """What z adds to the mean."""
        z = z / jnp.where(self.deviation > 0, self.deviation, 1.0)[None]
        moves = self.moves.arrays() if isinstance(self.moves, Rows) else self.moves
        moves = averaged(moves, shape)
        away = jnp.matmul(z, moves.reshape(moves.shape[0], -1), precision="highest")
        away = away.reshape(-1, *moves.shape[1:])
        if local is not None:
            away = away + jnp.sum(spread_out(local, moves.shape[1:]) * moves[None], axis=1)
        away = away[..., None]
        while away.shape[1:-1] != shape:
            away = upsample2(away)
        return away


def small(axes: Axes) -> Axes:
    """Axes as they ship."""
    return axes if isinstance(axes.moves, Rows) else axes._replace(moves=rows(axes.moves))


def moving_shape(grid: tuple[int, ...], coarse: tuple[int, ...]) -> tuple[int, ...]:
    """Of `Axes.moves`: half the grid, but no coarser than the coarse level."""
    return tuple(max(n // 2, m) for n, m in zip(grid, coarse))


def no_axes(grid: tuple[int, ...], coarse: tuple[int, ...], features: int) -> Axes:
    """Before training volumes were seen: nothing is linear, random codes are N(0, I)."""
    rows = jnp.zeros((features, coarse[0] * coarse[1] * coarse[2]))
    moves = jnp.zeros((features, *moving_shape(grid, coarse)))
    ones = jnp.ones(features)
    return Axes(jnp.zeros(coarse), rows, ones, ones, jnp.zeros(grid), moves)


def principal(volumes: Float[Array, "n x y z"], old: Axes) -> Axes:
    """The axes of these volumes and their mirror images; `old` has the grids, and codes that stay, if any.

    Args:
        volumes: network units, on the whole grid.
        old: of `no_axes`, or of a generator that is grown.
    """
    both = jnp.concatenate([volumes, volumes[:, ::-1]])
    coarse = averaged(both, old.mean.shape)
    found = _encoder(coarse, old)
    axes = jax.tree.map(lambda o, f: jnp.where(jnp.any(old.rows != 0), o, f), old, found)
    z = axes.code(coarse)
    usual = jnp.mean(z, axis=0, keepdims=True)
    scaled = (z - usual) * axes.deviation[None]
    power = jnp.sum((z - usual) ** 2, axis=0)
    per_code = scaled / (power + FLAT * jnp.max(power))[None]
    assert not isinstance(old.moves, Rows)  # what ships is not trained on
    fine = averaged(both, old.moves.shape[1:])
    axes = axes._replace(moves=jnp.tensordot(per_code.T, fine, 1, precision="highest"))
    middle = jnp.mean(both, axis=0) - axes.moved(usual, both.shape[1:])[0, ..., 0]
    return axes._replace(middle=middle)


def _encoder(both: Float[Array, "n i j k"], old: Axes) -> Axes:
    """What codes are made by, from volumes and mirror images on the coarse level."""
    features = len(old.spread)
    mean = jnp.mean(both, axis=0)
    away = (both - mean[None]).reshape(both.shape[0], -1) / jnp.sqrt(both.shape[0])
    variances, u = jnp.linalg.eigh(jnp.matmul(away, away.T, precision="highest"))
    kept = min(features, both.shape[0])
    variances, u = variances[::-1][:kept], u[:, ::-1][:, :kept]
    told = variances > FLAT * variances[0]
    spread = jnp.sqrt(jnp.where(told, variances, 1.0))
    rows = jnp.matmul(u.T, away, precision="highest") / spread[:, None]
    root = jnp.where(told, jnp.sqrt(spread), 0.0)
    deviation = root * jnp.sqrt(features / jnp.sum(root**2))
    more = (0, features - kept)
    return old._replace(
        mean=mean,
        rows=jnp.pad(jnp.where(told[:, None], rows, 0.0), (more, (0, 0))),
        spread=jnp.pad(spread, more, constant_values=1.0),
        deviation=jnp.pad(deviation, more),
    )


def random_codes(generator: PyTree, key: Key, shape: tuple[int, int]) -> Float[Array, "b d"]:
    """z ~ N(0, D^2), or N(0, I) where codes are a table."""
    z = jax.random.normal(key, shape)
    return z * generator["axes"].deviation[None] if "axes" in generator else z


def averaged(x: Float[Array, "b *space"], shape: tuple[int, ...]) -> Float[Array, "b *coarse"]:
    """Means of equal blocks, down to `shape`; an axis that is that short already stays."""
    split = [size for n, m in zip(x.shape[1:], shape) for size in (min(n, m), max(n // m, 1))]
    blocks = x.reshape(x.shape[0], *split)
    return jnp.mean(blocks, axis=tuple(range(2, 2 * len(shape) + 1, 2)))
