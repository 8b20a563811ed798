"""Where a CT was cut off: anatomy goes on beyond its faces, and rays through it see what the CT lacks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.geometry import AnyCamera, ParallelCamera
from jxrecon.types import AnyArray
from jxrecon.units import MU_WATER_PER_MM

FAINT = 0.01
"""Weight of rays that pass where the CT was cut off: where all do, all count alike."""

TISSUE_PER_MM = 0.3 * MU_WATER_PER_MM
"""Voxels at the volume's border that attenuate more were cut off from more of their kind."""


def beyond(mu: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "6 3 2"]:
    """Boxes where anatomy goes on unseen: behind each face of the volume, as wide as its tissue there.

    Returns:
        (lowest, highest) index along x, y, z; empty behind a face without tissue.
    """
    far = 4.0 * max(mu.shape)
    boxes = np.tile(np.array([far, -far]), (6, 3, 1))  # empty: from high to low
    for axis in range(3):
        for side, end in enumerate((0, mu.shape[axis] - 1)):
            places = np.argwhere(np.take(mu, end, axis) > TISSUE_PER_MM)
            if len(places):
                box = np.stack([places.min(0) - 0.5, places.max(0) + 0.5], 1)
                outwards = (end + 0.5, far) if side else (-far, -0.5)
                boxes[2 * axis + side] = np.insert(box, axis, outwards, 0)
    return boxes


def visible(
    camera: AnyCamera, hidden: Float[AnyArray, "6 3 2"], to_index: Float[AnyArray, "4 4"]
) -> Float[Array, "rows columns"]:
    """1 for rays that meet none of the boxes, `FAINT` for the others."""
    pixels = camera.pixels()
    if isinstance(camera, ParallelCamera):
        origin, direction = pixels, jnp.broadcast_to(camera.direction, pixels.shape)
        ends = -jnp.inf, jnp.inf
    else:
        origin = jnp.broadcast_to(camera.source, pixels.shape)
        direction, ends = pixels - origin, (0.0, 1.0)
    turn = to_index[:3, :3].T
    origin = jnp.matmul(origin, turn, precision="highest") + to_index[None, None, :3, 3]
    direction = jnp.matmul(direction, turn, precision="highest")
    direction = jnp.where(jnp.abs(direction) < 1e-6, 1e-6, direction)
    # [box, row, column, axis, side] -> where each ray enters and leaves each slab
    places = hidden[:, None, None] - origin[None, ..., None]
    at = places / direction[None, ..., None]
    at = jnp.where((hidden[..., 0] > hidden[..., 1])[:, None, None, :, None], jnp.nan, at)
    enters, leaves = at.min(-1).max(-1), at.max(-1).min(-1)
    meets = jnp.maximum(enters, ends[0]) < jnp.minimum(leaves, ends[1])  # false for empty boxes
    return jnp.where(meets.any(0), FAINT, 1.0)
