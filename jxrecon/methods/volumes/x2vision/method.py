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
| L_u, ours: codes that vary from place to place | local.spread_out | latent.local_mm, latent.lambda_u |

Ours, beside the paper:

| what | function | settings |
|---|---|---|
| codes of volumes, w from X-rays | training.auto_encoder_step | prior.codes, prior.*_channels |
| coarse to fine | stages.invert_in_stages | latent.coarse_iterations |
| where w starts, and L_w has its middle | _first | latent.start, latent.anchor |
| what G lacks of the volume that it starts from | _beside | - |
| mean and deviation of several latents | doubt.precision, doubt.offsets | latent.samples, calibration |
| pivotal tuning | pivotal.tuned | latent.tuning_* |
| an earlier scan, deformed | guided.follow | guided.* |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.drr.rays import is_concrete
from jxrecon.geometry import same_cameras
from jxrecon.methods.base import calibration
from jxrecon.methods.base.method import (
    Cameras,
    Images,
    Method,
    Problem,
    Progress,
    Reconstruction,
    Share,
)
from jxrecon.methods.volumes.x2vision import distances, pose, training
from jxrecon.methods.volumes.x2vision import prior as manifold
from jxrecon.methods.volumes.x2vision.codes import averaged, random_codes, small
from jxrecon.methods.volumes.x2vision.doubt import offsets, precision
from jxrecon.methods.volumes.x2vision.guided import GuidedSettings, follow
from jxrecon.methods.volumes.x2vision.latent import (
    Inversion,
    Latents,
    LatentSettings,
    WStatistics,
    w_statistics,
)
from jxrecon.methods.volumes.x2vision.local import cells
from jxrecon.methods.volumes.x2vision.pivotal import tuned
from jxrecon.methods.volumes.x2vision.prior import Prior, PriorSettings, State, volumes_of
from jxrecon.methods.volumes.x2vision.stages import invert_in_stages, level_of
from jxrecon.metrics import populations
from jxrecon.nn.blocks import apply
from jxrecon.types import InputError, Key, PyTree, Terms, VolumeBatch

SAMPLES = 16
"""Of the prior, that an evaluation looks at."""

MAPPED = 10_000
"""Number of mapped z behind the statistics of w [X2Vision, after training]."""

SOONER = 2**17
"""Voxels up to which steps are as fast, to 2 %, when compiled sooner; at full size they took 7 % longer."""


@dataclass(frozen=True)
class Settings:
    """Everything of X2Vision that a user may set.

    Attributes:
        prior: the 3-D StyleGAN2 and its training.
        latent: the objective of the reconstruction and its optimiser.
        guided: the deformation of an earlier scan of the patient.
        calibration: training patients that an encoder's prior is not trained on, to find the factor on the
            deviations.
        eval_iterations: latent steps of the quick reconstructions that training reports.
    """

    prior: PriorSettings = field(default_factory=PriorSettings)
    latent: LatentSettings = field(default_factory=LatentSettings)
    guided: GuidedSettings = field(default_factory=GuidedSettings)
    eval_iterations: int = 60
    calibration: int = 4


class Model(NamedTuple):
    """What the functions below share: no arrays, only definitions."""

    prior: Prior
    settings: Settings


def build(settings: Settings, problem: Problem) -> Method:
    """X2Vision for this problem.

    Raises:
        InputError: there is no such distance or no such start, or codes cannot vary from place to place.
    """
    starts = ("mean", "xrays") if settings.prior.codes == "principal" else ("mean",)
    if settings.latent.start not in starts:
        raise InputError(
            f"settings.latent.start={settings.latent.start}: expected {' or '.join(starts)} with "
            f"settings.prior.codes={settings.prior.codes}"
        )
    length = settings.latent.local_mm
    if length < 0 or (length and settings.prior.codes == "table"):
        raise InputError(
            f"settings.latent.local_mm={length:g}: expected 0 with settings.prior.codes=table, or "
            "millimetres over which principal codes vary"
        )
    distances.check(settings.prior.distance, "settings.prior.distance")
    distances.check(settings.latent.distance, "settings.latent.distance")
    prior = manifold.make_prior(settings.prior, problem)
    posed = replace(settings, latent=replace(settings.latent, pose=True))
    alone, steps = training.without_game(prior), settings.prior.warm_start_steps
    return Method(
        init=partial(manifold.init, prior),
        train_step=partial(train_step, prior, settings),
        eval_step=partial(eval_step, prior, settings),
        reconstruct=partial(reconstruct, Model(prior, settings)),
        sample=partial(manifold.sample, prior),
        field_model=True,
        any_camera=True,
        posed=partial(reconstruct, Model(prior, posed)),
        slow=True,
        deviates=settings.latent.samples > 0,
        free=("settings.latent", "settings.guided"),
        fit=partial(manifold.fit, prior) if prior.encodes else None,
        kept_out=settings.calibration if prior.encodes else 0,
        finish=partial(calibrate, Model(prior, settings)) if prior.encodes else None,
        hints=("whole", "start", "earlier") if prior.encodes else (),
        warm_up=(steps, partial(train_step, alone, settings)) if alone and steps else None,
        once=math.prod(problem.grid.shape) <= SOONER,
        ship=ship,
    )


