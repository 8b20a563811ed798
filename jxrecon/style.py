"""`jxrecon style`: CycleGAN learns to give real X-rays the look of synthetic ones."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_machine_flag
from jxrecon.types import InputError

EXPERIMENT = "cyclegan_xray"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "style",
        "Learns to give real X-rays the style of synthetic ones, from two folders of images (PNG, NPZ, "
        "NIfTI) that need not show the same patients. Images with sidecars, as jxrecon project writes them, "
        "are taken as line integrals, others by their own range. Or between those of a run and a simulated "
        "machine: --run, --machine.",
        "jxrecon style --real DIR --synthetic DIR --workdir runs/style",
    )
    add = made.add_argument
    add("--real", type=Path, metavar="DIR", help="folder of real X-rays")
    add("--synthetic", type=Path, metavar="DIR", help="folder of synthetic X-rays")
    like = "instead of folders: a run; X-rays of half of its training cases are the synthetic ones"
    add("--run", type=Path, metavar="RUN", help=like)
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="with --run: folder of its data, where it was moved",
    )
    add_machine_flag(made, "takes those of the other half, for real ones, with --run")
    add("--workdir", type=Path, metavar="RUN", help="run folder; default: runs/style-SIZE")
    add("--steps", type=int, metavar="N", help="training steps, the second half at a falling rate")
    add("--size", help="64, 128 or 256 pixels; without it the choice follows the device")
    fields = "as settings.width=32; repeats"
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help=fields)
    return made


def main(options: argparse.Namespace) -> int:
    """Trains a style.

    Returns:
        0; 1 when training diverged; 143 after SIGTERM and 130 after SIGINT, the run saved.

    Raises:
        InputError: an argument, an image folder or the run folder is not as it should be.
    """
    from jxrecon.files import check_writable
    from jxrecon.runs.loop import fit_or_tell, say
    from jxrecon.runs.run import continues, open_run, start

    if options.workdir is not None:
        check_writable(options.workdir)
    experiment, dataset = _experiment(options)
    folder = options.workdir or Path("runs", f"style-{experiment.size}")
    if continues(folder, experiment, None) and (saved := open_run(folder).rule) != dataset.rule:
        raise InputError(
            f"{folder} learnt from other images ({saved}): give --workdir a new folder"
        )
    run = start(folder, experiment, EXPERIMENT, None, dataset)
    say(f"{dataset.rule}\nrun folder: {folder}")
    _, code = fit_or_tell(run, dataset, shlex.join(["jxrecon", "style", *options.arguments]))
    if not code:
        say(f"use with: jxrecon reconstruct --style {shlex.quote(str(folder))} ...")
    return code


def _experiment(options: argparse.Namespace) -> tuple[Any, Any]:
    """The experiment with the scales of the images, and the images."""
    from jxrecon.data.unpaired import split
    from jxrecon.runs import config

    assignments = list(options.set)
    if options.steps is not None:
        if options.steps < 1:
            raise InputError(f"--steps {options.steps}: expected at least 1")
        falling = options.steps // 2
        assignments += [
            f"schedule.steps={options.steps}",
            f"settings.constant_steps={options.steps - falling}",
            f"settings.decay_steps={falling}",
        ]
    experiment = config.override(config.find(EXPERIMENT, options.size), assignments)
    size = round(experiment.field.shape[0] * experiment.settings.enlarged)
    real, synthetic, rule = _images(options, (size, size))
    scales = [f"settings.real_scale={real.scale}", f"settings.synthetic_scale={synthetic.scale}"]
    rule = f"{rule}; scales {real.scale} and {synthetic.scale}."
    return config.override(experiment, scales), split(real, synthetic, rule)


def _images(options: argparse.Namespace, shape: tuple[int, int]) -> tuple[Any, Any, str]:
    """(real ones, synthetic ones, where they come from)."""
    from jxrecon.data.unpaired import read_folder, simulated
    from jxrecon.files import cache_folder
    from jxrecon.runs import config
    from jxrecon.runs.run import data_of, open_run

    folders, made = (options.real, options.synthetic), (options.run, options.machine)
    if (None in folders) == (None in made) or (folders + made).count(None) != 2:
        raise InputError("expected --real and --synthetic, or --run and --machine")
    if options.run is None:
        real, synthetic = (read_folder(folder, shape) for folder in folders)
        return (
            real,
            synthetic,
            (
                f"{len(real.names)} real X-rays of {options.real.absolute()} and {len(synthetic.names)}"
                f" synthetic ones of {options.synthetic.absolute()}"
            ),
        )
    run = open_run(options.run, options.trust)
    experiment = run.experiment
    machine = config.machine(options.machine, experiment)
    dataset = experiment.load(experiment, options.data or data_of(run), cache_folder("data"))
    real, synthetic = simulated(dataset.train, experiment, machine, shape)
    return (
        real,
        synthetic,
        (
            f"{len(real.names)} X-rays by the simulated machine {options.machine} and "
            f"{len(synthetic.names)} of other patients as {options.run.absolute()} learnt from: "
            f"{dataset.rule}"
        ),
    )


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
