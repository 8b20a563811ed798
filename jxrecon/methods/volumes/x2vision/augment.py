"""Adaptive discriminator augmentation of CT volumes: what the discriminator sees is moved and rescaled.

StyleGAN2-ADA (arXiv 2006.06676) with the transformations that make sense for CT: left-right flip,
translation, anisotropic scale, small rotations, brightness and contrast; no 90 degree rotations. Each is
applied to each sample with probability p, which follows the discriminator's overfitting (`adjust`).
Differentiable in the volumes as often as one likes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from jxrecon.types import Key


class Strengths(NamedTuple):
    """How far each transformation goes; those of StyleGAN2-ADA but for the rotation."""

    translation: float = 0.125  # largest shift / the volume's size; whole voxels, uniform
    scale_std: float = 0.2  # of log2 of the scale, independent along each axis
    rotation_std_deg: float = 7.0  # of the angle about each axis
    brightness_std: float = 0.2  # of the offset, in network units (the window is 2 wide)
    contrast_std: float = 0.5  # of log2 of the factor


DEFAULT = Strengths()


def augment(
    key: Key,
    volumes: Float[Array, "b x y z 1"],
    p: Float[Array, ""] | float,
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
    strengths: Strengths = DEFAULT,
) -> Float[Array, "b x y z 1"]:
    """Each volume under its own random transformation, each part of which happens with probability p.

    Args:
        volumes: in network units, air is -1; axis x is left-right.
        p: probability of each part; p = 0 returns the volumes unchanged.
        spacing_mm: voxel edges along x, y, z, so that rotations stay rigid; only ratios matter.
        strengths: how far each part goes.

    Returns:
        Trilinear samples, of the same shape; air moves in from outside.
    """
    batch, *shape = volumes.shape[:-1]
    uniform = jax.random.uniform(jax.random.fold_in(key, 0), (batch, 10))
    normal = jax.random.normal(jax.random.fold_in(key, 1), (batch, 8))
    # flip, translation, scale, rotation, brightness, contrast
    applied = jnp.where(uniform[:, :6] < p, 1.0, 0.0)

    flip = 1 - 2 * applied[:, 0] * jnp.where(uniform[:, 6] < 0.5, 1.0, 0.0)
    reach = np.array(shape, np.float32) * strengths.translation
    shift = jnp.round((2 * uniform[:, 7:10] - 1) * reach[None]) * applied[:, 1, None]
    scale = jnp.exp2(normal[:, :3] * strengths.scale_std * applied[:, 2, None])
    angles = normal[:, 3:6] * jnp.deg2rad(strengths.rotation_std_deg) * applied[:, 3, None]
    brightness = normal[:, 6] * strengths.brightness_std * applied[:, 4]
    contrast = jnp.exp2(normal[:, 7] * strengths.contrast_std * applied[:, 5])

    spacing = jnp.asarray(spacing_mm, jnp.float32)
    to_source = _rotations(angles) * (spacing[None, None] / spacing[None, :, None])
    to_source = to_source / scale[:, None, :]  # rows: source axes; columns: axes of the result
    to_source = to_source.at[:, 0].multiply(flip[:, None])
    centre = (np.array(shape, np.float32) - 1) / 2
    index = np.indices(shape, np.float32).reshape(3, -1)
    offset = index[None] - centre[None, :, None] - shift[:, :, None]
    source = jnp.matmul(to_source, offset, precision="highest") + centre[None, :, None]

    def sample(volume: Float[Array, "x y z"], source: Float[Array, "3 v"]) -> Float[Array, " v"]:
        return map_coordinates(volume, list(source), order=1, mode="constant", cval=-1.0)

    moved = jax.vmap(sample)(volumes[..., 0], source).reshape(volumes.shape)
    to_volumes = (batch, 1, 1, 1, 1)
    return (moved + brightness.reshape(to_volumes)) * contrast.reshape(to_volumes)


def _rotations(angles: Float[Array, "b 3"]) -> Float[Array, "b 3 3"]:
    """Rz Ry Rx of the angles about x, y, z in radians."""
    c, s = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones_like(c[:, 0]), jnp.zeros_like(c[:, 0])

    def matrix(*entries: Array) -> Array:
        return jnp.stack(entries, -1).reshape(-1, 3, 3)

    x = matrix(one, zero, zero, zero, c[:, 0], -s[:, 0], zero, s[:, 0], c[:, 0])
    y = matrix(c[:, 1], zero, s[:, 1], zero, one, zero, -s[:, 1], zero, c[:, 1])
    z = matrix(c[:, 2], -s[:, 2], zero, s[:, 2], c[:, 2], zero, zero, zero, one)
    return jnp.matmul(jnp.matmul(z, y, precision="highest"), x, precision="highest")


def adjust(
    p: Float[Array, ""],
    sign_mean: Float[Array, ""],
    images: int,
    target: float = 0.6,
    kimg: float = 500.0,
) -> Float[Array, ""]:
    """The next p: up where the discriminator overfits, E[sign D(real)] > target, else down.

    Args:
        p: probability so far.
        sign_mean: mean of sign(D(real)) since the last adjustment.
        images: real volumes seen since then.
        target: what `sign_mean` is to be.
        kimg: in so many thousand images p moves by 1.

    Returns:
        p in [0, 1].
    """
    step = jnp.sign(sign_mean - target) * (images / (kimg * 1000.0))
    return jnp.clip(p + step, 0.0, 1.0)
