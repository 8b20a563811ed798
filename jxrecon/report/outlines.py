"""Pictures of surfaces: their outlines on an X-ray, and a surface from its sides, coloured by distance."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from jxrecon.geometry import Camera, pixel_mm
from jxrecon.mesh import Mesh, Template, face_normals, outline, silhouette
from jxrecon.report.drawing import FACE, INK, png, show_image
from jxrecon.types import InputError

COLOURS = {"reference": "#4da3ff", "target": "#2fbf71", "found": "#ff4f9a"}
"""Of outlines and shells; a method's name has the one of "found"."""

RAMP = "YlOrRd"
"""Matplotlib's name of the colours of distances."""

BAR_MM = 50.0
"""Length of the scale bar, in the plane through the organ's middle."""

_LIGHT = np.array([-0.3, 0.5, 0.8]) / np.linalg.norm([-0.3, 0.5, 0.8])
_ON_XRAY: dict[str, Any] = {
    "color": FACE,
    "fontsize": 8,
    "path_effects": [withStroke(linewidth=2, foreground=INK)],
}
_MARGIN = 0.08  # around the outlines, of the image's larger side
_FINE = 512  # pixels along the larger side on which rims are sought


class View(NamedTuple):
    """A side of a surface: world axes along the picture's columns, against its rows, towards the viewer."""

    name: str
    right: tuple[int, int, int]
    up: tuple[int, int, int]
    front: tuple[int, int, int]


VIEWS = (
    View("front", (-1, 0, 0), (0, 0, 1), (0, 1, 0)),
    View("patient's right", (0, 1, 0), (0, 0, 1), (1, 0, 0)),
    View("back", (1, 0, 0), (0, 0, 1), (0, -1, 0)),
)


def overlay_png(
    image: Float[np.ndarray, "rows columns"],
    camera: Camera,
    template: Template,
    shapes: dict[str, Float[np.ndarray, "v 3"]],
) -> bytes:
    """`overlay_figure` as a PNG file."""
    return png(overlay_figure(image, camera, template, shapes))


def letter(direction: Float[np.ndarray, "3"]) -> str:
    """The patient's side that a direction of the world points to."""
    axis = int(np.abs(direction).argmax())
    return ("RL", "AP", "HF")[axis][int(direction[axis] < 0)]


def outlines(
    vertices: Float[np.ndarray, "v 3"], camera: Camera, template: Template
) -> list[Float[np.ndarray, "n 2"]]:
    """The rims of a surface's shadow on the detector.

    Returns:
        Closed curves of (row, column), pixel centres at integers; none where there is no such shadow.
    """
    rows, columns = camera.shape
    finer = -(-_FINE // max(rows, columns))
    fine = camera.resized((rows * finer, columns * finer))
    try:
        mask = silhouette(Mesh(vertices, template.faces), fine)
    except InputError:  # a method may find no sound surface; its picture shows that
        return []
    return [(line + 0.5) / finer - 0.5 for line in outline(mask)]


def overlay_figure(
    image: Float[np.ndarray, "rows columns"],
    camera: Camera,
    template: Template,
    shapes: dict[str, Float[np.ndarray, "v 3"]],
) -> Figure:
    """Left the whole X-ray with the projected outlines of surfaces, right the part that they lie in.

    Args:
        image: line integrals by the camera.
        camera: of the image.
        template: whose faces the surfaces have.
        shapes: name -> vertices in mm; "reference" is dashed.
    """
    curves = {name: outlines(v, camera, template) for name, v in shapes.items()}
    u, v = np.asarray(camera.u, np.float64), np.asarray(camera.v, np.float64)
    row_mm, column_mm = pixel_mm(camera)
    aspect, middle = row_mm / column_mm, next(iter(shapes.values())).mean(0)
    ends = middle + np.outer([-0.5, 0.5], u / column_mm * BAR_MM)
    long = float(np.diff(np.asarray(camera.place_of(jnp.asarray(ends, jnp.float32)))[:, 1])[0])
    rows, columns = image.shape
    near = np.concatenate([np.zeros((0, 2)), *(c for found in curves.values() for c in found)])
    boxes = [np.array([[-0.5, -0.5], [rows - 0.5, columns - 0.5]])]
    if len(near):
        pad = _MARGIN * max(rows, columns)
        box = np.clip([near.min(0) - pad, near.max(0) + pad], *boxes[0])
        if (box[0] < box[1]).all():
            boxes.append(box)
    widths = [(high[1] - low[1]) / (high[0] - low[0]) / aspect for low, high in boxes]
    figure = Figure(figsize=(11.0, min(11.0 / sum(widths), 7.0) + 0.35), layout="constrained")
    panels = figure.subplots(1, len(boxes), squeeze=False, width_ratios=widths)[0]
    for axes, (low, high) in zip(panels, boxes):
        show_image(axes, image, aspect, cmap="gray")
        for name, found in curves.items():
            line: dict[str, Any] = {"color": COLOURS.get(name, COLOURS["found"]), "linewidth": 1.3}
            if name == "reference":
                line["linestyle"] = (0, (4, 3))
            for n, curve in enumerate(found):
                axes.plot(curve[:, 1], curve[:, 0], label=name if n == 0 else None, **line)
        axes.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]))
        at: dict[str, Any] = {"transform": axes.transAxes, **_ON_XRAY}
        axes.text(0.02, 0.5, letter(-u), va="center", **at)
        axes.text(0.5, 0.98, letter(-v), ha="center", va="top", **at)
        _scale_bar(axes, long, low, high)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
    return figure


