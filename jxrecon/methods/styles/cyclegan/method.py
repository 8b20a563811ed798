"""CycleGAN (Zhu et al., ICCV 2017) between real and synthetic X-rays: training and translation.

| equation | function | settings |
|---|---|---|
| G: real -> synthetic, F: synthetic -> real | networks.Generator | width, blocks, channels |
| D of each style, 70x70 patches | networks.Discriminator | width |
| L_GAN, least squares | losses.fooling, losses.telling_apart | - |
| L_cyc | losses.cycle | cycle_weight |
| L_identity | losses.identity | identity_weight, in units of cycle_weight |
| pool of 50 fakes | losses.exchange | pool |
| Adam, constant, then linear to 0 | nn.optimise.falling_rate | learning_rate, betas, *_steps |
| random crop of an image enlarged by 286 / 256 | crop | enlarged |

Differs from the paper: no mirror images, which would move the heart to the right; one channel. Differs from
the authors' code, whose rate falls once an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jxrecon.methods.base.method import StyleProblem, Translator
from jxrecon.methods.styles.cyclegan import losses
from jxrecon.methods.styles.cyclegan.losses import Images
from jxrecon.methods.styles.cyclegan.networks import INIT_STD, Discriminator, Generator
from jxrecon.nn.blocks import apply, init_variables
from jxrecon.nn.optimise import falling_rate, improve
from jxrecon.types import ImagePairBatch, InputError, Key, PyTree, Terms


@dataclass(frozen=True)
class Settings:
    """Everything of CycleGAN that a user may set; the defaults are the paper's.

    Attributes:
        width: channels of the first layers, of all four networks.
        blocks: residual blocks of a generator: 6 for 128 pixels, 9 for 256.
        channels: number of an image's as the networks see it; grey ones are repeated.
        cycle_weight: lambda of L_cyc.
        identity_weight: factor of L_identity, times cycle_weight.
        pool: how many fakes of each style are remembered.
        enlarged: how much larger training images are than what is cropped from them.
        learning_rate, betas: Adam's, for all networks.
        constant_steps: steps at that rate.
        decay_steps: steps on which it falls to 0; 0: it stays.
        real_scale: how real images became [-1, 1]: "fixed", line integrals from 0 to 8, or "own", each from
            its least to its largest value. For readers of image files and for `inference.styles`.
        synthetic_scale: the same for synthetic ones.
    """

    width: int = 64
    blocks: int = 9
    channels: int = 1
    cycle_weight: float = 10.0
    identity_weight: float = 0.5
    pool: int = 50
    enlarged: float = 286 / 256
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    constant_steps: int = 0
    decay_steps: int = 0
    real_scale: str = "fixed"
    synthetic_scale: str = "fixed"


class Pair(struct.PyTreeNode):
    """Something for each style; of generators, for the style that they make."""

    real: PyTree
    synthetic: PyTree


class State(struct.PyTreeNode):
    """All that outlives a step."""

    step: Int[Array, ""]
    generators: Pair
    discriminators: Pair
    generator_optimiser: PyTree
    discriminator_optimiser: PyTree
    pools: Pair


class Model(NamedTuple):
    """Networks and optimiser that the functions below share: no arrays, only definitions."""

    settings: Settings
    problem: StyleProblem
    generator: Generator
    discriminator: Discriminator
    adam: optax.GradientTransformation


def crop(
    images: Float[Array, "n t u"], size: tuple[int, int], chances: Float[Array, "n 2"]
) -> Float[Array, "n r s"]:
    """A part of that size of each image, where its two numbers in [0, 1) say."""
    room = [n - s + 1 for n, s in zip(images.shape[1:], size)]
    corners = [(chances[:, i] * n).astype(jnp.int32) for i, n in enumerate(room)]

    def cut(image: Float[Array, "t u"], *corner: Int[Array, ""]) -> Float[Array, "r s"]:
        return jax.lax.dynamic_slice(image, corner, size)

    return jax.vmap(cut)(images, *corners)


def spread(model: Model, grey: Float[Array, "n r s"]) -> Images:
    """Grey images as the networks see them: the same in every channel."""
    return jnp.repeat(grey[..., None], model.settings.channels, axis=-1)


def build(settings: Settings, problem: StyleProblem) -> Translator:
    """CycleGAN for images of this size.

    Raises:
        InputError: the size is no multiple of 4 or under 32, or a setting makes no sense.
    """
    if any(n % 4 or n < 32 for n in problem.shape):
        raise InputError(
            f"cyclegan was given {problem.shape} pixels, expected multiples of 4 from 32 on"
        )
    if settings.enlarged < 1.0 or settings.channels < 1 or settings.pool < 0:
        raise InputError(
            f"cyclegan enlarged is {settings.enlarged}, channels {settings.channels}, pool"
            f" {settings.pool}, expected at least 1, 1 and 0"
        )
    model = Model(
        settings=settings,
        problem=problem,
        generator=Generator(settings.width, settings.blocks, settings.channels),
        discriminator=Discriminator(settings.width),
        adam=optax.adam(partial(falling_rate, settings), *settings.betas),
    )
    return Translator(
        init=partial(init, model),
        train_step=partial(train_step, model),
        eval_step=partial(eval_step, model),
        translate=partial(translate, model),
    )


def init(model: Model, key: Key) -> State:
    """N(0, 0.02) kernels, zero biases, Adam at rest, empty pools."""
    shape, keys = (*model.problem.shape, model.settings.channels), jax.random.split(key)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def two(network: nn.Module, key: Key) -> Pair:
        start = partial(init_variables, network, std=INIT_STD)
        both = jax.vmap(lambda k: start(k, image)["params"])(jax.random.split(key))
        return Pair(*(jax.tree.map(itemgetter(i), both) for i in (0, 1)))

    generators, discriminators = two(model.generator, keys[0]), two(model.discriminator, keys[1])
    return State(
        step=jnp.zeros((), jnp.int32),
        generators=generators,
        discriminators=discriminators,
        generator_optimiser=model.adam.init(generators),
        discriminator_optimiser=model.adam.init(discriminators),
        pools=Pair(*(losses.empty_pool(model.settings.pool, shape) for _ in range(2))),
    )


def generator_objective(
    model: Model, discriminators: Pair, x: Images, y: Images, params: Pair
) -> tuple[Array, tuple[Pair, Terms]]:
    """[Zhu Eq. 3] L_GAN(G) + L_GAN(F) + lambda L_cyc + lambda_i L_identity; x real, y synthetic."""
    make, score = partial(apply, model.generator), partial(apply, model.discriminator)
    # One pass of a generator for both of its inputs: no sample sees another.
    fake_y, own_y = jnp.split(make(params.synthetic, jnp.concatenate([x, y])), 2)
    fake_x, own_x = jnp.split(make(params.real, jnp.concatenate([y, x])), 2)
    back_x, back_y = make(params.real, fake_y), make(params.synthetic, fake_x)
    weight = model.settings.cycle_weight
    identity = losses.identity(own_y, y) + losses.identity(own_x, x)
    terms = {
        "L_GAN(G)": losses.fooling(score(discriminators.synthetic, fake_y)),
        "L_GAN(F)": losses.fooling(score(discriminators.real, fake_x)),
        "L_cyc": weight * (losses.cycle(back_x, x) + losses.cycle(back_y, y)),
        "L_identity": model.settings.identity_weight * weight * identity,
    }
    total = sum(terms.values(), jnp.zeros((), jnp.float32))
    return total, (Pair(real=fake_x, synthetic=fake_y), {**terms, "L(G,F)": total})


def discriminator_objective(
    model: Model, seen: Pair, x: Images, y: Images, params: Pair
) -> tuple[Array, Terms]:
    """[Zhu L_GAN, D's part] of both styles, on fakes new and old; x real, y synthetic."""
    terms = {}
    for style, network, real, fake in (
        ("real", params.real, x, seen.real),
        ("synthetic", params.synthetic, y, seen.synthetic),
    ):
        scores = apply(model.discriminator, network, jnp.concatenate([real, fake]))
        terms[f"L_GAN(D_{style})"] = losses.telling_apart(*jnp.split(scores, 2))
    return sum(terms.values(), jnp.zeros((), jnp.float32)), terms


def train_step(model: Model, state: State, batch: ImagePairBatch, key: Key) -> tuple[State, Terms]:
    """The generators against the old discriminators, then these on the new fakes and the pools'."""
    # One draw for all: on CPU each costs seconds of compiling.
    chances = jax.random.uniform(key, (4, len(batch.index), 2), jnp.float32)
    pair, size = (batch.real, batch.synthetic), model.problem.shape
    x, y = (spread(model, crop(images, size, chances[i])) for i, images in enumerate(pair))
    generators, generator_optimiser, (fakes, terms) = improve(
        model.adam,
        partial(generator_objective, model, state.discriminators, x, y),
        state.generators,
        state.generator_optimiser,
    )
    real_pool, seen_real = losses.exchange(state.pools.real, fakes.real, chances[2])
    synthetic_pool, seen_synthetic = losses.exchange(
        state.pools.synthetic, fakes.synthetic, chances[3]
    )
    discriminators, discriminator_optimiser, terms_d = improve(
        model.adam,
        partial(discriminator_objective, model, Pair(seen_real, seen_synthetic), x, y),
        state.discriminators,
        state.discriminator_optimiser,
    )
    terms = {**terms, **terms_d, "learning_rate": falling_rate(model.settings, state.step)}
    return State(
        step=state.step + 1,
        generators=generators,
        discriminators=discriminators,
        generator_optimiser=generator_optimiser,
        discriminator_optimiser=discriminator_optimiser,
        pools=Pair(real_pool, synthetic_pool),
    ), terms


def eval_step(model: Model, state: State, batch: ImagePairBatch, key: Key) -> Terms:
    """Cycle and identity terms of held-out images, not weighted; no measure of style."""
    pair, size = (batch.real, batch.synthetic), model.problem.shape
    middle = jnp.full((len(batch.index), 2), 0.5, jnp.float32)
    x, y = (spread(model, crop(images, size, middle)) for images in pair)
    to_y, to_x = (
        partial(apply, model.generator, params)
        for params in (state.generators.synthetic, state.generators.real)
    )
    return {
        "cycle_real": losses.cycle(to_x(to_y(x)), x),
        "cycle_synthetic": losses.cycle(to_y(to_x(y)), y),
        "identity_real": losses.identity(to_x(x), x),
        "identity_synthetic": losses.identity(to_y(y), y),
    }


def translate(model: Model, state: State, image: Float[Array, "r s"]) -> Float[Array, "r s"]:
    """A real image in the synthetic style."""
    image = spread(model, image[None])
    return jnp.mean(apply(model.generator, state.generators.synthetic, image), -1)[0]
