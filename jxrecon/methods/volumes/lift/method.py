"""Lift as a Method: from one or two X-rays of the whole patient to the field, with a deviation a voxel.

    x = MAP(y) + U(MAP(y), y, y - y_MAP)        y_MAP: the X-rays that the prior expects of its MAP

| part | function | settings |
|---|---|---|
| MAP(y), y_MAP, left-out for training cases | inputs.explain | |
| MAP, X-rays and differences on the half grid | inputs.features | |
| U, sub-pixel last level, size of the error | networks.UNet | widths, dropout |
| L1 + 20 L2 + 0.02 NLL | losses.objective | l1_weight, l2_weight, nll_weight |
| AdamW, warm-up, cosine to 0, clipped, EMA | optimiser_of, train_step | learning_rate, steps, ... |
| the factor on the deviations | calibrate | calibration |

Without leaving the case out, the truth of a training case lies in the prior's span and nothing is learnt
from it. In x2ct and its kin the views' features are only looked up in 3-D; here the network starts from
what the two X-rays and the training set say in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int

from jxrecon.devices import each_case
from jxrecon.geometry import AnyCamera
from jxrecon.methods.base import calibration, linear_posterior
from jxrecon.methods.base.method import Method, Problem, Progress, Reconstruction
from jxrecon.methods.base.trained_views import on_trained_pixels
from jxrecon.methods.volumes.lift import inputs, losses, networks
from jxrecon.methods.volumes.lift.compact import Compact, compact
from jxrecon.nn.optimise import descend
from jxrecon.nn.resample import halved
from jxrecon.types import InputError, Key, PyTree, Terms, TrainingVolumes, VolumeBatch

LAPLACE = 2.0**0.5
"""Standard deviation of a Laplace distribution over its mean absolute size."""


@dataclass(frozen=True)
class Settings:
    """Everything of lift that a user may set.

    Attributes:
        widths: channels from the half grid down; one size less than doubles them.
        dropout: rate of channels at the coarsest level.
        l1_weight: of the mean absolute error; errors are in units of the window's width.
        l2_weight: of the mean squared error.
        nll_weight: of the likelihood of the errors' size.
        learning_rate: of AdamW at its highest.
        weight_decay: of AdamW.
        warmup_steps: on which the rate rises from 0.
        steps: on which it then falls to 0 along a cosine; as schedule.steps.
        clip: largest norm of a gradient.
        ema: decay of the mean of the parameters, which is what reconstructs.
        calibration: training patients that the network is not trained on, to find the deviations' factor.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96)
    dropout: float = 0.1
    l1_weight: float = 1.0
    l2_weight: float = 20.0
    nll_weight: float = 0.02
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 100
    steps: int = 3000
    clip: float = 1.0
    ema: float = 0.995
    calibration: int = 4


class State(struct.PyTreeNode):
    """All that outlives a step.

    Attributes:
        step: steps done.
        params: of the network.
        ema: their running mean.
        optimiser: of AdamW.
        prior: fitted once, before the first step; `Compact` in a state that is handed on.
        scale: factor on the deviations, 1 before `calibrate`.
    """

    step: Int[Array, ""]
    params: PyTree
    ema: PyTree
    optimiser: PyTree
    prior: inputs.Prior | Compact
    scale: Float[Array, ""]


class Model(NamedTuple):
    """Network and optimiser that the functions below share: no arrays, only definitions."""

    settings: Settings
    problem: Problem
    net: networks.UNet
    optimiser: optax.GradientTransformation

    @property
    def weights(self) -> losses.Weights:
        """Of the three terms."""
        s = self.settings
        return losses.Weights(s.l1_weight, s.l2_weight, s.nll_weight)


class Posterior(NamedTuple):
    """Attributes: hu: the volume; deviation: its standard deviation a voxel, HU."""

    hu: Float[Array, "x y z"]
    deviation: Float[Array, "x y z"]


def build(settings: Settings, problem: Problem) -> Method:
    """Lift for this problem.

    Raises:
        InputError: the grid cannot be halved as often as the network has levels.
    """
    model = make_model(settings, problem)
    return Method(
        init=partial(init, model),
        train_step=partial(train_step, model),
        eval_step=partial(eval_step, model),
        reconstruct=partial(reconstruct, model),
        own_views=True,
        fit=fit,
        kept_out=settings.calibration,
        finish=partial(calibrate, model),
        ship=ship,
        deviates=True,
    )


