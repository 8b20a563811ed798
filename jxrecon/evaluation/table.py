"""What an evaluation leaves behind: a table of cases that survives a kill, and its summary."""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jxrecon.files import write_file
from jxrecon.metrics import bone, slices, tissue, x2ct_legacy
from jxrecon.metrics.volume import CONVENTIONS, HIGHER_IS_BETTER, LABELS, conventions
from jxrecon.runs.run import Run

INVERSE_CRIME = (
    "X-rays are noise-free line integrals of the true volume, made by the same projector and on the "
    "same grid that the methods use: an easier problem than real radiographs."
)

Row = dict[str, Any]
"""One method on one case: method, split, case, its metrics, fingerprint."""


class CaseTable:
    """cases.csv: one row a method and case, on disk as soon as it is known, found again after a kill.

    Attributes:
        rows: (method, split, case), or what else the keys are -> row.
    """

    def __init__(
        self,
        path: Path,
        fingerprints: dict[str, str],
        metrics: Iterable[str] = CONVENTIONS,
        keys: tuple[str, ...] = ("method", "split", "case"),
    ) -> None:
        """Opens the file and keeps what still holds.

        Args:
            path: of the file, made where missing.
            fingerprints: of the data and weights of each method; rows of others are dropped, and so
                is the torn last row of a killed run.
            metrics: names of the columns with numbers.
            keys: names of the columns that tell rows apart, the method first.
        """
        self._fingerprints, self._metrics, self._keys = fingerprints, tuple(metrics), keys
        # the last column shows a torn line
        self._columns = (*keys, *self._metrics, "fingerprint")
        self.rows: dict[tuple[str, ...], Row] = {}
        for row in self._read_rows(path):
            if fingerprints.get(row["method"]) == row["fingerprint"]:
                self.rows[tuple(row[key] for key in keys)] = row
        self._path = path
        self._write_whole()
        self._file = path.open("a", newline="")

    def __enter__(self) -> CaseTable:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._write_whole()  # a case that was done again has one row

    def _write_whole(self) -> None:
        lines = [",".join(self._columns), *(self._line(row) for row in self.rows.values())]
        write_file(self._path, "\n".join(lines) + "\n")

    def add(self, key: tuple[str, ...], metrics: dict[str, float]) -> None:
        """Writes a row through to the disk."""
        row = {**dict(zip(self._keys, key, strict=True)), **metrics}
        row["fingerprint"] = self._fingerprints[key[0]]
        self.rows[key] = row
        self._file.write(self._line(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _line(self, row: Row) -> str:
        values = (row[column] for column in self._columns)
        cells = (f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)
        return ",".join(f'"{cell}"' if "," in cell else cell for cell in cells)

    def _read_rows(self, path: Path) -> Iterator[Row]:
        """The whole rows of the file; nothing where there is none or its columns are others."""
        if not path.exists():
            return
        with path.open(newline="", errors="replace") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != self._columns:
                return
            for row in reader:
                try:
                    yield {**row, **{name: float(row[name]) for name in self._metrics}}
                except (TypeError, ValueError):
                    continue


def means(rows: list[Row], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Method -> metric -> mean, std and number n of its finite values."""
    found: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        found[method] = {}
        for name in names:
            values = [row[name] for row in rows if row["method"] == method]
            finite = [value for value in values if math.isfinite(value)]
            found[method][name] = {
                "mean": float(np.mean(finite)) if finite else None,
                "std": float(np.std(finite)) if finite else None,
                "n": len(finite),
            }
    return found


def summarise(run: Run, rows: list[Row], split: str, step: int) -> dict[str, Any]:
    """summary.json: mean, standard deviation and number of finite values of every method's metrics.

    Args:
        run: what was evaluated.
        rows: one a method and case, the methods in the order of the table.
        split: of the cases.
        step: of the checkpoint.
    """
    return {
        "experiment": run.experiment.name,
        "size": run.experiment.size,
        "step": step,
        "synthetic": run.synthetic,
        "data": run.rule,
        "split": split,
        "cases": len({row["case"] for row in rows}),
        "xrays": INVERSE_CRIME,
        "window_hu": list(run.problem.window),
        "conventions": conventions(run.problem.window),
        "metrics": means(rows, CONVENTIONS),
    }


def column_head(metric: str) -> str:
    """The label of a metric with an arrow towards better."""
    arrow = "" if metric == "seconds" else " ↑" if metric in HIGHER_IS_BETTER else " ↓"
    return LABELS[metric] + arrow


def number(metric: str, value: float | None) -> str:
    """A value to as many digits as mean something."""
    if value is None or not math.isfinite(value):
        return "n/a" if value is None or math.isnan(value) else "inf"
    if metric.startswith("mae") or metric == "memory_mb":
        return f"{value:.1f}"
    if metric.startswith("lpips") or metric.endswith("dice"):
        return f"{value:.3f}"
    if metric == "seconds" and value < 1:
        return f"{value:.2g}"
    if "ssim" in metric or metric.startswith("reprojection"):
        return f"{value:.4f}"
    return f"{value:.2f}"


def print_summary(summary: dict[str, Any]) -> None:
    """The summary as tables, methods as rows, with the convention of every column."""
    kind = "SYNTHETIC data" if summary["synthetic"] else "real data"
    title = (
        f"{summary['experiment']} {summary['size']}, step {summary['step']}: {kind}, "
        f"{summary['cases']} {summary['split']} cases, mean ± standard deviation"
    )
    legacy = [*slices.LABELS, *x2ct_legacy.CONVENTIONS]
    anatomy = [*tissue.LABELS, *bone.LABELS]
    main = [name for name in LABELS if name not in (*anatomy, *legacy)]
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_table(title, main, summary["metrics"]))
    console.print(_table("the same, by tissue", anatomy, summary["metrics"]))
    console.print(_table("the same, by look and in other conventions", legacy, summary["metrics"]))
    for name, sentence in summary["conventions"].items():
        console.print(f"{LABELS[name]}: {sentence}", markup=False, highlight=False, soft_wrap=True)
    console.print(summary["xrays"], markup=False, highlight=False, soft_wrap=True)


def _table(title: str, names: list[str], metrics: dict[str, Any]) -> Table:
    table = Table(title=title)
    table.add_column("method", no_wrap=True)
    for name in names:
        table.add_column(Text(column_head(name)), justify="right", no_wrap=True)
    for method, values in metrics.items():
        cells = (
            number(name, values[name]["mean"])
            + ("" if name == "seconds" else f" ± {number(name, values[name]['std'])}")
            for name in names
        )
        table.add_row(Text(method), *cells)
    return table
