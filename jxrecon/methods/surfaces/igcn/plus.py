"""IGCN+, the code that IGCN's authors released later, as a SurfaceMethod.

| equation | function | settings |
|---|---|---|
| M, dense displacement map | networks.UNet | channels |
| v^ = v + GCN([(M(p) - 122) / 6800, v - centroid]) | networks.IgcnPlus | hidden, pairs |
| L_map = mean (M - M^)^2 / 6800 | losses.plus_map | map_weight |
| L_pos + 0.1 L_laplacian, in the target's range | losses.plus_mesh | laplacian_weight |
| Adam 1e-4 | surface_regression.surface_method | learning_rate, decay_steps |

The network's unit of length is the metre: the map's 6800 then holds breathing in 8 bits, and the released
code's livers are 0.2 long. That it is metres is a guess. Its input has three channels: the reference's
silhouette (255), the constant 122 and the X-ray from 0 to 255.

Differs from the released code: its faults are left out unless `faults` is set (sampling that gives 0 at
integer places, an input norm that does nothing, a label map clamped to 8 bits); places come from the
problem's cone beam instead of parallel rays; silhouette and label map are made of dense points instead of
triangles; both heads start at no displacement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.mesh.aggregation import Neighbours, normalised
from jxrecon.mesh.laplacian import Laplacian, uniform_laplacian
from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem
from jxrecon.methods.base.surface_regression import check_view, examples, surface_method
from jxrecon.methods.surfaces.igcn import losses
from jxrecon.methods.surfaces.igcn.networks import PLUS_CHANNELS, SCALE, ZERO, IgcnPlus
from jxrecon.nn.blocks import apply
from jxrecon.nn.splatting import Splatter, splatter
from jxrecon.types import PyTree, SurfaceBatch, Terms

UNIT_MM = 1000.0


@dataclass(frozen=True)
class Settings:
    """Everything of IGCN+ that a user may set; the defaults are the authors'.

    Attributes:
        channels: the U-Net's, fine to coarse; the X-ray is halved once fewer than there are.
        hidden: channels of the graph convolutions.
        pairs: residual ones.
        map_weight: factor of L_map.
        laplacian_weight: factor of L_laplacian.
        learning_rate: Adam's.
        decay_steps: steps on which the rate falls to 0, along half a cosine; 0: it stays.
        faults: whether to keep those of the released code.
    """

    channels: tuple[int, ...] = PLUS_CHANNELS
    hidden: int = 256
    pairs: int = 4
    map_weight: float = 1.0
    laplacian_weight: float = 0.1
    learning_rate: float = 1e-4
    decay_steps: int = 0
    faults: bool = False


class Model(NamedTuple):
    """What the functions below share: no parameters, only definitions."""

    settings: Settings
    problem: SurfaceProblem
    network: IgcnPlus
    aggregate: Neighbours
    laplacian: Laplacian
    splatter: Splatter


def build(settings: Settings, problem: SurfaceProblem) -> SurfaceMethod:
    """IGCN+ for this problem.

    Raises:
        InputError: the X-ray cannot be halved as often as there are levels, or the camera misses the organ.
    """
    template, camera = problem.template, problem.camera
    check_view("igcn_plus", problem, 2 ** (len(settings.channels) - 1))
    network = IgcnPlus(settings.channels, settings.hidden, settings.pairs, settings.faults)
    mean, laplacian = normalised(template), uniform_laplacian(template)
    model = Model(settings, problem, network, mean, laplacian, splatter(template, camera))
    inputs = (*examples(problem, 3), mean)
    starts = {"unet/head": 0.0, "unet/head/bias": ZERO, "graph/head": 0.0}
    return surface_method(model, predict, loss, inputs, starts)


def predict(
    model: Model, params: PyTree, image: Float[Array, "b r c"], reference: Float[Array, "b v 3"]
) -> tuple[Float[Array, "b v 3"], Float[Array, "b r c 3"]]:
    """The vertices in mm, and the map M, 122 + 6800 * displacement in metres."""
    silhouette = 255.0 * model.splatter.silhouette(reference).astype(image.dtype)
    low, high = (f(image, (1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    grey = 255.0 * (image - low) / jnp.maximum(high - low, 1e-6)  # a uniform image becomes 0
    channels = jnp.stack([silhouette, jnp.full_like(image, ZERO), grey], axis=-1)
    shape = (reference - jnp.mean(reference, axis=1, keepdims=True)) / UNIT_MM
    place = model.problem.camera.place_of(reference)
    moved, dense = apply(model.network, params, channels, place, shape, model.aggregate)
    return reference + UNIT_MM * moved, dense


def loss(model: Model, found: tuple[Array, Array], batch: SurfaceBatch) -> Terms:
    """[IGCN+ loss_total] mean (M - M^)^2 / 6800 + L_pos + 0.1 L_laplacian."""
    (vertices, dense), settings = found, model.settings
    moved = SCALE / UNIT_MM * (batch.target - batch.reference)
    rendered = ZERO + model.splatter.front(batch.reference, moved)
    if settings.faults:
        rendered = jnp.clip(jnp.round(rendered), 0.0, 255.0)
    mesh = losses.plus_mesh(vertices, batch.target, model.laplacian)
    return {
        "L_map": settings.map_weight * losses.plus_map(dense, rendered, SCALE),
        "L_pos": mesh["L_pos"],
        "L_laplacian": settings.laplacian_weight * mesh["L_laplacian"],
    }
