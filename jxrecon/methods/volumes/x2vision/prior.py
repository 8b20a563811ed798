"""Manifold learning: one training step of the 3-D StyleGAN2 prior, and samples from it.

A step serves two terms. The adversarial one is StyleGAN2's. The auto-decoder one keeps a latent code
for each training volume and its mirror image and asks G(code) to be that volume, in voxels and in
projections: it gives X2Vision's projection loss a ground truth to compare with, and used alone for
the first `warm_start_steps` it is a start that a small budget can afford.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jxrecon import drr
from jxrecon.methods.base.method import Cameras, Problem
from jxrecon.methods.volumes.x2vision import distances, losses
from jxrecon.methods.volumes.x2vision.augment import adjust, augment
from jxrecon.methods.volumes.x2vision.networks import Discriminator, Mapping, Synthesis, draw_noise
from jxrecon.nn.blocks import apply, compute_dtype
from jxrecon.nn.optimise import descend, improve
from jxrecon.types import InputError, Key, PyTree, Terms, VolumeBatch

Volumes = Float[Array, "b x y z 1"]
Styles = Float[Array, "b k d"]


@dataclass(frozen=True)
class PriorSettings:
    """Networks and training of the prior. Defaults are StyleGAN2-ADA's where a comment is silent.

    Attributes:
        base: voxels of the coarsest level; every further entry of `channels` doubles them.
        channels: feature channels per level, coarsest first, for both networks.
        warm_start_steps: steps of the auto-decoder alone, before the adversarial game begins.
        code_weight: weight of the auto-decoder's voxel term; 0, with projection_weight 0 too, leaves a plain
            GAN after the warm start.
        distance: how projections are compared: "gradient_ssim", "lpips_vgg" or "lpips_alex".
        dtype: "float32", "bfloat16", or "auto": bfloat16 on accelerators.
    """

    base: tuple[int, int, int] = (5, 6, 7)
    channels: tuple[int, ...] = (64, 64, 32)
    w_dim: int = 64
    mapping_layers: int = 8
    adversarial: str = "non_saturating"
    learning_rate: float = 0.002
    style_mixing: float = 0.9
    r1_gamma: float = 10.0
    r1_every: int = 16
    path_length_weight: float = 2.0
    path_length_decay: float = 0.01
    path_length_every: int = 4
    ema_kimg: float = 10.0
    ema_rampup: float = 0.05
    augment_target: float = 0.6
    augment_kimg: float = 500.0
    warm_start_steps: int = 0
    code_weight: float = 10.0
    code_learning_rate: float = 0.01
    code_noise: float = 0.0
    projection_weight: float = 1.0
    distance: str = "gradient_ssim"
    dtype: str = "auto"
    remat: bool = False


class State(struct.PyTreeNode):
    """All that outlives a step of the prior."""

    step: Int[Array, ""]
    generator: PyTree  # {"mapping", "synthesis"}
    discriminator: PyTree
    codes: Float[Array, "codes z"]  # two a training volume: as it is, and mirrored
    ema: PyTree  # of the generator
    generator_optimiser: PyTree
    discriminator_optimiser: PyTree
    codes_optimiser: PyTree
    path_length: Float[Array, ""]  # running mean
    r1: Float[Array, ""]  # penalty of its last lazy step, for the log
    augmentation: Float[Array, ""]  # strength p in [0, 1]


class Prior(NamedTuple):
    """The networks and optimisers that the functions below share: no arrays, only definitions."""

    settings: PriorSettings
    problem: Problem
    mapping: nn.Module
    synthesis: nn.Module
    discriminator: nn.Module
    generator_adam: optax.GradientTransformation
    discriminator_adam: optax.GradientTransformation
    codes_adam: optax.GradientTransformation


def lazy_adam(learning_rate: float, every: int | None) -> optax.GradientTransformation:
    """[StyleGAN2 lazy regularisation] Adam(0, 0.99) with rate x r and betas^r, r = every/(every+1).

    `every` None is no lazy term: r = 1.
    """
    r = 1.0 if every is None else every / (every + 1)
    return optax.adam(learning_rate * r, b1=0.0, b2=0.99**r, eps=1e-8)


def make_prior(settings: PriorSettings, problem: Problem) -> Prior:
    """Networks of the settings' size for the problem's grid.

    Raises:
        InputError: the levels do not double from `base` to the grid's shape.
    """
    top = tuple(n * 2 ** (len(settings.channels) - 1) for n in settings.base)
    if top != tuple(problem.grid.shape):
        raise InputError(
            f"settings.prior: levels end at {top} voxels, expected the grid's {problem.grid.shape}"
        )
    shared = {name: getattr(settings, name) for name in ("base", "channels", "remat")}
    shared["dtype"] = compute_dtype(settings.dtype)
    path_length_every = settings.path_length_every if settings.path_length_weight else None
    return Prior(
        settings=settings,
        problem=problem,
        mapping=Mapping(settings.w_dim, settings.mapping_layers),
        synthesis=Synthesis(**shared, w_dim=settings.w_dim),
        discriminator=Discriminator(**shared),
        generator_adam=lazy_adam(settings.learning_rate, path_length_every),
        discriminator_adam=lazy_adam(settings.learning_rate, settings.r1_every),
        codes_adam=optax.adam(settings.code_learning_rate, b1=0.9, b2=0.99),
    )


def init(prior: Prior, key: Key) -> State:
    """Fresh weights, codes z ~ N(0, I), EMA equal to the weights."""
    w_dim, zero = prior.settings.w_dim, jnp.zeros((), jnp.float32)
    key_mapping, key_synthesis, key_discriminator, key_codes = jax.random.split(key, 4)
    w = jnp.zeros((1, w_dim))
    ws = jnp.zeros((1, prior.synthesis.num_ws, w_dim))
    volume = jnp.zeros((1, *prior.problem.grid.shape, 1))
    generator = {
        "mapping": prior.mapping.init(key_mapping, w)["params"],
        "synthesis": prior.synthesis.init(key_synthesis, ws, None)["params"],
    }
    discriminator = prior.discriminator.init(key_discriminator, volume)["params"]
    codes = jax.random.normal(key_codes, (2 * prior.problem.cases, w_dim))
    return State(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        discriminator=discriminator,
        codes=codes,
        ema=jax.tree.map(jnp.copy, generator),
        generator_optimiser=prior.generator_adam.init(generator),
        discriminator_optimiser=prior.discriminator_adam.init(discriminator),
        codes_optimiser=prior.codes_adam.init(codes),
        path_length=zero,
        r1=zero,
        augmentation=zero,
    )


def map_styles(prior: Prior, generator: PyTree, z: Float[Array, "b z"]) -> Styles:
    """f(z), the same vector for every layer."""
    w = apply(prior.mapping, generator["mapping"], z)
    return jnp.repeat(w[:, None], prior.synthesis.num_ws, axis=1)


def synthesise(
    prior: Prior, generator: PyTree, ws: Styles, noise: tuple[Array, ...] | None
) -> Volumes:
    """G(w, n) in network units, float32."""
    return apply(prior.synthesis, generator["synthesis"], ws, noise)


def score(prior: Prior, params: PyTree, volumes: Volumes) -> Float[Array, "b 1"]:
    """D's logits in float32."""
    return apply(prior.discriminator, params, volumes)


