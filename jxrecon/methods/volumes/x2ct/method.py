"""X2CT-GAN and X2CT-CNN (Ying et al., CVPR 2019) as a Method: training, evaluation, reconstruction.

| equation | function | settings |
|---|---|---|
| G with connections A, B, C | networks.Generator | architecture, width, dropout, connection_b, ... |
| D, 3-D PatchGAN | discriminator.Discriminator | discriminator, width |
| L_LSGAN(G), L_LSGAN(D) | losses.generator_loss, losses.discriminator_loss | adversarial_weight |
| L_re | losses.reconstruction | reconstruction_weight |
| L_pl | losses.projection | projection_weight |
| Adam, constant rate, then linear to 0 | nn.optimise.falling_rate | learning_rate, betas, *_steps |
| X-rays in [0, 1] | NORMALISATIONS | normalisation |

Without adversarial_weight and projection_weight it is X2CT-CNN. The problem decides the rest: one camera
is the single-view network, two are the biplanar one; the grid's edge is the networks' size; the window is
[0, 1]. Voxels need not be cubes. Differs from the authors' code, whose rate falls once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jxrecon.methods.base.method import Cameras, Images, Method, Problem, Progress, Reconstruction
from jxrecon.methods.base.trained_views import fixed_range, on_trained_pixels
from jxrecon.methods.volumes.x2ct import losses, reorient
from jxrecon.methods.volumes.x2ct.discriminator import Discriminator
from jxrecon.methods.volumes.x2ct.layers import init_params
from jxrecon.methods.volumes.x2ct.networks import Architecture, Generator, tiny
from jxrecon.methods.volumes.x2ct.networks import Volumes as Generated
from jxrecon.nn.blocks import compute_dtype
from jxrecon.nn.optimise import falling_rate, improve
from jxrecon.types import InputError, Key, PyTree, Terms, VolumeBatch

ARCHITECTURES: dict[str, Callable[..., Architecture]] = {"paper": Architecture, "tiny": tiny}


def eight_bit(integrals: Float[Array, "*b rows columns"]) -> Float[Array, "*b rows columns"]:
    """[X2CT data] raw / max of each image in 255 steps, as the authors' PNG files hold it."""
    top = jnp.max(integrals, (-2, -1), keepdims=True)
    return jnp.floor(255.0 * integrals / jnp.maximum(top, 1e-6)) / 255.0


NORMALISATIONS: dict[str, Callable[[Array], Array]] = {"fixed": fixed_range, "maximum": eight_bit}
"""Line integrals -> [0, 1]: by one factor for all, or each image by its own maximum, as the authors' data."""

Volumes = Float[Array, "b d h w 1"]
Views = list[Float[Array, "b s s"]]


@dataclass(frozen=True)
class Settings:
    """Everything of X2CT-GAN that a user may set; the defaults are the authors' training.

    Attributes:
        architecture: "paper", or "tiny" for 32^3.
        width: factor of all channel counts, of both networks.
        connection_b: whether encoder levels join the decoders.
        fusion: whether the fused decoder exists; two views only.
        write_back: whether the views go on with the mean that fusion forms.
        dropout: rate behind the code.
        discriminator: channels of its hidden layers; all but the last halve the size.
        adversarial_weight: factor of the least-squares game; 0 leaves X2CT-CNN, which has no discriminator.
        reconstruction_weight: factor of L_re.
        projection_weight: factor of L_pl.
        learning_rate, betas: Adam's, for both networks.
        warmup_steps: steps on which the rate rises from 0. The authors have none; above their rate the
            first steps, all of one sign, would push the head's ReLU below zero for good.
        constant_steps: steps until it falls, those of the warm-up included.
        decay_steps: steps on which it falls to 0; 0: it stays. Meant to add up to schedule.steps.
        normalisation: "fixed" or "maximum": how X-rays become [0, 1].
        dtype: "float32", "bfloat16", or "auto": bfloat16 on accelerators.
        remat: recompute all but norms and convolutions in the backward pass, for memory.
    """

    architecture: str = "paper"
    width: float = 1.0
    connection_b: bool = True
    fusion: bool = True
    write_back: bool = True
    dropout: float = 0.5
    discriminator: tuple[int, ...] = (64, 128, 256, 512)
    adversarial_weight: float = 0.1
    reconstruction_weight: float = 10.0
    projection_weight: float = 10.0
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.99)
    warmup_steps: int = 0
    constant_steps: int = 0
    decay_steps: int = 0
    normalisation: str = "fixed"
    dtype: str = "auto"
    remat: bool = False


