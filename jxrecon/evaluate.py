"""Evaluation: every case by every method, as volumes, tables and a report.

    python -m jxrecon.evaluate --run DIR [--split validation] [--limit N] [--also fdk tv]
    python -m jxrecon.evaluate --runs DIR DIR --methods linear-prior fdk --views 1,2,4,8 --out DIR

The first shows one run beside its baselines; the second compares many on equal terms (`comparison`).
The X-rays are line integrals of the true volume by the projector that the methods use themselves: an
easier problem than a hospital's, and said so wherever the numbers stand. What is done is kept: killed
and started again, it goes on with the case where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jxrecon.cli import entry
from jxrecon.evaluation.bench import Bench, Knowledge, make_bench, reconstructions
from jxrecon.evaluation.compare import compare
from jxrecon.evaluation.contenders import Contender, baseline, choose, digest
from jxrecon.evaluation.setting import SPLITS, Setting, make_setting
from jxrecon.evaluation.table import CaseTable, print_summary, summarise
from jxrecon.files import cache_folder, write_file
from jxrecon.geometry import Camera
from jxrecon.io.nifti import write_volume
from jxrecon.metrics import slices
from jxrecon.metrics.lpips import Lpips
from jxrecon.report.run import write_report
from jxrecon.runs import config
from jxrecon.runs.run import Run, open_run, restore
from jxrecon.terminal import CaseBar
from jxrecon.types import InputError, PyTree


def evaluate(
    run: Run,
    state: PyTree,
    dataset: Any,
    split: str = "validation",
    out: Path | None = None,
    limit: int | None = None,
    step: int | None = None,
    all_volumes: bool = False,
    beside: Sequence[Run] = (),
) -> None:
    """Reconstructs every case by the baselines and the run's method; writes recon/, tables, report.

    Args:
        run: whose method and problem.
        state: of the run's method.
        dataset: what `experiment.load` gave; baselines are fitted on `dataset.train` in one step.
        split: "train" or "validation".
        out: folder of the results; None is the run folder.
        limit: only the first so many cases.
        step: of the checkpoint; None is the last of the schedule.
        all_volumes: write the baselines' volumes too, to recon/<method>/.
        beside: other runs on the same data that take part; of surfaces.

    Raises:
        InputError: there is no such split, it is empty, or the results cannot be written.
    """
    if run.experiment.kind:
        run.experiment.kind.evaluate(run, state, dataset, split, out, limit, step, beside)
        return
    if beside:
        raise InputError(
            f"--beside: {run.experiment.name} finds volumes, expected a run of surfaces"
        )
    counts, seed = (len(run.problem.cameras),), run.experiment.schedule.seed
    setting = make_setting(run.experiment, dataset, split, counts, limit, seed=seed)
    out = run.folder if out is None else out
    contenders = _contenders(run, state, setting)
    weights = slices.weights()
    bench = make_bench(run.problem, (_unseen_camera(run.problem.cameras),))
    try:
        out.mkdir(parents=True, exist_ok=True)
        fingerprints = {c.name: c.fingerprint for c in contenders}
        with (
            CaseTable(out / "cases.csv", fingerprints) as table,
            CaseBar(len(setting.names)) as bar,
        ):
            for contender in contenders:
                own = contender is contenders[-1]
                folder = out / "recon" if own else out / "recon" / contender.name
                kept = folder if own or all_volumes else None
                _run_cases(bench, setting, contender, kept, table, bar, weights)
            rows = [table.rows[c.name, split, name] for c in contenders for name in setting.names]
        step = run.experiment.schedule.steps if step is None else step
        summary = summarise(run, rows, split, step)
        write_file(out / "summary.json", json.dumps(summary, indent=2) + "\n")
        write_report(run, state, getattr(dataset, split), rows, summary, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or error})") from error
    print_summary(summary)
    print(f"report: {out / 'report.html'}")


def _contenders(run: Run, state: PyTree, setting: Setting) -> list[Contender]:
    """The baselines in the experiment's order, then the run's own method."""
    number = digest(run, state, setting.digest)
    own = Contender(
        run.experiment.name,
        setting.counts,
        lambda problem: Knowledge(run.method, lambda place: state),
        f"{number:08x}",
    )
    return [*(baseline(setting, *item) for item in run.experiment.baselines.items()), own]


def _run_cases(
    bench: Bench,
    setting: Setting,
    contender: Contender,
    folder: Path | None,
    table: CaseTable,
    bar: CaseBar,
    weights: Lpips | None,
) -> None:
    """The cases of one method that are not done yet, or not by LPIPS, whose weights are here."""

    def volume(case: str) -> Path | None:
        return None if folder is None else folder / f"{case}.nii.gz"

    def done(case: str) -> bool:
        path, row = volume(case), table.rows.get((contender.name, setting.split, case))
        if row is None or (weights is not None and np.isnan(row["lpips_alex_xray"])):
            return False
        return path is None or path.exists()

    missing = [place for place, case in enumerate(setting.names) if not done(case)]
    bar.begin(contender.name, len(setting.names) - len(missing))
    if not missing:
        return
    volumes = getattr(setting.dataset, setting.split)
    knowledge = contender.learn(bench.problem)
    for found in reconstructions(knowledge, bench, volumes, missing, setting.seed, weights):
        case = setting.names[found.place]
        if path := volume(case):
            write_volume(path, found.hu, volumes.affines[found.place])
        metrics = {**found.metrics, "seconds": found.costs["seconds"]}
        table.add((contender.name, setting.split, case), metrics)
        bar.advance()


def with_optional(run: Run, names: list[str]) -> Run:
    """The run with these of the experiment's optional baselines beside the others.

    Raises:
        InputError: the experiment has no such one.
    """
    optional = run.experiment.optional
    for name in names:
        if name not in optional:
            known = ", ".join(optional) or "none in this experiment"
            raise InputError(f"--also {name}: expected one of {known}")
    baselines = {**run.experiment.baselines, **{name: optional[name] for name in names}}
    return run._replace(experiment=dataclasses.replace(run.experiment, baselines=baselines))


def _unseen_camera(cameras: tuple[Camera, ...]) -> Camera:
    """The first camera turned half-way to the second of evenly spaced views: 45 degrees for two."""
    angle = np.pi / (2 * len(cameras))
    c, s = np.cos(angle), np.sin(angle)
    rotation = jnp.asarray([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], jnp.float32)
    return cameras[0].moved(rotation, jnp.zeros(3, jnp.float32))


def main(argv: list[str] | None = None) -> int:
    """Evaluates a checkpoint of a run, or compares runs and baselines.

    Raises:
        InputError: an argument, a run or its data is not as it should be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.evaluate",
        description="Evaluates a trained run beside its baselines, or compares many methods on the same "
        "patients, X-rays and noise: volumes, tables and a report.",
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder of CT volumes; default: the run's own")
    add("--split", default="validation", choices=SPLITS, help="which cases; default validation")
    add("--limit", type=int, metavar="N", help="only the first N cases")
    add("--out", type=Path, metavar="DIR", help="folder of the results; default: the run folder")
    one = parser.add_argument_group("one run").add_argument
    one("--run", type=Path, metavar="DIR", help="folder of a trained run")
    one("--checkpoint", default="latest", choices=("latest", "best"), help="default latest")
    one("--all", action="store_true", help="write the baselines' volumes too")
    one("--also", nargs="+", default=[], metavar="NAME", help="more baselines, as fdk and tv")
    one("--beside", nargs="+", type=Path, default=[], metavar="RUN", help="other runs on the same "
        "data that take part; of surfaces")  # fmt: skip
    many = parser.add_argument_group("a comparison of volumes").add_argument
    many("--runs", nargs="+", type=Path, default=[], metavar="DIR", help="folders of trained runs of "
         "one field")  # fmt: skip
    many(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="baselines, as linear-prior fdk nerp; default all",
    )
    many("--views", metavar="N,N", help="numbers of views, evenly spaced; default 1,2,4,8")
    many("--photons", type=float, metavar="N", help="photon noise, photons a pixel; default none")
    many("--earlier", type=Path, metavar="DIR", help="earlier CTs, NAME_ct.nii.gz in each case's world, for "
         "methods that are given one; default: SIMULATED from the truth")  # fmt: skip
    many("--against", metavar="NAME", help="the method of the tests; default the first of --runs")
    many(
        "--exp",
        metavar="NAME",
        help="whose field and X-rays, where no run says; default x2vision_hn",
    )
    many("--size", metavar="SIZE", help="of --exp")
    many("--seed", type=int, default=0, metavar="N", help="of noise and random starts; default 0")
    args = parser.parse_args(argv)
    if args.data is not None and not args.data.is_dir():
        raise InputError(f"--data {args.data}: no such folder")
    if args.run is not None and (args.runs or args.methods or args.views):
        raise InputError("--run and --runs, --methods or --views: expected one run or a comparison")
    if args.run is not None:
        return _evaluate_run(args)
    if not args.runs and not args.methods:
        raise InputError("nothing to evaluate: expected --run DIR, --runs DIR or --methods NAME")
    return _compare(args)


