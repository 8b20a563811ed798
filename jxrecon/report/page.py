"""What the pages of reports share: templates, pictures without links, dots of cases, training curves."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jxrecon.evaluation.table import Row
from jxrecon.files import write_file
from jxrecon.runs.run import Run

FACE, INK, ACCENT, MUTED = "#ffffff", "#1f2933", "#0b6e99", "#9aa5b1"
"""Colours of a figure: its ground, its lines and letters, what is looked at, and the rest."""

_MAX_CURVES = 16
_DPI = 110


def write_page(template: str, path: Path, run: Run, summary: dict[str, Any], **values: Any) -> None:
    """Renders a template of jxrecon/templates/ that extends page.html.jinja.

    Args:
        template: name of its file.
        path: of the page; appears only when it is whole.
        run: whose curves, configuration and versions the page shows.
        summary: of the evaluation, with experiment, size, synthetic, data, metrics and conventions.
        **values: what else the template names.
    """
    log = read_log(run.folder / "metrics.jsonl")
    config = run.folder / "config.json"
    setup: dict[str, Any] = json.loads(config.read_text()) if config.exists() else {}
    values = {
        "summary": summary,
        "own": run.experiment.name,
        "curves": data_uri(curve_figure(log)) if log else None,
        "setup": {k: v for k, v in setup.items() if k not in ("experiment", "versions", "rule")},
        "versions": setup.get("versions", {}),
        "config": json.dumps(setup.get("experiment", {}), indent=2),
        **values,
    }
    render(template, path, **values)


def render(template: str, path: Path, **values: Any) -> None:
    """Renders a template of jxrecon/templates/ to a page that appears only when it is whole.

    Args:
        template: name of its file.
        path: of the page.
        **values: what the template names.
    """
    page = (
        jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        .get_template(template)
        .render(**values)
    )
    write_file(path, page)


def best_methods(
    summary: dict[str, Any], metrics: Iterable[str], higher: Collection[str]
) -> dict[str, str | None]:
    """Metric -> the method with the best mean of it; None for times and where there is no other.

    Args:
        summary: of the evaluation.
        metrics: which.
        higher: those of them to maximise.
    """
    found: dict[str, str | None] = {}
    for name in metrics:
        means = {
            method: values[name]["mean"]
            for method, values in summary["metrics"].items()
            if values[name]["mean"] is not None
        }
        choose = max if name in higher else min
        rivals = name != "seconds" and len(means) > 1
        found[name] = choose(means, key=lambda method: means[method]) if rivals else None
    return found


def strip_figure(rows: list[Row], metrics: Sequence[str], head: Callable[[str], str]) -> Figure:
    """Every case as a dot, every method as a column; one picture a metric, lines join a case.

    Args:
        rows: one a method and case, the method that is looked at last.
        metrics: shown side by side.
        head: metric -> title of its picture.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(11.0, 2.9), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics):
        values = np.array([[r[metric] for r in rows if r["method"] == m] for m in methods], float)
        axes.plot(values, color=MUTED, linewidth=0.5, alpha=0.6)
        for place, row in enumerate(values):
            last = place == len(methods) - 1
            axes.plot([place] * len(row), row, "o", ms=3.5, color=ACCENT if last else MUTED)
            if np.isfinite(row).any():
                mean = np.mean(row[np.isfinite(row)])
                axes.plot([place - 0.25, place + 0.25], [mean] * 2, color=INK, linewidth=1.5)
        plain(axes, head(metric))
        axes.set_xticks(range(len(methods)), methods, rotation=20, ha="right", fontsize=7)
        axes.set_xlim(-0.5, len(methods) - 0.5)
    return figure


def curve_figure(log: list[dict[str, Any]]) -> Figure:
    """Every logged term over steps: training as a line, validation as dots."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in log:
        for name, value in line.items():
            if name not in ("step", "split") and isinstance(value, int | float):
                curve = curves.setdefault(name, {}).setdefault(line["split"], [])
                curve.append((line["step"], float(value)))
    held_out = [name for name in curves if "validation" in curves[name]]
    names = [*held_out, *(name for name in curves if name not in held_out)][:_MAX_CURVES]
    columns = min(4, len(names))
    height = -(-len(names) // columns)
    figure = Figure(figsize=(11.0, 2.0 * height), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names):
        for split, points in curves[name].items():
            steps, values = np.array(points).T
            if split == "validation":
                axes.plot(steps, values, "o-", ms=3, linewidth=1, color="#d1495b", label=split)
            else:
                axes.plot(steps, values, linewidth=0.9, color=ACCENT, label=split)
        everything = np.array([value for points in curves[name].values() for _, value in points])
        if (everything > 0).all() and everything.max() > 100 * everything.min():
            axes.set_yscale("log")
        plain(axes, name)
    for axes in panels[len(names) :]:
        axes.axis("off")
    handles = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, fontsize=7)
    figure.supxlabel("step", fontsize=8)
    return figure


def plain(axes: Axes, title: str) -> None:
    """Axes of numbers without ornaments."""
    axes.set_title(title, fontsize=8, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, colors=INK)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


def show_image(axes: Axes, image: Any, aspect: float, note: str = "", **style: Any) -> Any:
    """One picture without ticks; `note` in its corner."""
    axes.set(xticks=[], yticks=[], anchor="N")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if note:
        box = {"facecolor": FACE, "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(0.03, 0.03, note, transform=axes.transAxes, fontsize=7, color=INK, bbox=box)
    return axes.imshow(image, aspect=aspect, interpolation="nearest", **style)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    for axes in figure.axes:
        axes.title.set_fontsize(min(axes.title.get_fontsize(), 9))
        axes.yaxis.label.set_fontsize(8)
        axes.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor=FACE)
    return buffer.getvalue()


def data_uri(figure: Figure) -> str:
    """The figure as a picture that lies within the page."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl that hold a term; nothing where there is none."""
    if not path.exists():
        return []
    lines: Sequence[str] = path.read_text(errors="replace").splitlines()
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and len(entry) > 2 and {"step", "split"} <= entry.keys():
            found.append(entry)
    return found
