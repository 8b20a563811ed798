"""What X-rays leave open: latents drawn about those found, and the deviation of their volumes.

The objective is -log of a posterior of w. Laplace's approximation of it, for one offset u of all layers in
whitened coordinates, has the precision

    P = lambda_2 J' W J / |r| + lambda_w K F' diag(1/sigma^2) F        w = w* + F u,  r = W^(1/2) (A G(w) - I)

with J the derivative of the projections by u: the Hessian of the norm without the part along r, and that of
L_w. u ~ N(0, P^-1) in pairs +-u give the volumes whose mean and deviation are told. Why not otherwise: the
starts of the optimiser end in one w, or where it stopped, which is no posterior; Langevin takes thousands of
steps to forget its start, J takes two volumes a direction, on a coarse level.

What G cannot show at all is no matter of w: its mean square, of training, is added to the variance. One
factor on the deviation is found on training patients who were left out (`base.calibration`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.volumes.x2vision.latent import Latents, LatentSettings, WStatistics
from jxrecon.methods.volumes.x2vision.stages import Level
from jxrecon.types import Key, PyTree

STEP = 0.1
"""Of u, a tenth of a deviation, over which J is taken as a difference."""


def precision(
    level: Level,
    generator: PyTree,
    latents: Latents,
    statistics: WStatistics,
    settings: LatentSettings,
) -> Float[Array, "d d"]:
    """P of the file's head, of one patient.

    Args:
        level: whose projections are differentiated.
        generator: frozen weights.
        latents: found.
        statistics: of w.
        settings: of the objective.
    """
    frame = statistics.axes * statistics.scales[None]
    w, layers = latents.ws[0], level.prior.synthesis.num_ws

    def residual(u: Float[Array, " d"]) -> Float[Array, " pixels"]:
        moved = w[:layers] + jnp.matmul(frame, u, precision="highest")[None]
        shown = level.project(generator, latents._replace(ws=moved[None], noise=()))
        parts = [(p[0] - i[0]) for p, i in zip(shown, level.images)]
        if level.weights is not None:
            parts = [part * jnp.sqrt(v) for part, v in zip(parts, level.weights)]
        return jnp.concatenate([part.ravel() for part in parts])

    nowhere = jnp.zeros(frame.shape[1])

    def slope(direction: Float[Array, " d"]) -> Float[Array, " pixels"]:
        """Of the line between the two sides: convolutions here have no forward derivative."""
        step = STEP * direction
        return (residual(step) - residual(-step)) / (2 * STEP)

    jacobian = jax.lax.map(slope, jnp.eye(frame.shape[1]))  # [d, pixels]
    norms = _view_norms(residual(nowhere), level)
    data = jnp.matmul(jacobian / norms[None], jacobian.T, precision="highest")
    scaled = frame / statistics.std[:, None]
    likely = jnp.matmul(scaled.T, scaled, precision="highest")
    return settings.lambda_2 * level.block * data + settings.lambda_w * w.shape[0] * likely


def _view_norms(r: Float[Array, " pixels"], level: Level) -> Float[Array, " pixels"]:
    """|r| of the view that each pixel belongs to: the data term is a sum of norms, one a view."""
    ends, start = [], 0
    for image in level.images:
        pixels = image[0].size
        norm = jnp.sqrt(jnp.sum(jnp.square(r[start : start + pixels])) + 1e-12)
        ends.append(jnp.full(pixels, norm))
        start += pixels
    return jnp.concatenate(ends)


def offsets(
    precision: Float[Array, "d d"], statistics: WStatistics, key: Key, pairs: int
) -> Float[Array, "n d"]:
    """`pairs` draws of F u, u ~ N(0, P^-1), each followed by its opposite."""
    lower = jnp.linalg.cholesky(precision)
    drawn = jax.random.normal(key, (precision.shape[0], pairs))
    u = jax.scipy.linalg.solve_triangular(lower, drawn, lower=True, trans="T")
    frame = statistics.axes * statistics.scales[None]
    moved = jnp.matmul(frame, u, precision="highest").T
    return jnp.concatenate([moved, -moved])
