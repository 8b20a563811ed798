"""`jxrecon style`: CycleGAN learns to give real X-rays the look of synthetic ones."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.types import InputError

EXPERIMENT = "cyclegan_xray"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "style",
        "Learns to give real X-rays the style of synthetic ones, from two folders of images (PNG, NPZ, "
        "NIfTI) that need not show the same patients. Images with sidecars, as jxrecon project writes them, "
        "are taken as line integrals, others by their own range.",
        "jxrecon style --real DIR --synthetic DIR --workdir runs/style",
    )
    add = made.add_argument
    add("--real", type=Path, required=True, metavar="DIR", help="folder of real X-rays")
    add("--synthetic", type=Path, required=True, metavar="DIR", help="folder of synthetic X-rays")
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
    from jxrecon.data.unpaired import read_folder, split
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
    real, synthetic = (read_folder(f, (size, size)) for f in (options.real, options.synthetic))
    scales = [f"settings.real_scale={real.scale}", f"settings.synthetic_scale={synthetic.scale}"]
    rule = (
        f"{len(real.names)} real X-rays of {options.real.absolute()} and {len(synthetic.names)}"
        f" synthetic ones of {options.synthetic.absolute()}; scales {real.scale} and {synthetic.scale}."
    )
    return config.override(experiment, scales), split(real, synthetic, rule)


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
