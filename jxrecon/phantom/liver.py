"""SYNTHETIC livers: a family of closed surfaces of one topology, drawn so that all runs without data.

The unit sphere's point d goes to

    x = L_left t,  t < 0          t = d_x; +x is the patient's right
        L_right t, t >= 0
    y = a(t) d_y                   a(t), b(t): half depth and half height of the section at t, which
    z = b(t) (d_z < 0 ? u(t) : 1) d_z + c(t)      shrink towards the left; u: the underside; c: tilt

and then along smooth waves of a few mm: a big right lobe with a round dome and a tip that reaches down,
a thin left lobe, a flat underside. It is no anatomical atlas: no fissures, no hilum.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float

from jxrecon.mesh import Mesh, Template, template
from jxrecon.mesh.topology import Vertices

SUBDIVISIONS = 3
"""Subdivisions of the icosahedron: 642 vertices, 1,280 faces."""

_WAVES = 6


@cache
def _sphere() -> Mesh:
    import trimesh  # takes half a second, and only synthetic livers need it

    sphere = trimesh.creation.icosphere(subdivisions=SUBDIVISIONS)
    return Mesh(np.asarray(sphere.vertices, np.float64), np.asarray(sphere.faces, np.int32))


def liver_template() -> Template:
    """The topology of all synthetic livers, with the average liver's vertices in mm."""
    return template(Mesh(_shape(np.zeros(8)), _sphere().faces))


def liver(seed: int, subject: int) -> Vertices:
    """The synthetic liver of this number in the population of this seed, always the same.

    Returns:
        [642, 3] mm, float32, RAS, the mean of the vertices at the origin.
    """
    random = np.random.default_rng([seed, subject])
    shape = _shape(random.normal(size=8).clip(-2.0, 2.0))
    wave = random.normal(size=(_WAVES, 3))
    length_mm = random.uniform(90.0, 180.0, (_WAVES, 1))
    wave *= 2 * np.pi / length_mm / np.linalg.norm(wave, axis=1)[:, None]
    direction = random.normal(size=(_WAVES, 3))
    offset = random.uniform(0.0, 2 * np.pi, _WAVES)
    shape = shape + 1.2 * np.sin(shape @ wave.T + offset) @ direction
    return (shape - shape.mean(0)).astype(np.float32)


def _shape(z: Float[np.ndarray, "8"]) -> Vertices:
    """The surface of eight standard deviations of size, lengths, depth, height, tip, tilt, underside."""
    size, right, left, depth, height, tip, tilt, under = z
    x, y, up = _sphere().vertices.T
    toward = (x + 1) / 2  # 0 at the left end, 1 at the right
    half_depth = (86.0 + 6.0 * depth) * (0.42 + 0.58 * toward**0.8)
    half_height = (92.0 + 7.0 * height) * (0.24 + 0.76 * toward**1.2)
    below = 0.55 + 0.06 * under + (0.75 + 0.15 * tip) * np.clip(toward - 0.55, 0.0, None) / 0.45
    lift = (28.0 + 5.0 * tilt) * (1.0 - toward) ** 1.5
    points = np.stack(
        [
            np.where(x < 0, 122.0 + 10.0 * left, 82.0 + 5.0 * right) * x,
            half_depth * y + 14.0 * (1.0 - toward),
            half_height * np.where(up < 0, below, 1.0) * up + lift,
        ],
        axis=1,
    ) * (1.0 + 0.05 * size)
    return points - points.mean(0)
