"""`jxrecon check`: whether X-rays are what is told of them, by what training patients' X-rays look like."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from jxrecon.cli import command_parser, entry
from jxrecon.types import InputError


def parser() -> argparse.ArgumentParser:
    """The flags."""
    from jxrecon.flags import add_trust_flag, add_xray_flags

    made = command_parser(
        "check",
        "Names the likeliest of some fifty hypotheses about the X-rays (as told, views exchanged, mirrored, "
        "upside down, turned, inverted, raw, magnified, shifted, other distances), its margin, and how "
        "unlike the training patients the patient is. Exit code 1 where they are not as told or unlike.",
        "jxrecon check frontal.nii.gz lateral.nii.gz",
    )
    made.add_argument("files", nargs="*", type=Path, metavar="X-RAY", help="the same as --xray")
    run = (
        "folder of a run trained on CT volumes; without X-rays its check is made and kept there "
        "(the weights that ship for so many X-rays, of head and neck)"
    )
    made.add_argument("--run", type=Path, metavar="DIR", help=run)
    add_trust_flag(made)
    add_xray_flags(made, required=False)
    return made


def main(options: argparse.Namespace) -> int:
    """Checks.

    Raises:
        InputError: an X-ray or the run is not as it should be, or the run's training cases are neither at
            hand nor stored.
    """
    from jxrecon.flags import xrays_of
    from jxrecon.inference.geometry import check_for, lines
    from jxrecon.io import radiographs
    from jxrecon.io.views import centred_view, common_isocentre
    from jxrecon.likelihood.check import judge
    from jxrecon.methods.base.method import Problem
    from jxrecon.runs import shipped
    from jxrecon.runs.run import open_run

    options.xray = [*(options.xray or []), *options.files]
    if options.run is None and not options.xray:
        raise InputError("no X-ray was given, expected files such as frontal.png lateral.png")
    run = open_run(options.run or shipped.for_xrays(len(options.xray)), options.trust)
    if not isinstance(run.problem, Problem):
        raise InputError(
            f"--run {options.run}: finds {run.experiment.kind.finds}, expected a run of CT volumes"
        )
    if not options.xray:
        check_for(run, run.problem.cameras, print)
        return 0
    xrays = [radiographs.read(path, given) for path, given in xrays_of(options)]
    for xray in xrays:
        print(radiographs.table(xray))
    isocentre = common_isocentre(xrays)
    views = [centred_view(xray, isocentre, run.problem.cameras[0]) for xray in xrays]
    check = check_for(run, [view.camera for view in views], print)
    found = judge(check, [view.image for view in views])
    print(*lines(found), sep="\n")
    return int(found.doubted or found.strange)


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
