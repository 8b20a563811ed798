"""Makes the weights that ship with the package from a trained run.

    python tools/ship_weights.py runs/lift_hn-full-openkbp_hn --name lift_hn

writes jxrecon/weights/NAME.safetensors and its line in SHA256SUMS; the card, NAME.md, is written by hand.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.types import InputError

TOLD = ("experiment", "exp", "cases", "rule", "synthetic", "versions", "git", "hardware")
"""What of config.json goes along: no paths of the machine that trained."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "ship_weights", "Weights that ship, from a trained run.", "ship_weights RUN --name lift_hn"
    )
    made.add_argument("run", type=Path, help="folder of a trained run")
    made.add_argument("--name", required=True, help="of the weights")
    made.add_argument("--out", type=Path, help="folder (that of the package)")
    return made


def main(options: argparse.Namespace) -> int:
    """Writes the file.

    Raises:
        InputError: there is no such run, or its method has nothing to hand on.
    """
    from jxrecon.compile import jit
    from jxrecon.runs import shipped
    from jxrecon.runs.run import open_run, restore

    run = open_run(options.run)
    if run.method.ship is None:
        raise InputError(f"{options.run}: {run.experiment.name} has nothing small to hand on")
    state, step = restore(run)
    saved = json.loads((run.folder / "config.json").read_text())
    small = jit(run.method.ship)(state)
    config = {**{name: saved[name] for name in TOLD}, "data": None}
    config["cpu_seconds"] = round(_cpu_seconds(run, small), 1)
    path = (options.out or shipped.FOLDER) / f"{options.name}.safetensors"
    shipped.write(path, small, config, step)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, step {step}")
    return 0


def _cpu_seconds(run: Any, state: Any) -> float:
    """Of all cores together, for one reconstruction, compilation included."""
    import jax
    import jax.numpy as jnp

    cameras = run.problem.cameras
    images = tuple(jnp.ones(camera.shape) for camera in cameras)
    jax.config.update("jax_enable_compilation_cache", False)
    before = time.process_time()
    found = jax.jit(lambda s, y, key: run.method.reconstruct(s, y, cameras, key))
    jax.block_until_ready(found(state, images, jax.random.key(0)))
    return time.process_time() - before


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
