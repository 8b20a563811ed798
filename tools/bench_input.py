"""The share of its time that training would wait for data, were a step as fast as a GPU's.

    python tools/bench_input.py [--exp x2vision_hn] [--size coarse] [--data DIR] [--images 50]

Batches are made and moved to the device as in training; the step is a pause that takes as long as its images
take at so many images a second. The processor's time of a batch says what that needs of a core. Training
itself shows the same share, `waiting_for_data`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax

from jxrecon.cli import entry
from jxrecon.files import cache_folder
from jxrecon.runs import config, sharding
from jxrecon.runs.batches import Waiting, batch_at, prefetch


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--exp", default="x2vision_hn", help="an experiment of jxrecon train --list")
    add("--size", help="one of its sizes")
    add("--data", type=Path, metavar="DIR", help="folder of CT; default: built-in, SYNTHETIC")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="as of jxrecon train")
    add("--images", type=float, default=50.0, help="a second that the step takes")
    add("--steps", type=int, default=100)
    return made


def main(args: argparse.Namespace) -> int:
    """Prints one line.

    Raises:
        InputError: there is no such experiment, size or data.
    """
    experiment = config.override(config.find(args.exp, args.size), args.set)
    cases = experiment.load(experiment, args.data, cache_folder("data")).train
    size, seed = experiment.schedule.batch_size, experiment.schedule.seed
    spread = sharding.batch_sharding(sharding.make_mesh(), size)

    def make(step: int) -> Any:
        return sharding.place(batch_at(cases, step, size, seed), spread)

    batches = Waiting(prefetch(make, 0, args.steps))
    next(batches)  # starts the thread
    batches.share()
    began = time.process_time()
    for _ in range(args.steps - 1):
        time.sleep(size / args.images)
        batch = jax.block_until_ready(next(batches))
    work = (time.process_time() - began) / (args.steps - 1)
    share, megabytes = batches.share(), sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) / 1e6
    print(
        f"{experiment.name} {experiment.size}: a step of {size} ({megabytes:.1f} MB) in"
        f" {size / args.images:.3f} s, {args.images:g} images a second: {share:.1%} of the time waiting,"
        f" {1e3 * work:.1f} ms of a core a batch"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(entry(parser, main))
