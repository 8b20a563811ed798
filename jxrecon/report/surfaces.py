"""report.html of surfaces: how near they come, how they lie on the X-ray, and the meshes to be turned.

One file without links; the meshes turn in the browser by WebGL, and stand still where there is none.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_hex, to_rgb

from jxrecon.evaluation.table import Row
from jxrecon.metrics.surface import HIGHER_IS_BETTER, LABELS
from jxrecon.report.outlines import COLOURS, RAMP, overlay_figure, still_figure
from jxrecon.report.page import best_methods, data_uri, strip_figure, write_page
from jxrecon.runs.run import Run

HEADS = {**LABELS, "seconds": "time [s]"}
"""Metric -> the head of its column."""

STRIPS = ("md_vertex_mm", "dsc")
"""Metrics that are shown case by case."""

_STOPS = 16  # colours of the ramp that the shader mixes; surfaces.js counts on them


class Shown(NamedTuple):
    """A case that is shown.

    Attributes:
        label: "best", "median", "worst", or some of them joined.
        case: its name.
        image: line integrals by the problem's camera.
        reference: the organ's known shape, mm.
        target: its true shape, mm.
        found: method -> vertices in mm, the run's own method last.
    """

    label: str
    case: str
    image: Float[np.ndarray, "rows columns"]
    reference: Float[np.ndarray, "v 3"]
    target: Float[np.ndarray, "v 3"]
    found: dict[str, Float[np.ndarray, "v 3"]]


def write_report(
    run: Run, rows: list[Row], summary: dict[str, Any], shown: list[Shown], out: Path
) -> None:
    """Writes report.html beside the results that it shows.

    Args:
        run: whose problem is a `SurfaceProblem`.
        rows: one a method and case, the run's own method last.
        summary: of `jxrecon.surfaces.evaluation.summarise`.
        shown: the cases with pictures.
        out: the folder.
    """
    own, template, camera = run.experiment.name, run.problem.template, run.problem.camera
    order = ["reference", "target", *dict.fromkeys(name for case in shown for name in case.found)]
    top = top_mm([distances(case.found[own], case.target) for case in shown])
    ramp = matplotlib.colormaps[RAMP](np.linspace(0, 1, _STOPS))[:, :3]
    pictures = []
    for case in shown:
        outlines = {"reference": case.reference, "target": case.target, own: case.found[own]}
        apart = distances(case.found[own], case.target)
        pictures.append(
            {
                "label": case.label,
                "case": case.case,
                "overlay": data_uri(overlay_figure(case.image, camera, template, outlines)),
                "still": data_uri(still_figure(case.found[own], template, apart, top)),
                "distances": {
                    name: float(distances(vertices, case.target).mean())
                    for name, vertices in {"reference": case.reference, **case.found}.items()
                },
            }
        )
    write_page(
        "surfaces.html.jinja",
        out / "report.html",
        run,
        summary,
        verdict=verdict(summary, own),
        labels=HEADS,
        column_head=column_head,
        number=number,
        best=best_methods(summary, HEADS, HIGHER_IS_BETTER),
        short=short,
        rows=[row for row in rows if row["method"] == own],
        strips=data_uri(strip_figure(rows, STRIPS, column_head)),
        counts=(len(template.vertices), len(template.faces)),
        shape=camera.shape,
        shown=pictures,
        order=order,
        colours=COLOURS,
        top_mm=top,
        ramp=[to_hex(colour) for colour in ramp],
        meshes={
            "faces": _packed(template.faces, "<u4"),
            "top_mm": top,
            "colours": np.round(ramp, 3).tolist(),
            "shells": [to_rgb(COLOURS[name]) for name in ("reference", "target")],
            "cases": [
                [_packed(v, "<f4") for v in (case.reference, case.target, *case.found.values())]
                for case in shown
            ],
        },
    )


def column_head(metric: str) -> str:
    """The label of a metric with an arrow towards better."""
    arrow = "" if metric == "seconds" else " ↑" if metric in HIGHER_IS_BETTER else " ↓"
    return HEADS[metric] + arrow


def number(metric: str, value: float | None) -> str:
    """A value to as many digits as mean something."""
    if value is None or not np.isfinite(value):
        return "n/a"
    return f"{value:.3f}" if metric in ("dsc", "seconds") else f"{value:.2f}"


def short(value: float) -> str:
    """Two digits of a p value or an effect size."""
    return "n/a" if np.isnan(value) else f"{value:.2g}"


def verdict(summary: dict[str, Any], own: str) -> str | None:
    """One sentence: the run's method against the best of the others; None where there is none."""
    means = {
        method: values["md_vertex_mm"]["mean"]
        for method, values in summary["metrics"].items()
        if values["md_vertex_mm"]["mean"] is not None
    }
    mine = means.pop(own, None)
    if mine is None or not means:
        return None
    rival = min(means, key=lambda method: means[method])
    gap = means[rival] - mine
    test = summary["tests"].get(rival)
    p = f"; p = {short(test['p_wilcoxon_holm'])}, Wilcoxon, Holm-corrected" if test else ""
    return (
        f"{own}: mean distance of vertices {mine:.2f} mm, {abs(gap):.2f} mm "
        f"{'less' if gap > 0 else 'more'} than the best of the others ({rival}, "
        f"{means[rival]:.2f} mm{p})."
    )


def distances(a: Float[np.ndarray, "v 3"], b: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " v"]:
    """Of every vertex from the same one of the other surface, mm."""
    return np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=1)


def top_mm(found: list[Float[np.ndarray, " v"]]) -> float:
    """The end of the colour ramp: a round number of mm that 98 % of the distances do not reach."""
    finite = np.concatenate([np.zeros(1), *found])
    reached = max(float(np.quantile(finite[np.isfinite(finite)], 0.98)), 1e-2)
    decade = 10.0 ** np.floor(np.log10(reached))
    return float(next(n for n in (1, 2, 3, 5, 10) if n * decade >= reached * (1 - 1e-9)) * decade)


def _packed(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode("ascii")
