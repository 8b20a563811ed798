"""X-ray2Shape (Tong et al., EMBC 2020): an organ's surface from one X-ray and the mean shape.

| equation | function | settings |
|---|---|---|
| CNN, global and local features | nn.perceptual_pooling.Encoder | width |
| v^ = mean + GCN(features, mean) | Network | hidden, pairs |
| L_pos, L_laplacian, both in mm^2 | surface_regression.mean_square | laplacian_weight |
| Adam | surface_regression.adam | learning_rate, decay_steps |

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

from jxrecon.mesh.laplacian import uniform_laplacian
from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import (
    STEP_MM,
    SurfaceRegression,
    adam,
    at_rest,
    check_view,
    coordinates,
    examples,
    mean_square,
    run,
    standardised,
    summed,
)
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.graph import Aggregate, normalised
from jxrecon.nn.graph_network import GraphNetwork
from jxrecon.nn.perceptual_pooling import STAGES, Encoder, pool
from jxrecon.types import Key, PyTree, SurfaceBatch, Terms


@dataclass(frozen=True)
class Settings:
    """Everything of X-ray2Shape that a user may set.

    Attributes:
        width: channels of the encoder's first stage.
        stages: convolutions of the encoder at each size; VGG-16's.
        hidden: channels of the graph convolutions, and of the global feature.
        pairs: residual ones.
        laplacian_weight: of L_laplacian.
        learning_rate: of Adam.
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

    width: int
    stages: tuple[int, ...]
    hidden: int
    pairs: int

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b r c"],
        place: Float[Array, "b v 2"],
        vertices: Float[Array, "b v 3"],
        aggregate: Aggregate,
    ) -> Float[Array, "b v 3"]:
        levels = Encoder(self.width, self.stages, name="encoder")(image[..., None])
        whole = nn.relu(nn.Dense(self.hidden, name="whole")(jnp.mean(levels[-1], (1, 2))))
        whole = jnp.broadcast_to(whole[:, None], (*vertices.shape[:2], self.hidden))
        local = pool(levels[1:], place, image.shape[1:])
        x = jnp.concatenate([whole, local, vertices], axis=-1)
        return GraphNetwork(self.hidden, self.pairs, 3, name="graph")(x, aggregate)[0]


class Found(NamedTuple):
    """Attributes: vertices: world mm."""

    vertices: Float[Array, "b v 3"]


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """X-ray2Shape for this problem.

    Raises:
        InputError: the X-ray cannot be halved between all stages, or the camera misses the organ.
    """
    template, camera = problem.template, problem.camera
    check_view("xray2shape", template, camera, 2 ** (len(settings.stages) - 1))
    network = Network(settings.width, settings.stages, settings.hidden, settings.pairs)
    mean, operator = normalised(template), uniform_laplacian(template)

    def start(key: Key) -> PyTree:
        variables = init_variables(network, key, *examples(template, camera), mean)
        return at_rest(variables["params"], "head")

    def predict(
        params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
    ) -> Found:
        vertices = jnp.broadcast_to(jnp.asarray(template.vertices)[None], reference.shape)
        moved = run(
            network,
            params,
            standardised(image),
            camera.place_of(vertices),
            coordinates(vertices),
            mean,
        )
        return Found(vertices + STEP_MM * moved)

    def loss(found: Found, batch: SurfaceBatch) -> tuple[Float[Array, ""], Terms]:
        """L_pos + lambda_laplacian L_laplacian."""
        away = found.vertices - batch.target
        terms = {
            "L_pos": mean_square(away),
            "L_laplacian": settings.laplacian_weight * mean_square(operator(away)),
        }
        return summed(terms)

    optimiser = adam(settings.learning_rate, settings.decay_steps)
    return SurfaceMethod(*SurfaceRegression(start, predict, loss, optimiser).functions)