class State(struct.PyTreeNode):
    """All that outlives a step; without an adversary the discriminator's parts are empty."""

    step: Int[Array, ""]
    generator: PyTree
    discriminator: PyTree
    generator_optimiser: PyTree
    discriminator_optimiser: PyTree


class Model(NamedTuple):
    """Networks and optimiser that the functions below share: no arrays, only definitions."""

    settings: Settings
    problem: Problem
    generator: Generator
    discriminator: Discriminator
    adam: optax.GradientTransformation

    @property
    def weights(self) -> losses.Weights:
        """Factors of the three terms."""
        s = self.settings
        return losses.Weights(s.adversarial_weight, s.reconstruction_weight, s.projection_weight)


def build(settings: Settings, problem: Problem) -> Method:
    """X2CT-GAN, or X2CT-CNN, for this problem.

    Raises:
        InputError: the networks do not fit the problem, or a setting has no such value.
    """
    model = make_model(settings, problem)
    return Method(
        init=partial(init, model),
        train_step=partial(train_step, model),
        eval_step=partial(eval_step, model),
        reconstruct=partial(reconstruct, model),
        own_views=True,
    )


def make_model(settings: Settings, problem: Problem) -> Model:
    """Networks of the settings' size for the problem's grid and cameras.

    Raises:
        InputError: the grid is no cube of voxels, the X-rays have other pixels, there are more than two
            views, the size does not suit the architecture, or a setting has no such value.
    """
    for name, value, known in (
        ("architecture", settings.architecture, ARCHITECTURES),
        ("normalisation", settings.normalisation, NORMALISATIONS),
        ("dtype", settings.dtype, ("auto", "float32", "bfloat16")),
    ):
        if value not in known:
            raise InputError(f"x2ct {name} is {value!r}, expected one of {', '.join(known)}")
    size = problem.grid.shape[0]
    shapes = [camera.shape for camera in problem.cameras]
    if tuple(problem.grid.shape) != (size,) * 3 or shapes != [(size, size)] * len(shapes):
        raise InputError(
            f"x2ct was given a grid of {tuple(problem.grid.shape)} voxels and X-rays of {shapes} pixels,"
            f" expected one size for all, such as {size}"
        )
    dtype = compute_dtype(settings.dtype)
    architecture = ARCHITECTURES[settings.architecture](
        size=size,
        views=len(problem.cameras),
        connection_b=settings.connection_b,
        fusion=settings.fusion,
        write_back=settings.write_back,
        dropout=settings.dropout,
        dtype=dtype,
        remat=settings.remat,
    ).scaled(settings.width)
    features = tuple(max(1, round(c * settings.width)) for c in settings.discriminator)
    return Model(
        settings=settings,
        problem=problem,
        generator=Generator(architecture),
        discriminator=Discriminator(features, dtype),
        adam=optax.adam(partial(learning_rate, settings), *settings.betas),
    )


def learning_rate(settings: Settings, step: Int[Array, ""]) -> Float[Array, ""]:
    """[X2CT training] Up, constant, then on a line to 0."""
    return falling_rate(settings, step, settings.warmup_steps)


def init(model: Model, key: Key) -> State:
    """N(0, 0.02) kernels, zero biases, Adam at rest."""
    size, count = model.problem.grid.shape[0], len(model.problem.cameras)
    views = [jax.ShapeDtypeStruct((1, size, size), jnp.float32)] * count
    volume = jax.ShapeDtypeStruct((1, size, size, size, 1), jnp.float32)
    key_generator, key_discriminator = jax.random.split(key)
    generator = init_params(model.generator, key_generator, views)
    discriminator: PyTree = {}
    if model.settings.adversarial_weight:
        inputs = key_discriminator, volume, views
        discriminator = init_params(model.discriminator, *inputs)
    return State(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        discriminator=discriminator,
        generator_optimiser=model.adam.init(generator),
        discriminator_optimiser=model.adam.init(discriminator),
    )