def ship(state: State) -> State:
    """What reconstructs: the averaged generator and what doubt needs, nothing that only training does."""
    ema = state.ema if "axes" not in state.ema else {**state.ema, "axes": small(state.ema["axes"])}
    return state.replace(
        ema=ema,
        generator=(),
        discriminator=(),
        codes=(),
        generator_optimiser=(),
        discriminator_optimiser=(),
        codes_optimiser=(),
        encoder=(),
        encoder_optimiser=(),
    )


def train_step(
    prior: Prior, settings: Settings, state: State, batch: VolumeBatch, key: Key
) -> tuple[State, Terms]:
    """One step of the prior, `prior.train_step`.

    Raises:
        InputError: weights are not installed that the first evaluation, hours later, will need.
    """
    distances.named(settings.latent.distance)
    return training.train_step(prior, state, batch, key)


def mapped_styles(prior: Prior, generator: PyTree, key: Key, count: int) -> Float[Array, "b d"]:
    """f(z) of `count` random z."""
    z = random_codes(generator, key, (count, prior.settings.w_dim))
    return apply(prior.mapping, generator["mapping"], z)


def style_statistics(prior: Prior, generator: PyTree) -> WStatistics:
    """mu and sigma of w over 10,000 mapped z under a fixed key: a function of the frozen weights."""
    return w_statistics(mapped_styles(prior, generator, jax.random.key(0), MAPPED))


def start_latents(
    prior: Prior,
    generator: PyTree,
    statistics: WStatistics,
    key: Key,
    settings: LatentSettings,
) -> Latents:
    """The first start is w = mu, the others are mapped z; all else starts at its mode, 0."""
    starts = settings.starts
    w = mapped_styles(prior, generator, key, starts).at[0].set(statistics.mean)
    noise = tuple(jnp.zeros((starts, *shape, 1)) for shape in prior.synthesis.noise_shapes)
    latents = Latents(manifold.alike(prior, w), noise)
    if not settings.local_mm:
        return latents
    places = cells(prior.problem.grid, settings.local_mm)
    return latents._replace(local=jnp.zeros((settings.starts, prior.settings.w_dim, *places)))


def invert_projections(
    prior: Prior,
    settings: LatentSettings,
    generator: PyTree,
    images: tuple[Float[Array, "b rows columns"], ...],
    cameras: Cameras,
    key: Key,
) -> Inversion:
    """Latents of a frozen generator for the X-rays of each batch member, from `starts` starts each.

    Views stand where they are told, whatever `settings.pose` says: the X-rays are the field's own.

    The batch of the result is [b * starts], the starts of one member side by side.
    """
    starts, count = settings.starts, images[0].shape[0]
    statistics = style_statistics(prior, generator)
    start = start_latents(prior, generator, statistics, key, settings)
    start = jax.tree.map(lambda a: jnp.tile(a, (count,) + (1,) * (a.ndim - 1)), start)
    repeated = tuple(jnp.repeat(image, starts, axis=0) for image in images)
    return invert_in_stages((prior, settings, generator, statistics), start, repeated, cameras)


def best_start(inversion: Inversion, starts: int) -> tuple[Latents, Array]:
    """Of each member's starts the one of the lowest objective, and its place in the batch."""
    objective = inversion.objective.reshape(-1, starts)
    place = jnp.argmin(objective, axis=1) + starts * jnp.arange(objective.shape[0])
    return jax.tree.map(lambda a: a[place], inversion.latents), place


