"""What a comparison found: means with bootstrap intervals, paired tests, who fails; as tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jxrecon.evaluation.bench import COSTS
from jxrecon.evaluation.contenders import Contender
from jxrecon.evaluation.setting import Setting
from jxrecon.evaluation.table import INVERSE_CRIME, Row, column_head, number
from jxrecon.metrics import statistics
from jxrecon.metrics.volume import LABELS, conventions
from jxrecon.runs.run import hardware

MAIN = ("psnr_db", "ssim_3d", "mae_hu_body", "bone_dice", "bone_assd_mm", "lpips_alex")
"""Metrics of the first table, with intervals and tests."""

BAR = "linear prior"
"""The baseline that a method has to pass: who does not has not earned its weights."""

JUDGED = "psnr_db"
"""The metric by which it has to, and that orders the pictures."""

HEADS = {**LABELS, "memory_mb": "memory [MB]"}
"""Metric or cost -> the head of its column."""


def summarise(
    setting: Setting, contenders: Sequence[Contender], rows: Sequence[Row], against: str
) -> dict[str, Any]:
    """summary.json.

    Args:
        setting: the terms.
        contenders: in the order of the tables.
        rows: one a method, number of views and case.
        against: the method that the others are tested against.

    Returns:
        `results` holds one entry a method and number of views: mean, std, low and high (95 % interval of
        the mean) and n of every metric over its finite values, `fails` (its mean PSNR is not above the
        linear prior's from as many views; None where that took no part) and `tests`, metric ->
        PairedTest against `against` from as many views, Holm over the methods of this number of views.
    """
    names = [name for name in HEADS if name in rows[0]]
    by_key: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_key.setdefault((row["method"], row["views"]), []).append(row)
    results = []
    for (method, count), found in by_key.items():
        metrics = {name: _spread([row[name] for row in found]) for name in names}
        results.append({"method": method, "views": count, "metrics": metrics, "tests": {}})
    _judge(results)
    _test(results, by_key, against)
    window, field = setting.experiment.field.window, setting.experiment.field
    return {
        "data": setting.dataset.rule,
        "synthetic": setting.dataset.synthetic,
        "split": setting.split,
        "cases": len(setting.names),
        "field": f"{' x '.join(map(str, field.shape))} voxels of "
        f"{' x '.join(f'{mm:.3g}' for mm in field.spacing_mm)} mm",
        "window_hu": list(window),
        "views": list(setting.counts),
        "xrays": _xrays(setting),
        "photons": setting.photons,
        "seed": setting.seed,
        "against": against,
        "hardware": hardware(),
        "conventions": _conventions(setting, names),
        "notes": {contender.name: contender.note for contender in contenders if contender.note},
        "results": results,
    }


def finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(name: str, spread: dict[str, Any], interval: bool = True) -> str:
    """A mean as tables show it, with the 95 % interval where there is one."""
    text = number(name, spread["mean"])
    if not interval or spread["low"] is None or name in COSTS:
        return text
    return f"{text} [{number(name, spread['low'])}, {number(name, spread['high'])}]"


def p_value(result: dict[str, Any], name: str = JUDGED) -> str:
    """The corrected p of a result's Wilcoxon test; empty where it was not tested."""
    test = result["tests"].get(name)
    if test is None:
        return ""
    p = test["p_wilcoxon_holm"]
    return "n/a" if p is None or math.isnan(p) else f"{p:.2g}"


def markdown(summary: dict[str, Any]) -> str:
    """results.md: both tables, what fails, and every convention."""
    kind = "SYNTHETIC data" if summary["synthetic"] else "real patients"
    lines = [
        f"# Comparison: {kind}, {summary['cases']} {summary['split']} cases",
        "",
        f"{summary['data']} {summary['field']}; window {summary['window_hu'][0]:g} to "
        f"{summary['window_hu'][1]:g} HU; seed {summary['seed']}; {summary['hardware']}.",
        "",
        summary["xrays"],
        "",
        *_markdown_table(summary, main_columns(summary), interval=True),
        "",
        f"Mean [95 % bootstrap interval of the mean]; p: Wilcoxon on {HEADS[JUDGED]} against "
        f"{summary['against']} from as many views, two-sided, corrected by Holm. "
        f"†: does not pass the {BAR} from as many views, and so fails.",
        "",
        *_markdown_table(summary, other_columns(summary), interval=False),
        "",
        *(f"- {name}: {note}." for name, note in summary["notes"].items()),
        "",
        *(f"- {HEADS[name]}: {text}." for name, text in summary["conventions"].items()),
    ]
    return "\n".join(lines) + "\n"


def main_columns(summary: dict[str, Any]) -> list[str]:
    """Metrics of the first table that could be computed."""
    return [name for name in MAIN if _known(summary, name)]


def other_columns(summary: dict[str, Any]) -> list[str]:
    """All others."""
    return [name for name in HEADS if name not in MAIN and _known(summary, name)]


def head(name: str) -> str:
    """The head of a column with an arrow towards better."""
    return HEADS[name] if name in COSTS else column_head(name)


def label(result: dict[str, Any]) -> str:
    """A method as tables name it: with a dagger where it fails."""
    return result["method"] + (" †" if result["fails"] else "")


def print_summary(summary: dict[str, Any]) -> None:
    """The first table, one block a number of views."""
    kind = "SYNTHETIC data" if summary["synthetic"] else "real data"
    columns = [*main_columns(summary), "seconds"]
    table = Table(title=f"{kind}, {summary['cases']} {summary['split']} cases, {summary['field']}")
    table.add_column("views", justify="right")
    table.add_column("method", no_wrap=True)
    for name in columns:
        table.add_column(Text(head(name)), justify="right", no_wrap=True)
    table.add_column("p", justify="right")
    for result, last in ordered(summary):
        cells = [cell(name, result["metrics"][name], interval=False) for name in columns]
        table.add_row(
            str(result["views"]), Text(label(result)), *cells, p_value(result), end_section=last
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(
        f"p: Wilcoxon on {HEADS[JUDGED]} against {summary['against']}, corrected by Holm. †: not above "
        f"the {BAR}. Intervals, other metrics and conventions: results.md. {summary['xrays']}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def ordered(summary: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Results by number of views, methods in their order; and whether one ends its block."""
    for count in summary["views"]:
        block = [result for result in summary["results"] if result["views"] == count]
        for place, result in enumerate(block):
            yield result, place == len(block) - 1


def _spread(values: Sequence[float]) -> dict[str, Any]:
    kept = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not len(kept):
        return {"mean": None, "std": None, "low": None, "high": None, "n": 0}
    low, high = statistics.interval(kept) if len(kept) > 1 else (None, None)
    mean, std = float(kept.mean()), float(kept.std())
    return {"mean": mean, "std": std, "low": low, "high": high, "n": len(kept)}


def _judge(results: list[dict[str, Any]]) -> None:
    """Says of every result whether it is above the bar."""
    bars = {r["views"]: r["metrics"][JUDGED]["mean"] for r in results if r["method"] == BAR}
    for result in results:
        mine, bar = result["metrics"][JUDGED]["mean"], bars.get(result["views"])
        told = result["method"] != BAR and None not in (mine, bar)
        result["fails"] = bool(mine <= bar) if told else None


def _test(
    results: list[dict[str, Any]], by_key: Mapping[tuple[str, int], Sequence[Row]], against: str
) -> None:
    """Adds the paired tests; a metric without a finite value in every case is not tested."""
    for count in dict.fromkeys(result["views"] for result in results):
        if (against, count) not in by_key or len(by_key[against, count]) < 2:
            continue
        for name in MAIN:

            def values(method: str, count: int = count, name: str = name) -> np.ndarray:
                return np.array([row[name] for row in by_key[method, count]], np.float64)

            rivals = [method for method, n in by_key if n == count and method != against]
            others = {m: values(m) for m in rivals if np.isfinite(values(m)).all()}
            if not np.isfinite(values(against)).all():
                continue
            for method, test in statistics.compare(values(against), others).items():
                for result in results:
                    if (result["method"], result["views"]) == (method, count):
                        result["tests"][name] = test._asdict()


def _known(summary: dict[str, Any], name: str) -> bool:
    return any(
        name in result["metrics"] and result["metrics"][name]["n"] for result in summary["results"]
    )


def _xrays(setting: Setting) -> str:
    if setting.photons is None:
        return INVERSE_CRIME
    return (
        f"X-rays are line integrals of the true volume with the noise of {setting.photons:g} photons a pixel "
        "of the unattenuated beam, made by the same projector and on the same grid that the methods use: "
        "an easier problem than real radiographs."
    )


def _conventions(setting: Setting, names: Sequence[str]) -> dict[str, str]:
    most = max(setting.counts)
    found = {
        **conventions(setting.experiment.field.window),
        **COSTS,
        "reprojection_error": "|A x - y| / |y| over the views given to the method, y as it was given",
        "reprojection_unseen": (
            f"the same over the {most} views half-way between the {most} evenly spaced ones, noise-free; "
            "given to no method"
        ),
    }
    return {name: found[name] for name in names}


def _markdown_table(summary: dict[str, Any], columns: Sequence[str], interval: bool) -> list[str]:
    heads = ["views", "method", *(head(name) for name in columns)]
    lines = [" | ".join(heads + ["p"] * interval), "|".join(["---"] * (len(heads) + interval))]
    for result, _ in ordered(summary):
        cells = [cell(name, result["metrics"][name], interval) for name in columns]
        tested = [p_value(result)] * interval
        lines.append(" | ".join([str(result["views"]), label(result), *cells, *tested]))
    return [f"| {line} |" for line in lines]