def make_model(settings: Settings, problem: Problem) -> Model:
    """The definitions; errors as of `build`."""
    factor = 2 ** len(settings.widths)
    if any(n % factor for n in problem.grid.shape):
        raise InputError(
            f"lift was given a grid of {tuple(problem.grid.shape)} voxels, expected multiples of {factor}: "
            f"its network has {len(settings.widths)} levels"
        )
    net = networks.UNet(settings.widths, settings.dropout)
    return Model(settings, problem, net, optimiser_of(settings))


def optimiser_of(settings: Settings) -> optax.GradientTransformation:
    """AdamW with a warm-up and a cosine to 0, gradients clipped by their norm."""
    rate = partial(learning_rate, settings)
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(rate, weight_decay=settings.weight_decay),
    )


def learning_rate(settings: Settings, step: Int[Array, ""]) -> Float[Array, ""]:
    """min(1, (t + 1) / warm-up) (1 + cos(pi t / steps)) / 2 of the highest."""
    time = step.astype(jnp.float32)
    rising = jnp.minimum(1.0, (time + 1.0) / max(settings.warmup_steps, 1))
    falling = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(time / settings.steps, 1.0)))
    return settings.learning_rate * rising * falling


def init(model: Model, key: Key) -> State:
    """The network that changes nothing, and an empty prior."""
    problem = model.problem
    pixels = sum(rows * columns for rows, columns in (c.shape for c in problem.cameras))
    channels = 8 + 8 * len(problem.cameras) + 3
    shape = (1, *(n // 2 for n in problem.grid.shape), channels)
    params = networks.init_params(model.net, key, shape)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=params,
        optimiser=model.optimiser.init(params),
        prior=inputs.empty_prior(problem.grid.shape, problem.cases, pixels),
        scale=jnp.ones((), jnp.float32),
    )


def fit(state: State, everything: TrainingVolumes) -> State:
    """The state with the linear prior of all training cases."""
    seen = jnp.minimum(linear_posterior.rows_of(everything.images), inputs.STARVED)
    return state.replace(prior=inputs.prior_of(everything.hu, seen.T))


def ship(state: State) -> State:
    """What reconstructs, without the training volumes and all that only training needs."""
    if isinstance(state.prior, Compact):
        return state
    hu, basis, _ = state.prior
    prior = compact(hu, basis, state.prior.without(hu.shape[0]))
    return state.replace(params={}, optimiser=(), prior=prior)


def see(
    model: Model,
    prior: inputs.Prior | Compact,
    images: Sequence[Float[Array, "rows columns"]],
    index: Int[Array, ""],
) -> tuple[Float[Array, "x y z"], Float[Array, "i j k c"]]:
    """(the prior's MAP in HU, the network's input) of one case."""
    explained = inputs.explain(prior, images, index)
    grid, cameras, window, _ = model.problem
    return explained.hu, inputs.features(grid, window, explained, images, cameras)


def _seen(model: Model, prior: inputs.Prior | Compact, batch: VolumeBatch) -> tuple[Array, Array]:
    """`see` for all cases of a batch, one after the other; the MAP in units of the window's width."""

    def one(prior: inputs.Prior | Compact, case: VolumeBatch) -> tuple[Array, Array]:
        return see(model, prior, case.images, case.index)

    hu, features = each_case(one, prior, batch)
    return _unit(model, hu), features


def _unit(model: Model, hu: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """HU -> [0, 1] over the window, clipped."""
    return (model.problem.window.to_unit(hu) + 1.0) / 2.0


def apply(
    model: Model, params: PyTree, features: Float[Array, "b i j k c"], key: Key | None = None
) -> networks.Output:
    """U, with dropout where there is a key."""
    rngs = None if key is None else {"dropout": key}
    out = model.net.apply({"params": params}, features, key is not None, rngs=rngs)
    return cast(networks.Output, out)


def train_step(model: Model, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
    """One step of AdamW.

    Terms:
        L, L_1, L_2, NLL of the objective; psnr_train_db; learning_rate.
    """
    start, features = _seen(model, state.prior, batch)
    truth = _unit(model, batch.hu)

    def loss(params: PyTree) -> tuple[Array, Terms]:
        out = apply(model, params, features, key)
        return losses.objective(start + out.change, out.log_size, truth, model.weights)

    gradient, terms = jax.grad(loss, has_aux=True)(state.params)
    params, optimiser = descend(model.optimiser, gradient, state.optimiser, state.params)
    time = state.step.astype(jnp.float32)
    decay = jnp.minimum(model.settings.ema, (time + 1.0) / (time + 20.0))
    terms["psnr_train_db"] = -10.0 * jnp.log10(terms["L_2"])
    terms["learning_rate"] = learning_rate(model.settings, state.step)
    return state.replace(
        step=state.step + 1,
        params=params,
        ema=jax.tree.map(lambda mean, new: decay * mean + (1.0 - decay) * new, state.ema, params),
        optimiser=optimiser,
    ), terms


def posterior(
    model: Model,
    state: State,
    images: Sequence[Float[Array, "rows columns"]],
    index: Int[Array, ""] | int = -1,
) -> Posterior:
    """The volume and its deviation from X-rays on the pixels of the problem's cameras.

    Args:
        model: network and problem.
        state: a trained state.
        images: line integrals, one a camera of the problem.
        index: of a training case, which the prior then does not know; below 0: no training case.
    """
    start, features = see(model, state.prior, images, jnp.asarray(index))
    out = apply(model, state.ema, features[None])
    window = model.problem.window
    unit = jnp.clip(_unit(model, start) + out.change[0], 0.0, 1.0)
    size = jnp.exp(jnp.clip(out.log_size[0], losses.LEAST_LOG_SIZE, losses.MOST_LOG_SIZE))
    deviation = state.scale * LAPLACE * window.range * size
    return Posterior(window.to_hu(2.0 * unit - 1.0), deviation)


def calibrate(model: Model, state: State, batch: VolumeBatch) -> State:
    """The state with the factor on the deviations that is right on cases nobody learned from.

    Args:
        model: network and problem.
        state: a trained state.
        batch: training cases that the network did not see and the prior leaves out.
    """

    def one(case: VolumeBatch) -> Array:
        found = posterior(model, state, case.images, case.index)
        truth = model.problem.window.to_hu(2.0 * _unit(model, case.hu) - 1.0)
        tissue = (case.hu > calibration.TISSUE_HU).ravel()
        return calibration.scale_of((found.hu - truth).ravel(), found.deviation.ravel(), tissue)

    scales = lax.map(one, batch)
    return state.replace(scale=state.scale * jnp.exp(jnp.mean(jnp.log(scales))))


def eval_step(model: Model, state: State, batch: VolumeBatch, key: Key) -> Terms:
    """Held-out cases from their X-rays.

    Terms:
        psnr_db: whole volume, values and range as the window, mean over the cases.
        psnr_half_db: the same of means of eight voxels.
        mae_hu_tissue: over truth above -300 HU.
        within_one, within_two: share of the same voxels within so many deviations.
        psnr_prior_db: of the linear prior.
    """

    def one(case: VolumeBatch) -> Terms:
        found = posterior(model, state, case.images)
        prior = inputs.explain(state.prior, case.images, jnp.asarray(-1))
        truth, unit, start = (_unit(model, hu) for hu in (case.hu, found.hu, prior.hu))
        tissue = case.hu > calibration.TISSUE_HU
        error = model.problem.window.range * (unit - truth)
        shares = calibration.shares(error, found.deviation, tissue)
        count = jnp.maximum(jnp.sum(tissue), 1).astype(jnp.float32)
        return {
            "psnr_db": _psnr(unit, truth),
            "psnr_half_db": _psnr(halved(unit), halved(truth)),
            "mae_hu_tissue": jnp.sum(jnp.where(tissue, jnp.abs(error), 0.0)) / count,
            "within_one": shares.one,
            "within_two": shares.two,
            "psnr_prior_db": _psnr(start, truth),
        }

    return jax.tree.map(jnp.mean, lax.map(one, batch))


def _psnr(a: Float[Array, "*s"], b: Float[Array, "*s"]) -> Float[Array, ""]:
    return -10.0 * jnp.log10(jnp.mean(jnp.square(a - b)))


def reconstruct(
    model: Model,
    state: State,
    images: Sequence[Float[Array, "rows columns"]],
    cameras: Sequence[AnyCamera],
    key: Key,
    progress: Progress | None = None,
) -> Reconstruction:
    """The volume of the X-rays: the linear prior and one pass of the network.

    Args:
        model: network and problem.
        state: a trained state.
        images: line integrals, [rows, columns] each.
        cameras: one an image, in the directions of the training.
        key: not used, nothing is random.
        progress: not called.

    Raises:
        InputError: the X-rays are not the views that the network was trained with.
    """
    seen = on_trained_pixels(images, cameras, model.problem.cameras, "lift")
    found = posterior(model, state, seen)
    return Reconstruction(found.hu, {}, found.deviation)
