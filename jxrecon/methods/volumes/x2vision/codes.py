"""Codes of volumes along principal axes: a linear encoder and decoder under the generator.

    z = D S^-1 V' (v - m)        w = z, no mapping network
    G(w, n) = m + V S D^-1 w + synthesis(w, n)

m, V, S: mean, principal axes and deviations of training volumes and mirror images, averaged to a coarse level
and learnt in closed form before the first step; D = c S^(1/2), of mean square 1, are the deviations of z, so
that random z ~ N(0, D^2). The synthesis network starts at zero and learns what the linear part cannot show:
the prior begins as the linear one and gets better. A table holds a code for each training volume as it is and
knows none of one that was moved or bent; these are codes of any volume. An encoder network in their place was
tried three times and failed: codes collapsed, or G learnt slower than the mean.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.nn.resample import upsample2
from jxrecon.types import Key, PyTree

FLAT = 1e-5
"""Directions whose variance is this share of the largest, or less, give no code."""


class Axes(NamedTuple):
    """The linear part of a prior.

    Attributes:
        mean: of training volumes and mirror images, network units, on the coarse level.
        axes: one a row, of length 1; zeros where training volumes do not differ.
        spread: of volumes along them.
        deviation: of z along them.
    """

    mean: Float[Array, "x y z"]
    axes: Float[Array, "d voxels"]
    spread: Float[Array, " d"]
    deviation: Float[Array, " d"]

    def code(self, volumes: Float[Array, "b x y z"]) -> Float[Array, "b d"]:
        """z of volumes in network units, of any finer grid."""
        away = averaged(volumes, self.mean.shape) - self.mean[None]
        along = jnp.matmul(away.reshape(away.shape[0], -1), self.axes.T, precision="highest")
        return along * (self.deviation / self.spread)[None]

    def volume(self, z: Float[Array, "b d"], shape: tuple[int, ...]) -> Float[Array, "b x y z 1"]:
        """The linear volume on a grid that is finer or coarser by whole levels."""
        deviation = jnp.where(self.deviation > 0, self.deviation, 1.0)
        away = jnp.matmul(z * (self.spread / deviation)[None], self.axes, precision="highest")
        volume = self.mean[None] + away.reshape(-1, *self.mean.shape)
        volume = averaged(volume, shape)[..., None]
        while volume.shape[1:-1] != shape:
            volume = upsample2(volume)
        return volume


def no_axes(shape: tuple[int, ...], features: int) -> Axes:
    """Before training volumes were seen: nothing is linear, random codes are N(0, I)."""
    rows = jnp.zeros((features, shape[0] * shape[1] * shape[2]))
    return Axes(jnp.zeros(shape), rows, jnp.ones(features), jnp.ones(features))


def principal(volumes: Float[Array, "n x y z"], features: int) -> Axes:
    """Those of these volumes and their mirror images, network units, on the coarse level."""
    both = jnp.concatenate([volumes, volumes[:, ::-1]])
    mean = jnp.mean(both, axis=0)
    away = (both - mean[None]).reshape(both.shape[0], -1) / jnp.sqrt(both.shape[0])
    variances, u = jnp.linalg.eigh(jnp.matmul(away, away.T, precision="highest"))
    kept = min(features, both.shape[0])
    variances, u = variances[::-1][:kept], u[:, ::-1][:, :kept]
    told = variances > FLAT * variances[0]
    spread = jnp.sqrt(jnp.where(told, variances, 1.0))
    axes = jnp.matmul(u.T, away, precision="highest") / spread[:, None]
    root = jnp.where(told, jnp.sqrt(spread), 0.0)
    deviation = root * jnp.sqrt(features / jnp.sum(root**2))
    more = (0, features - kept)
    return Axes(
        mean,
        jnp.pad(jnp.where(told[:, None], axes, 0.0), (more, (0, 0))),
        jnp.pad(spread, more, constant_values=1.0),
        jnp.pad(deviation, more),
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
