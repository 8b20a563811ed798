"""SIRT with subsets and TV from many X-rays: seconds and errors, ours and RTK's, as a Markdown table.

    python tools/many_views_peers.py [--voxels 128] [--views 180] [--sweeps 1 2 4] [--tv 10 20 40]
        [--peers rtk mbirjax]

The SYNTHETIC head of `sparse_views`: exact line integrals of bodies in closed form, noise-free, views
evenly over a circle, one detector pixel a voxel. Errors are PSNR (dB) against the truth, clipped to
[-1024, 2000] HU. Everything is held to one core; seconds are the process's CPU time, ours without
compilation, which has a column of its own.

| | ours | RTK (itk-rtk, C++) |
|---|---|---|
| A and A' | all views in a scan, shear-warp | Joseph and its matched backprojector |
| SIRT | `sirt`, 12 subsets | SART filter, 12 subsets, positive; its relaxation is --relaxation |
| TV | `tv`, FISTA, default weight | none: both its filters with TV raise from Python (2.7.0) |
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from bench_drr import hold_to_one_thread

if TYPE_CHECKING:
    import numpy as np
    from drr_peers import Scene

SUBSETS = 12


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it gave."""
    began = time.process_time()
    found = run()
    return time.process_time() - began, found


def ours(
    scene: Scene, images: Any, method: Callable[..., Any], settings: Any
) -> tuple[float, float, np.ndarray]:
    """CPU seconds, CPU seconds to compile, and HU by one of our methods."""
    import jax
    import numpy as np

    from jxrecon.compile import jit
    from jxrecon.geometry import Grid
    from jxrecon.methods.base.method import Problem
    from jxrecon.units import Window

    x, y, z = scene.mu.shape
    problem = Problem(Grid((x, y, z), scene.affine), scene.cameras, Window(), 1)
    solver, key = method(problem, settings), jax.random.key(0)

    def hu(images: Any, key: Any) -> Any:
        return solver.reconstruct((), images, scene.cameras, key).hu

    compiling, run = timed(lambda: jit(hu).lower(images, key).compile())
    seconds, found = timed(lambda: jax.block_until_ready(run(images, key)))
    return seconds, compiling, np.asarray(found)


def rtk_sirt(scene: Scene, images: np.ndarray, **options: Any) -> Callable[[], np.ndarray]:
    """RTK's SART filter with these options, as a function that gives mu."""
    import itk
    import numpy as np
    from drr_peers import RtkScene
    from itk import RTK

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    image, theirs = itk.Image[itk.F, 3], RtkScene(scene)
    made = RTK.SARTConeBeamReconstructionFilter[image, image]
    step = made.New()
    step.SetForwardProjectionFilter(made.ForwardProjectionType_FP_JOSEPH)
    step.SetBackProjectionFilter(made.BackProjectionType_BP_JOSEPH)
    step.SetGeometry(theirs.geometry)
    step.SetInput(0, theirs.volume(np.zeros_like(scene.mu)))
    step.SetInput(1, theirs.stack(images))
    for name, value in options.items():
        getattr(step, f"Set{name}")(value)

    def run() -> np.ndarray:
        step.Update()
        return itk.array_from_image(step.GetOutput()).T

    return run


def rows(scene: Scene, args: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """(method, steps, seconds, seconds to compile, HU) of each contender."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from drr_peers import PEERS
    from sparse_views import head_bodies

    from jxrecon import drr, phantom
    from jxrecon.compile import jit
    from jxrecon.drr.operator import operator
    from jxrecon.geometry import Grid
    from jxrecon.methods.volumes import sirt, tv

    x, y, z = scene.mu.shape
    grid, bodies, mu = Grid((x, y, z), scene.affine), head_bodies(), jnp.asarray(scene.mu)
    project = jit(lambda camera: phantom.line_integrals(bodies, camera))
    images = tuple(project(camera) for camera in scene.cameras)
    stack = np.stack([np.asarray(image, np.float32) for image in images])

    a = operator(grid, scene.cameras)
    sweep = jit(lambda mu: a.back(a.project(mu)))
    compiling, sweep = timed(lambda: sweep.lower(mu).compile())
    seconds, _ = timed(lambda: jax.block_until_ready(sweep(mu)))
    yield "A and A', ours", 1, seconds, compiling, None
    for name in args.peers:
        theirs = PEERS[name][1](scene._replace(weights=stack))
        if theirs is not None:
            compiling, _ = timed(theirs.tasks["volume"])  # and one run
            yield f"A and A', {name}", 1, timed(theirs.tasks["volume"])[0], compiling, None

    for count in args.sweeps:
        settings = sirt.Settings(iterations=count, subsets=SUBSETS)
        seconds, compiling, hu = ours(scene, images, sirt.sirt, settings)
        yield "SIRT, ours", count, seconds, compiling, hu
        if "rtk" in args.peers:
            options = {
                "NumberOfIterations": count,
                "NumberOfProjectionsPerSubset": -(-len(images) // SUBSETS),
                "Lambda": args.relaxation,
                "EnforcePositivity": True,
            }
            run = rtk_sirt(scene, stack, **options)
            seconds, found = timed(run)
            yield "SIRT, RTK", count, seconds, 0.0, np.asarray(drr.mu_to_hu(found))
    for count in args.tv:
        settings = tv.Settings(iterations=count)
        seconds, compiling, hu = ours(scene, images, tv.tv, settings)
        yield "TV, ours", count, seconds, compiling, hu


def scene_of(voxels: int, views: int) -> tuple[Scene, np.ndarray]:
    """The head before that many cameras, and its truth in HU."""
    import numpy as np
    from drr_peers import Scene
    from sparse_views import head

    from jxrecon import drr
    from jxrecon.geometry import camera_at

    made = head(voxels)
    cameras = tuple(
        camera_at(360 * n / views, shape=(voxels, voxels), pixel_mm=made.detector_mm / voxels)
        for n in range(views)
    )
    mu = np.asarray(drr.hu_to_mu(made.truth), np.float32)
    return Scene(str(voxels), mu, made.grid.affine, cameras, np.zeros((0, 0, 0))), made.truth


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--voxels", type=int, default=128, help="along each axis, and pixels (%(default)s)")
    add("--views", type=int, default=180, help="over a circle (%(default)s)")
    add("--sweeps", type=int, nargs="*", default=[1, 2, 4], help="of SIRT through all views")
    add("--tv", type=int, nargs="*", default=[10, 20, 40], help="iterations of TV")
    add("--relaxation", type=float, default=1.0, help="of RTK's SIRT (%(default)s)")
    add("--peers", nargs="*", choices=("rtk", "mbirjax"), default=["rtk"], help="beside ours (rtk)")
    args = parser.parse_args()
    hold_to_one_thread()
    import numpy as np

    from jxrecon.metrics.volume import psnr
    from jxrecon.units import Window

    (scene, truth), window = scene_of(args.voxels, args.views), Window()
    print("| method | sweeps or iterations | PSNR | CPU seconds | compiling |")
    print("|---|---|---|---|---|")
    for name, count, seconds, compiling, hu in rows(scene, args):
        error = "-"
        if hu is not None:
            error = f"{psnr(np.clip(hu, *window), np.clip(truth, *window), window.range):.2f}"
        print(f"| {name} | {count} | {error} | {seconds:.2f} | {compiling:.1f} |", flush=True)


if __name__ == "__main__":
    main()
