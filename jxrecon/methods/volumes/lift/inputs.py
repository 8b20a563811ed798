"""What the network sees: the linear prior's volume, the X-rays and what the prior leaves of them, in space.

All of it lies on the half grid, with full detail in the channels: a voxel of the half grid carries its
eight full voxels of the prior's MAP, and four places of every X-ray about the point that it is seen at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int16

from jxrecon.geometry import AnyCamera, Grid
from jxrecon.methods.base import linear_posterior
from jxrecon.methods.base.linear_posterior import Basis, Weights
from jxrecon.methods.volumes.lift.compact import Compact
from jxrecon.nn.conv import space_to_depth
from jxrecon.units import Window

THICK = 12.0
"""The line integral that becomes 1: 625 mm of water, the shoulders from the side."""

STARVED = 12.0
"""Line integrals above say nothing: no detector counts the photons."""

_QUARTERS = np.array([(-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)], np.float32)


class Prior(NamedTuple):
    """The linear prior on X-rays of the whole patient, for everybody and without each training patient.

    Attributes:
        hu: training volumes.
        basis: of their X-rays.
        weights: of the n training patients left out, one after the other, and last of nobody left out.
    """

    hu: Int16[Array, "n x y z"]
    basis: Basis
    weights: Weights

    def explain(
        self, y: Float[Array, " pixels"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "x y z"], Float[Array, " pixels"]]:
        """(MAP in HU, the X-ray that the prior expects of it); `index` as of `inputs.explain`."""
        n = self.hu.shape[0]
        weights = self.without(jnp.where(index < 0, n, index % n)).of(self.basis.coordinates(y))
        return linear_posterior.volume_of(self.hu, weights), self.basis.expected(weights)

    def without(self, patient: Int[Array, ""] | int) -> Weights:
        """The weights that leave this training patient out; n: nobody."""
        return jax.tree.map(lambda all_of: all_of[patient], self.weights)


class Explained(NamedTuple):
    """What the prior makes of X-rays.

    Attributes:
        hu: its MAP, [x, y, z].
        images: the X-rays that it expects of it.
    """

    hu: Float[Array, "x y z"]
    images: tuple[Float[Array, "rows columns"], ...]


def prior_of(hu: Int16[Array, "n x y z"], images: Float[Array, "pixels n2"]) -> Prior:
    """Fits the prior; arguments as `linear_posterior.fit`."""
    basis = linear_posterior.fit(hu, images)
    return Prior(hu, basis, linear_posterior.left_out_weights(basis))


def empty_prior(shape: tuple[int, int, int], cases: int, pixels: int) -> Prior:
    """The shapes of a prior, all zero: what a state holds before the fit."""
    basis = linear_posterior.empty_basis(pixels, cases)
    weights = linear_posterior.empty_weights(basis, cases + 1)
    return Prior(jnp.zeros((cases, *shape), jnp.int16), basis, weights)


def explain(
    prior: Prior | Compact,
    images: Sequence[Float[Array, "rows columns"]],
    index: Int[Array, ""],
) -> Explained:
    """The prior's MAP of one case's X-rays.

    Args:
        prior: fitted on the X-rays of the same cameras.
        images: line integrals.
        index: of a training case or mirror image, whose patient the prior shall not know; below 0: of nobody.
    """
    y = jnp.concatenate([jnp.minimum(image, STARVED).ravel() for image in images])
    hu, expected = prior.explain(y, index)
    ends = np.cumsum([image.size for image in images])[:-1].tolist()
    parts = [part.reshape(image.shape) for part, image in zip(jnp.split(expected, ends), images)]
    return Explained(hu, tuple(parts))


def half(grid: Grid) -> Grid:
    """The grid of voxels twice as large."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.full(3, 0.5)
    affine[:3, :3] *= 2.0
    x, y, z = (n // 2 for n in grid.shape)
    return Grid((x, y, z), affine)


def back_projected(
    stack: Float[Array, "rows columns c"], camera: AnyCamera, grid: Grid
) -> Float[Array, "x y z c4"]:
    """Four bilinear samples of an X-ray about the ray through every voxel of a grid; no filter.

    They lie a quarter of the voxel's shadow up and down, right and left. Beyond the detector's edge its last
    pixels are read.
    """
    row, column = jnp.moveaxis(camera.place_of(_places(grid)), -1, 0)
    shadow_mm = float(np.mean(grid.spacing_mm)) * _magnification(camera)
    down, right = (shadow_mm / jnp.linalg.norm(step) for step in (camera.v, camera.u))
    across, along = _QUARTERS.T[:, :, None, None, None]
    samples = _bilinear(stack, row[None] + across * down, column[None] + along * right)
    return jnp.moveaxis(samples, 0, -2).reshape(*grid.shape, -1)


def _places(grid: Grid) -> Float[Array, "x y z 3"]:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    return jnp.asarray(index @ grid.affine[:3, :3].T + grid.affine[:3, 3], jnp.float32)


def _magnification(camera: AnyCamera) -> Float[Array, ""]:
    """Size of a shadow of what lies at the isocentre; 1 for parallel rays."""
    if not hasattr(camera, "source"):
        return jnp.ones((), jnp.float32)
    source = jnp.linalg.norm(camera.source)
    return jnp.linalg.norm(camera.centre - camera.source) / source


def _bilinear(
    stack: Float[Array, "rows columns c"], row: Float[Array, "*p"], column: Float[Array, "*p"]
) -> Float[Array, "*p c"]:
    """Samples between pixels; beyond the edge its pixels."""

    def split(place: Array, pixels: int) -> tuple[Array, Array]:
        place = jnp.clip(place, 0.0, pixels - 1.0)
        first = jnp.minimum(jnp.floor(place), pixels - 2.0)
        return first.astype(jnp.int32), (place - first)[..., None]

    (i, down), (j, right) = split(row, stack.shape[0]), split(column, stack.shape[1])
    above = (1.0 - right) * stack[i, j] + right * stack[i, j + 1]
    below = (1.0 - right) * stack[i + 1, j] + right * stack[i + 1, j + 1]
    return (1.0 - down) * above + down * below


def features(
    grid: Grid,
    window: Window,
    explained: Explained,
    images: Sequence[Float[Array, "rows columns"]],
    cameras: Sequence[AnyCamera],
) -> Float[Array, "x y z c"]:
    """The network's input on the half grid: 8 channels of the MAP, 8 a view, 3 coordinates."""
    coarse = half(grid)
    unit = (window.to_unit(explained.hu) + 1.0) / 2.0
    parts = [space_to_depth(unit[None, ..., None], 2)[0]]
    for image, expected, camera in zip(images, explained.images, cameras, strict=True):
        image = jnp.minimum(image, STARVED)
        both = jnp.stack([image / THICK, image - expected], -1)
        parts.append(back_projected(both, camera, coarse))
    axes = [np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in coarse.shape]
    parts.append(jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1)))
    return lax.stop_gradient(jnp.concatenate(parts, -1))
