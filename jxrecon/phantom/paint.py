"""Painting SYNTHETIC anatomy on a grid: a skin made of smoothly joined bodies, organs over it, texture.

Later bodies cover earlier ones with an edge one voxel wide, so that a coarse grid shows what the mean of
a fine one would. Organs are painted in patches of a fixed size about their centre: the time goes with
what is painted, not with the volume.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.phantom.primitives import Primitives, distance_mm, local_coordinates
from jxrecon.units import HU_AIR

_JOIN_MM = 14.0  # radius of the fillet between two parts of the body's outline
_SKIN_MM = 2.2
_SKIN_HU, _FAT_HU, _LEAN_HU = 20.0, -105.0, 5.0


Patch: TypeAlias = tuple[int, int, int]
"""How many voxels along x, y, z a body is painted into."""


def patch_for(
    extent_mm: tuple[float, float, float] | None,
    shape: tuple[int, int, int],
    spacing_mm: np.ndarray,
) -> Patch:
    """The patch that holds SYNTHETIC bodies of at most this extent; None is the whole grid."""
    if extent_mm is None:
        return shape
    needed = np.ceil(np.asarray(extent_mm) / spacing_mm).astype(int) + 2
    return tuple(np.minimum(needed, shape).tolist())


def _coverage(distance: Array, width_mm: Array) -> Array:
    """Share of a voxel on the inner side of a plane at this distance; exactly 0 and 1 beyond it."""
    return jnp.clip(0.5 - distance / width_mm, 0.0, 1.0)


def _edge_mm(affine: Float[Array, "4 4"]) -> Float[Array, ""]:
    """Width of a voxel: the edge of the cube of its volume."""
    columns = affine[:3, :3]
    return jnp.abs(jnp.dot(columns[:, 0], jnp.cross(columns[:, 1], columns[:, 2]))) ** (1 / 3)


def skin(
    outline: Primitives, affine: Float[Array, "4 4"], shape: tuple[int, int, int]
) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"]]:
    """The SYNTHETIC body in HU (skin, fat, lean filling, exact air outside) and its lean share.

    The outline is the polynomial smooth union of its bodies (Quilez): h = clip(1/2 + (D - d) / 2k),
    D <- D - h (D - d) - k h (1 - h), the thickness of fat mixed by the same h.

    Args:
        outline: bodies without fat; `value` is the thickness of fat over each in mm.
        affine: of the grid, index -> world mm.
    """

    def join(carry: tuple[Array, Array], body: Primitives) -> tuple[tuple[Array, Array], None]:
        outer, fat = carry
        q = local_coordinates(body, affine, jnp.zeros(3), shape)
        distance = distance_mm(body.axes, body.flat, q)
        h = jnp.clip(0.5 + (outer - distance) / (2 * _JOIN_MM), 0.0, 1.0)
        outer = outer + h * (distance - outer) - _JOIN_MM * h * (1 - h)
        return (outer, fat + h * (body.value - fat)), None

    nothing = (jnp.full(shape, 1e3), jnp.zeros(shape))
    (distance, fat), _ = jax.lax.scan(join, nothing, outline)
    width = _edge_mm(affine)
    hu = HU_AIR + (_SKIN_HU - HU_AIR) * _coverage(distance - fat - _SKIN_MM, width)
    hu = hu + (_FAT_HU - hu) * _coverage(distance - fat, width)
    lean = _coverage(distance, width)
    return hu + (_LEAN_HU - hu) * lean, lean


def paint(
    hu: Float[Array, "x y z"], bodies: Primitives, affine: Float[Array, "4 4"], patch: Patch
) -> Float[Array, "x y z"]:
    """`hu` with SYNTHETIC bodies painted over it, one after the other, with one-voxel edges.

    A body thinner than a voxel is widened to one and thinned out by as much: its sum is kept.

    Args:
        bodies: `value` in HU.
        affine: index -> world mm.
        patch: voxels about a body's centre that are painted; must hold the largest of the bodies.
    """
    width = _edge_mm(affine)
    room = jnp.asarray(np.subtract(hu.shape, patch), jnp.int32)
    inverse = jnp.linalg.inv(affine[:3, :3])

    def cover(hu: Array, body: Primitives) -> tuple[Array, None]:
        index = jnp.matmul(inverse, body.centre - affine[:3, 3])
        start = jnp.round(index - (jnp.asarray(patch, jnp.float32) - 1) / 2).astype(jnp.int32)
        start = jnp.clip(start, 0, room)
        axes = jnp.maximum(body.axes, width / 2)
        q = local_coordinates(body, affine, start.astype(jnp.float32), patch)
        opacity = jnp.prod(body.axes / axes) * _coverage(distance_mm(axes, body.flat, q), width)
        old = jax.lax.dynamic_slice(hu, start, patch)
        return jax.lax.dynamic_update_slice(hu, old + opacity * (body.value - old), start), None

    return jax.lax.scan(cover, hu, bodies)[0]


def texture(
    noise: Float[Array, "waves 4"], affine: Float[Array, "4 4"], shape: tuple[int, int, int]
) -> Float[Array, "x y z"]:
    """SYNTHETIC texture of unit variance: plane waves in world mm, averaged over each voxel exactly.

    n(x) = sqrt(2 / K) sum_k cos(k.x + phase), wavelengths from 6 to 60 mm; separable over the grid's
    axes, so it costs a matrix product; the mean over a voxel multiplies each wave by three sincs.

    Args:
        noise: standard normal: three numbers for the direction of a wave, one for its phase.
        affine: of the grid, index -> world mm.
    """
    waves = noise.shape[0]
    direction = noise[:, :3] / (jnp.linalg.norm(noise[:, :3], axis=1, keepdims=True) + 1e-6)
    wavelength_mm = jnp.asarray(np.geomspace(6.0, 60.0, waves), jnp.float32)
    wave = direction * (2 * jnp.pi / wavelength_mm)[:, None]
    per_index = jnp.matmul(wave, affine[:3, :3], precision=jax.lax.Precision.HIGHEST)
    offset = jnp.matmul(wave, affine[:3, 3]) + 2 * jnp.pi * noise[:, 3]
    amplitude = jnp.prod(jnp.sinc(per_index / (2 * jnp.pi)), axis=1) * (2 / waves) ** 0.5
    x, y, z = (
        jnp.arange(n, dtype=jnp.float32)[:, None] * per_index[None, :, axis]
        for axis, n in enumerate(shape)
    )
    xy = x[:, None] + (y + offset[None])[None]
    plane = jnp.stack([jnp.cos(xy), -jnp.sin(xy)], -1) * amplitude[None, None, :, None]
    last = jnp.stack([jnp.cos(z), jnp.sin(z)], -1)
    return jnp.einsum("xykc,zkc->xyz", plane, last)


def textured(hu: Float[Array, "x y z"], noise: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """SYNTHETIC tissue with texture: 12 HU in soft tissue, 6% more in bone, none in air."""
    soft = 12.0 * jnp.clip((hu - HU_AIR) / 400.0, 0.0, 1.0)
    return hu + (soft + 0.06 * jnp.maximum(hu, 0.0)) * noise
