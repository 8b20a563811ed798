"""What all pages and figures share: templates, colours, axes without ornaments, pictures within a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jxrecon.files import write_file

FACE, INK, ACCENT, MUTED = "#ffffff", "#1f2933", "#0b6e99", "#9aa5b1"
"""Colours of a figure: its ground, its lines and letters, what is looked at, and the rest."""


def render(template: str, path: Path, **values: Any) -> None:
    """Renders a file of report/templates/ to a page that appears only when it is whole."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_file(path, environment.get_template(template).render(**values))


def plain(axes: Axes, title: str) -> None:
    """Axes of numbers without ornaments."""
    axes.set_title(title, fontsize=8, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, colors=INK)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


def show_image(axes: Axes, image: Any, aspect: float, note: str = "", **style: Any) -> Any:
    """One picture without ticks; `note` in its corner."""
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)
    if note:
        box = {"facecolor": FACE, "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(0.03, 0.03, note, transform=axes.transAxes, fontsize=7, color=INK, bbox=box)
    return axes.imshow(image, aspect=aspect, interpolation="nearest", **style)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file, letters no larger than suit a page."""
    for axes in figure.axes:
        axes.title.set_fontsize(min(axes.title.get_fontsize(), 9))
        axes.yaxis.label.set_fontsize(8)
        axes.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=FACE)
    return buffer.getvalue()


def data_uri(figure: Figure) -> str:
    """The figure as a picture that lies within the page."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")
