"""Runs through all methods, numbers of views and cases; what is done is on disk and never done again.

OUT/cases.csv    method, views, split, case and its metrics: bit for bit the same after a kill
OUT/costs.csv    seconds and memory of the same rows, which no two runs share
OUT/recon/METHOD/N views/CASE.nii.gz
OUT/summary.json  OUT/results.md  OUT/report.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from jxrecon.evaluation.bench import COSTS, Bench, make_bench, reconstructions
from jxrecon.evaluation.contenders import Contender
from jxrecon.evaluation.setting import Setting
from jxrecon.evaluation.summary import finite, markdown, print_summary, summarise
from jxrecon.evaluation.table import CaseTable, Row
from jxrecon.files import write_file
from jxrecon.io.nifti import write_volume
from jxrecon.metrics import slices
from jxrecon.metrics.lpips import Lpips
from jxrecon.metrics.volume import CONVENTIONS
from jxrecon.report.comparison import recon_path, write_report
from jxrecon.terminal import CaseBar
from jxrecon.types import InputError

METRICS = tuple(name for name in CONVENTIONS if name not in COSTS)
"""The columns of cases.csv: all that does not depend on the machine."""

KEYS = ("method", "views", "split", "case")


def compare(
    setting: Setting, contenders: Sequence[Contender], against: str | None, out: Path
) -> None:
    """Reconstructs what is missing, then writes tables, tests and the report.

    Args:
        setting: the terms.
        contenders: of `contenders.choose`.
        against: the contender that the tests compare with; None is the last.
        out: folder of the results.

    Raises:
        InputError: there is no such contender, or the results cannot be written.
    """
    names = [contender.name for contender in contenders]
    if against is not None and against not in names:
        raise InputError(f"--against {against}: expected one of {', '.join(names)}")
    prints = {contender.name: contender.fingerprint for contender in contenders}
    weights = slices.weights()
    work = [(contender, count) for contender in contenders for count in contender.counts]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            cases = stack.enter_context(CaseTable(out / "cases.csv", prints, METRICS, KEYS))
            costs = stack.enter_context(CaseTable(out / "costs.csv", prints, COSTS, KEYS))
            bar = stack.enter_context(CaseBar(len(setting.names)))
            benches = {
                count: make_bench(setting.problem(count), setting.unseen, setting.photons)
                for count in setting.counts
            }
            for place, (contender, count) in enumerate(work, start=1):
                title = f"{place}/{len(work)} {contender.name}, {count} view{'s' * (count > 1)}"
                _run_cases(
                    setting,
                    contender,
                    count,
                    benches[count],
                    cases,
                    costs,
                    bar,
                    title,
                    weights,
                    out / "recon",
                )
            rows: list[Row] = []
            for contender, count in work:
                for case in setting.names:
                    key = (contender.name, str(count), setting.split, case)
                    rows.append({**cases.rows[key], **costs.rows[key], "views": count})
        summary = summarise(setting, contenders, rows, against or names[-1])
        write_file(out / "summary.json", json.dumps(finite(summary), indent=2) + "\n")
        write_file(out / "results.md", markdown(summary))
        write_report(setting, contenders, rows, summary, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or error})") from error
    print_summary(summary)
    print(f"report: {out / 'report.html'}")


def _run_cases(
    setting: Setting,
    contender: Contender,
    count: int,
    bench: Bench,
    cases: CaseTable,
    costs: CaseTable,
    bar: CaseBar,
    title: str,
    weights: Lpips | None,
    recon: Path,
) -> None:
    """The cases of one method and number of views that are not done, or not yet by LPIPS."""

    def key(case: str) -> tuple[str, ...]:
        return contender.name, str(count), setting.split, case

    def done(case: str) -> bool:
        row = cases.rows.get(key(case))
        if row is None or key(case) not in costs.rows:
            return False
        if weights is not None and np.isnan(row["lpips_alex_xray"]):
            return False
        return recon_path(recon, contender.name, count, case).exists()

    missing = [place for place, case in enumerate(setting.names) if not done(case)]
    bar.begin(title, len(setting.names) - len(missing))
    if not missing:
        return
    volumes = getattr(setting.dataset, setting.split)
    knowledge = contender.learn(bench.problem)
    for found in reconstructions(knowledge, bench, volumes, missing, setting.seed, weights):
        case = setting.names[found.place]
        path = recon_path(recon, contender.name, count, case)
        write_volume(path, found.hu, volumes.affines[found.place])
        costs.add(key(case), found.costs)
        cases.add(key(case), found.metrics)
        bar.advance()
