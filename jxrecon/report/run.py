"""report.html: what a run learned and how well it reconstructs, in one file without links.

Volumes are shown as in `volume_pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from jxrecon.compile import jit
from jxrecon.drr import beam, project
from jxrecon.evaluation.table import Row, column_head, number
from jxrecon.io.nifti import read_volume
from jxrecon.metrics.volume import HIGHER_IS_BETTER, LABELS
from jxrecon.report.page import best_methods, data_uri, show_image, strip_figure, write_page
from jxrecon.report.slices import DIFFERENCE_HU, DISPLAY_HU, PLANES, angle_deg, draw_slice, panels
from jxrecon.runs.run import Run
from jxrecon.types import PyTree

SAMPLES = 5
"""Draws from the prior that are shown."""

STRIPS = ("psnr_db", "ssim_3d", "mae_hu_body", "reprojection_error")
"""Metrics that are shown case by case."""


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
            for label, row in chosen(mine)
        ],
        samples=None if samples is None else data_uri(_sample_figure(run, samples)),
        display=DISPLAY_HU,
        difference=DIFFERENCE_HU,
        grid=run.problem.grid,
        cameras=[(angle_deg(camera), camera.shape) for camera in run.problem.cameras],
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


def chosen(rows: Sequence[Row]) -> list[tuple[str, Row]]:
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
    figure, axes = panels([1.0] * (len(shown) + 1), widths, bars=True)
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
                axes[0, column].set_title(f"{kind}, {angle_deg(camera):.0f}°")
        hu = shown[own] - shown["truth"] if name == "difference" else shown[name]
        for column, plane in enumerate(PLANES, start=len(cameras)):
            drawn = draw_slice(axes[row, column], hu, grid.spacing_mm, plane, name == "difference")
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
    figure, axes = panels(heights, [1.0] * len(samples), bars=False)
    for row, plane in enumerate(PLANES):
        for column, hu in enumerate(samples):
            draw_slice(axes[row, column], hu, grid.spacing_mm, plane, letters=column == 0)
        axes[row, 0].set_ylabel(plane.name)
    return figure
