"""Manifold learning: one training step of the 3-D StyleGAN2 prior.

A step serves two terms. The adversarial one is StyleGAN2's. The other asks G(code) to be a training volume,
in voxels and in projections: it gives X2Vision's projection loss a ground truth to compare with, and used
alone for the first `warm_start_steps` it is a start that a small budget can afford. The codes are a table
(auto-decoder), one for each volume and mirror image, or principal ones, see `codes`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jxrecon.methods.volumes.x2vision import distances, losses
from jxrecon.methods.volumes.x2vision.augment import adjust, augment
from jxrecon.methods.volumes.x2vision.networks import draw_noise
from jxrecon.methods.volumes.x2vision.prior import (
    Prior,
    State,
    Volumes,
    averaged_parts,
    guessed,
    map_styles,
    project,
    random_styles,
    score,
    synthesise,
)
from jxrecon.nn.optimise import descend, improve
from jxrecon.types import Key, PyTree, Terms, VolumeBatch

RESIDUAL_RATE = 0.01
"""Of the running mean of what G cannot show, a step; the first steps make a plain mean."""


def likeness(
    prior: Prior, generator: PyTree, z: Float[Array, "b z"], real: Volumes, key: Key
) -> tuple[Float[Array, ""], Terms, Float[Array, "b k w"], Volumes]:
    """How far G(z) is from the volumes: code_weight x voxels + projection_weight x projections.

    Returns:
        (the total, its terms, the style vectors, G(z)).
    """
    settings = prior.settings
    noise = draw_noise(key, prior.synthesis.noise_shapes, real.shape[0])
    seen = project(prior, real, prior.problem.cameras)
    ws = map_styles(prior, generator, z)
    fake = synthesise(prior, generator, ws, noise)
    voxels = jnp.mean((fake - real) ** 2)
    shown = project(prior, fake, prior.problem.cameras)
    views = losses.projection_distance(distances.named(settings.distance), shown, seen)
    total = settings.code_weight * voxels + settings.projection_weight * views
    return total, {"L_code": voxels, "L_projection": views}, ws, fake


def auto_decoder_step(
    prior: Prior, state: State, real: Volumes, code: Int[Array, " b"], key: Key
) -> tuple[State, Terms]:
    """[auto-decoder] G and the table's codes towards G(code) = volume."""
    settings, count = prior.settings, real.shape[0]
    key_noise, key_code = jax.random.split(key)
    shake = settings.code_noise * jax.random.normal(key_code, (count, settings.w_dim))

    def loss(generator: PyTree, codes: Array) -> tuple[Array, Terms]:
        total, terms, _, _ = likeness(prior, generator, codes[code] + shake, real, key_noise)
        return total, terms

    gradients, terms = jax.grad(loss, argnums=(0, 1), has_aux=True)(state.generator, state.codes)
    generator, generator_optimiser = descend(
        prior.generator_adam, gradients[0], state.generator_optimiser, state.generator
    )
    codes, codes_optimiser = descend(
        prior.codes_adam, gradients[1], state.codes_optimiser, state.codes
    )
    state = state.replace(
        generator=generator,
        generator_optimiser=generator_optimiser,
        codes=codes,
        codes_optimiser=codes_optimiser,
    )
    return state, terms


