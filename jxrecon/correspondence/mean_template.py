"""A template from several organs: a geodesic sphere wrapped onto them, and the mean of what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh

from jxrecon.correspondence.fit import MOST_VERTICES, Settings, fit, operators_of
from jxrecon.mesh import Mesh, Template
from jxrecon.mesh import template as template_of
from jxrecon.mesh.points import sampled
from jxrecon.terminal import progress
from jxrecon.types import InputError

COARSE = 4
"""Stages that the organs of a template are fitted with: details would not survive the mean."""

LEAST_FREQUENCY = 3
"""Least frequency of a geodesic sphere: 92 vertices."""


def frequency_of(vertices: int) -> int:
    """The f whose geodesic sphere's 10 f^2 + 2 vertices are nearest to a wanted number.

    Raises:
        InputError: fewer than 50 are wanted, or more than `MOST_VERTICES`.
    """
    if not 50 <= vertices <= MOST_VERTICES:
        raise InputError(f"{vertices} vertices: expected 50 to {MOST_VERTICES} for a template")
    return max(LEAST_FREQUENCY, round(np.sqrt((vertices - 2) / 10)))


def geodesic_sphere(frequency: int) -> Mesh:
    """The unit sphere of 10 f^2 + 2 vertices: an icosahedron whose edges are cut into f parts.

    Twelve vertices have five neighbours, all others six.
    """
    base = trimesh.creation.icosahedron()
    steps = [(i, j) for i in range(frequency + 1) for j in range(frequency + 1 - i)]
    place = {step: n for n, step in enumerate(steps)}
    i, j = np.array(steps).T / frequency
    corners = np.asarray(base.vertices)[base.faces]
    weights = np.stack([1 - i - j, i, j], axis=1)
    points = np.einsum("pk,tkd->tpd", weights, corners).reshape(-1, 3)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    up = [(place[a, b], place[a + 1, b], place[a, b + 1]) for a, b in steps if a + b < frequency]
    down = [(place[a, b - 1], place[a, b], place[a - 1, b]) for a, b in steps if a and b]
    offsets = np.arange(len(corners))[:, None, None] * len(steps)
    faces = (np.array(up + down) + offsets).reshape(-1, 3)
    rounded = np.round(points, 6) + 0.0
    _, first, same = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    return Mesh(points[first], same.reshape(-1)[faces])


def build_template(
    organs: Sequence[Mesh],
    vertices: int,
    settings: Settings | None = None,
    rounds: int = 2,
) -> Template:
    """A template of about so many vertices with the mean shape of some organs.

    A sphere is wrapped onto the first organ. Then, in every round, what there is is fitted to all
    organs, and their mean, each moved to the same centroid and scaled to the same standard deviation
    along every axis, becomes the template.

    Args:
        organs: surfaces without a handle, such as are to be fitted; the first one typical of them.
        vertices: how many; the nearest 10 f^2 + 2 is taken.
        settings: how the fits run.
        rounds: at least one.

    Returns:
        The template, centred at the mean of the organs' centroids.

    Raises:
        InputError: an organ is no surface, or the number of vertices is out of range.
    """
    settings = settings or Settings()
    coarse = settings._replace(stages=settings.stages[:COARSE])
    sphere = template_of(geodesic_sphere(frequency_of(vertices)))
    operators = operators_of(sphere, coarse)  # of the topology, which stays
    current = sphere._replace(
        vertices=fit(sphere, organs[0], coarse, operators, shape_free=True).vertices
    )
    order = [*organs] * rounds
    fitted: list[np.ndarray] = []
    for organ in progress(order, "template", len(order)):
        fitted.append(fit(current, organ, coarse, operators).vertices)
        if len(fitted) == len(organs):
            current = current._replace(vertices=mean_shape(fitted, current.faces))
            fitted = []
    return current


def mean_shape(shapes: Sequence[np.ndarray], faces: np.ndarray) -> np.ndarray:
    """[V, 3] float32: mean of shapes with one topology after their centroids and widths are made equal."""
    points = [sampled(shape, faces, 6000).points for shape in shapes]
    centre, width = (np.mean([f(p, 0) for p in points], 0) for f in (np.mean, np.std))
    moved = [(shape - p.mean(0)) / p.std(0) for shape, p in zip(shapes, points)]
    return (np.mean(moved, axis=0) * width + centre).astype(np.float32)
