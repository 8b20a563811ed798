"""What 2-D baselines share: a volume from the frontal X-ray alone, by squared error and gradient descent."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from jxrecon.methods.base.method import Cameras, Images, Method, Problem, Progress, Reconstruction
from jxrecon.methods.base.trained_views import fixed_range, on_trained_pixels
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.optimise import improve
from jxrecon.types import Key, PyTree, Terms, VolumeBatch


class State(struct.PyTreeNode):
    """All that outlives a step."""

    params: PyTree
    statistics: PyTree  # running means and variances of the norms
    optimiser: PyTree


class Model(NamedTuple):
    """What the functions below share: no arrays, only definitions.

    The network makes volumes [n, z, x, y] of X-rays [n, rows, columns], both in [0, 1]; it is applied as
    network(images, train=...) and has BatchNorm's statistics. The X-ray is that of the first camera.
    """

    name: str  # the method's, for errors
    loss: str  # the paper's name of mean (f(x) - y)^2 over voxels
    network: nn.Module
    optimiser: optax.GradientTransformation
    problem: Problem


def frontal_method(model: Model) -> Method:
    """The Method of a model."""
    return Method(
        init=partial(init, model),
        train_step=partial(train_step, model),
        eval_step=partial(eval_step, model),
        reconstruct=partial(reconstruct, model),
        own_views=True,
    )


def init(model: Model, key: Key) -> State:
    """Fresh parameters."""
    image = jax.ShapeDtypeStruct((1, *model.problem.cameras[0].shape), jnp.float32)
    variables = init_variables(model.network, key, image, train=False)
    params = variables["params"]
    return State(params, variables["batch_stats"], model.optimiser.init(params))


def train_step(model: Model, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
    """One step on the squared error."""
    images, real = fixed_range(batch.images[0]), unit(model.problem, batch.hu)
    apply: Any = partial(model.network.apply, train=True, mutable=["batch_stats"])

    def objective(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        fake, updated = apply({"params": params, "batch_stats": state.statistics}, images)
        value = jnp.mean(jnp.square(fake - real))
        return value, (value, updated["batch_stats"])

    params, moments, (value, statistics) = improve(
        model.optimiser, objective, state.params, state.optimiser
    )
    return State(params, statistics, moments), {model.loss: value}


def eval_step(model: Model, state: State, batch: VolumeBatch, key: Key) -> Terms:
    """psnr_db over the whole volume, values and range as the window, and the loss."""
    fake = predict(model, state, fixed_range(batch.images[0]))
    real = unit(model.problem, batch.hu)
    error = jnp.mean(jnp.square(jnp.clip(fake, 0.0, 1.0) - real), (1, 2, 3))
    psnr_db = jnp.mean(-10.0 * jnp.log10(error))
    return {"psnr_db": psnr_db, model.loss: jnp.mean(jnp.square(fake - real))}


def reconstruct(
    model: Model,
    state: State,
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
) -> Reconstruction:
    """One pass of the network on the frontal X-ray among those given.

    Raises:
        InputError: none of them is it; see `trained_views.on_trained_pixels`.
    """
    seen = on_trained_pixels(images, cameras, model.problem.cameras[:1], model.name)[0]
    volume = to_world(predict(model, state, fixed_range(seen)[None]))[0]
    return Reconstruction(model.problem.window.to_hu(2.0 * jnp.clip(volume, 0.0, 1.0) - 1.0), {})


def predict(model: Model, state: State, images: Float[Array, "n r s"]) -> Float[Array, "n z x y"]:
    """The network with its running statistics."""
    variables = {"params": state.params, "batch_stats": state.statistics}
    return model.network.apply(variables, images, train=False)  # type: ignore[return-value]  # no tuple without mutable


def unit(problem: Problem, hu: Float[Array, "n x y z"]) -> Float[Array, "n z x y"]:
    """CT in [0, 1] over the window, in the X-ray's axes."""
    return (to_paper(problem.window.to_unit(hu)) + 1.0) / 2.0


def paper_shape(problem: Problem) -> tuple[int, int, int]:
    """The grid's shape in the X-ray's axes."""
    nx, ny, nz = problem.grid.shape
    return nz, nx, ny


def to_paper(volume: Float[Array, "n x y z"]) -> Float[Array, "n z x y"]:
    """[x, y, z] -> [row, column, depth] of the frontal X-ray: -z, -x, and -y away from the source."""
    return jnp.flip(volume.transpose(0, 3, 1, 2), (1, 2, 3))


def to_world(volume: Float[Array, "n z x y"]) -> Float[Array, "n x y z"]:
    """The inverse of `to_paper`."""
    return jnp.flip(volume, (1, 2, 3)).transpose(0, 2, 3, 1)
