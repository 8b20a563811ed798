"""Reconstruction by optimising the latents of a frozen prior: one jitted scan over Adam steps.

    argmin_{w,n}  sum_i lambda_2 ||A_i G(w,n) - I_i||_2 + lambda_p L_p(A_i G(w,n), I_i)
                  + lambda_w L_w(w) + lambda_c L_c(w) + lambda_n L_n(n)          [X2Vision Eq. R]

Every sum is a sum as written, none is a mean; additive constants of the densities are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jxrecon.methods.base.method import Progress, tell
from jxrecon.methods.volumes.x2vision import distances, pose
from jxrecon.nn.optimise import improve
from jxrecon.types import Terms

Styles = Float[Array, "b k d"]
Noise = tuple[Float[Array, "b ..."], ...]
Images = tuple[Float[Array, "b rows columns"], ...]
Weights = Sequence[Float[Array, "rows columns"]]


@dataclass(frozen=True)
class LatentSettings:
    """Weights and schedule of the latent optimiser.

    lambda_w, lambda_c, lambda_n and kappa are the paper's; lambda_2, lambda_p and the schedule are
    ours, since the paper's could not be verified. With `pose` the views' poses and exposures are found, too
    (`pose`, which is ours), with `local_mm` codes that vary over so many millimetres (`local`, ours, too).

    Attributes:
        start: of w: "mean", mu; or "xrays", what the prior's encoder makes of X-rays of the problem's
            cameras. A volume that is given comes before either.
        anchor: where L_w has its middle: 0 at mu, 1 at the start.
        coarse_iterations: on the grids of the levels below the finest, the coarsest of them first, with one
            w for all layers; `iterations` on the full grid follow.
        samples: latents drawn about those found, whose mean and deviation are told, see `doubt`; 0: none.
        tuning_iterations: of pivotal tuning at the end, see `pivotal`; and its rate, levels and keep.
    """

    lambda_2: float = 10.0
    lambda_p: float = 0.1
    lambda_w: float = 0.1
    lambda_c: float = 0.05
    lambda_n: float = 10.0
    kappa: float = 1.0
    sigma: str = "elementwise"  # or "scalar": sqrt(sum of variances), as the paper's ancestors do
    iterations: int = 300
    learning_rate: float = 0.1
    starts: int = 4
    distance: str = "gradient_ssim"  # L_p; or "lpips_vgg" as in the paper, "lpips_alex"
    pose: bool = False
    lambda_v: float = 1.0
    local_mm: float = 0.0
    lambda_u: float = 1.0
    start: str = "mean"
    anchor: float = 0.0
    coarse_iterations: tuple[int, ...] = (0,)
    samples: int = 0
    tuning_iterations: int = 0
    tuning_rate: float = 5e-4
    tuning_levels: int = 2
    tuning_keep: float = 1e4


class WStatistics(NamedTuple):
    """How mapped style vectors w are distributed."""

    mean: Float[Array, " d"]  # mu
    std: Float[Array, " d"]  # sigma, of each coordinate
    axes: Float[Array, "d d"]  # principal directions, columns
    scales: Float[Array, " d"]  # standard deviation along each of them


def w_statistics(ws: Float[Array, "n d"]) -> WStatistics:
    """Statistics of mapped style vectors.

    Directions that hardly vary are floored at a thousandth of the widest: L_w would be infinite and
    the optimiser could not move there.
    """
    mean, std = jnp.mean(ws, axis=0), jnp.std(ws, axis=0)
    centred = ws - mean[None]
    covariance = jnp.matmul(centred.T, centred, precision="highest") / ws.shape[0]
    variances, axes = jnp.linalg.eigh(covariance)
    scales = jnp.sqrt(jnp.maximum(variances, 0.0))
    floor = 1e-3 * jnp.max(scales)
    return WStatistics(mean, jnp.maximum(std, floor), axes, jnp.maximum(scales, floor))


class Latents(NamedTuple):
    """What is optimised: a style vector a layer (W+), a noise map a convolution; if asked, poses, and codes
    that vary from place to place (`local`)."""

    ws: Styles
    noise: Noise
    views: pose.Views | None = None
    local: Float[Array, "b d i j k"] | None = None


class Inversion(NamedTuple):
    """The latents found, and the objective's terms at every step, [iterations, b] each."""

    latents: Latents
    objective: Float[Array, " b"]
    trace: dict[str, Float[Array, "iterations b"]]


def style_likelihood(ws: Styles, statistics: WStatistics, sigma: str) -> Float[Array, " b"]:
    """[X2Vision L_w] -sum_k log N(w_k; mu, sigma), without its constant.

    `sigma` "elementwise" divides each coordinate by its own deviation; "scalar" all by
    sqrt(sum of variances), which weighs the term less by about the dimension of w.
    """
    mean = statistics.mean[None, None]
    deviation = {
        "elementwise": statistics.std[None, None],
        "scalar": jnp.sqrt(jnp.sum(statistics.std**2)).reshape(1, 1, 1),
    }[sigma]
    return 0.5 * jnp.sum(((ws - mean) / deviation) ** 2, axis=(1, 2))


