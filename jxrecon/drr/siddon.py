"""Exact line integrals of voxels of constant attenuation: Siddon's sum in slab form.

Siddon (Med. Phys. 12, 1985) sorts all crossings of a ray with the grid's planes. Here each ray is
walked along the index axis it crosses fastest: in the slab of one slice it crosses at most one plane
of each other axis, so at most three voxels, in closed form, without sorting or storing crossings.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon.drr.rays import Rays, steepest_axes, sum_over_axes


def siddon(mu: Float[Array, "x y z"], rays: Rays) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel, exact for piecewise constant voxels.

    Differentiable, but a derivative by the pose sees voxel boundaries only where a ray crosses them:
    for poses use `joseph`.
    """
    return sum_over_axes(_integrate, mu, rays, steepest_axes(rays))


def siddon_along(axis: int, mu: Float[Array, "x y z"], rays: Rays) -> Float[Array, "rows columns"]:
    """The same for rays that all cross this axis fastest, which is known though they may be traced."""
    return sum_over_axes(_integrate, mu, rays, np.full(rays.shape, axis))


@jax.jit
def _integrate(slices, walk):
    """Sum over slices of (voxel value) (part of the slab spent in it), then mm."""
    count, height, width = slices.shape
    padded = jnp.pad(slices, ((0, 0), (1, 1), (1, 1))).reshape(count, -1)
    middle = (count - 1) / 2
    inverse = tuple(1.0 / jnp.where(m == 0, 1.0, m) for m in walk.slope)

    @jax.checkpoint
    def add_slab(total, step):
        k, values = step
        begin = jnp.clip(k - 0.5, walk.near, walk.far)
        end = jnp.clip(k + 0.5, walk.near, walk.far)

        def cells(other, size):
            """Padded cell at the slab's begin and end, and the k at which the ray changes cell."""
            at, m = walk.at[other], walk.slope[other]
            first = jnp.floor(at + (begin - middle) * m + 0.5)
            last = jnp.floor(at + (end - middle) * m + 0.5)
            plane = jnp.maximum(first, last) - 0.5
            change = middle + (plane - at) * inverse[other]
            change = jnp.where(first != last, jnp.clip(change, begin, end), end)
            inside = (jnp.clip(cell, -1, size).astype(jnp.int32) + 1 for cell in (first, last))
            return *inside, change

        y0, y1, change_y = cells(0, height)
        x0, x1, change_x = cells(1, width)
        earlier, later = jnp.minimum(change_x, change_y), jnp.maximum(change_x, change_y)
        x_first = change_x < change_y

        def value(y, x):
            return values.at[y * (width + 2) + x].get(mode="promise_in_bounds")

        between = value(jnp.where(x_first, y0, y1), jnp.where(x_first, x1, x0))
        total += value(y0, x0) * (earlier - begin) + between * (later - earlier)
        return total + value(y1, x1) * (end - later), None

    k = jnp.arange(count, dtype=slices.dtype)
    total, _ = lax.scan(add_slab, jnp.zeros_like(walk.mm), (k, padded))
    return total * walk.mm