def _scale_bar(axes: Axes, long: float, low: Any, high: Any) -> None:
    """A bar of so many columns at the lower left of the part that is shown."""
    left, bottom = low[1] + 0.04 * (high[1] - low[1]), high[0] - 0.04 * (high[0] - low[0])
    edge = [withStroke(linewidth=4.5, foreground=INK)]
    axes.plot([left, left + abs(long)], [bottom] * 2, color=FACE, linewidth=2.5, path_effects=edge)
    up = 0.015 * (high[0] - low[0])
    axes.text(left, bottom - up, f"{BAR_MM:.0f} mm at the organ", va="bottom", **_ON_XRAY)


def still_figure(
    vertices: Float[np.ndarray, "v 3"],
    template: Template,
    apart: Float[np.ndarray, " v"],
    top: float,
) -> Figure:
    """A surface from three sides in orthographic projection, coloured by distance.

    Args:
        vertices: mm; faces that are not finite are left out.
        template: whose faces the surface has.
        apart: distance of every vertex from the target, mm.
        top: mm at the end of the colours.
    """
    corners, scale = vertices[template.faces].astype(np.float64), Normalize(0, top)
    normals = face_normals(vertices, template.faces)
    colours = matplotlib.colormaps[RAMP](scale(apart[template.faces].mean(1)))[:, :3]
    whole = np.isfinite(corners).all((1, 2))
    corners, normals, colours = corners[whole], normals[whole], colours[whole]
    low, high = np.min(corners, (0, 1), initial=0), np.max(corners, (0, 1), initial=0)
    widths = [float(np.abs(view.right) @ (high - low)) for view in VIEWS]
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    panels = figure.subplots(1, len(VIEWS), width_ratios=widths)
    for axes, view in zip(panels, VIEWS):
        turned = np.array([view.right, view.up, view.front], np.float64)
        seen, facing = corners @ turned.T, normals @ turned.T
        facing *= np.where(facing[:, 2:] < 0, -1, 1)
        light = 0.5 + 0.5 * np.maximum(facing @ _LIGHT, 0)
        order = np.argsort(seen[:, :, 2].mean(1))  # far faces first
        paint = (colours * light[:, None])[order]
        axes.add_collection(
            PolyCollection(list(seen[order, :, :2]), facecolors=paint, edgecolors=paint, lw=0.3)
        )
        axes.autoscale_view()
        axes.set_aspect("equal")  # one scale for all views, whose heights are the same
        axes.axis("off")
        axes.set_title(view.name, fontsize=9)
        at: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 8, "ha": "center"}
        axes.text(0.0, 0.5, letter(-turned[0]), va="center", **at)
        axes.text(1.0, 0.5, letter(turned[0]), va="center", **at)
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(scale, RAMP), ax=panels, shrink=0.8, extend="max"
    )
    bar.set_label("distance from the target [mm]", fontsize=8)
    return figure