def volumes_of(
    prior: Prior, generator: PyTree, ws: Styles, noise: tuple[Array, ...]
) -> Float[Array, "b x y z"]:
    """G(w, n) in HU, clipped to the window."""
    window = prior.problem.window
    volumes = synthesise(prior, generator, ws, noise)
    return jnp.clip(window.to_hu(volumes[..., 0]), window.low, window.high)


def project(
    prior: Prior, volumes: Volumes, cameras: Cameras
) -> tuple[Float[Array, "b rows columns"], ...]:
    """Line integrals of volumes in network units, one [b, rows, columns] a camera."""
    mu = drr.hu_to_mu(prior.problem.window.to_hu(volumes[..., 0]))
    affine = prior.problem.grid.affine
    return jax.vmap(lambda m: drr.project(m, affine, cameras))(mu)


def random_styles(prior: Prior, generator: PyTree, key: Key, count: int) -> Styles:
    """Mapped styles of `count` random z, two of them mixed at a random layer with p = style_mixing."""
    key_z, key_mix, key_cut = jax.random.split(key, 3)
    z = jax.random.normal(key_z, (2 * count, prior.settings.w_dim))
    first, second = jnp.split(map_styles(prior, generator, z), 2)
    layers = prior.synthesis.num_ws
    mixed = jax.random.uniform(key_mix, (count,)) < prior.settings.style_mixing
    cut = jnp.where(mixed, jax.random.randint(key_cut, (count,), 1, layers), layers)
    return jnp.where((jnp.arange(layers)[None] < cut[:, None])[..., None], first, second)


