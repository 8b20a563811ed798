"""X2Vision (Cafaro et al., MICCAI 2023): a 3-D StyleGAN2 prior and latent optimisation against X-rays.

| equation | function | settings |
|---|---|---|
| adversarial game | losses.ADVERSARIAL | prior.adversarial |
| perceptual loss on projections | losses.projection_distance | prior.projection_weight, prior.distance |
| R1, path length (lazy) | losses.r1_penalty, losses.path_lengths | prior.r1_*, prior.path_length_* |
| mu, sigma of w over 10,000 mapped z | style_statistics | - |
| Eq. R, the objective | latent.objective | latent.lambda_* |
| L_p | distances.DISTANCES | latent.lambda_p, latent.distance |
| L_w | latent.style_likelihood | latent.lambda_w, latent.sigma |
| L_c | latent.style_coherence | latent.lambda_c, latent.kappa |
| L_n | latent.noise_likelihood | latent.lambda_n |
| L_v, ours | pose.likelihood | latent.pose, latent.lambda_v |
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.drr import hu_to_mu
from jxrecon.methods.base.method import Cameras, Images, Method, Problem, Progress, Reconstruction
from jxrecon.methods.volumes.x2vision import distances, pose
from jxrecon.methods.volumes.x2vision import prior as manifold
from jxrecon.methods.volumes.x2vision.latent import (
    Inversion,
    Latents,
    LatentSettings,
    WStatistics,
    invert,
    w_statistics,
)
from jxrecon.methods.volumes.x2vision.prior import Prior, PriorSettings, State, volumes_of
from jxrecon.nn.blocks import apply
from jxrecon.types import Key, PyTree, Terms, VolumeBatch

MAPPED = 10_000
"""Number of mapped z behind the statistics of w [X2Vision, after training]."""


@dataclass(frozen=True)
class Settings:
    """Everything of X2Vision that a user may set.

    Attributes:
        prior: the 3-D StyleGAN2 and its training.
        latent: the objective of the reconstruction and its optimiser.
        eval_iterations: latent steps of the quick reconstructions that training reports.
    """

    prior: PriorSettings = field(default_factory=PriorSettings)
    latent: LatentSettings = field(default_factory=LatentSettings)
    eval_iterations: int = 60


def build(settings: Settings, problem: Problem) -> Method:
    """X2Vision for this problem.

    Raises:
        InputError: there is no such distance.
    """
    distances.check(settings.prior.distance, "settings.prior.distance")
    distances.check(settings.latent.distance, "settings.latent.distance")
    prior = manifold.make_prior(settings.prior, problem)
    return Method(
        init=partial(manifold.init, prior),
        train_step=partial(train_step, prior, settings),
        eval_step=partial(eval_step, prior, settings),
        reconstruct=partial(reconstruct, (prior, settings.latent)),
        sample=partial(manifold.sample, prior),
        field_model=True,
        posed=partial(reconstruct, (prior, replace(settings.latent, pose=True))),
        slow=True,
        free=("settings.latent",),
    )


def train_step(
    prior: Prior, settings: Settings, state: State, batch: VolumeBatch, key: Key
) -> tuple[State, Terms]:
    """One step of the prior, `prior.train_step`.

    Raises:
        InputError: weights are not installed that the first evaluation, hours later, will need.
    """
    distances.named(settings.latent.distance)
    return manifold.train_step(prior, state, batch, key)


def mapped_styles(prior: Prior, generator: PyTree, key: Key, count: int) -> Float[Array, "b d"]:
    """f(z) of `count` random z."""
    z = jax.random.normal(key, (count, prior.settings.w_dim))
    return apply(prior.mapping, generator["mapping"], z)


def style_statistics(prior: Prior, generator: PyTree) -> WStatistics:
    """mu and sigma of w over 10,000 mapped z under a fixed key: a function of the frozen weights."""
    return w_statistics(mapped_styles(prior, generator, jax.random.key(0), MAPPED))


def start_latents(
    prior: Prior, generator: PyTree, statistics: WStatistics, key: Key, starts: int
) -> Latents:
    """The first start is w = mu, the others are mapped z; noise starts at its mode, 0."""
    w = mapped_styles(prior, generator, key, starts).at[0].set(statistics.mean)
    noise = tuple(jnp.zeros((starts, *shape, 1)) for shape in prior.synthesis.noise_shapes)
    return Latents(jnp.repeat(w[:, None], prior.synthesis.num_ws, axis=1), noise)


def invert_projections(
    prior: Prior,
    settings: LatentSettings,
    generator: PyTree,
    images: tuple[Float[Array, "b rows columns"], ...],
    cameras: Cameras,
    key: Key,
    **how: Any,
) -> Inversion:
    """Latents of a frozen generator for the X-rays of each batch member, from `starts` starts each.

    The batch of the result is [b * starts], the starts of one member side by side. `how`: progress and
    weights of `latent.invert`.
    """
    starts, count = settings.starts, images[0].shape[0]
    statistics = style_statistics(prior, generator)
    start = start_latents(prior, generator, statistics, key, starts)
    start = jax.tree.map(lambda a: jnp.tile(a, (count,) + (1,) * (a.ndim - 1)), start)
    if settings.pose:
        start = start._replace(views=pose.as_told(count * starts, len(cameras)))
    repeated = tuple(jnp.repeat(image, starts, axis=0) for image in images)

    def projections(latents: Latents) -> tuple[Array, ...]:
        volumes = manifold.synthesise(prior, generator, latents.ws, latents.noise)
        if latents.views is None:
            return manifold.project(prior, volumes, cameras)
        mu = hu_to_mu(prior.problem.window.to_hu(volumes[..., 0]))
        return pose.project(mu, prior.problem.grid, cameras, latents.views)

    return invert(start, repeated, projections, statistics, settings, **how)


def best_start(inversion: Inversion, starts: int) -> tuple[Latents, Array]:
    """Of each member's starts the one of the lowest objective, and its place in the batch."""
    objective = inversion.objective.reshape(-1, starts)
    place = jnp.argmin(objective, axis=1) + starts * jnp.arange(objective.shape[0])
    return jax.tree.map(lambda a: a[place], inversion.latents), place


