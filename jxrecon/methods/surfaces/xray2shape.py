"""X-ray2Shape (Tong et al., EMBC 2020): an organ's surface from one X-ray and the mean shape.

| equation | function | settings |
|---|---|---|
| CNN, global and local features | nn.perceptual_pooling.Encoder | width |
| v^ = mean + GCN(features, mean) | Network | hidden, pairs |
| L_pos, L_laplacian, both in mm^2 | surface_regression.mean_square | laplacian_weight |
| Adam | surface_regression.surface_method | learning_rate, decay_steps |

It starts from the template, the mean of the training references, and never sees the patient's reference.
Differs from the paper, whose text we could not read beyond its abstract: the encoder and the graph network
are those of IGCN, the weight of L_laplacian is IGCN's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.mesh.aggregation import Aggregate, Neighbours, normalised
from jxrecon.mesh.laplacian import Laplacian, uniform_laplacian
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
from jxrecon.nn.blocks import apply
from jxrecon.nn.graph import GraphNetwork
from jxrecon.nn.perceptual_pooling import STAGES, Encoder, pool
from jxrecon.types import PyTree, SurfaceBatch, Terms


@dataclass(frozen=True)
class Settings:
    """Everything of X-ray2Shape that a user may set.

    Attributes:
        width: channels of the encoder's first stage.
        stages: convolutions of the encoder at each size; VGG-16's.
        hidden: channels of the graph convolutions, and of the global feature.
        pairs: residual ones.
        laplacian_weight: factor of L_laplacian.
        learning_rate: Adam's.
        decay_steps: steps on which the rate falls to 0, along half a cosine; 0: it stays.
    """

    width: int = 16
    stages: tuple[int, ...] = STAGES
    hidden: int = 64
    pairs: int = 4
    laplacian_weight: float = 1.0
    learning_rate: float = 1e-3
    decay_steps: int = 0


class Network(nn.Module):
    """Image and mean shape -> displacement of its vertices in units of 10 mm; zero at first.

    The global feature is the mean of the last stage over the image, brought to `hidden` channels, the same
    at every vertex; the local ones are those of stages 1 to 4 where the mean shape's vertices are seen.
    """

    settings: Settings

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b r c 1"],
        place: Float[Array, "b v 2"],
        vertices: Float[Array, "b v 3"],
        aggregate: Aggregate,
    ) -> Float[Array, "b v 3"]:
        hidden = self.settings.hidden
        levels = Encoder(self.settings.width, self.settings.stages, name="encoder")(image)
        whole = nn.relu(nn.Dense(hidden, name="whole")(jnp.mean(levels[-1], (1, 2))))
        whole = jnp.broadcast_to(whole[:, None], (*vertices.shape[:2], hidden))
        local = pool(levels[1:], place, image.shape[1:3])
        x = jnp.concatenate([whole, local, vertices], axis=-1)
        return GraphNetwork(hidden, self.settings.pairs, 3, name="graph")(x, aggregate)[0]


class Model(NamedTuple):
    """What the functions below share: no parameters, only definitions."""

    settings: Settings
    problem: SurfaceProblem
    network: Network
    aggregate: Neighbours
    laplacian: Laplacian


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """X-ray2Shape for this problem.

    Raises:
        InputError: the X-ray cannot be halved between all stages, or the camera misses the organ.
    """
    check_view("xray2shape", problem, 2 ** (len(settings.stages) - 1))
    template, mean = problem.template, normalised(problem.template)
    model = Model(settings, problem, Network(settings), mean, uniform_laplacian(template))
    return surface_method(model, predict, loss, (*examples(problem), mean), {"graph/head": 0.0})


def predict(
    model: Model, params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
) -> tuple[Float[Array, "b v 3"]]:
    """The mean shape, moved, in mm; of the reference only the batch's size matters."""
    mean = jnp.asarray(model.problem.template.vertices)
    vertices = jnp.broadcast_to(mean[None], reference.shape)
    image, place = standardised(image)[..., None], model.problem.camera.place_of(vertices)
    moved = apply(model.network, params, image, place, vertices / LENGTH_MM, model.aggregate)
    return (vertices + STEP_MM * moved,)


def loss(model: Model, found: tuple[Array], batch: SurfaceBatch) -> Terms:
    """L_pos + lambda_laplacian L_laplacian."""
    away = found[0] - batch.target
    return {
        "L_pos": mean_square(away),
        "L_laplacian": model.settings.laplacian_weight * mean_square(model.laplacian(away)),
    }
