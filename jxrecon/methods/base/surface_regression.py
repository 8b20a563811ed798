"""What networks that move an organ's vertices to what an X-ray shows share: units, errors, training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.optimise import improve
from jxrecon.types import InputError, Key, PyTree, SurfaceBatch, Terms

LENGTH_MM = 100.0
"""Coordinates enter networks in this unit: an organ then spans about [-1, 1]."""

STEP_MM = 10.0
"""Displacements leave networks in this unit: breathing moves an organ by about 1."""

SEEN = 0.5
"""Share of the mean shape's vertices that the detector must show."""


def check_view(name: str, problem: SurfaceProblem, multiple: int) -> None:
    """Checks that a network can work with the problem's X-rays.

    Raises:
        InputError: rows or columns are no multiples of `multiple`, or the detector shows less than half of
            the organ.
    """
    shape = problem.camera.shape
    if any(n % multiple for n in shape):
        raise InputError(
            f"{name} was given X-rays of {shape[0]} x {shape[1]} pixels, expected multiples of {multiple}"
        )
    place = np.asarray(problem.camera.place_of(jnp.asarray(problem.template.vertices)))
    seen = float(np.mean(((place > -0.5) & (place < np.array(shape) - 0.5)).all(-1)))
    if seen < SEEN:
        raise InputError(
            f"{name}'s X-ray shows {seen:.0%} of the organ's mean shape, expected at least {SEEN:.0%}:"
            f" the camera looks past it"
        )


def standardised(image: Float[Array, "b rows columns"]) -> Float[Array, "b rows columns"]:
    """Line integrals with mean 0 and standard deviation 1 over each image; a uniform one becomes 0."""
    centred = image - jnp.mean(image, (1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(centred), (1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-8)


def mean_square(difference: Float[Array, "*batch c"]) -> Float[Array, ""]:
    """1/n sum |d_i|^2: the sum over coordinates, the mean over vertices and cases."""
    return jnp.mean(jnp.sum(jnp.square(difference), axis=-1))


def totalled(terms: Terms) -> Terms:
    """The terms, and their sum as L_total."""
    return {**terms, "L_total": sum(terms.values(), jnp.zeros(()))}


def vertex_errors(found: Float[Array, "b v 3"], target: Float[Array, "b v 3"]) -> Terms:
    """md_vertex_mm and rmse_vertex_mm between paired vertices: of each case, then the mean over cases."""
    square = jnp.sum(jnp.square(found - target), axis=-1)
    return {
        "md_vertex_mm": jnp.mean(jnp.sqrt(square)),
        "rmse_vertex_mm": jnp.mean(jnp.sqrt(jnp.mean(square, axis=1))),
    }


def examples(problem: SurfaceProblem, channels: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
    """(image [1, rows, columns, channels], places [1, v, 2], vertices [1, v, 3]): to start a network with."""
    count = len(problem.template.vertices)
    shapes = ((1, *problem.camera.shape, channels), (1, count, 2), (1, count, 3))
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


class State(struct.PyTreeNode):
    """All that outlives a step."""

    params: PyTree
    optimiser: PyTree


class Regression(NamedTuple):
    """A method that is one network and one loss, as the functions below need it; see `surface_method`."""

    network: nn.Module
    optimiser: optax.GradientTransformation
    predict: Callable[[PyTree, Array, Array], Any]
    loss: Callable[[Any, SurfaceBatch], Terms]
    inputs: tuple[Any, ...]
    starts: dict[str, float]


def surface_method(
    model: Any,
    predict: Callable[..., Any],
    loss: Callable[..., Terms],
    inputs: tuple[Any, ...],
    starts: dict[str, float],
) -> SurfaceMethod:
    """The Method of a network and its loss, by Adam at a constant rate or along half a cosine to 0.

    Args:
        model: with a `network`, and `settings` that hold `learning_rate` and `decay_steps`, on which the
            rate falls to 0; 0: it stays.
        predict: (model, parameters, image [b, rows, columns], reference [b, v, 3] mm) -> (vertices
            [b, v, 3] mm, whatever else the loss looks at).
        loss: (model, prediction, batch) -> weighted terms under their paper names.
        inputs: arguments of the network, or their shapes.
        starts: path of a layer or parameter -> its value in fresh parameters: with 0 a last layer says
            "no displacement".
    """
    rate, steps = model.settings.learning_rate, model.settings.decay_steps
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps) if steps else rate)
    bound = partial(predict, model), partial(loss, model)
    regression = Regression(model.network, adam, *bound, inputs, starts)
    return SurfaceMethod(
        init=partial(init, regression),
        train_step=partial(train_step, regression),
        eval_step=partial(eval_step, regression),
        reconstruct=partial(reconstruct, regression),
    )


def init(model: Regression, key: Key) -> State:
    """Fresh parameters and an optimiser at rest."""

    def start(path: Any, leaf: Array) -> Array:
        name = "/".join(part.key for part in path)
        layer, _, _ = name.rpartition("/")
        value = model.starts.get(name, model.starts.get(layer))
        return leaf if value is None else jnp.full_like(leaf, value)

    params = init_variables(model.network, key, *model.inputs)["params"]
    params = jax.tree.map_with_path(start, params)
    return State(params, model.optimiser.init(params))


def train_step(
    model: Regression, state: State, batch: SurfaceBatch, key: Key
) -> tuple[State, Terms]:
    """One step down the loss."""

    def objective(params: PyTree) -> tuple[Float[Array, ""], Terms]:
        found = model.predict(params, batch.image, batch.reference)
        terms = totalled(model.loss(found, batch))
        return terms["L_total"], terms

    params, moments, terms = improve(model.optimiser, objective, state.params, state.optimiser)
    return State(params, moments), terms


def eval_step(model: Regression, state: State, batch: SurfaceBatch, key: Key) -> Terms:
    """The errors of the vertices, and the loss."""
    found = model.predict(state.params, batch.image, batch.reference)
    return {**vertex_errors(found[0], batch.target), **totalled(model.loss(found, batch))}


def reconstruct(
    model: Regression,
    state: State,
    image: Float[Array, "rows columns"],
    reference: Float[Array, "v 3"],
) -> Float[Array, "v 3"]:
    """The vertices of one case, world mm."""
    return model.predict(state.params, image[None], reference[None])[0][0]
