"""The 2DCNN baseline of X2CT-GAN's paper: a 2-D ResNet on one X-ray whose channels are read as depth.

| equation | function | settings |
|---|---|---|
| x -> f(x), output channel k is the coronal plane k | Network | width, blocks |
| L_mse = mean (f(x) - y)^2 over voxels, CT in [0, 1] | loss | - |
| Adam, gradient + weight_decay * parameters | optimiser | learning_rate, betas, weight_decay |
| X-ray of a CT, line integrals / 8 in [0, 1] | xrays | - |

From the paper: ResNet, BatchNorm, an X-ray of twice the volume's size (256 for 128^3), as many output
channels as the volume is deep, squared error, weight decay 1e-4. Not verified, for want of its text and
code: the layers (here those of the 2-D ResNet generators of Johnson et al. 2016, one doubling less), the
optimiser and its rate. The X-ray is that of the problem's first camera, meant to be frontal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.geometry import AnyCamera
from jxrecon.methods.base import Method, Problem, Progress, Reconstruction
from jxrecon.nn.blocks import Conv, batch_norm, init_variables
from jxrecon.nn.optimise import descend
from jxrecon.nn.views import fixed_range, on_trained_pixels
from jxrecon.types import InputError, Key, PyTree, Terms, VolumeBatch


@dataclass(frozen=True)
class Settings:
    """Everything of 2DCNN that a user may set.

    Attributes:
        width: channels of the first layer; twice and four times as many after each halving.
        blocks: residual blocks at a quarter of the X-ray's size.
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: added to the gradient, times the parameters.
    """

    width: int = 64
    blocks: int = 9
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


class State(struct.PyTreeNode):
    """All that outlives a step.

    Attributes:
        params: of the network.
        statistics: running means and variances of its norms.
        optimiser: Adam's.
    """

    params: PyTree
    statistics: PyTree
    optimiser: PyTree


class Network(nn.Module):
    """7x7 stem, two halvings, residual blocks, one doubling, 7x7 head: all but the head with BatchNorm.

    | layer | channels | size from 256 |
    |---|---|---|
    | conv 7 | width | 256 |
    | conv 3, stride 2, twice | 2 width, 4 width | 128, 64 |
    | blocks x (x + conv 3, conv 3) | 4 width | 64 |
    | conv 3 transposed, stride 2 | 2 width | 128 |
    | linear resampling to the volume's (z, x), if that is another size | 2 width | 128 |
    | conv 7 | depth | 128 |

    Attributes:
        shape: of the volume (rows, columns, depth).
        width: channels of the stem.
        blocks: residual ones.
    """

    shape: tuple[int, int, int]
    width: int
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "n r s"], train: bool) -> Float[Array, "n rows columns d"]:
        def layer(
            x: Array, features: int, taps: int = 3, stride: int = 1, up: bool = False
        ) -> Array:
            return batch_norm(train)(Conv(features, taps, stride, bias=False, up=up)(x))

        x = nn.relu(layer(x[..., None], self.width, 7))
        for factor in (2, 4):
            x = nn.relu(layer(x, factor * self.width, stride=2))
        for _ in range(self.blocks):
            x = x + layer(nn.relu(layer(x, 4 * self.width)), 4 * self.width)
        x = nn.relu(layer(x, 2 * self.width, up=True))
        rows, columns, depth = self.shape
        if x.shape[1:3] != (rows, columns):
            x = jax.image.resize(x, (x.shape[0], rows, columns, x.shape[-1]), "linear")
        return Conv(depth, 7)(x)


def to_paper(volume: Float[Array, "n x y z"]) -> Float[Array, "n z x y"]:
    """[x, y, z] -> [row, column, depth] of the frontal X-ray: -z, -x, and -y away from the beholder."""
    return jnp.flip(volume.transpose(0, 3, 1, 2), (1, 2, 3))


def to_world(volume: Float[Array, "n z x y"]) -> Float[Array, "n x y z"]:
    """The inverse of `to_paper`."""
    return jnp.flip(volume, (1, 2, 3)).transpose(0, 2, 3, 1)


def xrays(problem: Problem, hu: Float[Array, "n x y z"]) -> Float[Array, "n r s"]:
    """The X-rays of CTs by the problem's first camera, line integrals / 8."""

    def one(volume: Float[Array, "x y z"]) -> Float[Array, "r s"]:
        mu = drr.hu_to_mu(volume)
        return drr.project(mu, problem.grid.affine, problem.cameras[:1])[0]

    return fixed_range(jax.vmap(one)(hu))


