"""The one loop of every evaluation: methods, numbers of views, cases; what is done is never done again.

OUT/cases.csv    method, views, split, case and its metrics: bit for bit the same after a kill
OUT/costs.csv    seconds and memory of the same rows, which no two machines share
OUT/recon/METHOD/N views/CASE.nii.gz or .ply
OUT/summary.json  OUT/results.md
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from jxrecon.evaluation.bench import Bench, recon_path
from jxrecon.evaluation.contenders import Contender, choose, default_rivals, names_of
from jxrecon.evaluation.setting import Setting, Terms, make_setting
from jxrecon.evaluation.summary import finite, markdown, summarise
from jxrecon.evaluation.table import CaseTable, Row
from jxrecon.experiment import Experiment
from jxrecon.files import cache_folder, locked, make_folder, no_link, write_file
from jxrecon.metrics.metric import COSTS
from jxrecon.runs.run import Run, Trained, data_of, restore
from jxrecon.terminal import CaseBar
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated


class Results(NamedTuple):
    """What an evaluation found.

    Attributes:
        setting: the terms, and what they are about.
        contenders: in the order of the tables.
        rows: one a method, number of views and case, metrics and costs together.
        summary: as in summary.json.
        out: the folder that holds it all.
        shown: the run whose training a report shows, where there is one.
    """

    setting: Setting
    contenders: Sequence[Contender]
    rows: list[Row]
    summary: dict[str, Any]
    out: Path
    shown: Trained | None = None


def evaluate(
    runs: Sequence[Run | Trained],
    out: Path | None = None,
    data: Any = None,
    methods: Sequence[str] | None = None,
    terms: Terms = Terms(),  # noqa: B008
    against: str | None = None,
    experiment: Experiment | None = None,
) -> Results:
    """Compares trained runs and their rivals on the same cases, X-rays and noise.

    What is done is kept in the folder: killed and started again, it goes on with the case where it was.
    `jxrecon.write_report` makes a page of the results.

    Args:
        runs: trained runs of one field; the first one says field, X-rays and rivals.
        out: folder of the results; None is the folder of the first run.
        data: folder of the data, or a dataset of `experiment.load`; None is what the first run learnt from.
        methods: names of rivals, such as "linear-prior"; None for all of them.
        terms: split, numbers of views, noise, seed.
        against: the method that the others are tested against; None is the first run, or the last rival.
        experiment: says field, X-rays and rivals where there is no run.

    Raises:
        InputError: a run, a name or a number does not fit, or the results cannot be written.
    """
    trained = [run if isinstance(run, Trained) else Trained(run, *restore(run)) for run in runs]
    first = trained[0].run if trained else None
    experiment = first.experiment if first else experiment
    out = first.folder if first and out is None else out
    if experiment is None or out is None:
        raise InputError("nothing to evaluate: expected a run, or an experiment and a folder")
    dataset = data
    if data is None or isinstance(data, str | Path):
        folder = Path(data) if data is not None else data_of(first) if first else None
        dataset = load(experiment, folder, terms.xrays, terms.stated)
    setting = make_setting(experiment, dataset, terms)
    contenders = choose(setting, methods, trained)
    if against is None and trained:
        against = names_of(trained)[0]
    return compare(setting, contenders, against, out)


def load(
    experiment: Experiment,
    folder: Path | None,
    xrays: str | None = None,
    stated: Stated = NOTHING_STATED,
) -> Any:
    """The data of an experiment, from the cache where it was read before.

    Args:
        experiment: of the run.
        folder: of the data; None: built-in.
        xrays: what X-rays show, "patient" or "field"; None: as the experiment says.
        stated: what the numbers of CT files are, where it is another folder than the experiment's.

    Raises:
        InputError: the data cannot be read, or X-rays of this kind show nothing else.
    """
    if xrays is not None:
        shown = dataclasses.replace(experiment.xrays, of=xrays)
        experiment = dataclasses.replace(experiment, xrays=shown)
    if not stated.nothing:
        experiment = dataclasses.replace(experiment, ct=stated)
    return experiment.load(experiment, folder, cache_folder("data"))


def evaluate_run(
    trained: Trained,
    dataset: Any,
    terms: Terms = Terms(),  # noqa: B008
    beside: Sequence[Trained] = (),
    also: Sequence[str] = (),
    out: Path | None = None,
    all_results: bool = False,
) -> Results:
    """One run beside its rivals, from the X-rays that it was made for: a comparison at one number of views.

    Args:
        trained: the run that is looked at; it stands last, and the others are tested against it.
        dataset: of `experiment.load`; rivals are fitted on its training split.
        terms: split, limit, noise; the number of views is the run's own.
        beside: other runs that take part.
        also: rivals that take part beside those that always do.
        out: folder of the results; None is the run folder.
        all_results: keep the files of the rivals' results, too.
    """
    run = trained.run
    terms = terms._replace(counts=(run.experiment.views.count,), every_gap=False)
    setting = make_setting(run.experiment, dataset, terms)
    contenders = choose(setting, [*default_rivals(setting), *also], [*beside, trained])
    own = names_of([*beside, trained])[-1]
    kept = None if all_results or setting.judge.light else [own]
    return compare(setting, contenders, own, run.folder if out is None else out, kept, trained)


def compare(
    setting: Setting,
    contenders: Sequence[Contender],
    against: str | None,
    out: Path,
    kept: Collection[str] | None = None,
    shown: Trained | None = None,
) -> Results:
    """Finds what is missing, then writes the tables and tests.

    Args:
        setting: the terms.
        contenders: of `contenders.choose`.
        against: the contender that the tests compare with; None is the last.
        out: folder of the results.
        kept: contenders whose results are kept as files; None: all.
        shown: the run whose training a report shows.

    Raises:
        InputError: there is no such contender, or the results cannot be written.
    """
    names = [contender.name for contender in contenders]
    if against is not None and against not in names:
        raise InputError(f"--against {against}: expected one of {', '.join(names)}")
    prints = {contender.name: contender.fingerprint for contender in contenders}
    judge = setting.judge
    make_folder(out)
    try:
        with ExitStack() as stack:
            stack.enter_context(locked(out, "evaluation"))
            no_link(out / "recon")
            cases = stack.enter_context(CaseTable(out / "cases.csv", prints, judge.metrics))
            costs = stack.enter_context(CaseTable(out / "costs.csv", prints, COSTS))
            bar = stack.enter_context(CaseBar(len(setting.names)))
            benches = {count: judge.bench(setting, count) for count in setting.counts}
            turns = [
                _Turn(setting, c, benches[count], kept is None or c.name in kept, cases, costs, out)
                for c in contenders
                for count in c.counts
            ]
            for number, turn in enumerate(turns, start=1):
                missing = turn.missing()
                bar.begin(f"{number}/{len(turns)} {turn.title}", len(setting.names) - len(missing))
                for _ in turn.play(missing):
                    bar.advance()
            rows = [row for turn in turns for row in turn.rows()]
        summary = summarise(setting, contenders, rows, against or names[-1], shown)
        write_file(out / "summary.json", json.dumps(finite(summary), indent=2) + "\n")
        write_file(out / "results.md", markdown(summary, judge))
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or error})") from error
    return Results(setting, contenders, rows, summary, out, shown)


class _Turn(NamedTuple):
    """One method at one bench.

    Attributes:
        setting: the terms.
        contender: the method.
        bench: of the number of views.
        files: whether results are kept as files.
        cases: table of metrics.
        costs: table of seconds and memory, of the same rows.
        out: folder of the files.
    """

    setting: Setting
    contender: Contender
    bench: Bench
    files: bool
    cases: CaseTable
    costs: CaseTable
    out: Path

    @property
    def title(self) -> str:
        return f"{self.contender.name}, {self.bench.views} view{'s' * (self.bench.views > 1)}"

    def missing(self) -> list[int]:
        """The places of cases that are not done, or not by all metrics, or whose file is gone."""

        def done(case: str) -> bool:
            key = self._key(case)
            if key not in self.cases.rows or key not in self.costs.rows:
                return False
            if not self.setting.judge.complete(self.cases.rows[key]):
                return False
            return not self.files or self._path(case).exists()

        return [place for place, case in enumerate(self.setting.names) if not done(case)]

    def play(self, missing: Sequence[int]) -> Iterator[None]:
        """Finds the missing cases, each on disk before the next begins."""
        if not missing:
            return
        knowledge = self.contender.learn(self.bench)
        for found in self.bench.run_cases(knowledge, missing):
            case = self.setting.names[found.place]
            if self.files:
                self.setting.judge.save(self._path(case), found.result, self.setting, found.place)
            self.costs.add(self._key(case), found.costs)
            self.cases.add(self._key(case), found.metrics)
            yield

    def rows(self) -> Iterator[Row]:
        """Metrics and costs together, case by case."""
        for case in self.setting.names:
            key = self._key(case)
            yield {**self.cases.rows[key], **self.costs.rows[key], "views": self.bench.views}

    def _key(self, case: str) -> tuple[str, ...]:
        return self.contender.name, str(self.bench.views), self.setting.terms.split, case

    def _path(self, case: str) -> Path:
        ending = self.setting.judge.ending
        return recon_path(self.out, self.contender.name, self.bench.views, case, ending)