def volumes_of(model: Model, hu: Float[Array, "b x y z"]) -> Volumes:
    """CT in HU -> the networks' volumes: [0, 1] over the window, in the paper's axes."""
    return reorient((model.problem.window.to_unit(hu)[..., None] + 1.0) / 2.0)


def hu_of(model: Model, volumes: Volumes) -> Float[Array, "b x y z"]:
    """The inverse, clipped to the window: what the authors do at test time alone."""
    return model.problem.window.to_hu(2.0 * jnp.clip(reorient(volumes)[..., 0], 0.0, 1.0) - 1.0)


def views_of(model: Model, images: Sequence[Float[Array, "b s s"]]) -> Views:
    """Line integrals in [0, 1]."""
    return [NORMALISATIONS[model.settings.normalisation](image) for image in images]


def generate(model: Model, params: PyTree, views: Views, key: Key | None = None) -> Volumes:
    """G(x) in float32, with dropout where there is a key; not bounded above."""
    rngs = None if key is None else {"dropout": key}
    given = cast(Generated, model.generator.apply(params, views, key is None, rngs=rngs))
    return given.volume.astype(jnp.float32)


def score(model: Model, params: PyTree, volumes: Volumes, views: Views) -> losses.Scores:
    """D(x, y) in float32."""
    return cast(Array, model.discriminator.apply(params, volumes, views)).astype(jnp.float32)


def train_step(model: Model, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
    """G against the old D, then D on the same fakes: one step each.

    Terms:
        L_LSGAN(G), L_re, L_pl, L_G, L_LSGAN(D), D(real), D(fake), weighted; learning_rate.
    """
    real, views = volumes_of(model, batch.hu), views_of(model, batch.images)
    adversary = bool(model.settings.adversarial_weight)

    def generator_objective(params: PyTree) -> tuple[Array, tuple[Volumes, Terms]]:
        fake = generate(model, params, views, key)
        scores = score(model, state.discriminator, fake, views) if adversary else None
        total, terms = losses.generator_loss(scores, fake, real, model.weights)
        return total, (fake, terms)

    generator, generator_optimiser, (fake, terms) = improve(
        model.adam, generator_objective, state.generator, state.generator_optimiser
    )
    terms["learning_rate"] = learning_rate(model.settings, state.step)
    state = state.replace(
        step=state.step + 1, generator=generator, generator_optimiser=generator_optimiser
    )
    if not adversary:
        return state, terms

    def discriminator_objective(params: PyTree) -> tuple[Array, Terms]:
        on_real, on_fake = (score(model, params, volumes, views) for volumes in (real, fake))
        return losses.discriminator_loss(on_real, on_fake, model.weights)

    discriminator, discriminator_optimiser, terms_d = improve(
        model.adam, discriminator_objective, state.discriminator, state.discriminator_optimiser
    )
    state = state.replace(
        discriminator=discriminator, discriminator_optimiser=discriminator_optimiser
    )
    return state, {**terms, **terms_d}


def eval_step(model: Model, state: State, batch: VolumeBatch, key: Key) -> Terms:
    """Held-out volumes from their standard views, one after the other for memory's sake.

    Terms:
        psnr_db: whole volume, values and range as the window, mean over the batch.
        L_re, L_pl: of the volumes before they are clipped, weighted as in training, and their sum L_G.
    """

    def one(case: VolumeBatch) -> Terms:
        real, views = (
            volumes_of(model, case.hu[None]),
            views_of(model, [y[None] for y in case.images]),
        )
        fake = generate(model, state.generator, views)
        error = jnp.mean(jnp.square(jnp.clip(fake, 0.0, 1.0) - real))
        _, terms = losses.generator_loss(None, fake, real, model.weights)
        return {"psnr_db": -10.0 * jnp.log10(error), **terms}

    return jax.tree.map(jnp.mean, jax.lax.map(one, batch))


def reconstruct(
    model: Model,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
) -> Reconstruction:
    """The volume of X-rays in the directions of the training: one pass of the network.

    Raises:
        InputError: they are not the views of the training; see `trained_views.on_trained_pixels`.
    """
    seen = on_trained_pixels(images, cameras, model.problem.cameras, "x2ct")
    volumes = generate(model, state.generator, views_of(model, [image[None] for image in seen]))
    return Reconstruction(hu_of(model, volumes)[0], {})