def reconstruct(
    model: tuple[Prior, LatentSettings],
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
    weights: Images | None = None,
) -> Reconstruction:
    """One volume from any number of X-rays from anywhere, by the averaged weights, which stay as they are.

    `progress` is told the lowest objective; `weights` are of the X-rays' pixels.
    """
    (prior, settings), batched = model, tuple(image[None] for image in images)
    how = {"progress": progress, "weights": weights}
    found = invert_projections(prior, settings, state.ema, batched, cameras, key, **how)
    latents, place = best_start(found, settings.starts)
    hu = volumes_of(prior, state.ema, latents.ws, latents.noise)[0]
    return Reconstruction(hu, {name: term[:, place[0]] for name, term in found.trace.items()})


def eval_step(
    prior: Prior, settings: Settings, state: State, batch: VolumeBatch, key: Key
) -> Terms:
    """Held-out volumes from their field's own X-rays in few latent steps from w = mu: how good is the prior?

    Terms:
        psnr_db: whole volume, values and range as the window, mean over the batch.
        projection_error: |A v - I| / |I| over the views, mean over the batch.
        sign_D_held_out: mean sign of the discriminator on held-out volumes; far below
            sign_D_real of training means that it has memorised the training set.
    """
    window, cameras = prior.problem.window, prior.problem.cameras
    real = window.to_unit(batch.hu)[..., None]
    images = manifold.project(prior, real, cameras)
    latent = replace(settings.latent, iterations=settings.eval_iterations, starts=1, pose=False)
    found = invert_projections(prior, latent, state.ema, images, cameras, key)
    hu = volumes_of(prior, state.ema, found.latents.ws, found.latents.noise)
    truth = jnp.clip(batch.hu, window.low, window.high)
    error = jnp.mean((hu - truth) ** 2, axis=(1, 2, 3))
    again = manifold.project(prior, window.to_unit(hu)[..., None], cameras)
    difference = sum(jnp.sum((a - i) ** 2, axis=(1, 2)) for a, i in zip(again, images))
    signal = sum(jnp.sum(i**2, axis=(1, 2)) for i in images)
    scores = manifold.score(prior, state.discriminator, real)
    return {
        "psnr_db": jnp.mean(10.0 * jnp.log10(window.range**2 / error)),
        "projection_error": jnp.mean(jnp.sqrt(difference / signal)),
        "sign_D_held_out": jnp.mean(jnp.sign(scores)),
    }
