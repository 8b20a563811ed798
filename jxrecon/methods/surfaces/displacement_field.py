"""2-D/3-D registration by a displacement field (after Miura et al., 2022): one X-ray moves space itself.

| equation | function | settings |
|---|---|---|
| CNN on (X-ray, silhouette of the reference) | nn.perceptual_pooling.Encoder | width |
| u on a grid, each node with the features where it is seen | Network | nodes, extent_mm, hidden, layers |
| v^ = v + u(v), trilinear | trilinear | |
| L_pos, mm^2 | surface_regression.mean_square | |
| L_smooth = mean \\|difference of neighbouring nodes\\|^2, mm^2 | roughness | smooth_weight |
| Adam | surface_regression.adam | learning_rate, decay_steps |

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
    STEP_MM,
    SurfaceRegression,
    adam,
    at_rest,
    check_view,
    coordinates,
    mean_square,
    run,
    standardised,
    summed,
)
from jxrecon.nn.blocks import Conv, init_variables
from jxrecon.nn.perceptual_pooling import STAGES, Encoder, pool
from jxrecon.nn.splatting import splatter
from jxrecon.types import InputError, Key, PyTree, SurfaceBatch, Terms


@dataclass(frozen=True)
class Settings:
    """Everything of the displacement field that a user may set.

    Attributes:
        width: channels of the encoder's first stage.
        stages: convolutions of the encoder at each size; VGG-16's.
        nodes: of the grid along each axis.
        extent_mm: from its first node to its last; vertices beyond move with its border.
        hidden: channels of the 3-D convolutions.
        layers: how many of them, 3x3x3, before the linear one.
        smooth_weight: of L_smooth.
        learning_rate: of Adam.
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
    """Image channels and nodes -> displacement of the nodes in units of 10 mm; zero at first.

    Attributes:
        width: of the encoder.
        stages: of the encoder.
        hidden: of the 3-D convolutions.
        layers: of them.
    """

    width: int
    stages: tuple[int, ...]
    hidden: int
    layers: int

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b r c 2"],
        place: Float[Array, "b p 2"],
        nodes: Float[Array, "b n n n 3"],
    ) -> Float[Array, "b n n n 3"]:
        levels = Encoder(self.width, self.stages, name="encoder")(image)
        features = pool(levels[1:], place, image.shape[1:3])
        x = jnp.concatenate([features.reshape(*nodes.shape[:4], -1), nodes], axis=-1)
        x = nn.relu(Conv(self.hidden, 1, name="enter")(x))
        for layer in range(self.layers):
            x = x + nn.relu(Conv(self.hidden, name=f"layer_{layer}")(x))
        return Conv(3, 1, name="head")(x)


class Found(NamedTuple):
    """What the network gives.

    Attributes:
        vertices: world mm.
        field: displacement of the nodes in mm.
    """

    vertices: Float[Array, "b v 3"]
    field: Float[Array, "b n n n 3"]


def trilinear(field: Float[Array, "n n n c"], place: Float[Array, "v 3"]) -> Float[Array, "v c"]:
    """The field between its nodes, at places counted in nodes; the border's value beyond."""

    def one(channel: Float[Array, "n n n"]) -> Float[Array, " v"]:
        return jax.scipy.ndimage.map_coordinates(channel, list(place.T), 1, "nearest")

    return jnp.stack([one(field[..., c]) for c in range(field.shape[-1])], axis=-1)


def roughness(field: Float[Array, "b n n n 3"]) -> Float[Array, ""]:
    """[L_smooth] mean over neighbouring nodes of |u(a) - u(b)|^2, then over the three axes."""
    steps = [mean_square(jnp.diff(field, axis=axis)) for axis in (1, 2, 3)]
    return sum(steps, jnp.zeros((), field.dtype)) / 3.0


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """The displacement field for this problem.

    Raises:
        InputError: the X-ray cannot be halved between all stages, the camera misses the organ, or
            the grid has fewer than two nodes along an axis.
    """
    template, camera, n = problem.template, problem.camera, settings.nodes
    check_view("displacement_field", template, camera, 2 ** (len(settings.stages) - 1))
    if n < 2 or not settings.extent_mm > 0:
        raise InputError(
            f"displacement_field has {n} nodes over {settings.extent_mm} mm, expected at least 2 over"
            f" a positive length"
        )
    network = Network(settings.width, settings.stages, settings.hidden, settings.layers)
    points, pitch_mm = splatter(template, camera), settings.extent_mm / (n - 1)
    axis = (jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2) * pitch_mm
    offsets = jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)

    def start(key: Key) -> PyTree:
        image = jax.ShapeDtypeStruct((1, *camera.shape, 2), jnp.float32)
        place = jax.ShapeDtypeStruct((1, n**3, 2), jnp.float32)
        nodes = jax.ShapeDtypeStruct((1, n, n, n, 3), jnp.float32)
        return at_rest(init_variables(network, key, image, place, nodes)["params"], "head")

    def predict(
        params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
    ) -> Found:
        silhouette = points.silhouette(reference).astype(image.dtype)
        channels = jnp.stack([standardised(image), silhouette], axis=-1)
        centre = jnp.mean(reference, axis=1)
        nodes = centre[:, None, None, None] + offsets[None]
        place = camera.place_of(nodes.reshape(len(nodes), -1, 3))
        given = run(network, params, channels, place, coordinates(nodes))
        field = STEP_MM * given
        within = (reference - centre[:, None]) / pitch_mm + (n - 1) / 2
        return Found(reference + jax.vmap(trilinear)(field, within), field)

    def loss(found: Found, batch: SurfaceBatch) -> tuple[Float[Array, ""], Terms]:
        """L_pos + lambda_smooth L_smooth."""
        terms = {
            "L_pos": mean_square(found.vertices - batch.target),
            "L_smooth": settings.smooth_weight * roughness(found.field),
        }
        return summed(terms)

    optimiser = adam(settings.learning_rate, settings.decay_steps)
    return SurfaceMethod(*SurfaceRegression(start, predict, loss, optimiser).functions)
