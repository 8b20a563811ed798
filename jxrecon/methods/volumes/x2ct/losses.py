"""What X2CT-GAN and X2CT-CNN are trained with: least-squares adversarial, voxel and projection terms.

All volumes are in the networks' units, [0, 1] over the window. Weights are those of the authors' training,
which differ from the paper's equations by the adversarial term's factor alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.types import Terms

Scores = Float[Array, "n k l m 1"]
Volume = Float[Array, "n d h w 1"]


class Weights(NamedTuple):
    """Factors of the three terms, lambda_1, lambda_2 and lambda_3 of the paper."""

    adversarial: float = 0.1  # for the least-squares game, in both players' losses
    reconstruction: float = 10.0  # for L_re
    projection: float = 10.0  # for L_pl


X2CT_GAN = Weights()
X2CT_CNN = Weights(adversarial=0.0, projection=0.0)


def reconstruction(fake: Volume, real: Volume) -> Float[Array, ""]:
    """[X2CT L_re] mean (G(x) - y)^2 over voxels."""
    return jnp.mean(jnp.square(fake - real))


def projection(fake: Volume, real: Volume) -> Float[Array, ""]:
    """[X2CT L_pl] 1/3 sum over the axes D, H, W of mean |P G(x) - P y|, P the mean along the axis."""
    difference = fake - real
    errors = (jnp.mean(jnp.abs(jnp.mean(difference, axis))) for axis in (1, 2, 3))
    return sum(errors, jnp.zeros((), fake.dtype)) / 3


def generator_loss(
    scores: Scores | None, fake: Volume, real: Volume, weights: Weights = X2CT_GAN
) -> tuple[Float[Array, ""], Terms]:
    """[X2CT L_G] w_a mean (D(G(x)) - 1)^2 + w_r L_re + w_p L_pl.

    Args:
        scores: the discriminator's map of `fake`; None without an adversary (X2CT-CNN).
        fake: G(x).
        real: y.
        weights: factors of the terms; a term of weight 0 is not computed.

    Returns:
        The loss and its weighted terms.
    """
    terms = {}
    if scores is not None and weights.adversarial:
        terms["L_LSGAN(G)"] = weights.adversarial * jnp.mean(jnp.square(scores - 1.0))
    if weights.reconstruction:
        terms["L_re"] = weights.reconstruction * reconstruction(fake, real)
    if weights.projection:
        terms["L_pl"] = weights.projection * projection(fake, real)
    total = sum(terms.values(), jnp.zeros((), fake.dtype))
    return total, {**terms, "L_G": total}


def discriminator_loss(
    on_real: Scores, on_fake: Scores, weights: Weights = X2CT_GAN
) -> tuple[Float[Array, ""], Terms]:
    """[X2CT L_LSGAN(D)] w_a (mean (D(y) - 1)^2 + mean D(G(x))^2); the fake volume is a constant here.

    Returns:
        The loss and its weighted terms.
    """
    real = weights.adversarial * jnp.mean(jnp.square(on_real - 1.0))
    fake = weights.adversarial * jnp.mean(jnp.square(on_fake))
    total = real + fake
    return total, {"L_LSGAN(D)": total, "D(real)": real, "D(fake)": fake}