def reconstruct(
    model: Model,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
    weights: Images | None = None,
    **hints: Any,
) -> Reconstruction:
    """One volume from any number of X-rays from anywhere, by the averaged weights, which stay as they are.

    Args:
        model: prior and settings.
        state: a trained state.
        images: line integrals of the field.
        cameras: theirs.
        key: of random starts and of latents that are drawn.
        progress: told the lowest objective.
        weights: of the X-rays' pixels, of mean 1.
        hints: whole, the X-rays with what lies about the field; start, a volume in HU from which w starts,
            and which says by itself what differs from place to place: codes do not vary then; earlier, a scan
            of the patient in HU, which is deformed instead (`guided`).
    """
    prior, settings = model.prior, model.settings.latent
    generator, statistics = state.ema, style_statistics(prior, state.ema)
    levels = len(prior.settings.channels)
    w, beside = _first(model, state, cameras, hints), None
    if "start" in hints:
        assert w is not None  # that of the start
        beside, images = _beside(prior, generator, hints["start"], w, images, cameras)
    batched = tuple(image[None] for image in images)
    at = partial(level_of, prior, images=batched, cameras=cameras, weights=weights)
    if "earlier" in hints:
        guide = (prior, settings, model.settings.guided)
        return follow(guide, state, hints["earlier"], statistics, at(levels), progress)
    begin = start_latents(prior, generator, statistics, key, settings)
    if "start" in hints:
        begin = begin._replace(local=None)
    if settings.pose:
        begin = begin._replace(views=pose.as_told(settings.starts, len(cameras)))
    if w is not None:
        begin = begin._replace(ws=begin.ws.at[0].set(w))
        away = settings.anchor * (w[0] - statistics.mean)
        statistics = statistics._replace(mean=statistics.mean + away)
    repeated = tuple(jnp.repeat(image, settings.starts, axis=0) for image in batched)
    known = (prior, settings, generator, statistics)
    found = invert_in_stages(known, begin, repeated, cameras, weights, progress)
    latents, place = best_start(found, settings.starts)
    trace = {name: term[:, place[0]] for name, term in found.trace.items()}
    if settings.tuning_iterations:
        generator = tuned(prior, settings, generator, latents, at(levels))

    def volume(off: Float[Array, "#k w"]) -> Float[Array, "x y z"]:
        ws = latents.ws + off[None]
        hu = volumes_of(prior, generator, ws, latents.noise, latents.local)[0]
        return hu if beside is None else jnp.clip(hu + beside, *prior.problem.window)

    if not settings.samples:
        return Reconstruction(volume(jnp.zeros((1, prior.settings.w_dim))), trace)
    shown = at(min(levels, manifold.ENCODED))
    sure = precision(shown, generator, latents, statistics, settings)
    moved = offsets(sure, statistics, key, max(settings.samples // 2, 1))
    volumes = jax.lax.map(volume, moved[:, None])
    hu, variance = jnp.mean(volumes, axis=0), jnp.var(volumes, axis=0)
    if prior.encodes:
        variance = variance + (prior.problem.window.range / 2) ** 2 * state.residual
        return Reconstruction(hu, trace, state.scale * jnp.sqrt(variance))
    return Reconstruction(hu, trace, jnp.sqrt(variance))


def _beside(
    prior: Prior,
    generator: PyTree,
    start: Float[Array, "x y z"],
    w: Float[Array, "1 w"],
    images: Images,
    cameras: Cameras,
) -> tuple[Float[Array, "x y z"], Images]:
    """What G(w) lacks of the volume that w starts from, and the X-rays without it.

    The generator moves the volume, what it cannot show of it stays: v = start + G(w) - G(w of the start).

    Returns:
        (start - G(w) in HU, the images of what is left to G).
    """
    start = jnp.clip(start, *prior.problem.window)
    own = volumes_of(prior, generator, manifold.alike(prior, w), None)[0]
    lacking = drr.hu_to_mu(start) - drr.hu_to_mu(own)
    aside = drr.project(lacking, prior.problem.grid.affine, cameras)
    return start - own, tuple(image - shown for image, shown in zip(images, aside))


def _first(
    model: Model, state: State, cameras: Cameras, hints: dict[str, Any]
) -> Float[Array, "1 w"] | None:
    """w that the inversion starts from; None: mu."""
    prior = model.prior
    if "start" in hints:
        unit = prior.problem.window.to_unit(hints["start"])
        return manifold.encoded(prior, state, unit[None, ..., None])
    if model.settings.latent.start == "mean" or "whole" not in hints:
        return None
    own = prior.problem.cameras
    if not is_concrete(None, cameras) or not same_cameras(cameras, own, 0.1):
        return None
    images = tuple(image[None] for image in hints["whole"])
    return manifold.guessed(prior, state.ema["encoder"], images)


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
    latent = replace(settings.latent, iterations=settings.eval_iterations, starts=1)
    found = invert_projections(prior, latent, state.ema, images, cameras, key)
    latents = found.latents
    hu = volumes_of(prior, state.ema, latents.ws, latents.noise, latents.local)
    truth = jnp.clip(batch.hu, window.low, window.high)
    error = jnp.mean((hu - truth) ** 2, axis=(1, 2, 3))
    again = manifold.project(prior, window.to_unit(hu)[..., None], cameras)
    difference = sum(jnp.sum((a - i) ** 2, axis=(1, 2)) for a, i in zip(again, images))
    signal = sum(jnp.sum(i**2, axis=(1, 2)) for i in images)
    scores = manifold.score(prior, state.discriminator, real)
    encoded = _eval_encoder(prior, state, real, batch) if prior.encodes else {}
    return {
        **encoded,
        "psnr_db": jnp.mean(10.0 * jnp.log10(window.range**2 / error)),
        "projection_error": jnp.mean(jnp.sqrt(difference / signal)),
        "sign_D_held_out": jnp.mean(jnp.sign(scores)),
    }


def calibrate(model: Model, state: State, batch: VolumeBatch, share: Share) -> State:
    """The state with the factor on the deviations that is right on cases nobody learned from.

    Args:
        model: prior and settings.
        state: a trained state.
        batch: training cases that were kept out.
        share: X-rays as they are -> (the field's share of them, weights of their pixels).
    """
    prior = model.prior
    if not model.settings.latent.samples:
        return state
    window, cameras = prior.problem.window, prior.problem.cameras

    def one(case: VolumeBatch) -> Array:
        images, weights = share(case.images)
        key = jax.random.key(0)
        found = reconstruct(model, state, images, cameras, key, weights=weights, whole=case.images)
        assert found.deviation is not None  # there are samples
        error = found.hu - jnp.clip(case.hu, window.low, window.high)
        tissue = (case.hu > calibration.TISSUE_HU).ravel()
        return calibration.scale_of(error.ravel(), found.deviation.ravel(), tissue)

    scales = jax.lax.map(one, batch)
    return state.replace(scale=state.scale * jnp.exp(jnp.mean(jnp.log(scales))))


def _eval_encoder(prior: Prior, state: State, real: Array, batch: VolumeBatch) -> Terms:
    """Held-out volumes from their own codes, and from those that F guesses from their X-rays; samples.

    Terms:
        psnr_encoded_db, psnr_guessed_db: as psnr_db, of both.
        swd: sliced Wasserstein distance of projections of samples from those of the held-out volumes.
        diversity: mean distance of two samples over that of two held-out volumes, on a coarse level.
    """
    guess = {
        "psnr_encoded_db": manifold.encoded(prior, state, real),
        "psnr_guessed_db": manifold.guessed(prior, state.ema["encoder"], batch.images),
    }
    window = prior.problem.window
    truth = jnp.clip(batch.hu, window.low, window.high)
    terms = {}
    for name, w in guess.items():
        hu = volumes_of(prior, state.ema, manifold.alike(prior, w), None)
        terms[name] = jnp.mean(
            10.0 * jnp.log10(window.range**2 / jnp.mean((hu - truth) ** 2, axis=(1, 2, 3)))
        )
    levels = min(len(prior.settings.channels), manifold.ENCODED)
    images = manifold.project(prior, real, prior.problem.cameras)
    level = level_of(prior, levels, images, prior.problem.cameras, None)
    w = mapped_styles(prior, state.ema, jax.random.key(0), SAMPLES)
    ws = manifold.alike(level.prior, w)
    samples = manifold.synthesise(level.prior, state.ema, ws, None)
    seen = manifold.project(level.prior, samples, level.cameras)
    sampled, held_out = (jnp.stack(views, 1) for views in (seen, level.images))
    terms["swd"] = populations.sliced_wasserstein(sampled, held_out, jax.random.key(1))
    coarse = averaged(real[..., 0], level.prior.problem.grid.shape)
    terms["diversity"] = populations.spread(samples) / populations.spread(coarse)
    return terms
