"""The picture beside a reconstruction: how it explains the X-rays, and slices through its middle."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from jxrecon.inference.volumes import Volume
from jxrecon.report.slices import DISPLAY_HU, PLANES


def preview_png(volume: Volume) -> bytes:
    """A PNG: a row of X-ray, re-projection and difference for each view, then three slices."""
    run, hu, again = volume.run, volume.hu, list(zip(volume.again, volume.views))
    figure = Figure(figsize=(9, 3 * (len(again) + 1)), layout="constrained")
    axes = figure.subplots(len(again) + 1, 3, squeeze=False)
    training = " (trained on synthetic anatomy)" if run.synthetic else ""
    figure.suptitle(f"{volume.facts['experiment']}{training}")
    for row, (image, view) in zip(axes, again):
        pixel_mm = [float(np.linalg.norm(step)) for step in (view.camera.v, view.camera.u)]
        high = float(view.image.max())
        difference = max(float(np.abs(image - view.image).max()), 1e-6)
        pictures = (
            (view.image, f"X-ray, 0 to {high:.2g}", "gray", 0, high),
            (image, "re-projection", "gray", 0, high),
            (
                image - view.image,
                f"difference, ±{difference:.2g}",
                "RdBu_r",
                -difference,
                difference,
            ),
        )
        for panel, (picture, title, colours, low, top) in zip(row, pictures):
            panel.imshow(picture, colours, vmin=low, vmax=top, aspect=pixel_mm[0] / pixel_mm[1])
            panel.set_title(title, fontsize=9)
    spacing_mm = run.problem.grid.spacing_mm
    for panel, plane in zip(axes[-1], PLANES):
        columns, rows = plane.axes
        across = ({0, 1, 2} - {columns, rows}).pop()
        picture = np.take(hu, hu.shape[across] // 2, across).T[::-1, ::-1]
        low, top = DISPLAY_HU
        aspect = spacing_mm[rows] / spacing_mm[columns]
        panel.imshow(picture, "gray", vmin=low, vmax=top, aspect=aspect)
        left, up = plane.letters
        panel.set_title(f"{plane.name}, {low:g} to {top:g} HU, {left} left, {up} up", fontsize=9)
    for panel in axes.flat:
        panel.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    return stream.getvalue()
