"""Drawings of what stands where: volume, sources, rays and detectors, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

import numpy as np

from jxrecon.geometry import AnyCamera, Grid, ParallelCamera, detector_corners_mm, vectors

_COLOURS = ("tab:orange", "tab:blue", "tab:green", "tab:red", "tab:purple", "tab:brown")


def draw_geometry(axes: Any, grid: Grid, cameras: Sequence[AnyCamera]) -> None:
    """The volume's box, and each camera's source, outermost rays and detector.

    Args:
        axes: a Matplotlib axes with projection="3d"; its units become mm, RAS.
        grid: where the volume is.
        cameras: one colour each; parallel rays are drawn as arrows through the volume.
    """
    box = grid.corners_mm
    for corner, axis in product(range(8), (1, 2, 4)):
        if not corner & axis:  # the other end of an edge differs in one axis
            axes.plot(*box[[corner, corner | axis]].T, color="black", linewidth=1)
    reach = float(np.linalg.norm(grid.extent_mm))
    for camera, colour in zip(cameras, cycle(_COLOURS)):
        source, rim = vectors(camera)[0], detector_corners_mm(camera)
        axes.plot(*np.vstack([rim, rim[:1]]).T, color=colour)
        if isinstance(camera, ParallelCamera):
            along = source / np.linalg.norm(source) * reach
            for corner in rim:
                axes.quiver(*(corner - along), *(2 * along), color=colour, linewidth=0.5)
        else:
            axes.scatter(*source, color=colour, marker="*", s=60)
            for corner in rim:
                axes.plot(*np.stack([source, corner]).T, color=colour, linewidth=0.5)
    axes.set(xlabel="x: patient's right (mm)", ylabel="y: front (mm)", zlabel="z: head (mm)")
    axes.set_aspect("equal")
