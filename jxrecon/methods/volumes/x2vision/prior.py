"""The manifold: what the 3-D StyleGAN2 prior is made of, its state, and volumes from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jxrecon import drr
from jxrecon.methods.base.method import Cameras, Problem
from jxrecon.methods.volumes.x2vision.codes import no_axes, principal, random_codes
from jxrecon.methods.volumes.x2vision.encoder import Encoder, stacked
from jxrecon.methods.volumes.x2vision.losses import ADVERSARIAL
from jxrecon.methods.volumes.x2vision.networks import Discriminator, Mapping, Synthesis, draw_noise
from jxrecon.nn.blocks import apply, compute_dtype
from jxrecon.types import InputError, Key, PyTree, TrainingVolumes

Volumes = Float[Array, "b x y z 1"]
Styles = Float[Array, "b k d"]

ENCODED = 3
"""Levels up to the one that principal codes are made of: 20 x 24 x 28 voxels of the standard field."""

ENCODED_PIXELS = 32
"""Of the X-rays that F looks at, along each axis."""


@dataclass(frozen=True)
class PriorSettings:
    """Networks and training of the prior. Defaults are StyleGAN2-ADA's where a comment is silent.

    Attributes:
        base: voxels of the coarsest level; every further entry of `channels` doubles them.
        architecture: of the generator, "orig" or "skip": see `Synthesis`. "skip" can grow by a level.
        fade_in: whether the finest output starts at zero: for a run grown from one without that level.
        codes: whence codes of training volumes come: "table", one kept for each volume and mirror image, or
            "principal", their place along principal axes, so that every step may see them moved and bent.
        xray_channels: of the network from X-rays of `ENCODED_PIXELS` to w, beside principal codes.
        channels: feature channels per level, coarsest first, for both networks.
        adversarial: the game, of `losses.ADVERSARIAL`, or "none": a warm start without end.
        warm_start_steps: steps of the auto-decoder alone, before the adversarial game begins.
        code_weight: weight of the auto-decoder's voxel term; 0, with projection_weight 0 too, leaves a plain
            GAN after the warm start.
        distance: how projections are compared: "gradient_ssim", "lpips_vgg" or "lpips_alex".
        dtype: "float32", "bfloat16", or "auto": bfloat16 on accelerators.
    """

    base: tuple[int, int, int] = (5, 6, 7)
    channels: tuple[int, ...] = (64, 64, 32)
    architecture: str = "orig"
    fade_in: bool = False
    codes: str = "table"
    xray_channels: tuple[int, ...] = (32, 64, 64, 64)
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
    """All that outlives a step of the prior. Of table and axes one is there, the other ()."""

    step: Int[Array, ""]
    generator: PyTree  # {"mapping", "synthesis"}, with principal codes "axes" too, which stay
    discriminator: PyTree
    codes: PyTree  # [codes, z], two a training volume: as it is, and mirrored
    ema: PyTree  # of the generator, and of F under "encoder"
    generator_optimiser: PyTree
    discriminator_optimiser: PyTree
    codes_optimiser: PyTree
    path_length: Float[Array, ""]  # running mean
    r1: Float[Array, ""]  # penalty of its last lazy step, for the log
    augmentation: Float[Array, ""]  # strength p in [0, 1]
    encoder: PyTree = ()  # F, from X-rays to w
    encoder_optimiser: PyTree = ()
    residual: PyTree = ()  # [x, y, z], running mean of (G(z) - v)^2, network units
    scale: PyTree = ()  # factor on the deviations, 1 before it is found at the end


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
    encoder: nn.Module

    @property
    def encodes(self) -> bool:
        """Whether any volume has a code."""
        return self.settings.codes == "principal"

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Voxels of the level that codes are made of."""
        levels = min(ENCODED, len(self.settings.channels))
        return tuple(n * 2 ** (levels - 1) for n in self.settings.base)


def lazy_adam(learning_rate: float, every: int | None) -> optax.GradientTransformation:
    """[StyleGAN2 lazy regularisation] Adam(0, 0.99) with rate x r and betas^r, r = every/(every+1).

    `every` None is no lazy term: r = 1.
    """
    r = 1.0 if every is None else every / (every + 1)
    return optax.adam(learning_rate * r, b1=0.0, b2=0.99**r, eps=1e-8)


