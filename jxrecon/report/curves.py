"""Plots of numbers: every case as a dot, metrics over the number of views, terms over training steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jxrecon.evaluation.table import Row
from jxrecon.metrics.metric import Metric
from jxrecon.report.drawing import ACCENT, INK, MUTED, plain

_MAX_CURVES = 16


def strips(rows: Sequence[Row], metrics: Sequence[Metric], own: str) -> Figure:
    """Every case as a dot, every method a column, `own` in colour; a picture a metric, lines join a case."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(11.0, 2.9), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics):
        values = np.array(
            [[r[metric.name] for r in rows if r["method"] == m] for m in methods], float
        )
        axes.plot(values, color=MUTED, linewidth=0.5, alpha=0.6)
        for place, row in enumerate(values):
            colour = ACCENT if methods[place] == own else MUTED
            axes.plot([place] * len(row), row, "o", ms=3.5, color=colour)
            if np.isfinite(row).any():
                mean = np.mean(row[np.isfinite(row)])
                axes.plot([place - 0.25, place + 0.25], [mean] * 2, color=INK, linewidth=1.5)
        plain(axes, metric.head)
        axes.set_xticks(range(len(methods)), methods, rotation=20, ha="right", fontsize=7)
        axes.set_xlim(-0.5, len(methods) - 0.5)
    return figure


def over_views(summary: dict[str, Any], metrics: Sequence[Metric]) -> Figure:
    """Mean and 95 % interval of each method over the number of views."""
    results = summary["results"]
    methods = list(dict.fromkeys(r["method"] for r in results))
    height = -(-len(metrics) // 3)
    figure = Figure(figsize=(11.0, 3.2 * height), layout="constrained")
    drawn = figure.subplots(height, 3, squeeze=False).ravel()
    for axes, metric in zip(drawn, metrics):
        for place, method in enumerate(methods):
            found = {
                r["views"]: r["metrics"][metric.name] for r in results if r["method"] == method
            }
            found = {count: s for count, s in found.items() if s["mean"] is not None}
            if not found:
                continue
            # side by side, so that intervals can be told apart
            at = [count * 1.02 ** (place - len(methods) / 2) for count in found]
            mean = np.array([s["mean"] for s in found.values()])
            lowest = [s["mean"] if s["low"] is None else s["low"] for s in found.values()]
            highest = [s["mean"] if s["high"] is None else s["high"] for s in found.values()]
            reach = np.abs(np.array([lowest, highest]) - mean[None])
            line = f"C{place % 10}o" + ("-", "--")[place // 10 % 2]
            axes.errorbar(at, mean, reach, fmt=line, ms=3, lw=1, label=method)
        plain(axes, metric.head)
        axes.set_xscale("log")
        axes.set_xticks(summary["views"], [str(count) for count in summary["views"]])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("views", fontsize=7)
    for axes in drawn[len(metrics) :]:
        axes.axis("off")
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=7)
    return figure


def training(log: Sequence[dict[str, Any]]) -> Figure:
    """Every logged term over steps: training as a line, validation as dots."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in log:
        for name, value in line.items():
            if name not in ("step", "split") and isinstance(value, int | float):
                curve = curves.setdefault(name, {}).setdefault(line["split"], [])
                curve.append((line["step"], float(value)))
    names = sorted(curves, key=lambda name: "validation" not in curves[name])[:_MAX_CURVES]
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


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl that hold a term; nothing where there is none."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            continue
        terms = {k: v for k, v in entry.items() if v is None or isinstance(v, int | float)}
        if len(terms) > 1 and isinstance(split := entry.get("split"), str):
            found.append({**terms, "split": split})
    return found
