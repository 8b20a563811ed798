"""A shape model: mean and principal components of corresponding surfaces.

    x = mean + sum_m b_m sigma_m phi_m        x: V vertices as one vector, phi_m orthonormal, b_m ~ N(0, 1)

[Cootes 1995] Surfaces keep their size and their turn; their places are taken away.
New shapes with |b_m| <= 2 augment a training set as in Wu 2019 (statistical deformation model).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon.mesh.topology import Vertices
from jxrecon.types import InputError

LIMIT_SD = 2.0
"""How far a drawn coefficient may lie from the mean shape, in standard deviations."""


class ShapeModel(NamedTuple):
    """Mean and modes of n surfaces.

    Attributes:
        mean: [V, 3] mm, its centroid at the origin.
        components: [M, V, 3] orthonormal, by falling deviation; M at most n - 1.
        deviations: [M] standard deviation along each, mm.
    """

    mean: Vertices
    components: Float[np.ndarray, "m v 3"]
    deviations: Float[np.ndarray, " m"]


def aligned(surfaces: Float[np.ndarray, "n v 3"]) -> Float[np.ndarray, "n v 3"]:
    """The surfaces with their centroids at the origin."""
    return surfaces - surfaces.mean(1, keepdims=True)


def fit(surfaces: Float[np.ndarray, "n v 3"]) -> ShapeModel:
    """The model of corresponding surfaces: [n, V, 3] mm, vertex k the same place of each.

    Raises:
        InputError: there are fewer than two surfaces, a vertex is not finite, or all are one shape.
    """
    surfaces = np.asarray(surfaces, np.float64)
    if surfaces.ndim != 3 or surfaces.shape[2] != 3 or len(surfaces) < 2:
        raise InputError(
            f"shape model: surfaces of shape {surfaces.shape}, expected [n, V, 3] with n at least 2"
        )
    if not np.isfinite(surfaces).all():
        bad = int(np.flatnonzero(~np.isfinite(surfaces).all((1, 2)))[0])
        raise InputError(f"shape model: surface {bad} holds a vertex that is not finite")
    flat = aligned(surfaces).reshape(len(surfaces), -1)
    mean = flat.mean(0)
    # By the n x n matrix of products: V is much larger than n.
    centred = flat - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    count = min(int(np.sum(values > 1e-12 * max(values[0], 1e-12))), len(surfaces) - 1)
    if count < 1 or values[0] <= 1e-9:
        raise InputError("shape model: all surfaces have one shape, expected some that differ")
    components = (vectors[:, :count].T @ centred) / np.sqrt(values[:count])[:, None]
    return ShapeModel(
        mean.reshape(-1, 3).astype(np.float32),
        components.reshape(count, -1, 3).astype(np.float32),
        np.sqrt(values[:count] / (len(surfaces) - 1)).astype(np.float32),
    )


def shapes(model: ShapeModel, coefficients: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n v 3"]:
    """Coefficients in standard deviations -> surfaces in mm; fewer than M coefficients leave 0."""
    used = coefficients.shape[1]
    weights = (coefficients * model.deviations[:used]).astype(np.float32)
    return model.mean + np.tensordot(weights, model.components[:used], 1)


def draw(model: ShapeModel, random: np.random.Generator, count: int) -> Float[np.ndarray, "n v 3"]:
    """`count` new surfaces in mm: normal coefficients, none beyond `LIMIT_SD`. [Wu 2019]"""
    coefficients = random.normal(size=(count, len(model.deviations)))
    return shapes(model, coefficients.clip(-LIMIT_SD, LIMIT_SD))
