"""Sections of the report with pictures of volumes: one case by every method, each method's cases, samples.

Volumes are shown as in `report.slices`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from jxrecon.compile import jit
from jxrecon.evaluation.bench import recon_path
from jxrecon.evaluation.compare import Results
from jxrecon.evaluation.table import Row
from jxrecon.evaluation.volumes import xrays
from jxrecon.geometry import pixel_mm
from jxrecon.io.nifti import read_volume
from jxrecon.report.drawing import data_uri, show_image
from jxrecon.report.page import Section, chosen, count_shown, rows_of
from jxrecon.report.slices import DIFFERENCE_HU, DISPLAY_HU, PLANES, angle_deg, draw_slice, panels
from jxrecon.runs.run import Trained
from jxrecon.types import InputError

SAMPLES = 5
"""Draws from the prior that are shown."""


def sections(results: Results) -> list[Section]:
    """The pictures of an evaluation of volumes; methods whose files were not kept are left out."""
    judge = results.setting.judge
    pictures, own = _Pictures(results), results.summary["against"]
    count = count_shown(results)
    methods = []
    for contender in results.contenders:
        if not contender.counts:
            continue
        views = count if count in contender.counts else contender.counts[0]
        cases = chosen(judge, rows_of(results, contender.name, views))
        if all(pictures.path(contender.name, views, row["case"]).exists() for _, row in cases):
            uri = data_uri(pictures.of_method(contender.name, views, cases))
            methods.append((contender.name, views, cases, uri))
    mine = chosen(judge, rows_of(results, own, count)) or [("", results.rows[0])]
    case = dict(mine).get("median", mine[0][1])["case"]
    beside = [c.name for c in results.contenders if pictures.path(c.name, count, case).exists()]
    values = {
        "case": case,
        "beside": data_uri(pictures.beside(beside, count, case)) if len(beside) > 1 else None,
        "methods": methods,
        "display": DISPLAY_HU,
        "difference": DIFFERENCE_HU,
        "samples": None,
    }
    if results.shown is not None and results.shown.run.method.sample is not None:
        values["samples"] = data_uri(_samples(results.shown))
    return [Section("volumes.html.jinja", values)]


class _Pictures:
    """Draws the volumes that lie below the folder of an evaluation."""

    def __init__(self, results: Results) -> None:
        self._setting, self._out = results.setting, results.out
        self._project = functools.cache(self._projector)

    def path(self, method: str, count: int, case: str) -> Path:
        """Where a volume lies."""
        return recon_path(self._out, method, count, case, self._setting.judge.ending)

    def beside(self, methods: Sequence[str], count: int, case: str) -> Figure:
        """Rows the truth and what each method found, columns X-rays and slices, one case."""
        shown = {"truth": self._truth(case)}
        shown |= {method: self._found(method, count, case) for method in methods}
        return self._figure([(name, hu, False) for name, hu in shown.items()], count)

    def of_method(self, method: str, count: int, cases: Sequence[tuple[str, Row]]) -> Figure:
        """Three rows a case: truth, reconstruction, difference."""
        rows: list[tuple[str, np.ndarray, bool]] = []
        for label, row in cases:
            truth, found = self._truth(row["case"]), self._found(method, count, row["case"])
            rows += [("truth", truth, False), (label, found, False)]
            rows += [("difference", found - truth, True)]
        return self._figure(rows, count)

    def _truth(self, case: str) -> Float[np.ndarray, "x y z"]:
        volumes = self._setting.cases
        return np.asarray(volumes.hu[volumes.names.index(case)], np.float32)

    def _found(self, method: str, count: int, case: str) -> Float[np.ndarray, "x y z"]:
        path = self.path(method, count, case)
        try:
            return np.asarray(read_volume(path)[0], np.float32)
        except InputError as error:
            raise InputError(f"{error}; remove {path.parent} and start again") from None

    def _projector(self, count: int) -> Callable[[np.ndarray], tuple[Array, ...]]:
        """HU -> X-rays by `_cameras`."""
        grid, cameras = self._setting.grid, self._cameras(count)
        return jit(lambda hu: xrays(hu, grid, cameras))

    def _cameras(self, count: int) -> tuple[Any, ...]:
        """At most two of so many."""
        cameras = self._setting.problem(count).cameras
        return cameras[:1] if count == 1 else (cameras[0], cameras[count // 2])

    def _figure(self, rows: Sequence[tuple[str, np.ndarray, bool]], count: int) -> Figure:
        """Rows are (name, HU, whether it is the difference of the two rows before)."""
        grid, cameras = self._setting.grid, self._cameras(count)
        images: list[list[np.ndarray]] = []
        for place, (_, hu, difference) in enumerate(rows):
            if difference:
                images.append([b - a for a, b in zip(images[place - 2], images[place - 1])])
            else:
                images.append([np.asarray(image) for image in self._project(count)(hu)])
        brightest = max(float(image.max()) for image in images[0])
        largest = max(grid.extent_mm)
        wide = [float(grid.extent_mm[plane.axes[0]]) / largest for plane in PLANES]
        figure, axes = panels([1.0] * len(rows), [1.0] * len(cameras) + wide)
        for row, (name, hu, difference) in enumerate(rows):
            for column, camera in enumerate(cameras):
                row_mm, column_mm = pixel_mm(camera)
                style: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": brightest}
                note = ""
                if difference:
                    reach = max(float(np.quantile(np.abs(images[row][column]), 0.995)), 1e-3)
                    style = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
                    note = f"±{reach:.2g}"
                panel, aspect = axes[row, column], row_mm / column_mm
                show_image(panel, images[row][column], aspect, note=note, **style)
            for column, plane in enumerate(PLANES, start=len(cameras)):
                draw_slice(axes[row, column], hu, grid.spacing_mm, plane, difference)
            axes[row, 0].set_ylabel(name)
        titles = [f"X-ray, {angle_deg(camera):.0f}°" for camera in cameras]
        for panel, title in zip(axes[0], titles + [plane.name for plane in PLANES]):
            panel.set_title(title)
        return figure


def _samples(trained: Trained) -> Figure:
    """Volumes from the prior, the same at every call: rows are planes, columns draws."""
    run, draw = trained.run, jit(trained.run.method.sample, static_argnums=2)
    key = jax.random.key(run.experiment.schedule.seed)
    samples = np.asarray(draw(trained.state, key, SAMPLES))
    grid = run.problem.grid
    widest = float(max(grid.extent_mm[:2]))
    heights = [float(grid.extent_mm[plane.axes[1]]) / widest for plane in PLANES]
    figure, axes = panels(heights, [1.0] * len(samples))
    for row, plane in enumerate(PLANES):
        for column, hu in enumerate(samples):
            draw_slice(axes[row, column], hu, grid.spacing_mm, plane, letters=column == 0)
        axes[row, 0].set_ylabel(plane.name)
    return figure
