"""Pictures of volumes: central slices as radiologists see them, and X-rays, in true proportions.

The patient's right is on the image's left, the front or the head is up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jxrecon.geometry import Camera
from jxrecon.report.drawing import show_image

DISPLAY_HU = (-600.0, 1400.0)
"""Gray range of slices: air black, soft tissue gray, bone white."""

DIFFERENCE_HU = 500.0
"""Differences of slices are coloured from minus to plus this."""


class Plane(NamedTuple):
    """A central slice as it is shown.

    Attributes:
        name: of the plane.
        axes: volume axes along columns and rows; both are shown from their end to their beginning.
        letters: patient side at the left and at the top of the picture.
    """

    name: str
    axes: tuple[int, int]
    letters: tuple[str, str]

    def cut(
        self, hu: Float[np.ndarray, "x y z"], place: int | None = None
    ) -> Float[np.ndarray, "rows columns"]:
        """The slice at a place along the third axis, or the central one, as it is shown."""
        (across,) = {0, 1, 2} - {*self.axes}
        return hu.take(hu.shape[across] // 2 if place is None else place, across).T[::-1, ::-1]

    def aspect(self, spacing_mm: Float[np.ndarray, "3"]) -> float:
        """Height of a pixel over its width."""
        columns, rows = self.axes
        return float(spacing_mm[rows] / spacing_mm[columns])


PLANES = (
    Plane("axial", (0, 1), ("R", "A")),
    Plane("coronal", (0, 2), ("R", "H")),
    Plane("sagittal", (1, 2), ("A", "H")),
)


def panels(heights: list[float], widths: list[float]) -> tuple[Figure, Any]:
    """Axes [rows, columns] of these relative sizes."""
    size = (11.0, 11.0 / sum(widths) * sum(heights) * 0.98)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=tight)
    return figure, figure.subplots(
        len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights
    )


def draw_slice(
    axes: Axes,
    hu: Float[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, "3"],
    plane: Plane,
    difference: bool = False,
    letters: bool = True,
    place: int | None = None,
) -> Any:
    """A slice of a volume in this plane, the central one or that at `place`, in true proportions."""
    style: dict[str, Any] = {"cmap": "gray", "vmin": DISPLAY_HU[0], "vmax": DISPLAY_HU[1]}
    if difference:
        style = {"cmap": "RdBu_r", "vmin": -DIFFERENCE_HU, "vmax": DIFFERENCE_HU}
    elif letters:
        at: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 7, "color": "#ffd166"}
        axes.text(0.02, 0.5, plane.letters[0], va="center", **at)
        axes.text(0.5, 0.98, plane.letters[1], ha="center", va="top", **at)
    return show_image(axes, plane.cut(hu, place), plane.aspect(spacing_mm), **style)


def angle_deg(camera: Camera) -> float:
    """The angle of `geometry.camera_at` that the view was made with."""
    x, y, _ = np.asarray(camera.source - camera.centre, np.float64)
    return float(np.rad2deg(np.arctan2(-x, y))) + 0.0
