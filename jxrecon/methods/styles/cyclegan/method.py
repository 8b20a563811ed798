"""CycleGAN (Zhu et al., ICCV 2017) between real and synthetic X-rays: training and translation.

| equation | function | settings |
|---|---|---|
| G: real -> synthetic, F: synthetic -> real | networks.Generator | width, blocks, channels |
| D of each style, 70x70 patches | networks.Discriminator | width |
| L_GAN, least squares | losses.fooling, losses.telling_apart | - |
| L_cyc | losses.cycle | cycle_weight |
| L_identity | losses.identity | identity_weight, in units of cycle_weight |
| pool of 50 fakes | losses.exchange | pool |
| Adam, constant, then linear to 0 | learning_rate | learning_rate, betas, constant_steps, decay_steps |
| random crop of an image enlarged by 286 / 256 | crop | enlarged |

Differs from the paper: no mirror images, which would move the heart to the right; one channel. The
problem lends its grid's first two axes as the image's size, all else of it is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jxrecon.methods.base.method import Problem, Translator
from jxrecon.methods.styles.cyclegan import losses
from jxrecon.methods.styles.cyclegan.networks import INIT_STD, Discriminator, Generator
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.optimise import descend
from jxrecon.types import InputError, Key, PyTree, Terms, VolumeBatch

Images = Float[Array, "n r s c"]


@dataclass(frozen=True)
class Settings:
    """Everything of CycleGAN that a user may set; the defaults are the paper's.

    Attributes:
        width: channels of the first layers, of all four networks.
        blocks: residual blocks of a generator: 6 for 128 pixels, 9 for 256.
        channels: of the images as the networks see them; grey ones are repeated.
        cycle_weight: lambda of L_cyc.
        identity_weight: of L_identity, times cycle_weight.
        pool: how many fakes of each style are remembered.
        enlarged: how much larger training images are than what is cropped from them.
        learning_rate: of Adam, for all networks.
        betas: of Adam.
        constant_steps: steps at that rate.
        decay_steps: steps on which it falls to 0; 0: it stays.
        real_scale: how real images became [-1, 1]: "fixed", line integrals from 0 to 8, or "own", each from
            its least to its largest value. Those who read images and make X-rays of them go by it.
        synthetic_scale: the same of synthetic ones.
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


def learning_rate(settings: Settings, step: Int[Array, ""]) -> Float[Array, ""]:
    """[Zhu 4] Constant for `constant_steps`, then on a line to 0 after `decay_steps` more.

    Differs from the authors' code, which falls once an epoch.
    """
    rate = jnp.asarray(settings.learning_rate, jnp.float32)
    if not settings.decay_steps:
        return rate
    done = (step - settings.constant_steps).astype(jnp.float32) / settings.decay_steps
    return rate * (1.0 - jnp.clip(done, 0.0, 1.0))


def crop(images: Images, size: tuple[int, int], chances: Float[Array, "n 2"]) -> Images:
    """A part of that size of each image, where its two numbers in [0, 1) say."""
    room = [n - s + 1 for n, s in zip(images.shape[1:3], size)]
    corners = [(chances[:, i] * n).astype(jnp.int32) for i, n in enumerate(room)]

    def cut(image: Float[Array, "r s c"], row: Int[Array, ""], column: Int[Array, ""]) -> Array:
        image = jax.lax.dynamic_slice_in_dim(image, row, size[0], 0)
        return jax.lax.dynamic_slice_in_dim(image, column, size[1], 1)

    return jax.vmap(cut)(images, *corners)


