"""report.html: what a run learned and how well it reconstructs, in one file without links.

Slices are shown as radiologists see them: the patient's right on the image's left, the front or the
head up, in millimetres.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jxrecon.compile import jit
from jxrecon.data.nifti import read_volume
from jxrecon.drr import beam, project
from jxrecon.geometry import Camera
from jxrecon.metrics.volume import HIGHER_IS_BETTER, LABELS
from jxrecon.pages import best_methods, data_uri, show_image, strip_figure, write_page
from jxrecon.results import Row, column_head, number
from jxrecon.run import Run
from jxrecon.types import PyTree

DISPLAY_HU = (-600.0, 1400.0)
"""Gray range of slices: air black, soft tissue gray, bone white."""

DIFFERENCE_HU = 500.0
"""Differences of slices are coloured from minus to plus this."""

SAMPLES = 5
"""Draws from the prior that are shown."""

STRIPS = ("psnr_db", "ssim_3d", "mae_hu_body", "reprojection_error")
"""Metrics that are shown case by case."""


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


PLANES = (
    Plane("axial", (0, 1), ("R", "A")),
    Plane("coronal", (0, 2), ("R", "H")),
    Plane("sagittal", (1, 2), ("A", "H")),
)


def write_report(
    run: Run, state: PyTree, volumes: Any, rows: list[Row], summary: dict[str, Any], out: Path
) -> None:
    """Writes report.html beside the results that it shows.

    Args:
        run: whose training and prior are shown.
        state: of its method.
        volumes: the VolumeSet that was reconstructed.
        rows: one a method and case, the run's own method last.
        summary: of `jxrecon.results.summarise`.
        out: folder that holds recon/.
    """
    own = run.experiment.name
    mine = [row for row in rows if row["method"] == own]
    samples = None if run.method.sample is None else _draw(run, state)
    write_page(
        "report.html.jinja",
        out / "report.html",
        run,
        summary,
        verdict=_verdict(summary, own),
        labels=LABELS,
        column_head=column_head,
        number=number,
        best=best_methods(summary, LABELS, HIGHER_IS_BETTER),
        rows=mine,
        strips=data_uri(strip_figure(rows, STRIPS, column_head)),
        pictures=[
            (label, row, data_uri(_case_figure(run, volumes, row["case"], own, out)))
            for label, row in _chosen(mine)
        ],
        samples=None if samples is None else data_uri(_sample_figure(run, samples)),
        display=DISPLAY_HU,
        difference=DIFFERENCE_HU,
        grid=run.problem.grid,
        cameras=[(_angle_deg(camera), camera.shape) for camera in run.problem.cameras],
    )


def _verdict(summary: dict[str, Any], own: str) -> str | None:
    """One sentence: the run's method against the best baseline."""
    means = {
        method: values["psnr_db"]["mean"]
        for method, values in summary["metrics"].items()
        if values["psnr_db"]["mean"] is not None
    }
    mine = means.pop(own, None)
    if mine is None or not means:
        return None
    rival = max(means, key=lambda method: means[method])
    gap = mine - means[rival]
    return (
        f"{own}: {mine:.2f} dB, {abs(gap):.2f} dB {'above' if gap > 0 else 'below'} the best "
        f"baseline ({rival}, {means[rival]:.2f} dB)."
    )


