"""What the 3-D StyleGAN2 prior is trained with: adversarial pairs, lazy penalties, projection terms.

Networks are passed as plain functions of volumes [b, x, y, z, 1] in network units ([-1, 1] = window).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2vision.distances import Distance
from jxrecon.types import Key

Logits = Float[Array, "b 1"]
Volumes = Float[Array, "b x y z 1"]


class Adversarial(NamedTuple):
    """One adversarial game: what the generator and what the discriminator minimise."""

    generator: Callable[[Logits], Float[Array, ""]]
    discriminator: Callable[[Logits, Logits], Float[Array, ""]]


ADVERSARIAL = {
    # [StyleGAN2] -log sigmoid(D(G(z))): the game of the code lineage.
    "non_saturating": Adversarial(
        lambda fake: jnp.mean(jax.nn.softplus(-fake)),
        lambda real, fake: jnp.mean(jax.nn.softplus(fake)) + jnp.mean(jax.nn.softplus(-real)),
    ),
    # [X2Vision, as its survey describes it] LSGAN with targets 1 and 0.
    "least_squares": Adversarial(
        lambda fake: 0.5 * jnp.mean((fake - 1.0) ** 2),
        lambda real, fake: 0.5 * jnp.mean((real - 1.0) ** 2) + 0.5 * jnp.mean(fake**2),
    ),
}


def r1_penalty(discriminator: Callable[[Volumes], Logits], real: Volumes) -> Float[Array, " b"]:
    """[StyleGAN2 R1] sum (dD/dx)^2 of each real volume; the caller weights it by gamma / 2."""
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(real)
    return jnp.sum(jnp.square(gradient.astype(jnp.float32)), axis=(1, 2, 3, 4))


def path_lengths(
    synthesise: Callable[[Float[Array, "b k d"]], Volumes], ws: Float[Array, "b k d"], key: Key
) -> Float[Array, " b"]:
    """[StyleGAN2 path length] |J^T y| for y ~ N(0, I) / sqrt(voxels), mean over style vectors.

    J is the derivative of the volume by the style vectors: sqrt(mean_k sum_d (d sum(v y) / d w_kd)^2).
    """
    volume, pull_back = jax.vjp(synthesise, ws)
    voxels = jnp.float32(volume[0].size)
    noise = jax.random.normal(key, volume.shape, volume.dtype) / jnp.sqrt(voxels)
    (gradient,) = pull_back(noise)
    # The tiny constant keeps the root's derivative finite where the gradient vanishes.
    return jnp.sqrt(jnp.mean(jnp.sum(gradient**2, axis=2), axis=1) + 1e-12)


def projection_distance(
    distance: Distance,
    a: tuple[Float[Array, "b rows columns"], ...],
    b: tuple[Float[Array, "b rows columns"], ...],
) -> Float[Array, ""]:
    """[X2Vision perceptual loss] Distance of the projections of two volumes, mean over views."""
    return reduce(add, [jnp.mean(distance(p, q)) for p, q in zip(a, b)]) / len(a)
