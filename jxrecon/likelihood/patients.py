"""Training patients on a coarse grid, for X-rays by very many cameras: a few milliseconds each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.compile import jit
from jxrecon.data.scene_xrays import field_of, samples_in
from jxrecon.data.volumes import Scenes, VolumeSet
from jxrecon.drr.shear_warp import Plan
from jxrecon.geometry import AnyCamera, Grid, box_corners_mm, centred_grid, shares
from jxrecon.types import AnyArray
from jxrecon.units import HU_AIR

VOXEL_MM = 8.0
"""With it an X-ray of 32 x 32 pixels is off by 0.08 (root mean square), where patients differ from what
others explain by 0.22."""

PIXELS = 32
"""Rows and columns of the X-rays that are compared."""

DARKEST = 9.0
"""Line integrals above say nothing: of 20,000 photons 2 arrive."""


class Patients(NamedTuple):
    """Training patients with all that their X-rays show.

    Attributes:
        mu: attenuation, 1/mm.
        grid: of all of them, symmetric about x = 0.
    """

    mu: Float[Array, "n x y z"]
    grid: Grid

    def xrays(
        self, camera: AnyCamera, near: AnyCamera | None = None
    ) -> Float[np.ndarray, "n2 pixels pixels"]:
        """X-rays of the patients, then of their mirror images, on the area of the camera's detector.

        Args:
            camera: that takes them.
            near: a camera that it stands near to: what was compiled for that one is used again.
        """
        camera = camera.resized((PIXELS, PIXELS))
        near = camera if near is None else near.resized((PIXELS, PIXELS))
        way = drr.plan(self.grid.affine, near, self.grid.shape)
        taken = _taken(self.mu, jnp.asarray(self.grid.affine, jnp.float32), camera, way)
        return np.clip(np.asarray(taken, np.float64), 0.0, DARKEST)


@partial(jit, static_argnums=3)
def _taken(
    mu: Float[Array, "n x y z"], affine: Float[Array, "4 4"], camera: AnyCamera, way: Plan
) -> Float[Array, "n2 rows columns"]:
    def both(mu: Float[Array, "x y z"]) -> Float[Array, "2 rows columns"]:
        return jnp.stack([drr.line_integrals(m, affine, camera, way) for m in (mu, mu[::-1])])

    return jnp.concatenate(lax.map(both, mu).swapaxes(0, 1))


def patients_of(cases: VolumeSet, grid: Grid) -> Patients:
    """The patients of a split: their whole CTs, or where X-rays show the fields alone, these.

    Args:
        cases: a split.
        grid: of its fields.
    """
    scenes = cases.scenes
    if scenes is None:
        scenes = Scenes(cases.hu, np.tile(grid.affine, (len(cases.names), 1, 1)), 0.0)
    coarse = _grid_of(scenes)
    finest = np.min([np.linalg.norm(a[:3, :3], axis=0) for a in scenes.affines], 0)
    cut = jit(partial(field_of, grid=coarse, samples=samples_in(VOXEL_MM, finest)))
    affines = scenes.affines.astype(np.float32)
    mu = [drr.hu_to_mu(cut(np.asarray(hu), affine)) for hu, affine in zip(scenes.hu, affines)]
    return Patients(jnp.stack(mu), coarse)


def _grid_of(scenes: Scenes) -> Grid:
    """The grid that all scenes fill, symmetric about x = 0."""
    corners = []
    for hu, affine in zip(scenes.hu, scenes.affines):
        ends = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            filled = np.flatnonzero((np.asarray(hu) > HU_AIR).any(others))
            ends.append((filled[0] - 0.5, filled[-1] + 0.5) if filled.size else (-0.5, 0.5))
        corners.append(box_corners_mm(ends, affine))
    low, high = np.min(corners, (0, 1)), np.max(corners, (0, 1))
    high[0] = max(high[0], -low[0])
    low[0] = -high[0]
    x, y, z = np.ceil((high - low) / VOXEL_MM).astype(int).tolist()
    return centred_grid((x, y, z), (VOXEL_MM,) * 3, tuple(((low + high) / 2).tolist()))


def averaged(image: Float[AnyArray, "rows columns"]) -> Float[np.ndarray, "pixels pixels"]:
    """An X-ray of any size averaged over the same area to the pixels that are compared."""
    rows, columns = (shares(n, PIXELS) for n in image.shape)
    return rows @ np.clip(np.asarray(image, np.float64), None, DARKEST) @ columns.T


def stacked(images: Sequence[Float[AnyArray, "rows columns"]]) -> Float[np.ndarray, "views p p"]:
    """All X-rays of a patient, averaged."""
    return np.stack([averaged(image) for image in images])