def _evaluate_run(args: argparse.Namespace) -> int:
    run = with_optional(open_run(args.run), args.also)
    state, step = restore(run, args.checkpoint)
    folder = args.data or run.data
    dataset = run.experiment.load(run.experiment, folder, _data_cache())
    run = run._replace(data=folder, rule=dataset.rule, synthetic=dataset.synthetic)
    beside = [open_run(folder) for folder in args.beside]
    evaluate(run, state, dataset, args.split, args.out, args.limit, step, args.all, beside)
    return 0


def _compare(args: argparse.Namespace) -> int:
    if args.out is None:
        raise InputError("--out: expected a folder for the results of the comparison")
    runs = [open_run(folder) for folder in args.runs]
    if runs:
        experiment, data = runs[0].experiment, args.data or runs[0].data
    else:
        experiment, data = config.find(args.exp or "x2vision_hn", args.size), args.data
    if experiment.kind is not None:
        raise InputError(f"{experiment.name} finds no volumes, expected one that does")
    counts = _counts(args.views or "1,2,4,8")
    dataset = experiment.load(experiment, data, _data_cache())
    setting = make_setting(
        experiment, dataset, args.split, counts, args.limit, args.photons, args.seed, args.earlier
    )
    found = choose(setting, args.methods, runs)
    against = args.against or (found[-len(runs)].name if runs else None)
    compare(setting, found, against, args.out)
    return 0


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--views {text}: expected numbers such as 1,2,4,8") from None


def _data_cache() -> Path | None:
    cache = cache_folder()
    return cache / "data" if cache else None


if __name__ == "__main__":
    raise SystemExit(entry(main))
