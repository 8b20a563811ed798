"""What an evaluation found: means with bootstrap intervals, paired tests, who fails; as tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jxrecon.evaluation.bench import Judge
from jxrecon.evaluation.contenders import Contender
from jxrecon.evaluation.setting import Setting
from jxrecon.evaluation.table import Row
from jxrecon.metrics import statistics
from jxrecon.metrics.metric import COSTS, Metric
from jxrecon.runs.run import Trained, hardware
from jxrecon.units import Window


def summarise(
    setting: Setting,
    contenders: Sequence[Contender],
    rows: Sequence[Row],
    against: str,
    shown: Trained | None = None,
) -> dict[str, Any]:
    """summary.json.

    Args:
        setting: the terms.
        contenders: in the order of the tables.
        rows: one a method, number of views and case.
        against: the method that the others are tested against.
        shown: the run that is looked at, where there is one.

    Returns:
        `results` holds one entry a method and number of views: mean, std, low and high (95 % interval of
        the mean over units) and n of every metric over its finite values, `fails` (its mean is not above
        that of the rival to pass from as many views; None where that took no part) and `tests`, metric ->
        PairedTest against `against` from as many views, unit by unit, Holm over the methods of this number
        of views.
    """
    judge = setting.judge
    units = {c: judge.unit_of(setting.cases, place) for place, c in enumerate(setting.names)}
    by_key: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_key.setdefault((row["method"], row["views"]), []).append(row)
    results = []
    for (method, count), found in by_key.items():
        metrics = {name: _spread(found, name, units) for name in (*judge.metrics, *COSTS)}
        results.append({"method": method, "views": count, "metrics": metrics, "tests": {}})
    _judge(results, judge)
    _test(results, by_key, against, judge, units)
    run = {}
    if shown is not None:
        experiment = shown.run.experiment
        run = {"experiment": experiment.name, "size": experiment.size, "step": shown.step}
    return {
        **run,
        "data": setting.dataset.rule,
        "synthetic": setting.dataset.synthetic,
        "split": setting.terms.split,
        "cases": len(setting.names),
        judge.unit: len(set(units.values())),
        **judge.terms(setting),
        "views": list(setting.counts),
        "photons": setting.terms.photons,
        "seed": setting.terms.seed,
        "against": against,
        "hardware": hardware(),
        "conventions": _conventions(setting),
        "notes": {contender.name: contender.note for contender in contenders if contender.note},
        "results": results,
    }


def finite(value: Any) -> Any:
    """The same with None, JSON's null, for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def columns(judge: Judge, summary: dict[str, Any]) -> tuple[list[Metric], list[Metric]]:
    """Metrics and costs that could be computed: those of the first table, and all others."""
    known = [
        metric
        for name, metric in {**judge.metrics, **COSTS}.items()
        if any(result["metrics"][name]["n"] for result in summary["results"])
    ]
    main = [metric for metric in known if metric.name in judge.main]
    return main, [metric for metric in known if metric not in main]


def unmeasured(judge: Judge, summary: dict[str, Any]) -> list[Metric]:
    """Metrics without a column: those that no case has a number of, as LPIPS without its weights."""
    shown = [metric for part in columns(judge, summary) for metric in part]
    return [metric for metric in judge.metrics.values() if metric not in shown]


def p_value(test: dict[str, Any] | None, name: str = "p_wilcoxon_holm") -> str:
    """Two digits of a p value or an effect size of a test; empty where nothing was tested."""
    if test is None:
        return ""
    value = test[name]
    return "n/a" if value is None or math.isnan(value) else f"{value:.2g}"


def label(result: dict[str, Any]) -> str:
    """A method as tables name it: with a dagger where it fails."""
    return result["method"] + (" †" if result["fails"] else "")


def tested(judge: Judge, summary: dict[str, Any]) -> str:
    """What p and dagger in the tables mean."""
    dagger = (
        f" †: does not pass the {judge.bar} from as many views, and so fails." if judge.bar else ""
    )
    return (
        f"p: Wilcoxon on {judge.metrics[judge.judged].label} against {summary['against']} from as many "
        f"views, over {summary[judge.unit]} {judge.unit}, two-sided, corrected by Holm.{dagger}"
    )