def make_prior(settings: PriorSettings, problem: Problem) -> Prior:
    """Networks of the settings' size for the problem's grid.

    Raises:
        InputError: the levels do not double from `base` to the grid's shape, or there is no such
            architecture, no such codes or no such game.
    """
    top = tuple(n * 2 ** (len(settings.channels) - 1) for n in settings.base)
    choices: dict[str, tuple[str, ...]] = {
        "architecture": ("orig", "skip"),
        "codes": ("table", "principal"),
        "adversarial": (*ADVERSARIAL, "none"),
    }
    for name, known in choices.items():
        if (value := getattr(settings, name)) not in known:
            raise InputError(f"settings.prior.{name}={value}: expected {' or '.join(known)}")
    if top != tuple(problem.grid.shape):
        raise InputError(
            f"settings.prior: levels end at {top} voxels, expected the grid's {problem.grid.shape}"
        )
    shared = {name: getattr(settings, name) for name in ("base", "channels", "remat")}
    shared["dtype"] = compute_dtype(settings.dtype)
    table = settings.codes == "table"
    path_length_every = settings.path_length_every if settings.path_length_weight else None
    return Prior(
        settings=settings,
        problem=problem,
        mapping=Mapping(settings.w_dim, settings.mapping_layers if table else 0),
        synthesis=Synthesis(
            **shared,
            w_dim=settings.w_dim,
            architecture=settings.architecture,
            fade_in=settings.fade_in,
            linear=not table,
        ),
        discriminator=Discriminator(**shared),
        generator_adam=lazy_adam(settings.learning_rate, path_length_every),
        discriminator_adam=lazy_adam(settings.learning_rate, settings.r1_every),
        codes_adam=optax.adam(settings.code_learning_rate, b1=0.9, b2=0.99),
        encoder=Encoder(settings.xray_channels, settings.w_dim),
    )


def init(prior: Prior, key: Key) -> State:
    """Fresh weights, codes z ~ N(0, I), EMA equal to the weights."""
    w_dim, zero = prior.settings.w_dim, jnp.zeros((), jnp.float32)
    key_mapping, key_synthesis, key_discriminator, key_codes = jax.random.split(key, 4)
    w = jnp.zeros((1, w_dim))
    ws = jnp.zeros((1, prior.synthesis.num_ws, w_dim))
    volume = jnp.zeros((1, *prior.problem.grid.shape, 1))
    generator = {
        "mapping": prior.mapping.init(key_mapping, w).get("params", {}),
        "synthesis": prior.synthesis.init(key_synthesis, ws, None)["params"],
    }
    discriminator = prior.discriminator.init(key_discriminator, volume)["params"]
    if prior.encodes:
        codes: PyTree = ()
        encoding = _first_encoding(prior, key_codes)
        generator["axes"] = no_axes(prior.problem.grid.shape, prior.encoded_shape, w_dim)
    else:
        codes = jax.random.normal(key_codes, (2 * prior.problem.cases, w_dim))
        encoding = {}
    return State(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        discriminator=discriminator,
        codes=codes,
        ema=jax.tree.map(jnp.copy, averaged_parts(generator, encoding.get("encoder"))),
        generator_optimiser=prior.generator_adam.init(generator),
        discriminator_optimiser=prior.discriminator_adam.init(discriminator),
        codes_optimiser=() if prior.encodes else prior.codes_adam.init(codes),
        path_length=zero,
        r1=zero,
        augmentation=zero,
        **encoding,
    )


def averaged_parts(generator: PyTree, encoder: PyTree | None) -> PyTree:
    """What a state keeps running means of."""
    return generator if not encoder else {**generator, "encoder": encoder}


def _first_encoding(prior: Prior, key: Key) -> dict[str, PyTree]:
    """What a state holds beside principal codes."""
    images = jnp.zeros((1, ENCODED_PIXELS, ENCODED_PIXELS, len(prior.problem.cameras)))
    encoder = prior.encoder.init(key, images)["params"]
    return {
        "encoder": encoder,
        "encoder_optimiser": prior.codes_adam.init(encoder),
        "residual": jnp.zeros(prior.problem.grid.shape),
        "scale": jnp.ones(()),
    }


