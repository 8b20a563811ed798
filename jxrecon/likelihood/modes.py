"""Training patients as a mean and few components of their volumes: for X-rays by any camera.

    x = m + sum_k z_k u_k,   z_k ~ N(0, 1)

With every patient the mirror image belongs to them. So the mean is even, each component even or odd about the
plane between left and right, and one half of each is enough to be handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int8
from scipy.linalg import hadamard

from jxrecon import drr, rounded
from jxrecon.compile import jit
from jxrecon.data.scene_xrays import field_of, samples_in
from jxrecon.data.surround import Surround, fit, reach_of
from jxrecon.drr.shear_warp import Plan
from jxrecon.geometry import AnyCamera, Grid
from jxrecon.likelihood.patients import DARKEST, PIXELS, Patients
from jxrecon.types import AnyArray

RANK = 32
"""Components that are kept."""

Rows = Float[np.ndarray, "k1 pixels"]
"""X-rays of the mean and, after it, of the components, one a row."""


class Modes(NamedTuple):
    """Mean and components.

    Attributes:
        volumes: the mean, then the components times their standard deviations; attenuation, 1/mm.
        grid: of all of them, symmetric about x = 0.
    """

    volumes: Float[np.ndarray, "k1 x y z"]
    grid: Grid

    @property
    def odd(self) -> Bool[np.ndarray, " k"]:
        """Of each component, whether its other half has the other sign."""
        return np.array([bool(np.sum(v * v[::-1]) < 0.0) for v in self.volumes[1:]])

    def xrays(self, camera: AnyCamera, near: AnyCamera | None = None) -> Rows:
        """X-rays of the mean, and by how much those of the components change it: `Patients.xrays`.

        Above DARKEST X-rays say nothing: of a component what half the difference between the mean with it
        and the mean without it shows is taken.
        """
        camera = camera.resized((PIXELS, PIXELS))
        near = camera if near is None else near.resized((PIXELS, PIXELS))
        way = drr.plan(self.grid.affine, near, self.grid.shape)
        taken = np.asarray(_taken(self.volumes, self.grid.affine, camera, way), np.float64)
        rows = taken.reshape(len(taken), -1)
        plus, minus = (np.clip(rows[0] + s * rows[1:], 0.0, DARKEST) for s in (1.0, -1.0))
        return np.concatenate([np.clip(rows[:1], 0.0, DARKEST), (plus - minus) / 2.0])

    def surround(self, grid: Grid, cameras: Sequence[AnyCamera]) -> Surround:
        """What patients add to X-rays of a field, where none is at hand: `data.surround.fit`.

        It learns from patients m + sum_k z_k u_k, each z_k 1 or -1 as a row of a Hadamard matrix has them,
        and their mirror images: mean and covariance of these are those of the components.

        Args:
            grid: of the field, in the world of the components.
            cameras: of the X-rays.
        """
        rank = len(self.volumes) - 1
        signs = hadamard(1 << rank.bit_length())[:, 1 : rank + 1].astype(np.float32)
        z = np.concatenate([signs, np.where(self.odd, -signs, signs)])
        sides = ((self.volumes, self.grid), (self.within(grid), grid))
        images: tuple[list[Array], list[Array]] = ([], [])
        for camera in cameras:
            for (volumes, of), taken in zip(sides, images):
                way = drr.plan(of.affine, camera, of.shape)
                rows = _taken(volumes, of.affine, camera, way)
                taken.append(rows[:1] + jnp.tensordot(z, rows[1:], 1))
        return jit(fit)(*images, [reach_of(camera, grid.centre_mm) for camera in cameras])

    def within(self, grid: Grid) -> Float[Array, "k1 x y z"]:
        """Mean and components on the voxels of a field; attenuation, 1/mm."""
        return jit(partial(lax.map, self.cut(grid)))(self.volumes)

    def cut(self, grid: Grid) -> Callable[[Float[AnyArray, "i j k"]], Float[Array, "x y z"]]:
        """(volume on the components' grid) -> on the voxels of a field, by linear interpolation."""
        affine = jnp.asarray(self.grid.affine, jnp.float32)
        samples = samples_in(grid.spacing_mm, self.grid.spacing_mm)
        return partial(field_of, affine=affine, grid=grid, samples=samples, outside=0.0)

    def scene(self, z: Float[np.ndarray, " k"]) -> Float[np.ndarray, "x y z"]:
        """The volume with these weights of the components."""
        return self.volumes[0] + np.tensordot(z, self.volumes[1:], 1)


@partial(jit, once=True, static_argnums=3)
def _taken(
    mu: Float[AnyArray, "n x y z"], affine: Float[AnyArray, "4 4"], camera: AnyCamera, way: Plan
) -> Float[Array, "n rows columns"]:
    affine = jnp.asarray(affine, jnp.float32)
    return lax.map(lambda m: drr.line_integrals(m, affine, camera, way), jnp.asarray(mu))


def modes_of(patients: Patients, rank: int = RANK) -> Modes:
    """The principal components of patients and their mirror images, the largest of the even and odd ones."""
    mu = np.asarray(patients.mu, np.float64)
    even, odd = (mu + mu[:, ::-1]) / 2.0, (mu - mu[:, ::-1]) / 2.0
    mean = even.mean(0)
    both = [_components(part.reshape(len(mu), -1)) for part in (even - mean, odd)]
    size = np.concatenate([size for size, _ in both])
    kept = np.argsort(-size)[: min(rank, int((size > 1e-6 * size.max()).sum()))]
    found = np.concatenate([rows for _, rows in both])[kept].reshape(-1, *mean.shape)
    return Modes(np.concatenate([mean[None], found]).astype(np.float32), patients.grid)


def _components(
    rows: Float[np.ndarray, "n voxels"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n voxels"]]:
    """(standard deviations, components times them) of rows whose mean is nothing."""
    square, turn = np.linalg.eigh(rows @ rows.T / len(rows))
    return np.sqrt(np.maximum(square, 0.0)), turn.T @ rows / np.sqrt(len(rows))


class Packed(NamedTuple):
    """One half of every volume, where any is but air, in 8 bits but for the mean.

    Attributes:
        inside: which voxels of the half are kept.
        mean: of these.
        steps: the components, in units of `unit`.
        unit: a component's largest number over 127.
        odd: whether a component's other half has the other sign.
        shape: of the whole volumes.
        affine: of their grid.
    """

    inside: Bool[np.ndarray, "h y z"]
    mean: Float[np.ndarray, " voxels"]
    steps: Int8[np.ndarray, "k voxels"]
    unit: Float[np.ndarray, " k"]
    odd: Bool[np.ndarray, " k"]
    shape: Any
    affine: Float[np.ndarray, "4 4"]


AIR = 2e-4
"""Attenuation, 1/mm, that no voxel which is left out has in the mean or in a component: 1 % of water's."""


def packed(modes: Modes) -> Packed:
    """The modes as they are handed on."""
    volumes = modes.volumes
    half = volumes[:, : (volumes.shape[1] + 1) // 2]
    inside = np.abs(half).max(0) > AIR
    mean, components = half[0, inside], half[1:, inside]
    small = rounded.rows(jnp.asarray(components))
    steps, unit = np.asarray(small.steps), np.asarray(small.unit)
    shape = np.array(modes.grid.shape, np.int32)
    return Packed(inside, mean, steps, unit, modes.odd, shape, modes.grid.affine)


def unpacked(small: Packed) -> Modes:
    """The modes again."""
    half = np.zeros((1 + len(small.steps), *small.inside.shape), np.float32)
    half[0, small.inside] = small.mean
    unit = jnp.asarray(small.unit, jnp.float32)
    half[1:, small.inside] = rounded.Rows(jnp.asarray(small.steps), unit).arrays()
    x, y, z = map(int, small.shape)
    sign = np.where(np.concatenate([[False], small.odd]), -1.0, 1.0).astype(np.float32)
    other = sign[:, None, None, None] * half[:, : x - half.shape[1]][:, ::-1]
    affine = np.asarray(small.affine, np.float64)
    return Modes(np.concatenate([half, other], 1), Grid((x, y, z), affine))