def loss(fake: Float[Array, "n *v"], real: Float[Array, "n *v"]) -> Float[Array, ""]:
    """[2DCNN L_mse] mean (f(x) - y)^2 over voxels."""
    return jnp.mean(jnp.square(fake - real))


def optimiser(settings: Settings) -> optax.GradientTransformation:
    """Adam on gradient + weight_decay * parameters: the L2 penalty of the usual PyTorch optimisers."""
    return optax.chain(
        optax.add_decayed_weights(settings.weight_decay),
        optax.adam(settings.learning_rate, *settings.betas),
    )


def build(settings: Settings, problem: Problem) -> Method:
    """2DCNN for this problem.

    Raises:
        InputError: the X-ray's size is no multiple of 4.
    """
    pixels = problem.cameras[0].shape
    if any(n % 4 for n in pixels):
        raise InputError(f"cnn2d was given X-rays of {pixels} pixels, expected multiples of 4")
    nx, ny, nz = problem.grid.shape
    network = Network((nz, nx, ny), settings.width, settings.blocks)
    adam, window = optimiser(settings), problem.window

    def unit(hu: Float[Array, "n x y z"]) -> Float[Array, "n z x y"]:
        return (to_paper(window.to_unit(hu)) + 1.0) / 2.0

    def init(key: Key) -> State:
        image = jax.ShapeDtypeStruct((1, *pixels), jnp.float32)
        variables = init_variables(network, key, image, train=False)
        params = variables["params"]
        return State(params, variables["batch_stats"], adam.init(params))

    def train_step(state: State, batch: VolumeBatch, key: Key) -> tuple[State, Terms]:
        images, real = xrays(problem, batch.hu), unit(batch.hu)

        def objective(params: PyTree) -> tuple[Array, PyTree]:
            variables = {"params": params, "batch_stats": state.statistics}
            fake, updated = network.apply(variables, images, train=True, mutable=["batch_stats"])
            return loss(fake, real), updated["batch_stats"]

        (value, statistics), slope = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, moments = descend(adam, slope, state.optimiser, state.params)
        return State(params, statistics, moments), {"L_mse": value}

    def predict(state: State, images: Float[Array, "n r s"]) -> Float[Array, "n z x y"]:
        variables = {"params": state.params, "batch_stats": state.statistics}
        return network.apply(variables, images, train=False)  # type: ignore[return-value]  # no tuple without mutable

    def eval_step(state: State, batch: VolumeBatch, key: Key) -> Terms:
        fake, real = predict(state, xrays(problem, batch.hu)), unit(batch.hu)
        error = jnp.mean(jnp.square(jnp.clip(fake, 0.0, 1.0) - real), (1, 2, 3))
        return {"psnr_db": jnp.mean(-10.0 * jnp.log10(error)), "L_mse": loss(fake, real)}

    def reconstruct(
        state: State,
        images: Sequence[Float[Array, "rows columns"]],
        cameras: Sequence[AnyCamera],
        key: Key,
        progress: Progress | None = None,
    ) -> Reconstruction:
        seen = on_trained_pixels(images, cameras, problem.cameras[:1], "cnn2d")[0]
        volume = to_world(predict(state, fixed_range(seen)[None]))[0]
        return Reconstruction(window.to_hu(2.0 * jnp.clip(volume, 0.0, 1.0) - 1.0), {})

    return Method(init, train_step, eval_step, reconstruct)
