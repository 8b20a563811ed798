"""Evaluation of surfaces: every case by every method, as meshes, tables, tests and a report.

The statistical unit is the organ, not the case: cases of one organ are averaged before a test, for they
are not independent.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jxrecon.compile import jit
from jxrecon.evaluation.contenders import digest, fitted
from jxrecon.evaluation.setting import SPLITS
from jxrecon.evaluation.table import CaseTable, Row, means
from jxrecon.files import write_file
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.mesh import Mesh
from jxrecon.methods.base.method import SurfaceMethod
from jxrecon.metrics import statistics
from jxrecon.metrics.surface import CONVENTIONS, LABELS, surface_metrics
from jxrecon.report.surfaces import Shown, column_head, number, short, write_report
from jxrecon.runs import config
from jxrecon.runs.run import Run, restore
from jxrecon.terminal import CaseBar
from jxrecon.types import InputError, PyTree

JUDGED = "md_vertex_mm"
"""The metric of the statistical tests and of the choice of pictures."""

METRICS = (*CONVENTIONS, "seconds")
"""The columns of cases.csv."""

XRAYS = (
    "X-rays are noise-free line integrals of a chest CT that holds the moved organ, by the projector of this "
    "project: an easier problem than real radiographs."
)


class Contender(NamedTuple):
    """A method that takes part: its name, () -> (method, state), and what its results depend on."""

    name: str
    fit: Callable[[], tuple[SurfaceMethod, PyTree]]
    fingerprint: str


def evaluate(
    run: Run,
    state: PyTree,
    dataset: Any,
    split: str = "validation",
    out: Path | None = None,
    limit: int | None = None,
    step: int | None = None,
    beside: Sequence[Run] = (),
) -> None:
    """Finds the surface of every case by baselines, other runs and the run's own method.

    Writes recon/METHOD/CASE.ply (world mm), cases.csv, summary.json and report.html. What is done is
    kept: killed and started again, it goes on with the case where it was.

    Args:
        run: whose method and problem.
        state: of the run's method.
        dataset: what `experiment.load` gave; baselines are fitted on `dataset.train` in one step.
        split: "train" or "validation".
        out: folder of the results; None is the run folder.
        limit: only the first so many cases.
        step: of the checkpoint; None is the last of the schedule.
        beside: other trained runs of the same template and camera.

    Raises:
        InputError: there is no such split, it is empty, another run does not fit, or the results cannot
            be written.
    """
    if split not in SPLITS:
        raise InputError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1 case")
    cases = getattr(dataset, split)
    names = cases.names[:limit]
    out = run.folder if out is None else out
    contenders = _contenders(run, state, dataset, beside)
    try:
        out.mkdir(parents=True, exist_ok=True)
        fingerprints = {c.name: c.fingerprint for c in contenders}
        with (
            CaseTable(out / "cases.csv", fingerprints, METRICS) as table,
            CaseBar(len(names)) as bar,
        ):
            for contender in contenders:
                _run_cases(run, contender, cases, split, names, table, bar, out / "recon")
            rows = [table.rows[c.name, split, name] for c in contenders for name in names]
        step = run.experiment.schedule.steps if step is None else step
        summary = summarise(run, rows, split, step, dict(zip(names, cases.subject.tolist())))
        write_file(out / "summary.json", json.dumps(_finite(summary), indent=2) + "\n")
        shown = _shown(run, cases, names, rows, out / "recon")
        write_report(run, rows, summary, shown, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or error})") from error
    print_summary(summary)
    print(f"report: {out / 'report.html'}")


def _contenders(run: Run, state: PyTree, dataset: Any, beside: Sequence[Run]) -> list[Contender]:
    """The baselines in the experiment's order, the other runs, then the run's own method."""
    data = zlib.crc32(json.dumps(config.to_dict(run.experiment.views)).encode())
    for cases in (dataset.train, dataset.validation):
        data = zlib.crc32(json.dumps(cases.names).encode(), data)
        for array in (cases.image, cases.reference, cases.target):
            data = zlib.crc32(np.ascontiguousarray(array).tobytes(), data)

    def baseline(build: Callable[..., SurfaceMethod]) -> Callable[[], tuple[SurfaceMethod, PyTree]]:
        return lambda: fitted(build(run.problem), dataset.train)

    found = [
        Contender(name, baseline(build), f"{data:08x}")
        for name, build in run.experiment.baselines.items()
    ]
    for other in beside:
        _check_alike(run, other)
        other_state, _ = restore(other)
        number = digest(other, other_state, data)
        found.append(
            Contender(
                other.experiment.name,
                lambda other=other, kept=other_state: (other.method, kept),  # type: ignore[misc]
                f"{number:08x}",
            )
        )
    own = run.experiment.name
    found.append(Contender(own, lambda: (run.method, state), f"{digest(run, state, data):08x}"))
    twice = [c.name for c in found if [d.name for d in found].count(c.name) > 1]
    if twice:
        raise InputError(f"--beside: two methods are named {twice[0]}, expected one run of each")
    return found


def _check_alike(run: Run, other: Run) -> None:
    if other.experiment.kind != run.experiment.kind:
        raise InputError(f"--beside {other.folder}: finds no surfaces, expected a run that does")
    mine, its = run.problem, other.problem
    same = np.array_equal(mine.template.faces, its.template.faces) and all(
        np.allclose(a, b, atol=1e-3)
        for a, b in zip(jax.tree.leaves(mine.camera), jax.tree.leaves(its.camera))
    )
    if not same or mine.camera.shape != its.camera.shape:
        raise InputError(
            f"--beside {other.folder}: its template or camera is another than that of {run.folder}, "
            "expected runs on the same data"
        )


def _run_cases(
    run: Run,
    contender: Contender,
    cases: Any,
    split: str,
    names: tuple[str, ...],
    table: CaseTable,
    bar: CaseBar,
    recon: Path,
) -> None:
    """Finds the surfaces of one method that are not done yet."""

    def done(case: str) -> bool:
        return (contender.name, split, case) in table.rows and _path(
            recon, contender.name, case
        ).exists()

    missing = [i for i, name in enumerate(names) if not done(name)]
    bar.begin(contender.name, len(names) - len(missing))
    if not missing:
        return
    method, state = contender.fit()
    find: Any = jit(method.reconstruct)
    template = run.problem.template
    for count, i in enumerate(missing):
        batch = cases.batch(np.array([i], np.int32))
        arguments = (state, jnp.asarray(batch.image[0]), jnp.asarray(batch.reference[0]))
        if count == 0:
            find = find.lower(*arguments).compile()
        began = time.perf_counter()
        vertices = np.asarray(jax.block_until_ready(find(*arguments)), np.float32)
        seconds = time.perf_counter() - began
        metrics = {**surface_metrics(batch.target[0], vertices, template), "seconds": seconds}
        write_mesh(_path(recon, contender.name, names[i]), Mesh(vertices, template.faces))
        table.add((contender.name, split, names[i]), metrics)
        bar.advance()


def _path(recon: Path, method: str, case: str) -> Path:
    return recon / method / f"{case}.ply"


def summarise(
    run: Run, rows: list[Row], split: str, step: int, subjects: dict[str, int]
) -> dict[str, Any]:
    """summary.json: means, deviations and the paired tests of every method against the run's own.

    Args:
        run: what was evaluated.
        rows: one a method and case; the run's own method last.
        split: of the cases.
        step: of the checkpoint.
        subjects: case -> organ.
    """
    by_organ: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        of_method = by_organ.setdefault(row["method"], {})
        of_method.setdefault(subjects[row["case"]], []).append(row[JUDGED])
    values = {m: np.array([np.mean(v) for v in organs.values()]) for m, organs in by_organ.items()}
    own = run.experiment.name
    mine = values.pop(own)
    tests = statistics.compare(mine, values) if len(mine) > 1 else {}
    return {
        "experiment": own,
        "size": run.experiment.size,
        "step": step,
        "synthetic": run.synthetic,
        "data": run.rule,
        "split": split,
        "cases": len({row["case"] for row in rows}),
        "organs": len(mine),
        "xrays": XRAYS,
        "conventions": {**CONVENTIONS, "seconds": "of one surface after compilation"},
        "metrics": means(rows, METRICS),
        "tests": {name: test._asdict() for name, test in tests.items()},
        "tested": f"{JUDGED}, mean of the cases of an organ, organ by organ against {own}",
    }


def _shown(
    run: Run, cases: Any, names: tuple[str, ...], rows: list[Row], recon: Path
) -> list[Shown]:
    """The best, median and worst case of the run's own method, with what every method found."""
    own = run.experiment.name
    methods = list(dict.fromkeys(row["method"] for row in rows))
    ordered = sorted((row for row in rows if row["method"] == own), key=lambda row: row[JUDGED])
    places = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    found: dict[int, str] = {}
    for label, place in places.items():
        found[place] = f"{found[place]} and {label}" if place in found else label
    shown = []
    for place, label in sorted(found.items()):
        case = ordered[place]["case"]
        i = names.index(case)
        batch = cases.batch(np.array([i], np.int32))
        meshes: dict[str, Float[np.ndarray, "v 3"]] = {
            method: read_mesh(_path(recon, method, case)).vertices for method in methods
        }
        shown.append(
            Shown(label, case, batch.image[0], batch.reference[0], batch.target[0], meshes)
        )
    return shown


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_summary(summary: dict[str, Any]) -> None:
    """The survey's table (MD, RMSE, DSC, p) with its companions, methods as rows."""
    kind = "SYNTHETIC organs" if summary["synthetic"] else "real organs"
    table = Table(
        title=f"{summary['experiment']} {summary['size']}, step {summary['step']}: {kind}, "
        f"{summary['cases']} {summary['split']} cases of {summary['organs']} organs, "
        "mean ± standard deviation over cases"
    )
    table.add_column("method", no_wrap=True)
    for name in METRICS:
        table.add_column(Text(column_head(name)), justify="right", no_wrap=True)
    table.add_column("p (Wilcoxon, Holm)", justify="right")
    table.add_column("p (t, Holm)", justify="right")
    for method, values in summary["metrics"].items():
        cells = [
            number(name, values[name]["mean"])
            + ("" if name == "seconds" else f" ± {number(name, values[name]['std'])}")
            for name in METRICS
        ]
        test = summary["tests"].get(method)
        ps = [short(test[name]) for name in ("p_wilcoxon_holm", "p_t_holm")] if test else ["", ""]
        table.add_row(Text(method), *cells, *ps)
    console = Console(width=180)
    console.print(table)
    console.print(f"p: {summary['tested']}", markup=False, highlight=False, soft_wrap=True)
    for name, sentence in summary["conventions"].items():
        label = LABELS.get(name, name)
        console.print(f"{label}: {sentence}", markup=False, highlight=False, soft_wrap=True)
    console.print(summary["xrays"], markup=False, highlight=False, soft_wrap=True)
