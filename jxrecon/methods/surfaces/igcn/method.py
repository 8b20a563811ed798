"""IGCN (Nakao et al., MICCAI 2021) as a SurfaceMethod.

| equation | function | settings |
|---|---|---|
| image branch, M | networks.Encoder, networks.MapHead | width, stages, silhouette |
| v^ = v + GCN(features, M, v) | networks.Igcn | hidden, pairs |
| L_pos | losses.position | |
| L_map | losses.mapping | map_weight |
| L_laplacian | losses.laplacian | laplacian_weight, laplacian |
| Adam | surface_regression.adam | learning_rate, decay_steps |

All three terms are in mm^2; L_map's millimetres lie on the detector, magnified. Coordinates enter the network
in units of 100 mm, displacements leave it in units of 10 mm; both heads start at zero, so that an untrained
IGCN gives the reference.

Differs from the paper where its text leaves things open: M is a map of displacements at a quarter of the
image's size, and what it says at a vertex joins the vertex's features; the encoder has norms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jxrecon.mesh import Template
from jxrecon.mesh.laplacian import cotangent_laplacian, uniform_laplacian
from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import (
    STEP_MM,
    SurfaceRegression,
    adam,
    at_rest,
    check_view,
    coordinates,
    examples,
    pitch_mm,
    run,
    standardised,
    summed,
)
from jxrecon.methods.surfaces.igcn import losses
from jxrecon.methods.surfaces.igcn.networks import Igcn
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.graph import mean_graph, normalised, segment_sum
from jxrecon.nn.perceptual_pooling import STAGES
from jxrecon.nn.splatting import splatter
from jxrecon.types import InputError, Key, PyTree, SurfaceBatch, Terms

LAPLACIANS = {"uniform": uniform_laplacian, "cotangent": cotangent_laplacian}

AGGREGATIONS: dict[str, Callable[[Template], Any]] = {
    "table": normalised,
    "jraph": lambda template: Partial(segment_sum(mean_graph(template))),
}
"""D^-1 (A + I) X: by the neighbour table, or by jraph's message passing, the reference: equal, slower."""


@dataclass(frozen=True)
class Settings:
    """Everything of IGCN that a user may set.

    Attributes:
        width: channels of the encoder's first stage; 64 is VGG-16.
        stages: convolutions of the encoder at each size; VGG-16's.
        hidden: channels of the graph convolutions.
        pairs: residual ones.
        aggregation: "table" or "jraph", see `AGGREGATIONS`.
        silhouette: whether the image branch also sees the reference's silhouette, as IGCN+ does. Without
            it M cannot know whose vertex was where.
        map_weight: of L_map.
        laplacian_weight: of L_laplacian.
        laplacian: "uniform" or "cotangent", the latter of the problem's template.
        learning_rate: of Adam.
        decay_steps: steps on which the rate falls to 0, along half a cosine; 0: it stays.
    """

    width: int = 16
    stages: tuple[int, ...] = STAGES
    hidden: int = 64
    pairs: int = 4
    aggregation: str = "table"
    silhouette: bool = False
    map_weight: float = 10.0
    laplacian_weight: float = 1.0
    laplacian: str = "uniform"
    learning_rate: float = 1e-3
    decay_steps: int = 0


class Found(NamedTuple):
    """What the network gives.

    Attributes:
        vertices: world mm.
        mapped: M(p), [row, column] in mm on the detector.
    """

    vertices: Float[Array, "b v 3"]
    mapped: Float[Array, "b v 2"]


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """IGCN for this problem.

    Raises:
        InputError: the X-ray cannot be halved between all stages, the camera misses the organ, or a
            setting has no such value.
    """
    template, camera = problem.template, problem.camera
    check_view("igcn", template, camera, 2 ** (len(settings.stages) - 1))
    for name, value, known in (
        ("laplacian", settings.laplacian, LAPLACIANS),
        ("aggregation", settings.aggregation, AGGREGATIONS),
    ):
        if value not in known:
            raise InputError(f"igcn {name} is {value!r}, expected one of {', '.join(known)}")
    operator = LAPLACIANS[settings.laplacian](template)
    network = Igcn(settings.width, settings.stages, settings.hidden, settings.pairs)
    mean, pitch = AGGREGATIONS[settings.aggregation](template), pitch_mm(camera)[None, None]
    points = splatter(template, camera)

    def start(key: Key) -> PyTree:
        _, place, vertices = examples(template, camera)
        image = jax.ShapeDtypeStruct((1, *camera.shape, 1 + settings.silhouette), jnp.float32)
        variables = init_variables(network, key, image, place, vertices, mean)
        return at_rest(variables["params"], "head", "map")

    def predict(
        params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
    ) -> Found:
        place, channels = camera.place_of(reference), [standardised(image)]
        if settings.silhouette:
            channels.append(points.silhouette(reference).astype(image.dtype))
        image = jnp.stack(channels, axis=-1)
        given = run(network, params, image, place, coordinates(reference), mean)
        vertices = reference + STEP_MM * given.vertices
        return Found(vertices, place * pitch + STEP_MM * given.mapping)

    def loss(found: Found, batch: SurfaceBatch) -> tuple[Float[Array, ""], Terms]:
        """[IGCN L_total] L_pos + lambda_map L_map + lambda_laplacian L_laplacian."""
        seen = camera.place_of(batch.target) * pitch
        terms = {
            "L_pos": losses.position(found.vertices, batch.target),
            "L_map": settings.map_weight * losses.mapping(found.mapped, seen),
            "L_laplacian": settings.laplacian_weight
            * losses.laplacian(found.vertices, batch.target, operator),
        }
        return summed(terms)

    optimiser = adam(settings.learning_rate, settings.decay_steps)
    return SurfaceMethod(*SurfaceRegression(start, predict, loss, optimiser).functions)
