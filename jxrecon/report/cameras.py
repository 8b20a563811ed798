"""Drawings of what stands where: volume, sources, rays and detectors, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from jxrecon.geometry import AnyCamera, Grid, ParallelCamera

_COLOURS = ("tab:orange", "tab:blue", "tab:green", "tab:red", "tab:purple", "tab:brown")


def draw_geometry(axes: Any, grid: Grid, cameras: Sequence[AnyCamera]) -> None:
    """The volume's box, and each camera's source, outermost rays and detector.

    Args:
        axes: a Matplotlib axes with projection="3d"; its units become mm, RAS.
        grid: where the volume is.
        cameras: one colour each; parallel rays are drawn as arrows through the volume.
    """
    corners = np.array(list(product((0, 1), repeat=3)))
    box = (corners * np.array(grid.shape) - 0.5) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    for a, b in product(range(8), repeat=2):
        if a < b and np.abs(corners[a] - corners[b]).sum() == 1:
            axes.plot(*np.stack([box[a], box[b]]).T, color="black", linewidth=1)
    reach = float(np.linalg.norm(grid.extent_mm))
    for number, camera in enumerate(cameras):
        colour = _COLOURS[number % len(_COLOURS)]
        rim = _detector_corners(camera)
        axes.plot(*np.vstack([rim, rim[:1]]).T, color=colour)
        if isinstance(camera, ParallelCamera):
            along = np.asarray(camera.direction, np.float64)
            along = along / np.linalg.norm(along) * reach
            for corner in rim:
                axes.quiver(*(corner - along), *(2 * along), color=colour, linewidth=0.5)
            continue
        source = np.asarray(camera.source, np.float64)
        axes.scatter(*source, color=colour, marker="*", s=60)
        for corner in rim:
            axes.plot(*np.stack([source, corner]).T, color=colour, linewidth=0.5)
    axes.set_xlabel("x: patient's right (mm)")
    axes.set_ylabel("y: front (mm)")
    axes.set_zlabel("z: head (mm)")
    axes.set_aspect("equal")


def _detector_corners(camera: AnyCamera) -> np.ndarray:
    """The four corners of the detector's area, [4, 3] mm, in order around it."""
    centre, u, v = (np.asarray(part, np.float64) for part in (camera.centre, camera.u, camera.v))
    rows, columns = camera.shape
    half = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    return np.array([centre + r * rows / 2 * v + c * columns / 2 * u for r, c in half])