def style_coherence(ws: Styles, kappa: float) -> Float[Array, " b"]:
    """[X2Vision L_c] -sum_{i<j} log M(theta_ij; 0, kappa) = -kappa sum_{i<j} cos theta_ij + const.

    Written by cosines: arccos has an infinite gradient where all w are equal, at the very start.
    """
    unit = ws / jnp.sqrt(jnp.sum(ws**2, axis=2, keepdims=True) + 1e-12)
    cosines = jnp.einsum("bid,bjd->bij", unit, unit, precision=jax.lax.Precision.HIGHEST)
    pairs = jnp.triu(jnp.ones(cosines.shape[1:], bool), k=1)
    return -kappa * jnp.sum(jnp.where(pairs[None], cosines, 0.0), axis=(1, 2))


def noise_likelihood(noise: Noise) -> Float[Array, " b"]:
    """[X2Vision L_n] -sum_j log N(n_j; 0, I), without its constant."""
    return reduce(add, [0.5 * jnp.sum(n**2, axis=tuple(range(1, n.ndim))) for n in noise])


def image_distance(
    projections: Images, images: Images, weights: Weights | None = None
) -> Float[Array, " b"]:
    """[X2Vision data term] sum_i ||A_i v - I_i||_2 over views: a norm, not its square.

    With weights of mean 1 each pixel counts as much as it is to be trusted; the paper has none.
    """
    squares = [(p - i) ** 2 for p, i in zip(projections, images)]
    if weights is not None:
        squares = [square * w[None] for square, w in zip(squares, weights)]
    return reduce(add, [jnp.sqrt(jnp.sum(s, axis=(1, 2)) + 1e-12) for s in squares])


def objective(
    latents: Latents,
    images: Images,
    project: Callable[[Latents], Images],
    statistics: WStatistics,
    settings: LatentSettings,
    weights: Weights | None = None,
) -> tuple[Float[Array, " b"], Terms]:
    """[X2Vision Eq. R] The total of each batch member, by lambda_x of each L_x, and the unweighted terms.

    Raises:
        InputError: `settings.distance` is LPIPS, whose weights are not installed.
    """
    projections, distance = project(latents), distances.named(settings.distance)
    terms = {
        "L_2": image_distance(projections, images, weights),
        "L_p": reduce(add, [distance(p, i) for p, i in zip(projections, images)]),
        "L_w": style_likelihood(latents.ws, statistics, settings.sigma),
        "L_c": style_coherence(latents.ws, settings.kappa),
        "L_n": noise_likelihood(latents.noise) if latents.noise else jnp.zeros(len(latents.ws)),
    }
    told = {}
    if latents.local is not None:
        terms["L_u"] = 0.5 * jnp.sum(latents.local**2, axis=(1, 2, 3, 4))
    if latents.views is not None:
        terms["L_v"], told = pose.likelihood(latents.views), pose.facts(latents.views)
    weighted = [getattr(settings, f"lambda_{name[2:]}") * term for name, term in terms.items()]
    total = reduce(add, weighted)
    return total, {"total": total, **terms, **told}


def invert(
    start: Latents,
    images: Images,
    project: Callable[[Latents], Images],
    statistics: WStatistics,
    settings: LatentSettings,
    progress: Progress = None,
    weights: Weights | None = None,
) -> Inversion:
    """Adam with a warm-up and a cosine decay, the whole of it one scan.

    Adam sees the style vectors in whitened coordinates: the objective is the same, its valleys are rounder.

    Args:
        start: latents to start from; batch members are independent of each other.
        images: line integrals, one [b, rows, columns] a view.
        project: latents -> projections of G(latents) in the same views.
        statistics: those of the frozen mapping network.
        progress: called with (iteration, lowest total) about twenty times.
        weights: of the images' pixels, of mean 1; None: all alike.

    Returns:
        For each batch member the latents of its lowest total, not of its last iteration.
    """
    rate, iterations = settings.learning_rate, settings.iterations
    warm = max(1, iterations // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.1 * rate, rate, warm, max(iterations, warm + 1))
    optimiser = optax.adam(schedule, b1=0.9, b2=0.99)

    def loss(white: Latents) -> tuple[Float[Array, ""], Terms]:
        latents = coloured(white, statistics)
        total, terms = objective(latents, images, project, statistics, settings, weights)
        return jnp.sum(total), terms

    def step(carry: tuple, iteration: Array) -> tuple[tuple, Terms]:
        before, optimiser_state, best, best_total = carry
        white, optimiser_state, terms = improve(optimiser, loss, before, optimiser_state)
        lower = terms["total"] < best_total
        best = jax.tree.map(lambda new, old: jax.vmap(jnp.where)(lower, new, old), before, best)
        best_total = jnp.where(lower, terms["total"], best_total)
        tell(progress, iteration, jnp.min(best_total), iterations)
        return (white, optimiser_state, best, best_total), terms

    infinite = jnp.full((start.ws.shape[0],), jnp.inf, jnp.float32)
    first = whitened(start, statistics)
    carry = (first, optimiser.init(first), first, infinite)
    (_, _, best, total), trace = jax.lax.scan(step, carry, jnp.arange(iterations))
    return Inversion(coloured(best, statistics), total, trace)


def whitened(latents: Latents, statistics: WStatistics) -> Latents:
    """w -> u with w = mu + V diag(s) u; V, s the principal directions and deviations of mapped w."""
    away = latents.ws - statistics.mean[None, None]
    along = jnp.matmul(away, statistics.axes, precision="highest")
    return latents._replace(ws=along / statistics.scales[None, None])


def coloured(white: Latents, statistics: WStatistics) -> Latents:
    """The inverse of `whitened`."""
    frame = statistics.axes * statistics.scales[None]
    away = jnp.matmul(white.ws, frame.T, precision="highest")
    return white._replace(ws=statistics.mean[None, None] + away)
