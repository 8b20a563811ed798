"""robustness.html: what each perturbation costs each method, as curves and numbers, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jxrecon.evaluation.perturbations import NONE
from jxrecon.evaluation.robustness import METRICS, Robustness
from jxrecon.metrics.volume import METRICS as KNOWN
from jxrecon.report.drawing import INK, data_uri, plain, render
from jxrecon.units import Window

FEW = 6
"""So many values each have their tick."""

SHOWN = {"mean": "PSNR (dB)", "change": "its change (dB)"}
"""What curves show of a result."""

DASHES = ("-", "--", "-.", (0, (1, 1)))
"""Lines of a method as it is and with each remedy."""


def write_page(found: Robustness) -> Path:
    """Writes robustness.html beside the results of `evaluation.robustness.robustness`; returns its path."""
    summary, path = found.summary, found.out / "robustness.html"
    done = {r["perturbation"] for field in summary["fields"] for r in field["results"]}
    shown = [p for p in summary["perturbations"] if p["name"] in done]
    methods = list(dict.fromkeys(r["method"] for f in summary["fields"] for r in f["results"]))
    render(
        "robustness.html.jinja",
        path,
        summary=summary,
        shown=shown,
        pictures={p["name"]: data_uri(curves(summary, p, methods)) for p in shown},
        worst=worst,
        at=at,
        methods_of=methods_of,
        nothing=NONE,
        metrics={name: KNOWN[name] for name in METRICS},
        colour=colour,
        window=Window(*summary["fields"][0]["window_hu"]),
    )
    return path


def methods_of(field: dict[str, Any]) -> list[str]:
    """In the order of the tables."""
    return list(dict.fromkeys(r["method"] for r in field["results"]))


def at(
    field: dict[str, Any], method: str, perturbation: str, value: float | None = None
) -> list[dict[str, Any]]:
    """The results of a method under a perturbation, by value; at one value if it is given."""
    return sorted(
        (
            r
            for r in field["results"]
            if (r["method"], r["perturbation"]) == (method, perturbation)
            and value in (None, r["value"])
        ),
        key=lambda r: r["value"],
    )


def worst(field: dict[str, Any], method: str, perturbation: str) -> float | None:
    """The largest loss of mean PSNR at any value, in dB, as a negative number."""
    changes = [r["psnr_db"]["change"] for r in at(field, method, perturbation)]
    return min((c for c in changes if c is not None), default=None)


def colour(change: float | None) -> str:
    """The ground of a cell: deeper red for a larger loss, all of it from 6 dB on."""
    share = min(max(-(change or 0.0), 0.0) / 6.0, 1.0)
    return f"rgba(209,73,91,{0.65 * share:.3f})"


def curves(summary: dict[str, Any], perturbation: dict[str, Any], methods: Sequence[str]) -> Figure:
    """PSNR and its change over the values, a curve a method, two panels a field; dotted: nothing is wrong."""
    fields = [f for f in summary["fields"] if any(at(f, m, perturbation["name"]) for m in methods)]
    styles = styles_of(methods)
    figure = Figure(figsize=(11.0, 3.1), layout="constrained")
    panels = figure.subplots(1, 2 * len(fields), squeeze=False)[0]
    for place, field in enumerate(fields):
        for axes, (part, title) in zip(panels[2 * place :], SHOWN.items()):
            for method in methods:
                _curve(axes, field, perturbation, method, (part, styles[method]))
            plain(axes, f"{title}, {field['name']}" if len(fields) > 1 else title)
            unit = f" ({perturbation['unit']})" if perturbation["unit"] else ""
            axes.set_xlabel(perturbation["name"] + unit, fontsize=7)
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    named = {_with_n(fields, m): lines[m] for m in methods if m in lines}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=7)
    return figure


def styles_of(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each method is drawn: a colour (from ten on another marker, too) a method, a dash a remedy."""
    own, remedies = (
        list(dict.fromkeys(method.partition(", ")[n] for method in methods)) for n in (0, 2)
    )

    def style(name: str, remedy: str) -> dict[str, Any]:
        place = own.index(name)
        dash = DASHES[remedies.index(remedy) % len(DASHES)]
        return {"color": f"C{place % 10}", "marker": "os^D"[place // 10 % 4], "linestyle": dash}

    return {method: style(*method.partition(", ")[::2]) for method in methods}


def _with_n(fields: Sequence[dict[str, Any]], method: str) -> str:
    """The method with the number of its cases."""
    counts = {at(field, method, NONE)[0]["n"] for field in fields if at(field, method, NONE)}
    return f"{method} (n = {', '.join(map(str, sorted(counts)))})"


def _curve(
    axes: Axes,
    field: dict[str, Any],
    perturbation: dict[str, Any],
    method: str,
    what: tuple[str, dict[str, Any]],
) -> None:
    """The curve of a method with the point at which nothing is wrong, or a level where there is none."""
    part, style = what
    points = [(r["value"], r["psnr_db"][part]) for r in at(field, method, perturbation["name"])]
    if not points:
        return
    base = at(field, method, NONE)[0]["psnr_db"]
    if perturbation["nothing"] is not None:
        points = sorted([*points, (perturbation["nothing"], base[part])])
    values, means = zip(*points)
    axes.plot(values, means, ms=3, linewidth=1.1, label=method, **style)
    if perturbation["nothing"] is None:
        axes.axhline(base[part], color=style["color"], linestyle=":", linewidth=1.1)
    else:
        axes.axvline(perturbation["nothing"], color=INK, linewidth=0.4)
    if min(values) > 0 and max(values) > 100 * min(values):
        axes.set_xscale("log")
    if len(values) <= FEW:
        axes.set_xticks(values, [f"{value:g}" for value in values])
