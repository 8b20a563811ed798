"""Where the vertices of one organ's surface lie on another's: closest points, smoothed coarse to fine.

    p <- p + K_sigma (closest points of p, both ways, minus p)      sigma from 60 to 12 mm
    then p <- the mean of its three closest points

K is a normalised Gaussian kernel over the vertices, so that neighbours move together: a coherent
correspondence for warping a CT, not a registration that a statistic could rest on.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jxrecon.mesh.topology import Vertices

SIGMAS_MM = (60.0, 40.0, 25.0, 16.0, 12.0)
"""Width of the smoothing, coarse to fine."""

_REPEATS = 5
_LAST = 3  # points of the surface that a vertex comes to lie among


def matched(vertices: Vertices, surface: Float[np.ndarray, "s 3"]) -> Vertices:
    """The vertices laid onto another surface of the same organ.

    The start brings the bounding boxes together: place and size along each axis.

    Args:
        vertices: vertices of one organ, mm, in the same orientation.
        surface: points on the other, as dense as the vertices or denser.

    Returns:
        [V, 3] mm, float32, on the surface, in the order of the vertices.
    """
    low, high = vertices.min(0), vertices.max(0)
    onto_low, onto_high = surface.min(0), surface.max(0)
    points = (vertices - low) / (high - low) * (onto_high - onto_low) + onto_low
    points = points.astype(np.float64)
    tree = cKDTree(surface)
    apart = ((vertices[:, None] - vertices[None]) ** 2).sum(-1, dtype=np.float32)
    for sigma in SIGMAS_MM:
        kernel = np.exp(apart / (-2 * sigma**2))
        kernel /= kernel.sum(1, keepdims=True)
        for _ in range(_REPEATS):
            there = surface[tree.query(points)[1]] - points
            # what the surface says of its nearest vertices: else ends of lobes stay uncovered
            nearest = cKDTree(points).query(surface)[1]
            count = np.bincount(nearest, minlength=len(points))
            for axis in range(3):
                said = np.bincount(nearest, surface[:, axis], len(points)) - count * points[:, axis]
                said = np.divide(said, count, out=there[:, axis].copy(), where=count > 0)
                there[:, axis] = (there[:, axis] + said) / 2
            points += kernel @ there
    return surface[tree.query(points, k=_LAST)[1]].mean(1).astype(np.float32)
