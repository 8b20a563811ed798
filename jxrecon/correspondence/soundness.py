"""How near a fitted template lies to its organ, whether it folds or cuts itself, and the repair of that."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jxrecon.correspondence.organ import Organ
from jxrecon.mesh import (
    Template,
    face_normals,
    flipped_faces,
    self_intersecting_faces,
    vertex_normals,
)
from jxrecon.mesh.points import nearest, sampled
from jxrecon.mesh.topology import Vertices

EVALUATION_POINTS = 10_000
"""Points sampled on either surface to measure the distance to the other."""


class Report(NamedTuple):
    """How near a fitted template is to its organ, and how sound.

    Attributes:
        assd_mm: average surface distance, the mean of the next two.
        to_organ_mm: mean distance of the template's surface to the organ's, exact at sampled points.
        from_organ_mm: mean distance of the organ's surface to the template's.
        hd95_mm: the larger of both ways' 95th percentiles.
        largest_mm: largest distance of either way.
        flipped_faces: faces of the template that are flipped against its own shape.
        self_intersecting_faces: faces of the template that cut others.
        smoothed_vertices: vertices that the repair moved.
        organ_vertices: vertices of the source.
        organ_rim_edges: edges of the source with one face: its holes.
    """

    assd_mm: float
    to_organ_mm: float
    from_organ_mm: float
    hd95_mm: float
    largest_mm: float
    flipped_faces: int
    self_intersecting_faces: int
    smoothed_vertices: int
    organ_vertices: int
    organ_rim_edges: int


def tangled(template: Template, vertices: Vertices) -> Bool[np.ndarray, " f"]:
    """Faces that are flipped, cut others, or face away from the surface at one of their vertices."""
    faces = template.faces
    towards = vertex_normals(vertices, faces)[faces]
    folded = np.einsum("fi,fki->fk", face_normals(vertices, faces), towards).min(1) < 0.1
    return folded | flipped_faces(template, vertices) | self_intersecting_faces(vertices, faces)


def repaired(
    template: Template, vertices: Vertices, mean: Float[np.ndarray, "v v"], rounds: int
) -> tuple[Vertices, int]:
    """Vertices after smoothing around tangled faces, wider and wider, and how many were moved."""
    touched = np.zeros(len(vertices), bool)
    for number in range(rounds):
        wrong = tangled(template, vertices)
        if not wrong.any():
            break
        around = np.zeros(len(vertices), bool)
        around[template.faces[wrong]] = True
        for _ in range(1 + number // 6):
            around |= mean @ around > 0
        for _ in range(3):
            smooth = (vertices + mean @ vertices) / 2
            vertices = np.where(around[:, None], smooth, vertices)
        touched |= around
    return vertices, int(touched.sum())


def measured(template: Template, vertices: Vertices, found: Organ, smoothed: int) -> Report:
    """Distances both ways, and the template's soundness."""
    faces, mesh = template.faces, found.mesh
    ours = sampled(vertices, faces, EVALUATION_POINTS, seed=1).points
    theirs = sampled(mesh.vertices, mesh.faces, EVALUATION_POINTS, seed=1).points
    there = nearest(ours, mesh.vertices, mesh.faces).distances
    back = nearest(theirs, vertices, faces).distances
    return Report(
        assd_mm=float(there.mean() + back.mean()) / 2,
        to_organ_mm=float(there.mean()),
        from_organ_mm=float(back.mean()),
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        largest_mm=float(max(there.max(), back.max())),
        flipped_faces=int(flipped_faces(template, vertices).sum()),
        self_intersecting_faces=int(self_intersecting_faces(vertices, faces).sum()),
        smoothed_vertices=smoothed,
        organ_vertices=len(mesh.vertices),
        organ_rim_edges=found.rim_edges,
    )