def _chosen(rows: list[Row]) -> list[tuple[str, Row]]:
    """The best, median and worst case by PSNR; fewer where there are fewer."""
    ordered = sorted(rows, key=lambda row: -np.nan_to_num(row["psnr_db"], nan=-np.inf))
    places = {"best": 0, "median": len(rows) // 2, "worst": len(rows) - 1}
    found: dict[int, str] = {}
    for label, place in places.items():
        found[place] = f"{found[place]} and {label}" if place in found else label
    return [(label, ordered[place]) for place, label in sorted(found.items())]


def _draw(run: Run, state: PyTree) -> Float[np.ndarray, "b x y z"]:
    """Volumes from the prior, HU, the same at every call."""
    draw: Any = run.method.sample
    sample = jit(draw, static_argnums=2)
    return np.asarray(sample(state, jax.random.key(run.experiment.schedule.seed), SAMPLES))


def _case_figure(run: Run, volumes: Any, case: str, own: str, out: Path) -> Figure:
    """Rows truth, reconstructions, difference; columns X-rays and central slices."""
    cameras, grid = run.problem.cameras, run.problem.grid

    @jit
    def xrays(hu: Float[Array, "x y z"]) -> list[Float[Array, "rows columns"]]:
        return list(project(beam.hu_to_mu(hu), grid.affine, cameras))

    shown = {"truth": np.asarray(volumes.hu[volumes.names.index(case)], np.float32)}
    for method in [*run.experiment.baselines, own]:
        folder = out / "recon" / ("" if method == own else method)
        if (folder / f"{case}.nii.gz").exists():
            shown[method] = np.asarray(read_volume(folder / f"{case}.nii.gz")[0], np.float32)
    images = {name: [np.asarray(image) for image in xrays(hu)] for name, hu in shown.items()}
    brightest = max(image.max() for image in images["truth"])
    off = [a - b for a, b in zip(images[own], images["truth"])]
    reach = max(float(np.quantile(np.abs(np.stack([d.ravel() for d in off])), 0.995)), 1e-3)

    wide = [float(grid.extent_mm[plane.axes[0]]) for plane in PLANES]
    widths = [1.0] * len(cameras) + [w / max(grid.extent_mm) for w in wide]
    figure, axes = _panels([1.0] * (len(shown) + 1), widths, bars=True)
    for row, name in enumerate([*shown, "difference"]):
        for column, camera in enumerate(cameras):
            aspect = float(np.linalg.norm(camera.v) / np.linalg.norm(camera.u))
            if name == "difference":
                style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
                show_image(axes[row, column], off[column], aspect, note=f"±{reach:.2g}", **style)
            else:
                style = {"cmap": "gray", "vmin": 0.0, "vmax": brightest}
                show_image(axes[row, column], images[name][column], aspect, **style)
            if row == 0:
                kind = "X-ray" if len(cameras) == 1 else f"X-ray {column + 1}"
                axes[0, column].set_title(f"{kind}, {_angle_deg(camera):.0f}°")
        hu = shown[own] - shown["truth"] if name == "difference" else shown[name]
        for column, plane in enumerate(PLANES, start=len(cameras)):
            drawn = _slice(axes[row, column], hu, grid.spacing_mm, plane, name == "difference")
            if row == 0:
                axes[0, column].set_title(plane.name)
        axes[row, 0].set_ylabel(f"{own} - truth" if name == "difference" else name)
        if name in (own, "difference"):
            bar = figure.colorbar(drawn, cax=axes[row, -1].inset_axes((0.0, 0.18, 1.0, 0.8)))
            bar.ax.tick_params(labelsize=7)
            bar.set_label("HU", fontsize=8)
        axes[row, -1].axis("off")
    return figure


def _sample_figure(run: Run, samples: Float[np.ndarray, "b x y z"]) -> Figure:
    """Rows are planes, columns draws from the prior."""
    grid = run.problem.grid
    widest = float(max(grid.extent_mm[:2]))
    heights = [float(grid.extent_mm[plane.axes[1]]) / widest for plane in PLANES]
    figure, axes = _panels(heights, [1.0] * len(samples), bars=False)
    for row, plane in enumerate(PLANES):
        for column, hu in enumerate(samples):
            _slice(axes[row, column], hu, grid.spacing_mm, plane, letters=column == 0)
        axes[row, 0].set_ylabel(plane.name)
    return figure


def _panels(heights: list[float], widths: list[float], bars: bool) -> tuple[Figure, Any]:
    """Axes [rows, columns] of these relative sizes; with `bars` a narrow last column for colour bars."""
    widths = [*widths, 0.05] if bars else widths
    size = (11.0, 11.0 / sum(widths) * sum(heights) * 0.98)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=tight)
    return figure, figure.subplots(
        len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights
    )


def _slice(
    axes: Axes,
    hu: Float[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, "3"],
    plane: Plane,
    difference: bool = False,
    letters: bool = True,
) -> Any:
    """The central slice of a volume in this plane, in true proportions."""
    columns, rows = plane.axes
    across = ({0, 1, 2} - {columns, rows}).pop()
    image = np.take(hu, hu.shape[across] // 2, axis=across).T[::-1, ::-1]
    style: dict[str, Any] = {"cmap": "gray", "vmin": DISPLAY_HU[0], "vmax": DISPLAY_HU[1]}
    if difference:
        style = {"cmap": "RdBu_r", "vmin": -DIFFERENCE_HU, "vmax": DIFFERENCE_HU}
    elif letters:
        at: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 7, "color": "#ffd166"}
        axes.text(0.02, 0.5, plane.letters[0], va="center", **at)
        axes.text(0.5, 0.98, plane.letters[1], ha="center", va="top", **at)
    return show_image(axes, image, spacing_mm[rows] / spacing_mm[columns], **style)


def _angle_deg(camera: Camera) -> float:
    """The angle of `geometry.camera_at` that the view was made with."""
    x, y, _ = np.asarray(camera.source - camera.centre, np.float64)
    return float(np.rad2deg(np.arctan2(-x, y))) + 0.0