def auto_encoder_step(
    prior: Prior,
    state: State,
    real: Volumes,
    images: tuple[Float[Array, "b rows columns"], ...],
    key: Key,
) -> tuple[State, Terms]:
    """[auto-encoder] G towards G(z) = volume with z its code, F towards F(X-rays) = f(z)."""
    settings, count = prior.settings, real.shape[0]
    key_noise, key_code = jax.random.split(key)
    shake = settings.code_noise * jax.random.normal(key_code, (count, settings.w_dim))
    z = state.generator["axes"].code(real[..., 0]) + shake

    def loss(generator: PyTree, encoder: PyTree) -> tuple[Array, tuple[Terms, Volumes]]:
        total, terms, ws, fake = likeness(prior, generator, z, real, key_noise)
        aside = guessed(prior, encoder, images) - jax.lax.stop_gradient(ws[:, 0])
        terms["L_guess"] = jnp.mean(aside**2)
        return total + terms["L_guess"], (terms, fake)

    gradients, (terms, fake) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        state.generator, state.encoder
    )
    generator, generator_optimiser = descend(
        prior.generator_adam, gradients[0], state.generator_optimiser, state.generator
    )
    encoder, encoder_optimiser = descend(
        prior.codes_adam, gradients[1], state.encoder_optimiser, state.encoder
    )
    off = jnp.mean((fake - real)[..., 0] ** 2, axis=0)
    rate = jnp.maximum(RESIDUAL_RATE, 1.0 / (1.0 + state.step.astype(jnp.float32)))
    state = state.replace(
        generator=generator,
        generator_optimiser=generator_optimiser,
        encoder=encoder,
        encoder_optimiser=encoder_optimiser,
        residual=state.residual + rate * (off - state.residual),
    )
    return state, terms


def adversarial_step(prior: Prior, state: State, real: Volumes, key: Key) -> tuple[State, Terms]:
    """[StyleGAN2] G against the old D, then D on the same fakes, with lazy penalties and adaptive p.

    Differs from StyleGAN2, which draws new fakes for D: this saves a pass of G.
    """
    settings, count = prior.settings, real.shape[0]
    game = losses.ADVERSARIAL[settings.adversarial]
    keys = jax.random.split(key, 4)
    key_styles, key_noise = jax.random.split(keys[0])
    p, spacing = state.augmentation, tuple(map(float, prior.problem.grid.spacing_mm))

    def generator_loss(generator: PyTree) -> tuple[Array, tuple[Array, Volumes]]:
        ws = random_styles(prior, generator, key_styles, count)
        noise = draw_noise(key_noise, prior.synthesis.noise_shapes, count)
        fake = augment(keys[1], synthesise(prior, generator, ws, noise), p, spacing)
        loss = game.generator(score(prior, state.discriminator, fake))
        return loss, (loss, fake)

    generator, optimiser, (loss_g, fake) = improve(
        prior.generator_adam, generator_loss, state.generator, state.generator_optimiser
    )
    path_length = state.path_length
    if settings.path_length_weight:
        generator, optimiser, path_length = jax.lax.cond(
            state.step % settings.path_length_every == 0,
            lambda: path_length_step(prior, state, generator, optimiser, keys[2], count),
            lambda: (generator, optimiser, path_length),
        )

    shown = augment(keys[3], real, p, spacing)

    def discriminator_loss(params: PyTree) -> tuple[Array, tuple[Array, Array]]:
        scores = score(prior, params, jnp.concatenate([shown, fake]))
        loss = game.discriminator(scores[:count], scores[count:])
        return loss, (loss, scores)

    discriminator, optimiser_d, (loss_d, scores) = improve(
        prior.discriminator_adam,
        discriminator_loss,
        state.discriminator,
        state.discriminator_optimiser,
    )
    discriminator, optimiser_d, r1 = jax.lax.cond(
        state.step % settings.r1_every == 0,
        lambda: r1_step(prior, discriminator, optimiser_d, shown),
        lambda: (discriminator, optimiser_d, state.r1),
    )
    sign = jnp.mean(jnp.sign(scores[:count]))
    p = adjust(p, sign, count, settings.augment_target, settings.augment_kimg)
    state = state.replace(
        generator=generator,
        generator_optimiser=optimiser,
        discriminator=discriminator,
        discriminator_optimiser=optimiser_d,
        path_length=path_length,
        r1=r1,
        augmentation=p,
    )
    return state, {"loss_G": loss_g, "loss_D": loss_d, "sign_D_real": sign}


