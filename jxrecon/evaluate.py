"""`jxrecon evaluate`: a run beside its rivals, or many methods on the same cases, X-rays and noise."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_hu_flags, add_trust_flag, stated_of
from jxrecon.types import InputError


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "evaluate",
        "Evaluates a trained run beside its rivals (--run), or compares many methods and numbers of views on "
        "the same cases, X-rays and noise (--runs, --methods): volumes or surfaces, tables, tests, a report. "
        "Killed and started again it goes on where it was.",
        "jxrecon evaluate --runs A B --methods linear-prior fdk --views 1,2 --out comparison",
    )
    add = made.add_argument
    add("--data", type=Path, metavar="DIR", help="folder of the data; default: the run's own")
    add("--split", default="validation", help="train, validation or test (%(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N cases")
    add_hu_flags(add)
    add("--photons", type=float, metavar="N", help="photons a pixel of the unattenuated beam, 0: no noise; "
        "default: 20,000 for volumes")  # fmt: skip
    add("--xrays", choices=("patient", "field"), help="what X-rays show: the whole CT, or the field alone, "
        "an inverse crime; default: as the run was trained")  # fmt: skip
    add("--no-surround", action="store_true", help="do not take what lies about the field from the X-rays of "
        "methods that know the field alone")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="folder of the results; default: the run folder")
    add_trust_flag(made)
    one = made.add_argument_group("one run").add_argument
    one("--run", type=Path, metavar="DIR", help="folder of a trained run")
    one("--checkpoint", default="latest", choices=("latest", "best"), help="(%(default)s)")
    one("--all", action="store_true", help="write the rivals' volumes, too")
    one("--also", nargs="+", default=[], metavar="NAME", help="more rivals, as fdk and tv")
    one(
        "--beside",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="other runs that take part",
    )
    many = made.add_argument_group("a comparison").add_argument
    many(
        "--runs", nargs="+", type=Path, default=[], metavar="DIR", help="trained runs of one field"
    )
    many(
        "--methods", nargs="+", metavar="NAME", help="rivals, as linear-prior fdk nerp; default all"
    )
    many("--views", metavar="N,N", help="numbers of views, evenly spaced; default 1,2,4,8")
    many("--earlier", type=Path, metavar="DIR", help="earlier CTs, NAME_ct.nii.gz in each case's world, for "
         "methods that are given one; default: SIMULATED from the truth")  # fmt: skip
    many("--against", metavar="NAME", help="the method of the tests; default the first of --runs")
    many("--exp", metavar="NAME", help="whose field and X-rays, without --runs (x2vision_hn)")
    many("--size", metavar="SIZE", help="of --exp")
    many(
        "--seed", type=int, default=0, metavar="N", help="of noise and random starts (%(default)s)"
    )
    return made


def main(options: argparse.Namespace) -> int:
    """Evaluates a checkpoint of a run, or compares runs and rivals.

    Raises:
        InputError: an argument, a run or its data is not as it should be.
    """
    from jxrecon.evaluation.summary import print_summary
    from jxrecon.files import check_writable
    from jxrecon.report.page import write_report

    if options.data is not None and not options.data.is_dir():
        raise InputError(f"--data {options.data}: no such folder")
    if options.run is not None and (options.runs or options.methods or options.views):
        raise InputError("--run and --runs, --methods or --views: expected one run or a comparison")
    out = options.out or options.run
    if out is not None and (out is options.out or out.is_dir()):
        check_writable(out)
    if options.run is not None:
        results = _one(options)
    elif options.runs or options.methods:
        results = _many(options)
    else:
        raise InputError("nothing to evaluate: expected --run DIR, --runs DIR or --methods NAME")
    path = write_report(results)
    print_summary(results.summary, results.setting.judge)
    print(f"report: {path}")
    return 0


def _terms(options: argparse.Namespace) -> Any:
    from jxrecon.evaluation.setting import Terms

    terms = Terms(
        options.split,
        options.limit,
        photons=options.photons,
        surround=not options.no_surround,
        xrays=options.xrays,
        stated=stated_of(options),
    )
    if options.run is not None:
        return terms
    try:
        counts = tuple(int(part) for part in (options.views or "1,2,4,8").split(","))
    except ValueError:
        raise InputError(f"--views {options.views}: expected numbers such as 1,2,4,8") from None
    return terms._replace(counts=counts, seed=options.seed, earlier=options.earlier)


def _one(options: argparse.Namespace) -> Any:
    from jxrecon.evaluation.compare import evaluate_run, load
    from jxrecon.runs.run import Trained, open_run, restore

    run = open_run(options.run, options.trust)
    trained = Trained(run, *restore(run, options.checkpoint))
    dataset = load(run.experiment, options.data or run.data, options.xrays, stated_of(options))
    others = [open_run(folder, options.trust) for folder in options.beside]
    beside = [Trained(other, *restore(other)) for other in others]
    terms = _terms(options)._replace(seed=run.experiment.schedule.seed)
    return evaluate_run(trained, dataset, terms, beside, options.also, options.out, options.all)


def _many(options: argparse.Namespace) -> Any:
    from jxrecon.evaluation.compare import evaluate
    from jxrecon.runs import config
    from jxrecon.runs.run import open_run

    if options.out is None:
        raise InputError("--out: expected a folder for the results of the comparison")
    runs = [open_run(folder, options.trust) for folder in options.runs]
    experiment = None if runs else config.find(options.exp or "x2vision_hn", options.size)
    terms = _terms(options)
    return evaluate(
        runs, options.out, options.data, options.methods, terms, options.against, experiment
    )


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
