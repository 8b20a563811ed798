"""`jxrecon train`: an experiment from the command line to a run folder, evaluated at the end."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_hu_flags, add_machine_flag, stated_of
from jxrecon.types import InputError


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "train",
        "Trains an experiment, evaluates it and writes a report. The same command again goes on where a "
        "run was stopped.",
        "jxrecon train --exp x2vision_hn",
    )
    add = made.add_argument
    add("--exp", metavar="NAME", help="an experiment of --list, or a Python file of one's own")
    add("--size", help="one of its sizes; without it the choice follows the device")
    data = "folder of CT or organs; default: built-in, SYNTHETIC"
    add("--data", type=Path, metavar="DIR", help=data)
    add("--workdir", type=Path, metavar="DIR", help="run folder; default: runs/NAME-SIZE")
    fields = "as schedule.steps=100; repeats"
    add_hu_flags(add)
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help=fields)
    grow = "a run whose arrays of the same name and shape are the start, as one of a coarser grid"
    add("--grow", type=Path, metavar="RUN", help=grow)
    add_machine_flag(made, "takes the X-rays")
    add("--list", action="store_true", help="list the experiments and stop")
    devices = "devices a copy of the state is split over"
    add("--model-axis", type=int, default=1, metavar="N", help=devices)
    processes = (
        "one of several processes: found by jax.distributed, or by JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
    )
    add("--distributed", action="store_true", help=processes)
    add("--no-evaluate", action="store_true", help="stop after training")
    return made


def main(options: argparse.Namespace) -> int:
    """Trains and evaluates.

    Returns:
        0; 1 when training diverged; 143 after SIGTERM and 130 after SIGINT, the run saved.

    Raises:
        InputError: an argument, the data or the run folder is not as it should be.
    """
    from jxrecon.runs import config
    from jxrecon.runs.loop import fit_or_tell, say
    from jxrecon.runs.run import Trained

    if options.list:
        print("\n".join(config.names()))
        return 0
    if options.exp is None:
        raise InputError("--exp is missing; jxrecon train --list shows the experiments")
    run, dataset, grow = _begin(options)
    resume = shlex.join(["jxrecon", "train", *options.arguments])
    state, code = fit_or_tell(run, dataset, resume, options.model_axis, grow)
    if code or options.no_evaluate:
        return code
    import jax

    from jxrecon.evaluation.compare import evaluate_run
    from jxrecon.evaluation.summary import print_summary
    from jxrecon.report.page import write_report
    from jxrecon.runs import sharding

    if jax.process_count() > 1:
        state = jax.tree.map(sharding.to_process, state)
    if jax.process_index() == 0:
        trained = Trained(run, state, run.experiment.schedule.steps)
        results = evaluate_run(trained, dataset)
        path = write_report(results)
        print_summary(results.summary, results.setting.judge)
        say(f"report: {path}")
    return 0


def _begin(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The run of these options, new or to be resumed, its data, and the run that it grows from, if any."""
    import jax

    from jxrecon.files import cache_folder, check_writable
    from jxrecon.runs import config
    from jxrecon.runs.loop import say
    from jxrecon.runs.run import Trained, continues, open_run, restore, start

    if options.data is not None and not options.data.is_dir():
        raise InputError(f"--data {options.data}: no such folder")
    experiment = config.find(options.exp, options.size)
    if options.machine is not None:
        machine = config.machine(options.machine, experiment)
        xrays = dataclasses.replace(experiment.xrays, machine=machine)
        experiment = dataclasses.replace(experiment, xrays=xrays)
    experiment = config.override(experiment, options.set)
    if not (stated := stated_of(options)).nothing:
        experiment = dataclasses.replace(experiment, ct=stated)
    picked = f"picked for {jax.default_backend()}, --size chooses"
    chosen = "as --size says" if options.size else picked
    say(f"experiment {experiment.name}, size {experiment.size} ({chosen})")
    parts = [Path(options.exp).stem, experiment.size]
    parts += [options.data.absolute().name] if options.data else []
    folder = options.workdir or Path("runs", "-".join(parts))
    if jax.process_index() == 0:
        check_writable(folder)
    continues(folder, experiment, options.data, options.grow)  # refuses before the data is read
    own = [options.exp] if options.exp.endswith(".py") else []
    old = None if options.grow is None else open_run(options.grow, own)
    grow = None if old is None else Trained(old, *restore(old))
    dataset = experiment.load(experiment, options.data, cache_folder("data"))
    run = start(folder, experiment, options.exp, options.data, dataset, grow)
    say(f"data: {run.rule}\nrun folder: {run.folder}")
    return run, dataset, grow


def _join(options: argparse.Namespace) -> None:
    if options.distributed:
        from jxrecon.runs.sharding import join_processes

        join_processes()


command = partial(entry, parser, main, before=_join)

if __name__ == "__main__":
    raise SystemExit(command())