def build(settings: Settings, problem: Problem) -> Translator:
    """CycleGAN for images of the size of the problem's grid, [x, y, 1].

    A batch holds enlarged images in [-1, 1], unpaired, [b, r, s, 2]: the real one, the synthetic one.

    Raises:
        InputError: the size is no multiple of 4 or under 32, or a setting makes no sense.
    """
    size = (problem.grid.shape[0], problem.grid.shape[1])
    if any(n % 4 or n < 32 for n in size):
        raise InputError(f"cyclegan was given {size} pixels, expected multiples of 4 from 32 on")
    if settings.enlarged < 1.0 or settings.channels < 1 or settings.pool < 0:
        raise InputError(
            f"cyclegan enlarged is {settings.enlarged}, channels {settings.channels}, pool"
            f" {settings.pool}, expected at least 1, 1 and 0"
        )
    generator = Generator(settings.width, settings.blocks, settings.channels)
    discriminator = Discriminator(settings.width)
    adam = optax.adam(partial(learning_rate, settings), *settings.betas)
    shape = (*size, settings.channels)

    def spread(grey: Float[Array, "n r s"]) -> Images:
        return jnp.repeat(grey[..., None], settings.channels, axis=-1)

    def make(params: PyTree, images: Images) -> Images:
        return generator.apply({"params": params}, images)  # type: ignore[return-value]  # no tuple

    def score(params: PyTree, images: Images) -> losses.Scores:
        return discriminator.apply({"params": params}, images)  # type: ignore[return-value]  # no tuple

    def init(key: Key) -> State:
        image, keys = jax.ShapeDtypeStruct((1, *shape), jnp.float32), jax.random.split(key)

        def two(network: nn.Module, key: Key) -> Pair:
            start = partial(init_variables, network, std=INIT_STD)
            both = jax.vmap(lambda k: start(k, image)["params"])(jax.random.split(key))
            return Pair(*(jax.tree.map(itemgetter(i), both) for i in (0, 1)))

        generators, discriminators = two(generator, keys[0]), two(discriminator, keys[1])
        pools = (losses.empty_pool(settings.pool, shape) for _ in range(2))
        return State(
            step=jnp.zeros((), jnp.int32),
            generators=generators,
            discriminators=discriminators,
            generator_optimiser=adam.init(generators),
            discriminator_optimiser=adam.init(discriminators),
            pools=Pair(*pools),
        )

    def generator_objective(
        params: Pair, discriminators: Pair, x: Images, y: Images
    ) -> tuple[Array, tuple[Pair, Terms]]:
        """[Zhu Eq. 3] L_GAN(G) + L_GAN(F) + lambda L_cyc + lambda_i L_identity; x real, y synthetic."""
        # One pass of a generator for both of its inputs: no sample sees another.
        fake_y, own_y = jnp.split(make(params.synthetic, jnp.concatenate([x, y])), 2)
        fake_x, own_x = jnp.split(make(params.real, jnp.concatenate([y, x])), 2)
        back_x, back_y = make(params.real, fake_y), make(params.synthetic, fake_x)
        weight = settings.cycle_weight
        identity = losses.identity(own_y, y) + losses.identity(own_x, x)
        terms = {
            "L_GAN(G)": losses.fooling(score(discriminators.synthetic, fake_y)),
            "L_GAN(F)": losses.fooling(score(discriminators.real, fake_x)),
            "L_cyc": weight * (losses.cycle(back_x, x) + losses.cycle(back_y, y)),
            "L_identity": settings.identity_weight * weight * identity,
        }
        total = sum(terms.values(), jnp.zeros((), jnp.float32))
        return total, (Pair(real=fake_x, synthetic=fake_y), {**terms, "L(G,F)": total})

    def discriminator_objective(
        params: Pair, seen: Pair, x: Images, y: Images
    ) -> tuple[Array, Terms]:
        terms = {}
        for style, network, real, fake in (
            ("real", params.real, x, seen.real),
            ("synthetic", params.synthetic, y, seen.synthetic),
        ):
            on_real, on_fake = jnp.split(score(network, jnp.concatenate([real, fake])), 2)
            terms[f"L_GAN(D_{style})"] = losses.telling_apart(on_real, on_fake)
        return sum(terms.values(), jnp.zeros((), jnp.float32)), terms

    def train_step(state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
        # One draw for all: on CPU each costs seconds of compiling.
        chances = jax.random.uniform(key, (4, batch.hu.shape[0], 2), jnp.float32)
        x, y = (crop(spread(batch.hu[..., i]), size, chances[i]) for i in range(2))
        slope, (fakes, terms) = jax.grad(generator_objective, has_aux=True)(
            state.generators, state.discriminators, x, y
        )
        generators, generator_optimiser = descend(
            adam, slope, state.generator_optimiser, state.generators
        )
        real_pool, seen_real = losses.exchange(state.pools.real, fakes.real, chances[2])
        synthetic_pool, seen_synthetic = losses.exchange(
            state.pools.synthetic, fakes.synthetic, chances[3]
        )
        slope, terms_d = jax.grad(discriminator_objective, has_aux=True)(
            state.discriminators, Pair(seen_real, seen_synthetic), x, y
        )
        discriminators, discriminator_optimiser = descend(
            adam, slope, state.discriminator_optimiser, state.discriminators
        )
        terms = {**terms, **terms_d, "learning_rate": learning_rate(settings, state.step)}
        return State(
            step=state.step + 1,
            generators=generators,
            discriminators=discriminators,
            generator_optimiser=generator_optimiser,
            discriminator_optimiser=discriminator_optimiser,
            pools=Pair(real_pool, synthetic_pool),
        ), terms

    def eval_step(state: State, batch: VolumeBatch, key: Key) -> Terms:
        """Cycle and identity terms of held-out images, not weighted; no measure of style."""
        middle = jnp.full((batch.hu.shape[0], 2), 0.5, jnp.float32)
        x, y = (crop(spread(batch.hu[..., i]), size, middle) for i in range(2))
        to_y, to_x = (partial(make, p) for p in (state.generators.synthetic, state.generators.real))
        return {
            "cycle_real": losses.cycle(to_x(to_y(x)), x),
            "cycle_synthetic": losses.cycle(to_y(to_x(y)), y),
            "identity_real": losses.identity(to_x(x), x),
            "identity_synthetic": losses.identity(to_y(y), y),
        }

    def translate(state: State, image: Float[Array, "r s"]) -> Float[Array, "r s"]:
        return jnp.mean(make(state.generators.synthetic, spread(image[None])), -1)[0]

    return Translator(init, train_step, eval_step, translate)