def ordered(summary: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Results by number of views, methods in their order; and whether one ends its block."""
    for count in summary["views"]:
        block = [result for result in summary["results"] if result["views"] == count]
        for place, result in enumerate(block):
            yield result, place == len(block) - 1


def heading(summary: dict[str, Any]) -> str:
    """What was evaluated, in one line."""
    what = "comparison"
    if "experiment" in summary:
        what = f"{summary['experiment']} {summary['size']}, step {summary['step']}"
    kind = "SYNTHETIC data" if summary["synthetic"] else "real patients"
    return f"{what}: {kind}, {summary['cases']} {summary['split']} cases"


def markdown(summary: dict[str, Any], judge: Judge) -> str:
    """results.md: both tables, what fails, and every convention."""
    main, others = columns(judge, summary)
    known = {metric.name: metric.label for metric in (*main, *others)}
    lines = [
        f"# {heading(summary)}",
        "",
        f"{summary['data']} {summary['field']}; seed {summary['seed']}; {summary['hardware']}.",
        "",
        summary["xrays"],
        "",
        *_markdown_table(summary, main, judge),
        "",
        f"Mean [95 % bootstrap interval of the mean]. {tested(judge, summary)}",
        "",
        *_markdown_table(summary, others, None),
        "",
        *(f"- {name}: {note}." for name, note in summary["notes"].items()),
        "",
        *(f"- {known[n]}: {text}." for n, text in summary["conventions"].items() if n in known),
        *(
            f"- {m.label}, of which no case has a number: {summary['conventions'][m.name]}."
            for m in unmeasured(judge, summary)
        ),
    ]
    return "\n".join(lines) + "\n"


def print_summary(summary: dict[str, Any], judge: Judge) -> None:
    """The first table with deviations, one block a number of views."""
    main, _ = columns(judge, summary)
    table = Table(title=f"{heading(summary)}, {summary['field']}; mean ± standard deviation")
    table.add_column("views", justify="right")
    table.add_column("method", no_wrap=True)
    for metric in main:
        table.add_column(Text(metric.head), justify="right", no_wrap=True)
    table.add_column(COSTS["seconds"].label, justify="right")
    table.add_column("p", justify="right")
    for result, last in ordered(summary):
        spreads = result["metrics"]
        cells = [
            f"{m.text(spreads[m.name]['mean'])} ± {m.text(spreads[m.name]['std'])}" for m in main
        ]
        cells.append(COSTS["seconds"].text(spreads["seconds"]["mean"]))
        p = p_value(result["tests"].get(judge.judged))
        table.add_row(str(result["views"]), Text(label(result)), *cells, p, end_section=last)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    lines = [f"{m.label}: {summary['conventions'][m.name]}" for m in main]
    for line in (*lines, tested(judge, summary), summary["xrays"]):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print("Intervals and all other metrics: results.md.")


def _spread(rows: Sequence[Row], name: str, units: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and deviation over cases, interval over units."""
    kept = [row for row in rows if math.isfinite(row[name])]
    if not kept:
        return {"mean": None, "std": None, "low": None, "high": None, "n": 0}
    values, apart = np.array([row[name] for row in kept], np.float64), _by_unit(kept, name, units)
    low, high = statistics.interval(apart) if len(apart) > 1 else (None, None)
    mean, std = float(values.mean()), float(values.std())
    return {"mean": mean, "std": std, "low": low, "high": high, "n": len(kept)}


def _by_unit(rows: Sequence[Row], name: str, units: Mapping[str, Any]) -> np.ndarray:
    """The mean of a metric in each unit."""
    found: dict[Any, list[float]] = {}
    for row in rows:
        found.setdefault(units[row["case"]], []).append(row[name])
    return np.array([np.mean(values) for values in found.values()], np.float64)


def _judge(results: list[dict[str, Any]], judge: Judge) -> None:
    """Says of every result whether it is above the bar."""
    bars = {
        r["views"]: r["metrics"][judge.judged]["mean"] for r in results if r["method"] == judge.bar
    }
    for result in results:
        mine, bar = result["metrics"][judge.judged]["mean"], bars.get(result["views"])
        told = result["method"] != judge.bar and None not in (mine, bar)
        result["fails"] = bool(mine <= bar) if told else None


def _test(
    results: list[dict[str, Any]],
    by_key: Mapping[tuple[str, int], Sequence[Row]],
    against: str,
    judge: Judge,
    units: Mapping[str, Any],
) -> None:
    """Adds the paired tests; a metric without a finite value in every case is not tested."""
    for count in dict.fromkeys(result["views"] for result in results):
        mine = by_key.get((against, count), ())
        block = {r["method"]: r for r in results if r["views"] == count and r["method"] != against}
        for name in judge.main:
            ours = _by_unit(mine, name, units)
            theirs = {m: _by_unit(by_key[m, count], name, units) for m in block}
            theirs = {m: values for m, values in theirs.items() if np.isfinite(values).all()}
            if len(ours) < 2 or not np.isfinite(ours).all():
                continue
            for method, test in statistics.compare(ours, theirs).items():
                block[method]["tests"][name] = test._asdict()


def _conventions(setting: Setting) -> dict[str, str]:
    field = setting.experiment.field
    window: Window | None = None if field is None else field.window
    every = {**setting.judge.metrics, **COSTS}
    return {name: metric.says(window) for name, metric in every.items()}


def _markdown_table(
    summary: dict[str, Any], metrics: Sequence[Metric], judge: Judge | None
) -> list[str]:
    """With a judge: intervals and p values."""
    heads = ["views", "method", *(m.head for m in metrics), *(["p"] if judge else [])]
    lines = [" | ".join(heads), "|".join(["---"] * len(heads))]
    for result, _ in ordered(summary):
        cells = [str(result["views"]), label(result)]
        for metric in metrics:
            spread = result["metrics"][metric.name]
            text = metric.text(spread["mean"])
            if judge and spread["low"] is not None:
                text += f" [{metric.text(spread['low'])}, {metric.text(spread['high'])}]"
            cells.append(text)
        if judge:
            cells.append(p_value(result["tests"].get(judge.judged)))
        lines.append(" | ".join(cells))
    return [f"| {line} |" for line in lines]
