"""report.html of an evaluation: tables, curves and the sections with pictures, in one file without links."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jxrecon.evaluation import summary as summaries
from jxrecon.evaluation.bench import Judge
from jxrecon.evaluation.compare import Results
from jxrecon.evaluation.table import Row
from jxrecon.files import read_json
from jxrecon.metrics.metric import COSTS
from jxrecon.report import curves
from jxrecon.report.drawing import data_uri, render

SHOWN = 2
"""The number of views whose results are shown, where it was evaluated; else the first."""


class Section(NamedTuple):
    """A part of the page below its tables: a file of report/templates/, and its `section.values`."""

    template: str
    values: dict[str, Any]


def count_shown(results: Results) -> int:
    """The number of views whose results are shown."""
    counts = results.setting.counts
    return SHOWN if SHOWN in counts else counts[0]


def rows_of(results: Results, method: str, count: int) -> list[Row]:
    """The rows of a method from so many views."""
    return [row for row in results.rows if (row["method"], row["views"]) == (method, count)]


def chosen(judge: Judge, rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """The best, median and worst case by the judged metric; fewer where there are fewer."""
    better = judge.metrics[judge.judged].better

    def merit(row: Row) -> float:
        value = better * row[judge.judged]
        return -np.inf if np.isnan(value) else value

    ranked = sorted(rows, key=merit, reverse=True)
    found: dict[int, str] = {}
    for label, place in {"best": 0, "median": len(rows) // 2, "worst": len(rows) - 1}.items():
        found[place] = f"{found[place]} and {label}" if place in found else label
    return [(label, ranked[place]) for place, label in sorted(found.items())]


def _means(summary: dict[str, Any], count: int, metric: str) -> dict[str, float]:
    """Method -> its mean from so many views, where there is one."""
    return {
        r["method"]: r["metrics"][metric]["mean"]
        for r in summary["results"]
        if r["views"] == count and r["metrics"][metric]["mean"] is not None
    }


def best_methods(judge: Judge, summary: dict[str, Any]) -> dict[tuple[int, str], str]:
    """(views, metric) -> the method with the best mean; none for costs, or without another method."""
    found = {}
    for count in summary["views"]:
        for name, metric in judge.metrics.items():
            means = _means(summary, count, name)
            if len(means) > 1:
                found[count, name] = max(means, key=lambda m: metric.better * means[m])
    return found


def verdict(judge: Judge, summary: dict[str, Any], count: int) -> str | None:
    """One sentence: the method that is looked at against the best of the others; None without others."""
    metric, own = judge.metrics[judge.judged], summary["against"]
    means = _means(summary, count, metric.name)
    mine = means.pop(own, None)
    if mine is None or not means:
        return None
    rival = max(means, key=lambda method: metric.better * means[method])
    gap = metric.better * (mine - means[rival])
    tests = {r["method"]: r["tests"] for r in summary["results"] if r["views"] == count}
    p = summaries.p_value(tests[rival].get(metric.name))
    return (
        f"{own}: {metric.label} {metric.text(mine)}, {metric.text(abs(gap))} "
        f"{'better' if gap > 0 else 'worse'} than the best of the others ({rival}, "
        f"{metric.text(means[rival])}{f'; p = {p}, Wilcoxon, Holm-corrected' if p else ''})."
    )


def write_report(results: Results) -> Path:
    """Writes report.html beside the results of `evaluation.compare.evaluate`; returns its path."""
    setting, summary, judge = results.setting, results.summary, results.setting.judge
    main, others = summaries.columns(judge, summary)
    count, own = count_shown(results), summary["against"]
    setup, log = {}, []
    if results.shown is not None:
        folder = results.shown.run.folder
        log = curves.read_log(folder / "metrics.jsonl")
        if (folder / "config.json").exists():
            setup = read_json(folder / "config.json")
    beside = [row for row in results.rows if row["views"] == count]
    several, sections = len(setting.counts) > 1, setting.experiment.kind.sections
    path = results.out / "report.html"
    render(
        "page.html.jinja",
        path,
        summary=summary,
        heading=summaries.heading(summary),
        finds=setting.experiment.kind.finds,
        judge=judge,
        costs=COSTS,
        results=[result for result, _ in summaries.ordered(summary)],
        main=main,
        others=others,
        unmeasured=summaries.unmeasured(judge, summary),
        several=several,
        best=best_methods(judge, summary),
        p_value=summaries.p_value,
        tested=summaries.tested(judge, summary),
        own=own,
        shown=count,
        verdict=verdict(judge, summary, count),
        strips=data_uri(curves.strips(beside, main[:4], own)),
        over_views=data_uri(curves.over_views(summary, main)) if several else None,
        sections=sections(results) if sections else [],
        training=data_uri(curves.training(log)) if log else None,
        rows=rows_of(results, own, count),
        setup={k: v for k, v in setup.items() if k not in ("experiment", "versions", "rule")},
        versions=setup.get("versions", {}),
        config=json.dumps(setup.get("experiment", {}), indent=2),
    )
    return path
