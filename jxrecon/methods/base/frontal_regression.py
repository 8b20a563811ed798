"""What 2-D baselines share: a volume from the frontal X-ray alone, by squared error and gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.geometry import AnyCamera, Camera, Grid
from jxrecon.methods.base.trained_views import fixed_range, on_trained_pixels
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.optimise import descend
from jxrecon.types import Key, PyTree, Terms, VolumeBatch
from jxrecon.units import Window


class State(struct.PyTreeNode):
    """All that outlives a step.

    Attributes:
        params: of the network.
        statistics: running means and variances of its norms.
        optimiser: its moments.
    """

    params: PyTree
    statistics: PyTree
    optimiser: PyTree


@dataclass(frozen=True)
class FrontalRegression:
    """A network from an X-ray [n, rows, columns] in [0, 1] to a volume [n, z, x, y] in [0, 1].

    Attributes:
        name: of the method, for errors.
        loss: the paper's name of mean (f(x) - y)^2 over voxels.
        network: applied as network(image, train=...), with BatchNorm's statistics.
        optimiser: of its parameters.
        grid: of the volumes.
        camera: of the X-rays, meant to be frontal.
        window: HU range that becomes [0, 1].
    """

    name: str
    loss: str
    network: nn.Module
    optimiser: optax.GradientTransformation
    grid: Grid
    camera: Camera
    window: Window

    def init(self, key: Key) -> State:
        """Fresh parameters."""
        image = jax.ShapeDtypeStruct((1, *self.camera.shape), jnp.float32)
        variables = init_variables(self.network, key, image, train=False)
        params = variables["params"]
        return State(params, variables["batch_stats"], self.optimiser.init(params))

    def train_step(self, state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
        """One step on the squared error."""
        images, real = xrays(batch.hu, self.grid, self.camera), self.unit(batch.hu)
        apply: Any = partial(self.network.apply, train=True, mutable=["batch_stats"])

        def objective(params: PyTree) -> tuple[Array, PyTree]:
            fake, updated = apply({"params": params, "batch_stats": state.statistics}, images)
            return jnp.mean(jnp.square(fake - real)), updated["batch_stats"]

        (value, statistics), slope = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, moments = descend(self.optimiser, slope, state.optimiser, state.params)
        return State(params, statistics, moments), {self.loss: value}

    def eval_step(self, state: State, batch: VolumeBatch, key: Key) -> Terms:
        """psnr_db over the whole volume, values and range as the window, and the loss."""
        fake, real = (
            self.predict(state, xrays(batch.hu, self.grid, self.camera)),
            self.unit(batch.hu),
        )
        error = jnp.mean(jnp.square(jnp.clip(fake, 0.0, 1.0) - real), (1, 2, 3))
        psnr_db = jnp.mean(-10.0 * jnp.log10(error))
        return {"psnr_db": psnr_db, self.loss: jnp.mean(jnp.square(fake - real))}

    def hu(
        self,
        state: State,
        images: Sequence[Float[Array, "rows columns"]],
        cameras: Sequence[AnyCamera],
    ) -> Float[Array, "x y z"]:
        """The volume in HU from line integrals, of which the frontal X-ray is taken.

        Raises:
            InputError: none of them is it; see `nn.views.on_trained_pixels`.
        """
        seen = on_trained_pixels(images, cameras, [self.camera], self.name)[0]
        volume = to_world(self.predict(state, fixed_range(seen)[None]))[0]
        return self.window.to_hu(2.0 * jnp.clip(volume, 0.0, 1.0) - 1.0)

    def predict(self, state: State, images: Float[Array, "n r s"]) -> Float[Array, "n z x y"]:
        """The network with its running statistics."""
        variables = {"params": state.params, "batch_stats": state.statistics}
        return self.network.apply(variables, images, train=False)  # type: ignore[return-value]  # no tuple without mutable

    def unit(self, hu: Float[Array, "n x y z"]) -> Float[Array, "n z x y"]:
        """CT in [0, 1] over the window, in the X-ray's axes."""
        return (to_paper(self.window.to_unit(hu)) + 1.0) / 2.0


def xrays(
    hu: Float[Array, "n x y z"], grid: Grid, camera: Camera
) -> Float[Array, "n rows columns"]:
    """The X-rays of CTs, line integrals / 8 in [0, 1]."""

    def one(volume: Float[Array, "x y z"]) -> Float[Array, "rows columns"]:
        return drr.line_integrals(drr.hu_to_mu(volume), grid.affine, camera)

    return fixed_range(jax.vmap(one)(hu))


def to_paper(volume: Float[Array, "n x y z"]) -> Float[Array, "n z x y"]:
    """[x, y, z] -> [row, column, depth] of the frontal X-ray: -z, -x, and -y away from the beholder."""
    return jnp.flip(volume.transpose(0, 3, 1, 2), (1, 2, 3))


def to_world(volume: Float[Array, "n z x y"]) -> Float[Array, "n x y z"]:
    """The inverse of `to_paper`."""
    return jnp.flip(volume, (1, 2, 3)).transpose(0, 2, 3, 1)
