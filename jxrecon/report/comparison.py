"""report.html of a comparison: tables, curves over views, and the volumes of every method, in one file.

Volumes are shown as in `volume_pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from jxrecon.compile import jit
from jxrecon.evaluation.contenders import Contender
from jxrecon.evaluation.setting import Setting, xrays
from jxrecon.evaluation.summary import (
    BAR,
    HEADS,
    JUDGED,
    cell,
    head,
    main_columns,
    ordered,
    other_columns,
    p_value,
)
from jxrecon.evaluation.table import Row, number
from jxrecon.io.nifti import read_volume
from jxrecon.metrics.volume import HIGHER_IS_BETTER
from jxrecon.report.page import data_uri, plain, render, show_image
from jxrecon.report.run import chosen
from jxrecon.report.slices import DIFFERENCE_HU, DISPLAY_HU, PLANES, angle_deg, draw_slice, panels
from jxrecon.types import InputError

CURVES = ("psnr_db", "mae_hu_body", "bone_dice", "lpips_alex", "reprojection_unseen")
"""Metrics that are drawn over the number of views."""

SHOWN = 2
"""The number of views whose volumes are shown, where it was compared; else the first."""


def write_report(
    setting: Setting,
    contenders: Sequence[Contender],
    rows: Sequence[Row],
    summary: dict[str, Any],
    out: Path,
) -> None:
    """Writes report.html.

    Args:
        setting: the terms.
        contenders: in the order of the tables.
        rows: one a method, number of views and case.
        summary: of `summary.summarise`.
        out: folder that holds recon/.
    """
    pictures = _Pictures(setting, out / "recon")
    shown = SHOWN if SHOWN in setting.counts else setting.counts[0]
    methods = []
    for contender in contenders:
        if not contender.counts:
            continue
        count = shown if shown in contender.counts else contender.counts[0]
        mine = [r for r in rows if (r["method"], r["views"]) == (contender.name, count)]
        uri = data_uri(pictures.of_method(contender.name, count, chosen(mine)))
        methods.append((contender.name, count, chosen(mine), uri))
    reference = [r for r in rows if r["method"] == summary["against"] and r["views"] == shown]
    case = dict(chosen(reference)).get("median") if reference else None
    case = case or (chosen(reference)[0][1] if reference else rows[0])
    beside = [c.name for c in contenders if shown in c.counts]
    render(
        "comparison.html.jinja",
        out / "report.html",
        summary=summary,
        results=[result for result, _ in ordered(summary)],
        main=main_columns(summary),
        others=other_columns(summary),
        best=_best(summary),
        head=head,
        heads=HEADS,
        cell=cell,
        number=number,
        p_value=p_value,
        judged=JUDGED,
        bar=BAR,
        curves=data_uri(_curves(summary)) if len(setting.counts) > 1 else None,
        shown=shown,
        case=case["case"],
        beside=data_uri(pictures.beside(beside, shown, case["case"])),
        methods=methods,
        display=DISPLAY_HU,
        difference=DIFFERENCE_HU,
    )


def _best(summary: dict[str, Any]) -> dict[tuple[int, str], str]:
    """(views, metric) -> the method with the best mean."""
    found = {}
    for count in summary["views"]:
        for name in HEADS:
            means = {
                r["method"]: r["metrics"][name]["mean"]
                for r in summary["results"]
                if r["views"] == count and name in r["metrics"]
            }
            means = {method: mean for method, mean in means.items() if mean is not None}
            if len(means) > 1 and name not in ("seconds", "memory_mb"):
                choose = max if name in HIGHER_IS_BETTER else min
                found[count, name] = choose(means, key=lambda method: means[method])
    return found


def _curves(summary: dict[str, Any]) -> Figure:
    """Mean and 95 % interval of each method over the number of views."""
    results = summary["results"]
    names = [
        name
        for name in CURVES
        if any(r["metrics"].get(name, {"mean": None})["mean"] is not None for r in results)
    ]
    methods = list(dict.fromkeys(r["method"] for r in results))
    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    drawn = figure.subplots(2, 3, squeeze=False).ravel()
    styles = {m: (f"C{i % 10}", ("-", "--")[i // 10 % 2]) for i, m in enumerate(methods)}
    for axes, name in zip(drawn, names):
        for place, method in enumerate(methods):
            points = [
                (r["views"], r["metrics"][name])
                for r in results
                if r["method"] == method and r["metrics"][name]["mean"] is not None
            ]
            if not points:
                continue
            colour, line = styles[method]
            # side by side, so that intervals can be told apart
            at = [count * 1.02 ** (place - len(methods) / 2) for count, _ in points]
            mean = np.array([spread["mean"] for _, spread in points])
            ends = [(s["low"], s["high"]) if s["low"] is not None else (m, m)
                    for (_, s), m in zip(points, mean)]  # fmt: skip
            reach = np.abs(np.array(ends).T - mean[None])
            axes.errorbar(
                at, mean, reach, color=colour, linestyle=line, marker="o", ms=3, lw=1, label=method
            )
        plain(axes, head(name))
        axes.set_xscale("log")
        axes.set_xticks(summary["views"], [str(count) for count in summary["views"]])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("views", fontsize=7)
    for axes in drawn[len(names) :]:
        axes.axis("off")
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=7)
    return figure


class _Pictures:
    """Draws the volumes that lie below a folder."""

    def __init__(self, setting: Setting, recon: Path) -> None:
        self._setting, self._recon = setting, recon
        self._volumes = getattr(setting.dataset, setting.split)

    def _truth(self, case: str) -> Float[np.ndarray, "x y z"]:
        return np.asarray(self._volumes.hu[self._volumes.names.index(case)], np.float32)

    def _found(self, method: str, count: int, case: str) -> Float[np.ndarray, "x y z"]:
        path = recon_path(self._recon, method, count, case)
        try:
            return np.asarray(read_volume(path)[0], np.float32)
        except InputError as error:
            raise InputError(f"{error}; remove {path.parent} and start again") from None

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

    def _figure(self, rows: Sequence[tuple[str, np.ndarray, bool]], count: int) -> Figure:
        """Rows are (name, HU, whether it is a difference); at most two X-rays are shown."""
        setting = self._setting
        grid, cameras = setting.grid, setting.problem(count).cameras
        cameras = cameras[:1] if count == 1 else (cameras[0], cameras[count // 2])

        @jit
        def projected(hu: Float[Array, "x y z"]) -> tuple[Float[Array, "rows columns"], ...]:
            return xrays(hu, grid, cameras)

        images: list[list[np.ndarray]] = []
        for place, (_, hu, difference) in enumerate(rows):
            if difference:
                images.append([b - a for a, b in zip(images[place - 2], images[place - 1])])
            else:
                images.append([np.asarray(image) for image in projected(hu)])
        brightest = max(float(image.max()) for image in images[0])
        largest = max(grid.extent_mm)
        wide = [float(grid.extent_mm[plane.axes[0]]) / largest for plane in PLANES]
        figure, axes = panels([1.0] * len(rows), [1.0] * len(cameras) + wide, bars=False)
        for row, (name, hu, difference) in enumerate(rows):
            for column, camera in enumerate(cameras):
                aspect = float(np.linalg.norm(camera.v) / np.linalg.norm(camera.u))
                style: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": brightest}
                note = ""
                if difference:
                    reach = max(float(np.quantile(np.abs(images[row][column]), 0.995)), 1e-3)
                    style = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
                    note = f"±{reach:.2g}"
                show_image(axes[row, column], images[row][column], aspect, note=note, **style)
                if row == 0:
                    axes[0, column].set_title(f"X-ray, {angle_deg(camera):.0f}°")
            for column, plane in enumerate(PLANES, start=len(cameras)):
                draw_slice(axes[row, column], hu, grid.spacing_mm, plane, difference)
                if row == 0:
                    axes[0, column].set_title(plane.name)
            axes[row, 0].set_ylabel(name)
        return figure


def recon_path(recon: Path, method: str, count: int, case: str) -> Path:
    """Where a volume lies below OUT/recon."""
    return recon / method / f"{count} view{'s' if count > 1 else ''}" / f"{case}.nii.gz"
