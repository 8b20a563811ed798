"""X-ray style: `python -m jxrecon.style --real DIR --synthetic DIR`, then `reconstruct --style RUN`.

Reconstruction is learnt on synthetic X-rays; CycleGAN learns to give real ones the same look. It is trained
by the loop of `jxrecon.train`, and resumed as any run: by the same command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jxrecon.cli import entry
from jxrecon.compile import check_compiler, jit
from jxrecon.data.unpaired import from_unit, read_folder, resized, split, to_unit
from jxrecon.io.radiographs import Radiograph
from jxrecon.methods.base.method import Translator
from jxrecon.runs import config
from jxrecon.runs.run import continues, open_run, restore, start
from jxrecon.runs.signals import Interrupted
from jxrecon.train import Diverged, fit
from jxrecon.types import InputError

EXPERIMENT = "cyclegan_xray"


def open_style(folder: Path) -> Callable[[Radiograph], Radiograph]:
    """The function that gives a real X-ray the synthetic style: same camera, same pixels, new values.

    The X-ray passes the network at the size of the training. It comes back as line integrals: on their
    own scale if the synthetic images were line integrals, else between the X-ray's own ends.

    Raises:
        InputError: the folder holds no run of this program, or one without a checkpoint.
    """
    run = open_run(folder)
    if not isinstance(run.method, Translator):
        raise InputError(
            f"{folder}: a run of {run.experiment.name}, expected one of python -m jxrecon.style"
        )
    settings, shape = run.experiment.settings, run.problem.grid.shape[:2]
    (state, _), translate = restore(run), jit(run.method.translate)

    def apply(xray: Radiograph) -> Radiograph:
        image = xray.line_integrals
        unit = resized(to_unit(image, settings.real_scale), shape)
        unit = resized(np.asarray(translate(state, jnp.asarray(unit))), image.shape)
        styled = from_unit(unit, settings.synthetic_scale, image)
        line = ("style", "real to synthetic", str(folder))
        return xray._replace(line_integrals=styled, resolved=(*xray.resolved, line))

    return apply


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.style",
        description="Learns to give real X-rays the style of synthetic ones, from two folders of images"
        " (PNG, NPZ, NIfTI) that need not show the same patients. Images with sidecars, as python -m"
        " jxrecon.drr writes them, are taken as line integrals, others by their own range.",
    )
    add = parser.add_argument
    add("--real", type=Path, required=True, metavar="DIR", help="folder of real X-rays")
    add("--synthetic", type=Path, required=True, metavar="DIR", help="folder of synthetic X-rays")
    add("--workdir", type=Path, metavar="RUN", help="run folder; default: runs/style-SIZE")
    add("--steps", type=int, metavar="N", help="training steps, the second half at a falling rate")
    add("--size", help="64, 128 or 256 pixels; without it the choice follows the device")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="such as settings.width=32;"
        " may be given several times")  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Trains a style.

    Returns:
        0; 1 when training diverged; 143 after SIGTERM and 130 after SIGINT, the run saved.

    Raises:
        InputError: an argument, an image folder or the run folder is not as it should be.
    """
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
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
    check_compiler()
    experiment = config.override(config.find(EXPERIMENT, options.size), assignments)
    size = round(experiment.field.shape[0] * experiment.settings.enlarged)
    real, synthetic = (read_folder(f, (size, size)) for f in (options.real, options.synthetic))
    scales = [f"settings.real_scale={real.scale}", f"settings.synthetic_scale={synthetic.scale}"]
    experiment = config.override(experiment, scales)
    dataset = split(
        real,
        synthetic,
        f"{len(real.names)} real X-rays of {options.real.absolute()} and {len(synthetic.names)}"
        f" synthetic ones of {options.synthetic.absolute()}; scales {real.scale} and {synthetic.scale}.",
    )
    folder = options.workdir or Path("runs", f"style-{experiment.size}")
    if continues(folder, experiment, None) and (saved := open_run(folder).rule) != dataset.rule:
        raise InputError(
            f"{folder} learnt from other images ({saved}): give --workdir a new folder"
        )
    run = start(folder, experiment, EXPERIMENT, None, dataset)
    print(f"{dataset.rule}\nrun folder: {folder}", flush=True)
    try:
        fit(run, dataset)
    except Interrupted as stop:
        print(f"{stop}\nresume with: {shlex.join(['python', '-m', 'jxrecon.style', *arguments])}")
        return 128 + stop.number
    except Diverged as stop:
        print("error:", stop, file=sys.stderr)
        return 1
    print(f"use with: python -m jxrecon.reconstruct --style {shlex.quote(str(folder))} ...")
    return 0


if __name__ == "__main__":
    raise SystemExit(entry(main))
