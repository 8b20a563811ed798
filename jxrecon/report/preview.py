"""The picture beside a reconstruction: how it explains the X-rays, and slices through its middle."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jxrecon.geometry import pixel_mm
from jxrecon.inference.volumes import Volume
from jxrecon.io.views import View
from jxrecon.report.drawing import png
from jxrecon.report.slices import DISPLAY_HU, PLANES


def preview_png(volume: Volume) -> bytes:
    """A PNG: a row of X-ray, re-projection and difference for each view, three slices, their deviation."""
    rows = len(volume.views) + 1 + (volume.deviation is not None)
    figure = Figure(figsize=(9, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    training = " (trained on synthetic anatomy)" if volume.run.synthetic else ""
    figure.suptitle(f"{volume.facts['experiment']}{training}")
    for row, image, view in zip(axes, volume.again, volume.views):
        _xray(row, image, view)
    spacing = volume.run.problem.grid.spacing_mm
    low, top = DISPLAY_HU
    _slices(
        axes[len(volume.views)], volume.hu, spacing, (low, top), "gray", f"{low:g} to {top:g} HU"
    )
    if volume.deviation is not None:
        high = max(float(np.quantile(volume.deviation, 0.995)), 1.0)
        _slices(
            axes[-1],
            volume.deviation,
            spacing,
            (0, high),
            "magma",
            f"deviation, 0 to {high:.0f} HU",
        )
    for panel in axes.flat:
        panel.set_axis_off()
    return png(figure, dpi=100)


def _xray(row: Any, again: Float[np.ndarray, "r c"], view: View) -> None:
    """X-ray, re-projection and their difference."""
    row_mm, column_mm = pixel_mm(view.camera)
    high, off = float(view.image.max()), again - view.image
    reach = max(float(np.abs(off).max()), 1e-6)
    pictures = (
        (view.image, f"X-ray, 0 to {high:.2g}", "gray", 0, high),
        (again, "re-projection", "gray", 0, high),
        (off, f"difference, ±{reach:.2g}", "RdBu_r", -reach, reach),
    )
    for panel, (picture, title, colours, low, top) in zip(row, pictures):
        panel.imshow(picture, colours, vmin=low, vmax=top, aspect=row_mm / column_mm)
        panel.set_title(title, fontsize=9)


def _slices(
    row: Any,
    values: Float[np.ndarray, "x y z"],
    spacing_mm: Any,
    reach: tuple[float, float],
    colours: str,
    told: str,
) -> None:
    """The three middle slices."""
    for panel, plane in zip(row, PLANES):
        aspect = plane.aspect(spacing_mm)
        panel.imshow(plane.cut(values), colours, vmin=reach[0], vmax=reach[1], aspect=aspect)
        left, up = plane.letters
        panel.set_title(f"{plane.name}, {told}, {left} left, {up} up", fontsize=9)
