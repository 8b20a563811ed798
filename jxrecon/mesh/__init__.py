"""Surfaces: topology and templates, Laplacians, subdivision, rasterising; millimetres throughout."""

from jxrecon.mesh.aggregation import Aggregate, Neighbours, normalised, segment_sum
from jxrecon.mesh.laplacian import Laplacian, cotangent_laplacian, uniform_laplacian
from jxrecon.mesh.quality import (
    enclosed_volume,
    face_areas,
    face_normals,
    flipped_faces,
    self_intersecting_faces,
    vertex_normals,
)
from jxrecon.mesh.rasterising import is_closed, outline, rasterise, silhouette
from jxrecon.mesh.subdivision import subdivided, unpool
from jxrecon.mesh.topology import Mesh, Template, edges_of, graph, template
