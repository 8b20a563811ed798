"""How near a surface is to the truth: vertex by vertex, surface to surface, and as a solid.

The same two surfaces give different "mean distances" by library, so each metric has its convention in
`METRICS`, and every table prints it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jxrecon.geometry import Grid
from jxrecon.mesh import Mesh, Template, flipped_faces, self_intersecting_faces
from jxrecon.mesh.points import nearest, sampled
from jxrecon.mesh.rasterising import rasterise
from jxrecon.metrics import bone
from jxrecon.metrics.metric import Metric, named

POINTS = 10_000
"""Sampled on either surface, the seed fixed."""

PITCH_MM = 2.0
"""Edge of the voxels of `dsc`."""

METRICS = named(
    Metric(
        "md_vertex_mm", "MD [mm]", "mean distance of corresponding vertices, mm, every vertex alike"
    ),
    Metric(
        "rmse_vertex_mm",
        "RMSE [mm]",
        "root of the mean squared distance of corresponding vertices, mm (not of coordinates)",
    ),
    Metric(
        "assd_mm",
        "ASSD [mm]",
        "mean of the mean distances truth to found and found to truth, mm; from 10,000 points on either "
        "surface, evenly by area, to the nearest point of the other surface (not its nearest vertex)",
    ),
    Metric(
        "hd95_mm", "HD95 [mm]", "larger of both ways' 95th percentiles of the same distances, mm"
    ),
    Metric(
        "dsc",
        "DSC",
        "Dice coefficient of the solids inside, on voxels of 2 mm that are in where their centre is in",
        better=1,
        digits=3,
    ),
    Metric(
        "flipped_faces",
        "flipped",
        "faces upside down against the surface around them, compared with the truth",
    ),
    Metric(
        "self_intersecting_faces",
        "self-cut",
        "faces that cut through another face of the same surface",
    ),
)
"""Metric by name, in the order of the tables; all but the costs."""


def surface_metrics(
    truth: Float[np.ndarray, "v 3"],
    found: Float[np.ndarray, "v 3"],
    template: Template | Mesh,
) -> dict[str, float]:
    """The metrics of one case under the keys of `METRICS`.

    Args:
        truth: mm.
        found: the same vertices, mm; NaN in all metrics where one is not finite.
        template: whose faces both share; its own vertices do not matter.
    """
    truth, found = np.asarray(truth, np.float64), np.asarray(found, np.float64)
    faces = np.asarray(template.faces)
    if not np.isfinite(found).all():
        return dict.fromkeys(METRICS, float("nan"))
    apart = np.linalg.norm(found - truth, axis=1)
    assd, hd95 = surface_distances(Mesh(truth, faces), Mesh(found, faces))
    return {
        "md_vertex_mm": float(apart.mean()),
        "rmse_vertex_mm": float(np.sqrt(np.mean(apart**2))),
        "assd_mm": assd,
        "hd95_mm": hd95,
        "dsc": dice(Mesh(truth, faces), Mesh(found, faces)),
        "flipped_faces": float(flipped_faces(Mesh(truth, faces), found).sum()),
        "self_intersecting_faces": float(self_intersecting_faces(found, faces).sum()),
    }


def surface_distances(a: Mesh, b: Mesh, points: int = POINTS) -> tuple[float, float]:
    """(assd_mm, hd95_mm) of two surfaces of any topology, point to surface, both ways."""
    ways = [
        nearest(sampled(*one, points).points, *other).distances for one, other in ((a, b), (b, a))
    ]
    return bone.assd_and_hd95(ways)


def dice(a: Mesh, b: Mesh, pitch_mm: float = PITCH_MM) -> float:
    """2 |A and B| / (|A| + |B|) of the voxels inside two surfaces; NaN where neither holds one.

    The grid lies at multiples of the pitch in the world, so that no surface is favoured.
    """
    both = np.concatenate([a.vertices, b.vertices])
    low = np.floor(both.min(0) / pitch_mm)
    shape = (np.ceil(both.max(0) / pitch_mm) - low).astype(int) + 1
    affine = np.diag([pitch_mm, pitch_mm, pitch_mm, 1.0])
    affine[:3, 3] = low * pitch_mm
    grid = Grid(tuple(shape.tolist()), affine)
    return bone.dice(rasterise(a, grid), rasterise(b, grid))
