"""Earlier CTs of the patients that are reconstructed: from files, or SIMULATED where there are none.

No patient of the data was scanned twice. The simulated scan is made from the present one:

    earlier(y) = (1 + g) (hu(R y + t + d(y)) + 1000) - 1000 + noise       places y in mm from the middle
    d(y) = s sum_m c_m cos(k_m . y + o_m),    k_m ~ N(0, 1/L^2),  c_m ~ N(0, I),  o_m ~ U(0, 2 pi)

R and t stand for another position on the table, d for another posture, g for another calibration. The sum
of random waves is close to a Gaussian random field of correlation exp(-r^2 / 2 L^2) and does not depend on
the voxels (Rahimi & Recht, NeurIPS 2007); s makes the root mean square of |d| over the grid as asked.

What is simulated is kinder than what happens in months: no tumour shrinks, no weight is lost, nothing is
inserted or filled, and bones bend as flesh does. The amplitudes are chosen, not measured on patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Float64

from jxrecon.data.body import TISSUE_HU, body_mask, without_surroundings
from jxrecon.deformation.warp import places
from jxrecon.geometry import Grid, centred_grid
from jxrecon.io import ct
from jxrecon.io.finding import of_cases
from jxrecon.io.nifti import resample
from jxrecon.pose import rotation_matrix
from jxrecon.types import AnyArray, InputError, Key
from jxrecon.units import HU_AIR, NOTHING_STATED, Stated

ENDINGS = (*(f"_ct{ending}" for ending in ct.ENDINGS), *ct.ENDINGS)
"""What follows the name of a case."""

WAVES = 128
"""Waves of d: enough to be Gaussian to the eye."""

_EXACT = jax.lax.Precision.HIGHEST


def find_earlier(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The earlier scan of each case: NAME_ct.nii.gz, NAME.nii.gz, another ending or a DICOM folder NAME.

    Raises:
        InputError: a case has no file, or several.
    """
    return of_cases(folder, ENDINGS, names, "earlier scan", ct.holds_ct)


def read_earlier(
    path: Path,
    shape: tuple[int, int, int],
    affine: Float64[np.ndarray, "4 4"],
    stated: Stated = NOTHING_STATED,
) -> Float[np.ndarray, "x y z"]:
    """An earlier scan in HU on the voxels of a case, air outside the body and outside the file.

    Args:
        path: a CT in HU, rigidly registered: its world is the case's own.
        shape: voxels of the case along x, y, z.
        affine: affine of the case, index -> world mm (RAS).
        stated: what the user says about the file's numbers.

    Raises:
        InputError: the file is no CT, or no body of it lies where the case is.
    """
    hu, own = ct.read_ct(path, stated)
    body = body_mask(hu, own)
    found = resample(without_surroundings(hu, body), own, Grid(shape, affine), HU_AIR)
    if not (found > TISSUE_HU).any():
        raise InputError(
            f"{path}: none of its body lies where the case is, expected a scan registered to it"
        )
    return np.asarray(found, np.float32)


class Changes(NamedTuple):
    """How much changes between the scans.

    Attributes:
        displacement_mm: root mean square of |d| over the grid.
        correlation_mm: L.
        rotation_deg: angle of R, about a random axis through the middle of the grid.
        translation_mm: length of t, in a random direction.
        gain: standard deviation of g; air stays.
        noise_hu: standard deviation of the noise, without correlation from voxel to voxel.
    """

    displacement_mm: float = 4.0
    correlation_mm: float = 40.0
    rotation_deg: float = 3.0
    translation_mm: float = 3.0
    gain: float = 0.02
    noise_hu: float = 15.0


def simulated_earlier_scan(
    hu: Float[AnyArray, "x y z"],
    spacing_mm: tuple[float, float, float],
    key: Key,
    changes: Changes | None = None,
) -> Float[Array, "x y z"]:
    """The earlier scan, SIMULATED; the same key gives the same scan.

    Places that come from outside the volume take its nearest value.

    Args:
        hu: the present scan.
        spacing_mm: edges of a voxel, numbers and not traced.
        key: of everything random.
        changes: None: the defaults.

    Raises:
        InputError: an amplitude is negative, or the correlation or spacing not positive.
    """
    changes = changes or Changes()
    displacement_mm, correlation_mm, rotation_deg, translation_mm, gain, noise_hu = changes
    if not all(size >= 0 for size in changes) or not min(correlation_mm, *spacing_mm) > 0:
        raise InputError(
            f"simulated earlier scan with {changes} and spacing {spacing_mm} mm, expected amplitudes "
            "from 0 on and positive lengths"
        )
    bend, turn, push, scale, noise = jax.random.split(key, 5)
    x, y, z = hu.shape
    points = jnp.asarray(places(centred_grid((x, y, z), spacing_mm)))
    # R - I, so that no motion is none to the last bit.
    turned = rotation_matrix(jnp.deg2rad(rotation_deg) * _direction(turn)) - jnp.eye(3)
    motion = jnp.matmul(points, turned.T, precision=_EXACT)
    motion += (translation_mm * _direction(push))[None, None, None]
    motion += smooth_displacement(points, bend, displacement_mm, correlation_mm)
    voxels = motion / jnp.asarray(spacing_mm, jnp.float32)[None, None, None]
    index = jnp.indices(hu.shape, jnp.float32)
    moved = map_coordinates(
        jnp.asarray(hu, jnp.float32), list(index + jnp.moveaxis(voxels, -1, 0)), 1, mode="nearest"
    )
    g = gain * jax.random.normal(scale)
    return moved + g * (moved - HU_AIR) + noise_hu * jax.random.normal(noise, hu.shape)


def smooth_displacement(
    points_mm: Float[AnyArray, "x y z 3"], key: Key, rms_mm: float, correlation_mm: float
) -> Float[Array, "x y z 3"]:
    """d of the file's head at these places, mm: `rms_mm` over them, `correlation_mm` is L."""
    where, how, when = jax.random.split(key, 3)
    waves = jax.random.normal(where, (3, WAVES)) / correlation_mm
    shares = jax.random.normal(how, (WAVES, 3))
    offsets = jax.random.uniform(when, (1, 1, WAVES), maxval=2 * jnp.pi)

    def slab(points: Float[Array, "y z 3"]) -> Float[Array, "y z 3"]:
        phase = jnp.matmul(points, waves, precision=_EXACT) + offsets
        return jnp.matmul(jnp.cos(phase), shares, precision=_EXACT)

    d = jax.lax.map(slab, jnp.asarray(points_mm))
    return d * (rms_mm / jnp.sqrt(jnp.mean(jnp.sum(jnp.square(d), -1))))


def _direction(key: Key) -> Float[Array, "3"]:
    vector = jax.random.normal(key, (3,))
    return vector / jnp.linalg.norm(vector)
