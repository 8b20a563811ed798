"""Inversion from coarse to fine: a generator of skip outputs shows its volume at every level.

At a coarse level a forward and backward pass costs a small part of the whole one's, and low frequencies are
what few X-rays fix. There all layers share one w; the last stage, on the full grid, frees them (W+). An
image is averaged to as many pixels as suit the level, and lambda_2 is raised as the norm of a mean of blocks
is smaller, so that data and priors keep their balance.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.geometry import Grid
from jxrecon.methods.base.method import Cameras, Images, Problem
from jxrecon.methods.volumes.x2vision import pose
from jxrecon.methods.volumes.x2vision import prior as manifold
from jxrecon.methods.volumes.x2vision.codes import averaged
from jxrecon.methods.volumes.x2vision.latent import (
    Inversion,
    Latents,
    LatentSettings,
    WStatistics,
    invert,
)
from jxrecon.methods.volumes.x2vision.prior import Prior
from jxrecon.types import PyTree


class Level(NamedTuple):
    """The problem as a level sees it.

    Attributes:
        prior: of the levels up to it, on its grid.
        images: averaged, [b, rows, columns] each.
        cameras: of these images.
        weights: of their pixels, of mean 1.
        block: pixels of the given images along an axis of one of these.
    """

    prior: Prior
    images: tuple[Float[Array, "b rows columns"], ...]
    cameras: Cameras
    weights: Images | None
    block: int

    @property
    def method(self) -> str:
        """Of the projector.

        Where pixels are wide the shear-warp's virtual detector blurs what Joseph and the aligned walk show:
        of coarse grids it costs 0.1 dB.
        """
        if self.block == 1:
            return "auto"
        grid = self.prior.problem.grid
        ways = {drr.choose(grid.affine, camera, grid.shape) for camera in self.cameras}
        return "joseph" if "shear_warp" in ways else "auto"

    def project(
        self, generator: PyTree, latents: Latents
    ) -> tuple[Float[Array, "b rows columns"], ...]:
        """Projections of the level's volume; one w a layer, or one for all; without noise if there is ()."""
        ws, noise = latents.ws, latents.noise or None
        ws = jnp.broadcast_to(ws, (ws.shape[0], self.prior.synthesis.num_ws, ws.shape[2]))
        volumes = manifold.synthesise(self.prior, generator, ws, noise, latents.local)
        return self.shown(volumes, latents.views)

    def shown(
        self, volumes: manifold.Volumes, views: pose.Views | None
    ) -> tuple[Float[Array, "b rows columns"], ...]:
        """Projections of volumes in network units, by the cameras or where the views were found to stand."""
        if views is None:
            return manifold.project(self.prior, volumes, self.cameras, self.method)
        problem = self.prior.problem
        mu = drr.hu_to_mu(problem.window.to_hu(volumes[..., 0]))
        return pose.project(mu, problem.grid, self.cameras, views)


def coarser(prior: Prior, levels: int) -> Prior:
    """The definitions of the coarsest levels alone, on their grid; weights of the whole serve them."""
    settings, problem = prior.settings, prior.problem
    factor = 2 ** (len(settings.channels) - levels)
    affine = problem.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.full(3, (factor - 1) / 2)
    affine[:3, :3] *= factor
    x, y, z = (n // factor for n in problem.grid.shape)
    coarse = Problem(Grid((x, y, z), affine), problem.cameras, problem.window, problem.cases)
    return manifold.make_prior(replace(settings, channels=settings.channels[:levels]), coarse)


def level_of(
    prior: Prior,
    levels: int,
    images: tuple[Float[Array, "b rows columns"], ...],
    cameras: Cameras,
    weights: Images | None,
) -> Level:
    """The problem on the grid of the coarsest `levels`, its images in blocks as many voxels wide.

    Images whose pixels fill no whole blocks stay as they are.
    """
    block = 2 ** (len(prior.settings.channels) - levels)
    if any(n % block for camera in cameras for n in camera.shape):
        block = 1
    shapes = [tuple(n // block for n in camera.shape) for camera in cameras]
    trusted = None
    if weights is not None:
        trusted = [averaged(w[None], shape)[0] for w, shape in zip(weights, shapes)]
    with jax.ensure_compile_time_eval():  # cameras have values under jit too
        binned = tuple(camera.binned((block, block)) for camera in cameras)
    return Level(
        coarser(prior, levels),
        tuple(averaged(image, shape) for image, shape in zip(images, shapes)),
        binned if block > 1 else tuple(cameras),
        trusted,
        block,
    )


def invert_in_stages(
    known: tuple[Prior, LatentSettings, PyTree, WStatistics],
    start: Latents,
    images: tuple[Float[Array, "b rows columns"], ...],
    cameras: Cameras,
    weights: Images | None = None,
    progress: Any = None,
) -> Inversion:
    """`latent.invert` on the levels of `coarse_iterations`, then on the full grid.

    Args:
        known: whose generator it is, the objective and its stages, frozen weights, statistics of w.
        start: one w a member, the same for every layer.
        images: line integrals, a batch a view.
        cameras: of the images.
        weights: of the images' pixels.
        progress: as of `latent.invert`, once a stage.
    """
    prior, settings, generator, statistics = known
    top = len(prior.settings.channels)
    coarse = settings.coarse_iterations if prior.settings.architecture == "skip" else ()
    found = Inversion(start, jnp.zeros(start.ws.shape[0]), {})
    one = start._replace(ws=start.ws[:, :1], noise=())  # a w for all layers, no noise to find
    for place, iterations in enumerate(coarse, start=top - len(coarse)):
        if iterations and place > 0:
            level = level_of(prior, place, images, cameras, weights)
            mine = replace(
                settings,
                iterations=iterations,
                lambda_2=settings.lambda_2 * level.block,
                lambda_w=settings.lambda_w * prior.synthesis.num_ws,  # as if each layer had this w
            )

            project = partial(level.project, generator)
            how = {"progress": progress, "weights": level.weights}
            found = invert(one, level.images, project, statistics, mine, **how)
            one = found.latents
    begin = one._replace(ws=jnp.broadcast_to(one.ws, start.ws.shape), noise=start.noise)
    if not settings.iterations:
        return found._replace(latents=begin)
    full = level_of(prior, top, images, cameras, weights)
    how = {"progress": progress, "weights": weights}
    project = partial(full.project, generator)
    last = invert(begin, images, project, statistics, settings, **how)
    return last._replace(trace=_joined(found.trace, last.trace))


def _joined(one: dict[str, Array], other: dict[str, Array]) -> dict[str, Array]:
    """Traces of two stages after one another."""
    return {
        name: jnp.concatenate([one[name], other[name]]) if one else other[name] for name in other
    }