def fit(prior: Prior, state: State, everything: TrainingVolumes) -> State:
    """The state with the principal axes of the training volumes; a grown one keeps those it has."""
    unit = prior.problem.window.to_unit(everything.hu.astype(jnp.float32))
    axes = principal(unit, state.generator["axes"])
    return state.replace(
        generator={**state.generator, "axes": axes}, ema={**state.ema, "axes": axes}
    )


def encoded(prior: Prior, state: State, volumes: Volumes) -> Float[Array, "b w"]:
    """w = z of volumes in network units."""
    return state.ema["axes"].code(volumes[..., 0])


def guessed(
    prior: Prior, encoder: PyTree, images: tuple[Float[Array, "b rows columns"], ...]
) -> Float[Array, "b w"]:
    """F(y): the mean of w given the X-rays of the problem's cameras, of all that they show."""
    return apply(prior.encoder, encoder, stacked(images, ENCODED_PIXELS))


def map_styles(prior: Prior, generator: PyTree, z: Float[Array, "b z"]) -> Styles:
    """f(z), the same vector for every layer."""
    return alike(prior, apply(prior.mapping, generator["mapping"], z))


def alike(prior: Prior, w: Float[Array, "b w"]) -> Styles:
    """The same vector for every layer."""
    return jnp.repeat(w[:, None], prior.synthesis.num_ws, axis=1)


def synthesise(
    prior: Prior,
    generator: PyTree,
    ws: Styles,
    noise: tuple[Array, ...] | None,
    local: Float[Array, "b w i j k"] | None = None,
) -> Volumes:
    """G(w, n) in network units, float32: of principal codes with the linear volume of the first w, and of
    `local`, codes that vary from place to place."""
    shown = apply(prior.synthesis, generator["synthesis"], ws, noise)
    if not prior.encodes:
        return shown
    axes = jax.lax.stop_gradient(generator["axes"])
    return shown + axes.volume(ws[:, 0], shown.shape[1:-1], local)


def score(prior: Prior, params: PyTree, volumes: Volumes) -> Float[Array, "b 1"]:
    """D's logits in float32."""
    return apply(prior.discriminator, params, volumes)


def volumes_of(
    prior: Prior,
    generator: PyTree,
    ws: Styles,
    noise: tuple[Array, ...] | None,
    local: Float[Array, "b w i j k"] | None = None,
) -> Float[Array, "b x y z"]:
    """G(w, n) in HU, clipped to the window."""
    window = prior.problem.window
    volumes = synthesise(prior, generator, ws, noise, local)
    return jnp.clip(window.to_hu(volumes[..., 0]), window.low, window.high)


def project(
    prior: Prior, volumes: Volumes, cameras: Cameras, method: str = "auto"
) -> tuple[Float[Array, "b rows columns"], ...]:
    """Line integrals of volumes in network units, one [b, rows, columns] a camera; method of `drr`."""
    mu = drr.hu_to_mu(prior.problem.window.to_hu(volumes[..., 0]))
    affine = prior.problem.grid.affine
    return jax.vmap(lambda m: drr.project(m, affine, cameras, method))(mu)


def random_styles(
    prior: Prior,
    generator: PyTree,
    key: Key,
    count: int,
) -> Styles:
    """Mapped styles of `count` random z, two of them mixed at a random layer with p = style_mixing."""
    key_z, key_mix, key_cut = jax.random.split(key, 3)
    z = random_codes(generator, key_z, (2 * count, prior.settings.w_dim))
    first, second = jnp.split(map_styles(prior, generator, z), 2)
    layers = prior.synthesis.num_ws
    mixed = jax.random.uniform(key_mix, (count,)) < prior.settings.style_mixing
    cut = jnp.where(mixed, jax.random.randint(key_cut, (count,), 1, layers), layers)
    return jnp.where((jnp.arange(layers)[None] < cut[:, None])[..., None], first, second)


def sample(prior: Prior, state: State, key: Key, count: int) -> Float[Array, "b x y z"]:
    """Volumes in HU of `count` random z, without style mixing, from the averaged weights."""
    key_z, key_noise = jax.random.split(key)
    z = random_codes(state.ema, key_z, (count, prior.settings.w_dim))
    noise = draw_noise(key_noise, prior.synthesis.noise_shapes, count)
    return volumes_of(prior, state.ema, map_styles(prior, state.ema, z), noise)
