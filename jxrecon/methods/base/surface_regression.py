"""What networks that move an organ's vertices to what an X-ray shows share: units, errors, training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from jxrecon.geometry import Camera
from jxrecon.mesh import Template
from jxrecon.nn.optimise import descend
from jxrecon.types import InputError, Key, PyTree, SurfaceBatch, Terms

LENGTH_MM = 100.0
"""Coordinates enter networks in this unit: an organ then spans about [-1, 1]."""

STEP_MM = 10.0
"""Displacements leave networks in this unit: breathing moves an organ by about 1."""


SEEN = 0.5
"""Share of the mean shape's vertices that the detector must show."""


def check_view(name: str, template: Template, camera: Camera, multiple: int) -> None:
    """Tells a network in time what it cannot work with.

    Args:
        name: of the method.
        template: the mean shape.
        camera: of the X-rays.
        multiple: what rows and columns of the X-rays are to be multiples of.

    Raises:
        InputError: they are not, or the detector shows less than half of the organ.
    """
    shape = camera.shape
    if any(n % multiple for n in shape):
        raise InputError(
            f"{name} was given X-rays of {shape[0]} x {shape[1]} pixels, expected multiples of {multiple}"
        )
    place = np.asarray(camera.place_of(jnp.asarray(template.vertices)))
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


def coordinates(points: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """World millimetres in units of 100 mm: where they lie matters as well as their shape."""
    return points / LENGTH_MM


def pitch_mm(camera: Camera) -> Float[Array, "2"]:
    """Millimetres on the detector from one row to the next and from one column to the next."""
    return jnp.stack([jnp.linalg.norm(camera.v), jnp.linalg.norm(camera.u)])


def mean_square(difference: Float[Array, "*batch c"]) -> Float[Array, ""]:
    """1/n sum |d_i|^2: the sum over coordinates, the mean over vertices and cases."""
    return jnp.mean(jnp.sum(jnp.square(difference), axis=-1))


def summed(terms: Terms) -> tuple[Float[Array, ""], Terms]:
    """(the sum of weighted terms, the terms and it as L_total)."""
    total = sum(terms.values(), jnp.zeros(()))
    return total, {**terms, "L_total": total}


def vertex_errors(found: Float[Array, "b v 3"], target: Float[Array, "b v 3"]) -> Terms:
    """md_vertex_mm and rmse_vertex_mm between paired vertices: of each case, then the mean over cases."""
    square = jnp.sum(jnp.square(found - target), axis=-1)
    return {
        "md_vertex_mm": jnp.mean(jnp.sqrt(square)),
        "rmse_vertex_mm": jnp.mean(jnp.sqrt(jnp.mean(square, axis=1))),
    }


def adam(learning_rate: float, decay_steps: int) -> optax.GradientTransformation:
    """Adam at a constant rate, or, if `decay_steps` is not 0, along half a cosine to 0 on that many."""
    if decay_steps:
        return optax.adam(optax.cosine_decay_schedule(learning_rate, decay_steps))
    return optax.adam(learning_rate)


def examples(template: Template, camera: Camera) -> tuple[jax.ShapeDtypeStruct, ...]:
    """(image [1, rows, columns], places [1, v, 2], vertices [1, v, 3]): shapes to start a network with."""
    count = len(template.vertices)
    shapes = ((1, *camera.shape), (1, count, 2), (1, count, 3))
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def run(network: nn.Module, params: PyTree, *inputs: Any) -> Any:
    """What a network of parameters alone gives."""
    return network.apply({"params": params}, *inputs)


def at_rest(params: PyTree, *heads: str) -> PyTree:
    """`params` with zeros in the named submodules: last layers that at first say "no displacement"."""

    def start(path: Any, leaf: Array) -> Array:
        return jnp.zeros_like(leaf) if {part.key for part in path} & set(heads) else leaf

    return jax.tree.map_with_path(start, params)


class State(struct.PyTreeNode):
    """All that outlives a step.

    Attributes:
        params: of the network.
        optimiser: its moments.
    """

    params: PyTree
    optimiser: PyTree


@dataclass(frozen=True)
class SurfaceRegression:
    """The four functions of a `SurfaceMethod` that is one network and one loss.

    Attributes:
        start: (key) -> parameters.
        predict: (parameters, image [b, rows, columns], reference [b, v, 3] mm) -> a tuple with the field
            `vertices` [b, v, 3] mm and whatever else the loss looks at.
        loss: (prediction, batch) -> (total, terms under their paper names).
        optimiser: of the parameters.
    """

    start: Callable[[Key], PyTree]
    predict: Callable[[PyTree, Array, Array], Any]
    loss: Callable[[Any, SurfaceBatch], tuple[Float[Array, ""], Terms]]
    optimiser: optax.GradientTransformation

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """init, train_step, eval_step and reconstruct, in the order of a `SurfaceMethod`."""
        return self.init, self.train_step, self.eval_step, self.reconstruct

    def init(self, key: Key) -> State:
        """Fresh parameters and an optimiser at rest."""
        params = self.start(key)
        return State(params, self.optimiser.init(params))

    def train_step(self, state: State, batch: SurfaceBatch, key: Key) -> tuple[State, Terms]:
        """One step down the loss."""

        def objective(params: PyTree) -> tuple[Float[Array, ""], Terms]:
            return self.loss(self.predict(params, batch.image, batch.reference), batch)

        (_, terms), slope = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, moments = descend(self.optimiser, slope, state.optimiser, state.params)
        return State(params, moments), terms

    def eval_step(self, state: State, batch: SurfaceBatch, key: Key) -> Terms:
        """The errors of the vertices, and the loss."""
        found = self.predict(state.params, batch.image, batch.reference)
        return {**vertex_errors(found.vertices, batch.target), **self.loss(found, batch)[1]}

    def reconstruct(
        self, state: State, image: Float[Array, "rows columns"], reference: Float[Array, "v 3"]
    ) -> Float[Array, "v 3"]:
        """The vertices of one case, world mm."""
        return self.predict(state.params, image[None], reference[None]).vertices[0]
