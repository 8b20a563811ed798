"""Single-image tomography after Henzler et al. (Eurographics 2018): a 2-D encoder, a 3-D decoder, skips.

| equation | function | settings |
|---|---|---|
| x -> f(x), encoder-decoder with skips | Network | channels |
| residual learning: x + F(x) | Residual | blocks |
| L_2 = mean (f(x) - y)^2 over voxels, CT in [0, 1] | loss | - |
| Adam | build | learning_rate, betas |
| X-ray of a CT, line integrals / 8 in [0, 1] | xrays | - |

From what is published about it: an encoder from one X-ray to a code, a decoder to a coarse volume of fixed
size, skip connections, residual learning, squared error. Not verified, for want of the full text and code:
channels, number of blocks, norm, how a 2-D feature enters the 3-D decoder (here: reduced by a 1x1
convolution and repeated along the depth), the optimiser's figures. Left out: the paper's second step, which
fuses the coarse volume with the X-ray into a finer one; the problem's grid is the coarse volume. The X-ray
is that of the problem's first camera, meant to be frontal.
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
    """Everything of single-image tomography that a user may set.

    Attributes:
        channels: of the encoder, from the X-ray's size on, each level half the size of the one before; the
            decoder has a quarter of them, at least 4, a level.
        blocks: residual blocks a level, of encoder and decoder each.
        learning_rate: of Adam.
        betas: of Adam.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    blocks: int = 1
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)


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


class Residual(nn.Module):
    """x + F(x), F twice a norm, ReLU and a convolution of 3 taps: of images and of volumes."""

    @nn.compact
    def __call__(self, x: Float[Array, "n *space c"], train: bool) -> Float[Array, "n *space c"]:
        y = x
        for _ in range(2):
            y = Conv(x.shape[-1], bias=False)(nn.relu(batch_norm(train)(y)))
        return x + y


class Network(nn.Module):
    """Image [n, r, s] -> volume [n, rows, columns, depth].

    Encoder, level i at size / 2^i: convolution (of stride 2 for i > 0), residual blocks. The last level's
    channels become channels times depth by a 1x1 convolution. Decoder, from the last level up: the size
    doubled along all three axes, plus the encoder's features of that level, reduced and repeated along the
    depth, residual blocks. A 3^3 convolution ends it; another shape than the X-ray's is reached by
    trilinear resampling.

    Attributes:
        shape: of the volume (rows, columns, depth).
        channels: of the encoder's levels.
        blocks: residual ones a level.
    """

    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "n r s"], train: bool) -> Float[Array, "n rows columns d"]:
        x, skips = x[..., None], []
        for i, features in enumerate(self.channels):
            x = Conv(features, 3 if i else 7, 2 if i else 1, bias=False, name=f"down_{i}")(x)
            for _ in range(self.blocks):
                x = Residual()(x, train)
            skips.append(x)
        narrow = [max(4, features // 4) for features in self.channels]
        depth = x.shape[1]
        x = Conv(narrow[-1] * depth, 1, name="code")(x)
        x = x.reshape(*x.shape[:3], depth, narrow[-1])
        for i in reversed(range(len(narrow))):
            if i < len(narrow) - 1:
                x = Conv(narrow[i], up=True, name=f"up_{i}")(nn.relu(batch_norm(train)(x)))
                skip = Conv(narrow[i], 1, name=f"skip_{i}")(nn.relu(batch_norm(train)(skips[i])))
                x = x + jnp.broadcast_to(skip[..., None, :], x.shape)
            for _ in range(self.blocks):
                x = Residual()(x, train)
        x = Conv(1, name="head")(nn.relu(batch_norm(train)(x)))[..., 0]
        if x.shape[1:] != self.shape:
            x = jax.image.resize(x, (x.shape[0], *self.shape), "linear")
        return x


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
    """[Henzler L_2] mean (f(x) - y)^2 over voxels."""
    return jnp.mean(jnp.square(fake - real))


def build(settings: Settings, problem: Problem) -> Method:
    """Single-image tomography for this problem.

    Raises:
        InputError: the X-ray is not square, or its size cannot be halved as often as there are levels.
    """
    pixels, factor = problem.cameras[0].shape, 2 ** (len(settings.channels) - 1)
    if pixels[0] != pixels[1] or pixels[0] % factor:
        raise InputError(
            f"henzler was given X-rays of {pixels} pixels, expected as many rows as columns, a multiple of"
            f" {factor} for its {len(settings.channels)} levels"
        )
    nx, ny, nz = problem.grid.shape
    network = Network((nz, nx, ny), settings.channels, settings.blocks)
    adam, window = optax.adam(settings.learning_rate, *settings.betas), problem.window

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
        return State(params, statistics, moments), {"L_2": value}

    def predict(state: State, images: Float[Array, "n r s"]) -> Float[Array, "n z x y"]:
        variables = {"params": state.params, "batch_stats": state.statistics}
        return network.apply(variables, images, train=False)  # type: ignore[return-value]  # no tuple without mutable

    def eval_step(state: State, batch: VolumeBatch, key: Key) -> Terms:
        fake, real = predict(state, xrays(problem, batch.hu)), unit(batch.hu)
        error = jnp.mean(jnp.square(jnp.clip(fake, 0.0, 1.0) - real), (1, 2, 3))
        return {"psnr_db": jnp.mean(-10.0 * jnp.log10(error)), "L_2": loss(fake, real)}

    def reconstruct(
        state: State,
        images: Sequence[Float[Array, "rows columns"]],
        cameras: Sequence[AnyCamera],
        key: Key,
        progress: Progress | None = None,
    ) -> Reconstruction:
        seen = on_trained_pixels(images, cameras, problem.cameras[:1], "henzler")[0]
        volume = to_world(predict(state, fixed_range(seen)[None]))[0]
        return Reconstruction(window.to_hu(2.0 * jnp.clip(volume, 0.0, 1.0) - 1.0), {})

    return Method(init, train_step, eval_step, reconstruct)
