"""`jxrecon evaluate`: a run beside its rivals, or many methods on the same cases, X-rays and noise."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_hu_flags, add_machine_flag, add_trust_flag, stated_of
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
    begin = "X2Vision also starts from the volumes of this run"
    add("--start", type=Path, metavar="RUN", help=begin)
    add("--out", type=Path, metavar="DIR", help="folder of the results; default: the run folder")
    add_trust_flag(made)
    add_machine_flag(made, "takes the X-rays, whatever the run learnt from")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of runs: a setting that acts on "
        "reconstruction alone, as settings.latent.pose=true; repeats")  # fmt: skip
    _add_remedies_and_suite(made)
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


def _add_remedies_and_suite(made: argparse.ArgumentParser) -> None:
    remedies = made.add_argument_group(
        "remedies: all methods take part a second time with each"
    ).add_argument
    remedies(
        "--style", type=Path, metavar="RUN", help="of jxrecon style: X-rays in the synthetic style"
    )
    remedies(
        "--match-histograms",
        action="store_true",
        help="X-rays with the training X-rays' gray values",
    )
    remedies("--refine-pose", action="store_true", help="the poses of all X-rays but the first found first, "
             "by what training patients' X-rays look like; in the suite, runs that find poses themselves "
             "take part with that, too")  # fmt: skip
    suite = made.add_argument_group("robustness").add_argument
    suite("--suite", choices=("robustness",), help="X-rays by machines that are not the one that methods are "
          "told; runs may be of several fields of view")  # fmt: skip
    suite(
        "--perturbations",
        nargs="+",
        metavar="NAME",
        help="some of the suite, as angle-in-plane, or gamma=0.7,1.3 for some values; default all",
    )
    suite("--join", nargs="+", type=Path, default=[], metavar="DIR", help="compute nothing: one page of what "
          "other calls left in these --out, for methods of different settings or fields")  # fmt: skip
    suite("--slow-cases", type=int, default=2, metavar="N", help="cases of methods that take seconds to "
          "minutes for each (%(default)s)")  # fmt: skip


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
    out = options.out or options.run
    if out is not None and (out is options.out or out.is_dir()):
        check_writable(out)
    if options.suite is not None:
        return _robustness(options)
    if options.run is not None and (options.runs or options.methods or options.views):
        raise InputError("--run and --runs, --methods or --views: expected one run or a comparison")
    if options.perturbations or options.join:
        name = "perturbations" if options.perturbations else "join"
        raise InputError(f"--{name}: expected with --suite robustness")
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


def _terms(options: argparse.Namespace, experiment: Any) -> Any:
    from jxrecon.evaluation.setting import Terms
    from jxrecon.runs import config
    from jxrecon.runs.run import Trained, open_run, restore

    start = None if options.start is None else open_run(options.start, options.trust)
    terms = Terms(
        options.split,
        options.limit,
        photons=options.photons,
        surround=not options.no_surround,
        xrays=options.xrays,
        stated=stated_of(options),
        machine=None if options.machine is None else config.machine(options.machine, experiment),
        remedies=_remedies(options),
        start=None if start is None else Trained(start, *restore(start)),
    )
    if options.run is not None and options.suite is None:
        return terms
    try:
        counts = tuple(int(part) for part in (options.views or "1,2,4,8").split(","))
    except ValueError:
        raise InputError(f"--views {options.views}: expected numbers such as 1,2,4,8") from None
    return terms._replace(counts=counts, seed=options.seed, earlier=options.earlier)


def _remedies(options: argparse.Namespace) -> tuple[Any, ...]:
    """What X-rays are put right by first."""
    import zlib

    from jxrecon.evaluation import remedies
    from jxrecon.evaluation.contenders import digest
    from jxrecon.inference.styles import open_translation
    from jxrecon.runs.run import Trained, open_run, restore

    found = []
    if options.style is not None:
        translate = open_translation(options.style, options.trust)
        run = open_run(options.style, options.trust)
        number = digest(Trained(run, *restore(run)), zlib.crc32(b"style"))
        found.append(remedies.style(translate, str(options.style), number))
    if options.match_histograms:
        found.append(remedies.histograms())
    if options.refine_pose:
        found.append(remedies.poses())
    return tuple(found)


def _opened(options: argparse.Namespace, folders: list[Path], which: Any = "latest") -> list[Any]:
    """These runs with their checkpoints, and what --set says."""
    from jxrecon.runs.run import Trained, open_run, restore

    runs = [open_run(folder, options.trust, options.set) for folder in folders]
    return [Trained(run, *restore(run, which)) for run in runs]


def _one(options: argparse.Namespace) -> Any:
    from jxrecon.evaluation.compare import evaluate_run, load
    from jxrecon.runs.run import data_of

    [trained] = _opened(options, [options.run], options.checkpoint)
    run = trained.run
    terms = _terms(options, run.experiment)._replace(seed=run.experiment.schedule.seed)
    dataset = load(run.experiment, options.data or data_of(run), options.xrays, stated_of(options))
    beside = _opened(options, options.beside)
    return evaluate_run(trained, dataset, terms, beside, options.also, options.out, options.all)


def _many(options: argparse.Namespace) -> Any:
    from jxrecon.evaluation.compare import evaluate
    from jxrecon.runs import config

    if options.out is None:
        raise InputError("--out: expected a folder for the results of the comparison")
    runs = _opened(options, options.runs)
    experiment = None if runs else config.find(options.exp or "x2vision_hn", options.size)
    terms = _terms(options, runs[0].run.experiment if runs else experiment)
    return evaluate(
        runs, options.out, options.data, options.methods, terms, options.against, experiment
    )


def _robustness(options: argparse.Namespace) -> int:
    """The suite: one party a field of view, each with the rivals; or one page of what calls of it left."""
    from jxrecon.evaluation.joined import joined
    from jxrecon.evaluation.robustness import parties_of, robustness
    from jxrecon.report.robustness import write_page
    from jxrecon.runs import config

    if options.run is not None and options.runs:
        raise InputError("--run and --runs: expected one of them")
    folders = [options.run] if options.run is not None else options.runs
    out = options.out or (options.run and options.run / "robustness")
    if out is None:
        raise InputError("--out: expected a folder for the results of the suite")
    if options.join:
        if folders or options.methods or options.perturbations:
            raise InputError("--join: expected without --run, --runs, --methods or --perturbations")
        print(f"robustness: {write_page(joined(options.join, out))}")
        return 0
    if options.slow_cases < 1:
        raise InputError(f"--slow-cases {options.slow_cases}: expected at least 1")
    runs = _opened(options, folders, options.checkpoint)
    experiment = None if runs else config.find(options.exp or "x2vision_hn", options.size)
    terms = _terms(options, runs[0].run.experiment if runs else experiment)
    counts = terms.counts if options.views else None
    terms = terms._replace(seed=options.seed, every_gap=False, counts=counts)
    asked = (runs, experiment, options.data, options.methods, terms)
    parties = parties_of(*asked, posed=options.refine_pose)
    found = robustness(parties, out, options.perturbations, options.slow_cases)
    print(f"robustness: {write_page(found)}")
    return 0


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
