"""What a surface covers of a detector, and what its front carries, by dense samples of the faces; for `jit`.

Differs from a rasteriser: pixels are hit by points, not cut by triangles, so an outline is right to half a
pixel. Not differentiable in the vertices; `mesh.silhouette` is the exact one in NumPy.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jxrecon.geometry import Camera
from jxrecon.mesh import Template

APART = 0.75
"""Pixels between samples on the template's longest edge. Beyond 0.86 a lattice can miss a pixel."""

BEHIND_MM = 10.0
"""How far behind the foremost sample of a pixel another one still belongs to the front."""


class Splatter(NamedTuple):
    """Points on the faces of every surface with a template's topology, and the camera that sees them.

    Attributes:
        faces: the template's.
        weights: barycentric coordinates of the points within a face.
        camera: the X-ray's.
    """

    faces: Int[Array, "f 3"]
    weights: Float[Array, "s 3"]
    camera: Camera

    def places(self, vertices: Float[Array, "v 3"]) -> tuple[Array, Array]:
        """(pixel number of every point, rows * columns where it misses; its distance to the source in mm)."""
        rows, columns = self.camera.shape
        points = self.spread(vertices)
        place = jnp.round(self.camera.place_of(points))
        inside = (place >= 0) & (place <= jnp.array([[rows - 1, columns - 1]], place.dtype))
        pixel = jnp.where(inside.all(-1), place[:, 0] * columns + place[:, 1], rows * columns)
        distance = jnp.linalg.norm(points - self.camera.source[None], axis=-1)
        return pixel.astype(jnp.int32), distance

    def spread(self, values: Float[Array, "v c"]) -> Float[Array, "p c"]:
        """Values of the vertices, interpolated to the points."""
        corners = values[self.faces]
        points = jnp.einsum("sk,fkc->fsc", self.weights, corners, precision="highest")
        return points.reshape(-1, values.shape[-1])

    def silhouette(self, vertices: Float[Array, "b v 3"]) -> Bool[Array, "b rows columns"]:
        """Which pixels the surface covers."""
        rows, columns = self.camera.shape

        def one(vertices: Float[Array, "v 3"]) -> Bool[Array, "rows columns"]:
            pixel, _ = self.places(vertices)
            hit = jnp.zeros(rows * columns, bool).at[pixel].set(True, mode="drop")
            return hit.reshape(rows, columns)

        return jax.lax.stop_gradient(jax.vmap(one)(vertices))

    def front(
        self, vertices: Float[Array, "b v 3"], values: Float[Array, "b v c"]
    ) -> Float[Array, "b rows columns c"]:
        """The values on the side of the surface that faces the source, 0 where there is none."""
        rows, columns = self.camera.shape

        def one(vertices: Float[Array, "v 3"], values: Float[Array, "v c"]) -> Array:
            pixel, distance = self.places(vertices)
            nearest = jnp.full(rows * columns, jnp.inf, distance.dtype)
            nearest = nearest.at[pixel].min(distance, mode="drop")
            seen = distance <= nearest[jnp.minimum(pixel, rows * columns - 1)] + BEHIND_MM
            ones = jnp.ones((len(pixel), 1), values.dtype)
            known = jnp.concatenate([self.spread(values), ones], axis=-1)
            total = jnp.zeros((rows * columns, known.shape[-1]), values.dtype)
            total = total.at[pixel].add(jnp.where(seen[:, None], known, 0.0), mode="drop")
            mean = total[:, :-1] / jnp.maximum(total[:, -1:], 1.0)
            return mean.reshape(rows, columns, -1)

        return jax.lax.stop_gradient(jax.vmap(one)(vertices, values))


def splatter(template: Template, camera: Camera) -> Splatter:
    """Points less than a pixel apart on every face, as the template is seen by the camera."""
    place = np.asarray(camera.place_of(jnp.asarray(template.vertices)))
    longest = np.linalg.norm(np.diff(place[template.edges], axis=1), axis=-1).max()
    steps = max(1, int(np.ceil(longest / APART)))
    i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    i, j = i[i + j <= steps], j[i + j <= steps]
    weights = np.stack([i, j, steps - i - j], axis=-1) / steps
    return Splatter(jnp.asarray(template.faces), jnp.asarray(weights, jnp.float32), camera)
