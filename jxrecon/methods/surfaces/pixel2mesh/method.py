"""Pixel2Mesh (P2M) on an organ's template, as a SurfaceMethod.

| equation | function | settings |
|---|---|---|
| X' = D^-1 A X W + X W_0 + b, blocks, pooling | networks.Pixel2Mesh | width, hidden, pairs |
| l_c, l_n, l_loc, l_lap, move | losses.total | losses.Weights |
| Adam | surface_regression.adam | learning_rate, decay_steps |

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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jxrecon.mesh.laplacian import uniform_laplacian
from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import (
    LENGTH_MM,
    SurfaceRegression,
    adam,
    at_rest,
    check_view,
    examples,
    run,
    standardised,
)
from jxrecon.methods.surfaces.pixel2mesh import losses
from jxrecon.methods.surfaces.pixel2mesh.networks import Level, Pixel2Mesh, Shapes
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.graph import normalised
from jxrecon.types import Key, PyTree, SurfaceBatch, Terms

BLOCKS = 3
LOSS_MM = 500.0


@dataclass(frozen=True)
class Settings:
    """Everything of Pixel2Mesh that a user may set; the defaults are the paper's.

    Attributes:
        width: channels of the encoder's first stage.
        hidden: channels of the graph convolutions.
        pairs: residual ones of each block.
        learning_rate: of Adam; the paper ends with 1e-5.
        decay_steps: steps on which the rate falls to 0, along half a cosine; 0: it stays.
    """

    width: int = 16
    hidden: int = 256
    pairs: int = 6
    learning_rate: float = 3e-5
    decay_steps: int = 0


class Found(NamedTuple):
    """What the network gives.

    Attributes:
        vertices: of the last block, world mm.
        shapes: of all blocks, in units of 100 mm.
    """

    vertices: Float[Array, "b v 3"]
    shapes: Shapes


def normals_of(vertices: Float[Array, "b v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "b v 3"]:
    """Unit normals at the vertices: the faces' around them, weighted by area."""
    a, b, c = (vertices[:, faces[:, n]] for n in range(3))
    face = jnp.cross(b - a, c - a)
    total = jnp.zeros_like(vertices)
    for corner in range(3):
        total = total.at[:, faces[:, corner]].add(face)
    return total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """Pixel2Mesh for this problem.

    Raises:
        InputError: the X-ray's size is no multiple of 32, or the camera misses the organ.
    """
    template, camera = problem.template, problem.camera
    check_view("pixel2mesh", template, camera, 32)
    network = Pixel2Mesh(
        camera, LENGTH_MM, settings.width, settings.hidden, settings.pairs, residual=True
    )
    levels = [Level(normalised(template, self_loop=False))] * BLOCKS
    meshes = [losses.Mesh(jnp.asarray(template.edges), uniform_laplacian(template))] * BLOCKS
    heads = {"gcn_0": ("head",), "gcn_1": ("head",)}

    def start(key: Key) -> PyTree:
        image = jax.ShapeDtypeStruct((1, *camera.shape, 1), jnp.float32)
        _, _, vertices = examples(template, camera)
        params = init_variables(network, key, image, vertices, levels)["params"]
        params |= {block: at_rest(params[block], *names) for block, names in heads.items()}
        return params | {"head": jax.tree.map(jnp.zeros_like, params["head"])}

    def predict(
        params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
    ) -> Found:
        shapes = run(network, params, standardised(image)[..., None], reference / LENGTH_MM, levels)
        return Found(LENGTH_MM * shapes.after[-1], shapes)

    def loss(found: Found, batch: SurfaceBatch) -> tuple[Float[Array, ""], Terms]:
        scale = LENGTH_MM / LOSS_MM
        before, after = ([scale * v for v in shapes] for shapes in found.shapes)
        normals = normals_of(batch.target, jnp.asarray(template.faces))
        return losses.total(before, after, batch.target / LOSS_MM, normals, meshes)

    optimiser = adam(settings.learning_rate, settings.decay_steps)
    return SurfaceMethod(*SurfaceRegression(start, predict, loss, optimiser).functions)
