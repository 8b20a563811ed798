"""The 2DCNN baseline of X2CT-GAN's paper: a 2-D ResNet on one X-ray whose channels are read as depth.

| equation | function | settings |
|---|---|---|
| x -> f(x), output channel k is the coronal plane k | Network | width, blocks |
| L_mse = mean (f(x) - y)^2 over voxels, CT in [0, 1] | frontal_regression.train_step | - |
| Adam, gradient + weight_decay * parameters | build | learning_rate, betas, weight_decay |
| line integrals / 8 in [0, 1] | trained_views.fixed_range | - |

From the paper: ResNet, BatchNorm, an X-ray of twice the volume's size (256 for 128^3), as many output
channels as the volume is deep, squared error, weight decay 1e-4. Not verified, for want of its text and
code: the layers (here those of the 2-D ResNet generators of Johnson et al. 2016, one doubling less), the
optimiser and its rate. The X-ray is that of the problem's first camera, meant to be frontal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import optax
from jaxtyping import Array, Float

from jxrecon.methods.base.frontal_regression import Model, frontal_method, paper_shape
from jxrecon.methods.base.method import Method, Problem
from jxrecon.nn.blocks import Conv, batch_norm
from jxrecon.types import InputError


@dataclass(frozen=True)
class Settings:
    """Everything of 2DCNN that a user may set.

    Attributes:
        width: channels of the first layer; twice and four times as many after each halving.
        blocks: residual blocks at a quarter of the X-ray's size.
        learning_rate, betas: Adam's.
        weight_decay: factor of the parameters that is added to the gradient.
    """

    width: int = 64
    blocks: int = 9
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


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
    """

    shape: tuple[int, int, int]  # the volume's (rows, columns, depth)
    settings: Settings

    @nn.compact
    def __call__(self, x: Float[Array, "n r s"], train: bool) -> Float[Array, "n rows columns d"]:
        def layer(x: Array, features: int, taps: int = 3, **shape: Any) -> Array:
            return batch_norm(train)(Conv(features, taps, bias="none", **shape)(x))

        width = self.settings.width
        x = nn.relu(layer(x[..., None], width, 7))
        for factor in (2, 4):
            x = nn.relu(layer(x, factor * width, stride=2))
        for _ in range(self.settings.blocks):
            x = x + layer(nn.relu(layer(x, 4 * width)), 4 * width)
        x = nn.relu(layer(x, 2 * width, up=True))
        rows, columns, depth = self.shape
        if x.shape[1:3] != (rows, columns):
            x = jax.image.resize(x, (x.shape[0], rows, columns, x.shape[-1]), "linear")
        return Conv(depth, 7)(x)


def build(settings: Settings, problem: Problem) -> Method:
    """2DCNN for this problem.

    Raises:
        InputError: the X-ray's size is no multiple of 4.
    """
    pixels = problem.cameras[0].shape
    if any(n % 4 for n in pixels):
        raise InputError(f"cnn2d was given X-rays of {pixels} pixels, expected multiples of 4")
    network = Network(paper_shape(problem), settings)
    adam = optax.adam(settings.learning_rate, *settings.betas)
    # The L2 penalty of the usual PyTorch optimisers.
    optimiser = optax.chain(optax.add_decayed_weights(settings.weight_decay), adam)
    return frontal_method(Model("cnn2d", "L_mse", network, optimiser, problem))
