"""Pixel2Mesh (P2M) on an organ's template, as a SurfaceMethod.

| equation | function | settings |
|---|---|---|
| X' = D^-1 A X W + X W_0 + b, blocks, pooling | networks.Pixel2Mesh | width, hidden, pairs |
| l_c, l_n, l_loc, l_lap, move | losses.terms | losses.Weights |
| Adam | surface_regression.surface_method | learning_rate, decay_steps |

The losses are computed in units of 500 mm, in which an organ is as large as the paper's objects (about
0.2 around 0): their weights are for that size.

Differs from the paper: no ellipsoid and no unpooling, all three blocks have the template's vertices, so that
vertices correspond; a block adds to its vertices and at first adds nothing, so that an untrained network
gives the reference; the graph convolution is the first-order one of the PyTorch port; levels cover the
image's area when they are sampled. The true surface's points are the target's vertices, with its normals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jxrecon.mesh.aggregation import normalised
from jxrecon.mesh.laplacian import uniform_laplacian
from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import (
    LENGTH_MM,
    check_view,
    examples,
    standardised,
    surface_method,
)
from jxrecon.methods.surfaces.pixel2mesh import losses
from jxrecon.methods.surfaces.pixel2mesh.networks import Level, Pixel2Mesh, Shapes
from jxrecon.nn.blocks import apply
from jxrecon.types import PyTree, SurfaceBatch, Terms

BLOCKS = 3
LOSS_MM = 500.0


@dataclass(frozen=True)
class Settings:
    """Everything of Pixel2Mesh that a user may set; the defaults are the paper's.

    Attributes:
        width: channels of the encoder's first stage.
        hidden: channels of the graph convolutions.
        pairs: residual ones of each block.
        learning_rate: Adam's; the paper ends with 1e-5.
        decay_steps: steps on which the rate falls to 0, along half a cosine; 0: it stays.
    """

    width: int = 16
    hidden: int = 256
    pairs: int = 6
    learning_rate: float = 3e-5
    decay_steps: int = 0


def normals_of(vertices: Float[Array, "b v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "b v 3"]:
    """Unit normals at the vertices: the faces' around them, weighted by area."""
    a, b, c = (vertices[:, faces[:, n]] for n in range(3))
    face = jnp.cross(b - a, c - a)
    total = jnp.zeros_like(vertices)
    for corner in range(3):
        total = total.at[:, faces[:, corner]].add(face)
    return total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


class Model(NamedTuple):
    """What the functions below share: no parameters, only definitions."""

    settings: Settings
    problem: SurfaceProblem
    network: Pixel2Mesh
    levels: list[Level]
    meshes: list[losses.Mesh]


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """Pixel2Mesh for this problem.

    Raises:
        InputError: the X-ray's size is no multiple of 32, or the camera misses the organ.
    """
    template, camera = problem.template, problem.camera
    check_view("pixel2mesh", problem, 32)
    network = Pixel2Mesh(
        camera, LENGTH_MM, settings.width, settings.hidden, settings.pairs, residual=True
    )
    levels = [Level(normalised(template, self_loop=False))] * BLOCKS
    meshes = [losses.Mesh(jnp.asarray(template.edges), uniform_laplacian(template))] * BLOCKS
    image, _, vertices = examples(problem)
    starts = {"gcn_0/head": 0.0, "gcn_1/head": 0.0, "head": 0.0}
    model = Model(settings, problem, network, levels, meshes)
    return surface_method(model, predict, loss, (image, vertices, levels), starts)


def predict(
    model: Model, params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
) -> tuple[Float[Array, "b v 3"], Shapes]:
    """The vertices in mm, and the shapes of all blocks in units of 100 mm."""
    image, vertices = standardised(image)[..., None], reference / LENGTH_MM
    shapes = apply(model.network, params, image, vertices, model.levels)
    return LENGTH_MM * shapes.after[-1], shapes


def loss(model: Model, found: tuple[Array, Shapes], batch: SurfaceBatch) -> Terms:
    """[P2M l_all] In units of 500 mm."""
    scale = LENGTH_MM / LOSS_MM
    before, after = ([scale * v for v in shapes] for shapes in found[1])
    normals = normals_of(batch.target, jnp.asarray(model.problem.template.faces))
    return losses.terms(before, after, batch.target / LOSS_MM, normals, model.meshes)
