"""IGCN (Nakao et al., MICCAI 2021) as a SurfaceMethod.

| equation | function | settings |
|---|---|---|
| image branch, M | networks.Encoder, networks.MapHead | width, stages, silhouette |
| v^ = v + GCN(features, M, v) | networks.Igcn | hidden, pairs |
| L_pos | losses.position | |
| L_map | losses.mapping | map_weight |
| L_laplacian | losses.laplacian | laplacian_weight, laplacian |
| Adam | surface_regression.surface_method | learning_rate, decay_steps |

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

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jxrecon.geometry import pixel_mm
from jxrecon.mesh import Template
from jxrecon.mesh.aggregation import Aggregate, mean_graph, normalised, segment_sum
from jxrecon.mesh.laplacian import Laplacian, cotangent_laplacian, uniform_laplacian
from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import (
    LENGTH_MM,
    STEP_MM,
    check_view,
    examples,
    standardised,
    surface_method,
)
from jxrecon.methods.surfaces.igcn import losses
from jxrecon.methods.surfaces.igcn.networks import Igcn
from jxrecon.nn.blocks import apply
from jxrecon.nn.perceptual_pooling import STAGES
from jxrecon.nn.splatting import Splatter, splatter
from jxrecon.types import InputError, PyTree, SurfaceBatch, Terms

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
        map_weight: factor of L_map.
        laplacian_weight: factor of L_laplacian.
        laplacian: "uniform" or "cotangent", the latter with the template's angles.
        learning_rate: Adam's.
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


class Model(NamedTuple):
    """What the functions below share: no parameters, only definitions."""

    settings: Settings
    problem: SurfaceProblem
    network: Igcn
    aggregate: Aggregate
    laplacian: Laplacian
    splatter: Splatter
    pitch_mm: Float[Array, "1 1 2"]  # on the detector, between rows and between columns


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """IGCN for this problem.

    Raises:
        InputError: the X-ray cannot be halved between all stages, the camera misses the organ, or a
            setting has no such value.
    """
    template, camera = problem.template, problem.camera
    check_view("igcn", problem, 2 ** (len(settings.stages) - 1))
    for name, known in (("laplacian", LAPLACIANS), ("aggregation", AGGREGATIONS)):
        if (value := getattr(settings, name)) not in known:
            raise InputError(f"igcn {name} is {value!r}, expected one of {', '.join(known)}")
    model = Model(
        settings=settings,
        problem=problem,
        network=Igcn(settings.width, settings.stages, settings.hidden, settings.pairs),
        aggregate=AGGREGATIONS[settings.aggregation](template),
        laplacian=LAPLACIANS[settings.laplacian](template),
        splatter=splatter(template, camera),
        pitch_mm=jnp.array(pixel_mm(camera), jnp.float32)[None, None],
    )
    inputs = (*examples(problem, 1 + settings.silhouette), model.aggregate)
    return surface_method(model, predict, loss, inputs, {"graph/head": 0.0, "map_head/map": 0.0})


def predict(
    model: Model, params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
) -> tuple[Float[Array, "b v 3"], Float[Array, "b v 2"]]:
    """The vertices in mm, and M at the reference's vertices, [row, column] in mm on the detector."""
    place, channels = model.problem.camera.place_of(reference), [standardised(image)]
    if model.settings.silhouette:
        channels.append(model.splatter.silhouette(reference).astype(image.dtype))
    image, vertices = jnp.stack(channels, axis=-1), reference / LENGTH_MM
    moved, mapping = apply(model.network, params, image, place, vertices, model.aggregate)
    return reference + STEP_MM * moved, place * model.pitch_mm + STEP_MM * mapping


def loss(model: Model, found: tuple[Array, Array], batch: SurfaceBatch) -> Terms:
    """[IGCN L_total] L_pos + lambda_map L_map + lambda_laplacian L_laplacian."""
    (vertices, mapped), settings = found, model.settings
    seen = model.problem.camera.place_of(batch.target) * model.pitch_mm
    return {
        "L_pos": losses.position(vertices, batch.target),
        "L_map": settings.map_weight * losses.mapping(mapped, seen),
        "L_laplacian": settings.laplacian_weight
        * losses.laplacian(vertices, batch.target, model.laplacian),
    }
