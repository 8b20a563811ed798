"""`jxrecon demo`: X-rays of a SYNTHETIC subject, and the CT that the weights that ship find in them."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry

PHOTONS = 2e4
"""A pixel of the unattenuated beam."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "demo",
        "Takes a frontal and a lateral X-ray of a SYNTHETIC head and neck, writes them as PNG with their "
        "cameras, and reconstructs the CT from these files by the weights that ship (lift_hn), in a minute: "
        "volume, standard deviation, preview and a page with a viewer.",
        "jxrecon demo --out demo",
    )
    made.add_argument("--out", type=Path, default=Path("demo"), help="folder (%(default)s)")
    made.add_argument("--subject", type=int, default=0, help="its number (%(default)s)")
    made.add_argument("--views", type=int, choices=(1, 2), default=2, help="X-rays (%(default)s)")
    return made


def main(options: argparse.Namespace) -> int:
    """Takes the X-rays and reconstructs.

    Raises:
        InputError: the folder cannot be written.
    """
    from jxrecon.files import make_folder
    from jxrecon.inference.patient import Request, find_in_xrays
    from jxrecon.io import radiographs
    from jxrecon.report.viewer import told, write_reconstruction
    from jxrecon.runs.run import open_run
    from jxrecon.terminal import Spinner

    make_folder(options.out)
    run = open_run("lift_hn" if options.views == 2 else "lift_hn_single")
    paths = _take_xrays(run, options)
    xrays = [radiographs.read(path) for path in paths]
    for xray in xrays:
        print(radiographs.table(xray))
    with Spinner("compiling and reconstructing") as spinner:
        request = Request(say=print, progress=spinner.tell)
        volume = find_in_xrays(run, xrays, request)
    what = (
        f"X-rays of SYNTHETIC subject {options.subject}, painted; the weights learnt from patients."
    )
    written = write_reconstruction(options.out, "ct", volume, [what], subject=options.subject)
    print(*told(volume), _compared(volume, options.subject), *written, sep="\n")
    return 0


def _take_xrays(run: Any, options: argparse.Namespace) -> list[Path]:
    """The X-rays of the subject by the cameras of the run, written as a person would bring them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jxrecon.compile import jit
    from jxrecon.data import scenes
    from jxrecon.data.machine import noisy
    from jxrecon.data.scene_xrays import axes_of, xrays_of
    from jxrecon.io import radiographs

    cameras = run.problem.cameras
    scene = scenes.painted([options.subject], 0, run.problem.grid)
    axes = axes_of(list(scene.affines), cameras)

    @partial(jit, once=True)
    def take(hu: Any, affine: Any, number: Any) -> Any:
        images = jnp.stack(xrays_of(hu, affine, cameras, axes))
        keys = jax.random.split(jax.random.key(number), len(images))
        return jax.vmap(lambda image, key: noisy(image, PHOTONS, key))(images, keys)

    images = take(scene.hu[0], scene.affines[0].astype(np.float32), options.subject)
    paths = []
    for name, camera, image in zip(("frontal", "lateral"), cameras, np.asarray(images)):
        paths.append(options.out / f"{name}.png")
        xray = radiographs.Radiograph(image, camera, name, np.zeros(3))
        radiographs.write(paths[-1], xray, source=f"SYNTHETIC subject {options.subject}")
    return paths


def _compared(volume: Any, subject: int) -> str:
    """How far the volume is from the subject as it was painted, in a line."""
    import numpy as np

    from jxrecon import phantom
    from jxrecon.metrics.volume import psnr

    problem = volume.run.problem
    truth = np.asarray(phantom.population(problem.grid, 0, subject, 1)[0], np.float32)
    window = problem.window
    found = psnr(volume.hu, np.clip(truth, window.low, window.high), window.range)
    return f"PSNR against the subject that was painted: {found:.1f} dB"


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
