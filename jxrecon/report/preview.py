"""The picture beside a reconstruction: how it explains the X-rays, and slices through its middle."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from jxrecon.geometry import pixel_mm
from jxrecon.inference.volumes import Volume
from jxrecon.report.drawing import png
from jxrecon.report.slices import DISPLAY_HU, PLANES


def preview_png(volume: Volume) -> bytes:
    """A PNG: a row of X-ray, re-projection and difference for each view, then three slices."""
    run, hu, again = volume.run, volume.hu, list(zip(volume.again, volume.views))
    figure = Figure(figsize=(9, 3 * (len(again) + 1)), layout="constrained")
    axes = figure.subplots(len(again) + 1, 3, squeeze=False)
    training = " (trained on synthetic anatomy)" if run.synthetic else ""
    figure.suptitle(f"{volume.facts['experiment']}{training}")
    for row, (image, view) in zip(axes, again):
        row_mm, column_mm = pixel_mm(view.camera)
        high, off = float(view.image.max()), image - view.image
        reach = max(float(np.abs(off).max()), 1e-6)
        pictures = (
            (view.image, f"X-ray, 0 to {high:.2g}", "gray", 0, high),
            (image, "re-projection", "gray", 0, high),
            (off, f"difference, ±{reach:.2g}", "RdBu_r", -reach, reach),
        )
        for panel, (picture, title, colours, low, top) in zip(row, pictures):
            panel.imshow(picture, colours, vmin=low, vmax=top, aspect=row_mm / column_mm)
            panel.set_title(title, fontsize=9)
    low, top = DISPLAY_HU
    for panel, plane in zip(axes[-1], PLANES):
        aspect = plane.aspect(run.problem.grid.spacing_mm)
        panel.imshow(plane.cut(hu), "gray", vmin=low, vmax=top, aspect=aspect)
        left, up = plane.letters
        panel.set_title(f"{plane.name}, {low:g} to {top:g} HU, {left} left, {up} up", fontsize=9)
    for panel in axes.flat:
        panel.set_axis_off()
    return png(figure, dpi=100)