def auto_decoder_step(
    prior: Prior, state: State, real: Volumes, code: Int[Array, " b"], key: Key
) -> tuple[State, Terms]:
    """[auto-decoder] G and codes towards G(code) = volume: code_weight x voxels + projections."""
    settings, count = prior.settings, real.shape[0]
    key_noise, key_code = jax.random.split(key)
    noise = draw_noise(key_noise, prior.synthesis.noise_shapes, count)
    shake = settings.code_noise * jax.random.normal(key_code, (count, settings.w_dim))
    seen = project(prior, real, prior.problem.cameras)
    distance = distances.named(settings.distance)

    def loss(generator: PyTree, codes: Array) -> tuple[Array, Terms]:
        ws = map_styles(prior, generator, codes[code] + shake)
        fake = synthesise(prior, generator, ws, noise)
        voxels = jnp.mean((fake - real) ** 2)
        shown = project(prior, fake, prior.problem.cameras)
        views = losses.projection_distance(distance, shown, seen)
        total = settings.code_weight * voxels + settings.projection_weight * views
        return total, {"L_code": voxels, "L_projection": views}

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
            lambda: path_length_step(prior, generator, optimiser, path_length, keys[2], count),
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
    prior: Prior, generator: PyTree, optimiser: PyTree, mean: Array, key: Key, count: int
) -> tuple[PyTree, PyTree, Array]:
    """[StyleGAN2 path length] k weight E (|J^T y| - a)^2 with a its running mean, every k steps."""
    settings = prior.settings
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
    """One step of the prior on a batch of HU volumes; each is mirrored left to right by a coin."""
    settings, count = prior.settings, batch.hu.shape[0]
    key_flip, key_code, key_game = jax.random.split(key, 3)
    flip = jax.random.bernoulli(key_flip, 0.5, (count,))
    real = prior.problem.window.to_unit(batch.hu)[..., None]
    real = jnp.where(flip.reshape(-1, 1, 1, 1, 1), real[:, ::-1], real)

    case, mirrored = batch.index % prior.problem.cases, batch.index // prior.problem.cases
    code = 2 * case + (flip.astype(jnp.int32) + mirrored) % 2
    state, terms = auto_decoder_step(prior, state, real, code, key_code)
    none = dict.fromkeys(("loss_G", "loss_D", "sign_D_real"), jnp.zeros((), jnp.float32))
    state, game_terms = jax.lax.cond(
        state.step >= settings.warm_start_steps,
        lambda: adversarial_step(prior, state, real, key_game),
        lambda: (state, none),
    )

    images = (state.step + 1).astype(jnp.float32) * count
    half_life = jnp.minimum(settings.ema_kimg * 1000.0, settings.ema_rampup * images)
    beta = 0.5 ** (count / half_life)
    ema = jax.tree.map(lambda new, old: new + beta * (old - new), state.generator, state.ema)
    state = state.replace(ema=ema, step=state.step + 1)
    lasting = {"R1": state.r1, "path_length": state.path_length, "augmentation": state.augmentation}
    return state, {**terms, **game_terms, **lasting}


def sample(prior: Prior, state: State, key: Key, count: int) -> Float[Array, "b x y z"]:
    """Volumes in HU of `count` random z, without style mixing, from the averaged weights."""
    key_z, key_noise = jax.random.split(key)
    z = jax.random.normal(key_z, (count, prior.settings.w_dim))
    noise = draw_noise(key_noise, prior.synthesis.noise_shapes, count)
    return volumes_of(prior, state.ema, map_styles(prior, state.ema, z), noise)
