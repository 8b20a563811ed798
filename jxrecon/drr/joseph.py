"""Smooth line integrals: Joseph's method, one bilinear sample in every slice that a ray crosses.

Joseph (IEEE Trans. Med. Imaging 1, 1982). Continuous and piecewise differentiable in the pose, for
any camera, traced or not: the slow, obvious form of what `separable` computes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jxrecon.drr.rays import Rays, sum_over_axes, walking_axes


def joseph(mu: Float[Array, "x y z"], rays: Rays) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm), interpolated linearly within slices, from the source to each pixel.

    A slice stands for the slab of half a voxel to either side; a segment that begins or ends within
    a slab counts for the part it covers. All rays share one axis unless the cone is too wide for it.
    """
    return sum_over_axes(_integrate, mu, rays, walking_axes(rays))


@jax.jit
def _integrate(slices, walk):
    """Sum over slices of (bilinear sample) (part of the slab that the segment covers), then mm."""
    count, height, width = slices.shape
    padded = jnp.pad(slices, ((0, 0), (1, 2), (1, 2))).reshape(count, -1)
    middle = (count - 1) / 2
    row = width + 3

    @jax.checkpoint
    def add_slice(total, step):
        k, values = step
        covered = jnp.minimum(k + 0.5, walk.far) - jnp.maximum(k - 0.5, walk.near)
        y, x = (at + (k - middle) * m for at, m in zip(walk.at, walk.slope))
        y, x = jnp.clip(y, -1.0, height) + 1.0, jnp.clip(x, -1.0, width) + 1.0
        j, i = jnp.floor(y), jnp.floor(x)
        fy, fx = y - j, x - i
        cell = j.astype(jnp.int32) * row + i.astype(jnp.int32)

        def value(offset):
            return values.at[cell + offset].get(mode="promise_in_bounds")

        above = value(0) * (1.0 - fx) + value(1) * fx
        below = value(row) * (1.0 - fx) + value(row + 1) * fx
        sample = above * (1.0 - fy) + below * fy
        return total + sample * jnp.maximum(covered, 0.0), None

    k = jnp.arange(count, dtype=slices.dtype)
    total, _ = lax.scan(add_slice, jnp.zeros_like(walk.mm), (k, padded))
    return total * walk.mm