def path_length_step(
    prior: Prior, state: State, generator: PyTree, optimiser: PyTree, key: Key, count: int
) -> tuple[PyTree, PyTree, Array]:
    """[StyleGAN2 path length] k weight E (|J^T y| - a)^2 with a its running mean, every k steps."""
    settings, mean = prior.settings, state.path_length
    key_styles, key_noise, key_y = jax.random.split(key, 3)
    half = max(1, count // 2)  # as in StyleGAN2: the second derivative is the costliest pass
    noise = draw_noise(key_noise, prior.synthesis.noise_shapes, half)

    def loss(params: PyTree) -> tuple[Array, Array]:
        ws = random_styles(prior, params, key_styles, half)
        lengths = losses.path_lengths(lambda w: synthesise(prior, params, w, noise), ws, key_y)
        target = mean + settings.path_length_decay * (jnp.mean(lengths) - mean)
        penalty = jnp.mean((lengths - jax.lax.stop_gradient(target)) ** 2)
        return settings.path_length_every * settings.path_length_weight * penalty, target

    return improve(prior.generator_adam, loss, generator, optimiser)


def r1_step(
    prior: Prior, params: PyTree, optimiser: PyTree, real: Volumes
) -> tuple[PyTree, PyTree, Array]:
    """[StyleGAN2 R1] k gamma/2 E sum (dD/dx)^2, every k steps."""
    settings = prior.settings

    def loss(params: PyTree) -> tuple[Array, Array]:
        penalty = jnp.mean(losses.r1_penalty(partial(score, prior, params), real))
        return settings.r1_every * 0.5 * settings.r1_gamma * penalty, penalty

    return improve(prior.discriminator_adam, loss, params, optimiser)


def train_step(prior: Prior, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
    """One step of the prior on a batch of HU volumes; where codes are a table, each is mirrored by a coin."""
    settings, count = prior.settings, batch.hu.shape[0]
    key_flip, key_code, key_game = jax.random.split(key, 3)
    if prior.encodes:
        real = prior.problem.window.to_unit(batch.hu)[..., None]
        state, terms = auto_encoder_step(prior, state, real, batch.images, key_code)
    else:
        real, code = _coded(prior, batch, key_flip)
        state, terms = auto_decoder_step(prior, state, real, code, key_code)
    game_terms = dict.fromkeys(("loss_G", "loss_D", "sign_D_real"), jnp.zeros((), jnp.float32))
    if settings.adversarial != "none":
        state, game_terms = jax.lax.cond(
            state.step >= settings.warm_start_steps,
            lambda: adversarial_step(prior, state, real, key_game),
            lambda: (state, game_terms),
        )

    images = (state.step + 1).astype(jnp.float32) * count
    half_life = jnp.minimum(settings.ema_kimg * 1000.0, settings.ema_rampup * images)
    beta = 0.5 ** (count / half_life)
    live = averaged_parts(state.generator, state.encoder)
    ema = jax.tree.map(lambda new, old: new + beta * (old - new), live, state.ema)
    state = state.replace(ema=ema, step=state.step + 1)
    lasting = {"R1": state.r1, "path_length": state.path_length, "augmentation": state.augmentation}
    return state, {**terms, **game_terms, **lasting}


def without_game(prior: Prior) -> Prior | None:
    """The prior of a warm start, whose step compiles in a third of the time; None where there is no game."""
    if prior.settings.adversarial == "none":
        return None
    return prior._replace(settings=replace(prior.settings, adversarial="none"))


def _coded(prior: Prior, batch: VolumeBatch, key: Key) -> tuple[Volumes, Int[Array, " b"]]:
    """Volumes in network units, each mirrored left to right by a coin, and their places in the table."""
    flip = jax.random.bernoulli(key, 0.5, (batch.hu.shape[0],))
    real = prior.problem.window.to_unit(batch.hu)[..., None]
    real = jnp.where(flip.reshape(-1, 1, 1, 1, 1), real[:, ::-1], real)
    case, mirrored = batch.index % prior.problem.cases, batch.index // prior.problem.cases
    return real, 2 * case + (flip.astype(jnp.int32) + mirrored) % 2
