"""2-D/3-D registration by a displacement field (after Miura et al., 2022): one X-ray moves space itself.

| equation | function | settings |
|---|---|---|
| CNN on (X-ray, silhouette of the reference) | nn.perceptual_pooling.Encoder | width |
| u on a grid, each node with the features where it is seen | Network | nodes, extent_mm, hidden, layers |
| v^ = v + u(v), trilinear | trilinear | |
| L_pos, mm^2 | surface_regression.mean_square | |
| L_smooth = mean \\|difference of neighbouring nodes\\|^2, mm^2 | roughness | smooth_weight |
| Adam | surface_regression.surface_method | learning_rate, decay_steps |

The grid is a cube about the reference's centroid, along the world's axes. Differs from the paper, of which we
could read the abstract alone: the 2-D features come into the volume along the problem's own rays, the
network sees the reference as a silhouette, and L_smooth stands for its regularisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import (
    LENGTH_MM,
    STEP_MM,
    check_view,
    examples,
    mean_square,
    standardised,
    surface_method,
)
from jxrecon.nn.blocks import Conv, apply
from jxrecon.nn.perceptual_pooling import STAGES, Encoder, pool
from jxrecon.nn.splatting import Splatter, splatter
from jxrecon.types import InputError, PyTree, SurfaceBatch, Terms


@dataclass(frozen=True)
class Settings:
    """Everything of the displacement field that a user may set.

    Attributes:
        width: channels of the encoder's first stage.
        stages: convolutions of the encoder at each size; VGG-16's.
        nodes: number of nodes along each axis of the grid.
        extent_mm: from its first node to its last; vertices beyond move with its border.
        hidden: channels of the 3-D convolutions.
        layers: how many of them, 3x3x3, before the linear one.
        smooth_weight: factor of L_smooth.
        learning_rate: Adam's.
        decay_steps: steps on which the rate falls to 0, along half a cosine; 0: it stays.
    """

    width: int = 16
    stages: tuple[int, ...] = STAGES
    nodes: int = 10
    extent_mm: float = 300.0
    hidden: int = 32
    layers: int = 3
    smooth_weight: float = 0.1
    learning_rate: float = 1e-3
    decay_steps: int = 0


class Network(nn.Module):
    """Image channels and nodes -> displacement of the nodes in units of 10 mm; zero at first."""

    settings: Settings

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b r c 2"],
        place: Float[Array, "b p 2"],
        nodes: Float[Array, "b n n n 3"],
    ) -> Float[Array, "b n n n 3"]:
        hidden = self.settings.hidden
        levels = Encoder(self.settings.width, self.settings.stages, name="encoder")(image)
        features = pool(levels[1:], place, image.shape[1:3])
        x = jnp.concatenate([features.reshape(*nodes.shape[:4], -1), nodes], axis=-1)
        x = nn.relu(Conv(hidden, 1, name="enter")(x))
        for layer in range(self.settings.layers):
            x = x + nn.relu(Conv(hidden, name=f"layer_{layer}")(x))
        return Conv(3, 1, name="head")(x)


def trilinear(field: Float[Array, "n n n c"], place: Float[Array, "v 3"]) -> Float[Array, "v c"]:
    """The field between its nodes, at places counted in nodes; the border's value beyond."""

    def one(channel: Float[Array, "n n n"]) -> Float[Array, " v"]:
        return jax.scipy.ndimage.map_coordinates(channel, list(place.T), 1, "nearest")

    return jnp.stack([one(field[..., c]) for c in range(field.shape[-1])], axis=-1)


def roughness(field: Float[Array, "b n n n 3"]) -> Float[Array, ""]:
    """[L_smooth] mean over neighbouring nodes of |u(a) - u(b)|^2, then over the three axes."""
    steps = [mean_square(jnp.diff(field, axis=axis)) for axis in (1, 2, 3)]
    return sum(steps, jnp.zeros((), field.dtype)) / 3.0


class Model(NamedTuple):
    """What the functions below share: no parameters, only definitions."""

    settings: Settings
    problem: SurfaceProblem
    network: Network
    splatter: Splatter
    offsets: Float[Array, "n n n 3"]  # of the nodes from the reference's centroid, mm


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """The displacement field for this problem.

    Raises:
        InputError: the X-ray cannot be halved between all stages, the camera misses the organ, or
            the grid has fewer than two nodes along an axis.
    """
    check_view("displacement_field", problem, 2 ** (len(settings.stages) - 1))
    if settings.nodes < 2 or not settings.extent_mm > 0:
        raise InputError(
            f"displacement_field has {settings.nodes} nodes over {settings.extent_mm} mm, expected at"
            f" least 2 over a positive length"
        )
    n, (image, *_) = settings.nodes, examples(problem, 2)
    axis = (jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2) * (settings.extent_mm / (n - 1))
    offsets = jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    points = splatter(problem.template, problem.camera)
    place = jax.ShapeDtypeStruct((1, n**3, 2), jnp.float32)
    nodes = jax.ShapeDtypeStruct((1, n, n, n, 3), jnp.float32)
    model = Model(settings, problem, Network(settings), points, offsets)
    return surface_method(model, predict, loss, (image, place, nodes), {"head": 0.0})


def predict(
    model: Model, params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
) -> tuple[Float[Array, "b v 3"], Float[Array, "b n n n 3"]]:
    """The vertices, and the displacement of the nodes about the reference, both in mm."""
    silhouette = model.splatter.silhouette(reference).astype(image.dtype)
    channels = jnp.stack([standardised(image), silhouette], axis=-1)
    centre = jnp.mean(reference, axis=1)
    nodes = centre[:, None, None, None] + model.offsets[None]
    place = model.problem.camera.place_of(nodes.reshape(len(nodes), -1, 3))
    field = STEP_MM * apply(model.network, params, channels, place, nodes / LENGTH_MM)
    n, extent_mm = model.settings.nodes, model.settings.extent_mm
    within = (reference - centre[:, None]) / (extent_mm / (n - 1)) + (n - 1) / 2
    return reference + jax.vmap(trilinear)(field, within), field


def loss(model: Model, found: tuple[Array, Array], batch: SurfaceBatch) -> Terms:
    """L_pos + lambda_smooth L_smooth."""
    vertices, field = found
    return {
        "L_pos": mean_square(vertices - batch.target),
        "L_smooth": model.settings.smooth_weight * roughness(field),
    }
