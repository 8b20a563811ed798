"""FDK, SIRT, SART, CGLS and TV from two to hundreds of X-rays, as a Markdown table.

    python tools/sparse_views.py [--scenes head chest] [--views 2 4 8 32 180] [--voxels 64] [--arc 360]

Neither scene is projected from the grid that it is reconstructed on. The head is SYNTHETIC: bodies in
closed form, exact line integrals through pixel centres, its truth the mean of 64 points a voxel. The
chest is the CT that ships with the package: exact (Siddon) line integrals of its own 4 mm voxels, its
truth the means of 2 x 2 x 2 of them. Noise-free; the views lie evenly on a circle, source-axis 1000 mm,
source-detector 1500 mm, and see the whole object.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jxrecon import drr, phantom
from jxrecon.compile import jit
from jxrecon.data.sample import chest_ct
from jxrecon.geometry import AnyCamera, Grid, camera_at, centred_grid
from jxrecon.methods.base.method import Method, Problem
from jxrecon.methods.volumes import cgls, fdk, sirt, tv
from jxrecon.metrics.volume import psnr
from jxrecon.phantom.primitives import turned
from jxrecon.units import HU_AIR, MU_WATER_PER_MM, Window


class Scene(NamedTuple):
    """What is reconstructed.

    Attributes:
        title: of its table.
        grid: to reconstruct on.
        truth: HU on the grid.
        image: camera -> line integrals.
        detector_mm: edge of the square detector.
    """

    title: str
    grid: Grid
    truth: np.ndarray
    image: Callable[[AnyCamera], jax.Array]
    detector_mm: float


def head_bodies() -> phantom.Primitives:
    """A SYNTHETIC head that adds up: skin, skull, brain, ventricles, sinuses, eyes, ears' bone, bleeds."""
    bodies = (  # centre and semi-axes in mm, HU added to what is there (air -1000), turned about z
        ((0, 0, 0), (76, 96, 100), 1030, 0),
        ((0, -1, 2), (71, 90, 95), 870, 0),
        ((0, -1, 2), (65, 83, 88), -865, 0),
        ((11, 5, 12), (9, 30, 16), -28, -15),
        ((-11, 5, 12), (9, 30, 16), -28, 15),
        ((0, 68, -28), (16, 14, 16), -900, 0),
        ((30, 72, -22), (13, 13, 13), -25, 0),
        ((-30, 72, -22), (13, 13, 13), -25, 0),
        ((48, -18, -40), (11, 22, 9), 700, 35),
        ((-48, -18, -40), (11, 22, 9), 700, -35),
        ((36, -30, 30), (12, 12, 12), 35, 0),
        ((-30, 30, 40), (6, 6, 6), 60, 0),
        ((8, -52, -8), (4, 4, 4), 250, 0),
    )
    return phantom.stack(
        [
            phantom.ellipsoid(centre, axes, hu * MU_WATER_PER_MM / 1000, turned(angle, "z"))
            for centre, axes, hu, angle in bodies
        ]
    )


def head(voxels: int) -> Scene:
    """The SYNTHETIC head on voxels^3 of a cube of 224 mm."""
    bodies, grid = head_bodies(), centred_grid((voxels,) * 3, (224 / voxels,) * 3)
    truth = jit(lambda: drr.mu_to_hu(phantom.rasterise(bodies, grid, 4)))()
    title = f"SYNTHETIC head, {voxels}^3 voxels of {224 / voxels:.2f} mm"
    image = jit(lambda camera: phantom.line_integrals(bodies, camera))
    return Scene(title, grid, np.asarray(truth), image, 384.0)


def chest() -> Scene:
    """The built-in chest CT on voxels of 8 mm, about the world's origin."""
    hu, affine = chest_ct()
    fine_mm = float(affine[0, 0])
    hu = np.pad(
        np.maximum(hu, HU_AIR).astype(np.float32),
        [(0, n % 2) for n in hu.shape],
        constant_values=HU_AIR,
    )
    blocks = hu.reshape(hu.shape[0] // 2, 2, hu.shape[1] // 2, 2, hu.shape[2] // 2, 2)
    truth = blocks.mean((1, 3, 5))
    fine = centred_grid(hu.shape, (fine_mm,) * 3)
    grid = centred_grid(truth.shape, (2 * fine_mm,) * 3)
    mu = drr.hu_to_mu(hu)
    image = jit(lambda camera: drr.line_integrals(mu, fine.affine, camera, "siddon"))
    shape = " x ".join(map(str, truth.shape))
    return Scene(f"Chest CT, {shape} voxels of {2 * fine_mm:g} mm", grid, truth, image, 800.0)


def methods(iterations: int) -> dict[str, Callable[[Problem], Method]]:
    """The contenders; SIRT, the slowest to converge, gets `iterations`."""
    return {
        "FDK": fdk.fdk,
        f"SIRT {iterations}": lambda p: sirt.sirt(p, sirt.Settings(iterations=iterations)),
        "SART 8 x 12": lambda p: sirt.sirt(p, sirt.Settings(iterations=8, subsets=12)),
        "CGLS": cgls.cgls,
        "TV": tv.tv,
    }


def rows(scene: Scene, views: int, arguments: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """(method, PSNR, MAE, residual, seconds, seconds to compile) of each contender."""
    window, pixels = Window(), arguments.pixels
    cameras = tuple(
        camera_at(
            arguments.arc * n / views,
            shape=(pixels, pixels),
            pixel_mm=scene.detector_mm / pixels,
        )
        for n in range(views)
    )
    images = tuple(scene.image(camera) for camera in cameras)
    truth = np.clip(scene.truth, *window)
    problem = Problem(scene.grid, cameras, window, 1)
    for name, build in methods(arguments.iterations).items():
        method = build(problem)
        began = time.perf_counter()
        run = jit(lambda y, key, m=method: m.reconstruct((), y, cameras, key))
        run = run.lower(images, jax.random.key(0)).compile()
        compiled = time.perf_counter()
        result = jax.block_until_ready(run(images, jax.random.key(0)))
        seconds = time.perf_counter() - compiled
        found = np.clip(np.asarray(result.hu), *window)
        mae = np.abs(found - truth)[truth > -300].mean()
        residual = float(result.trace["residual"][-1])
        yield name, psnr(found, truth, window.range), mae, residual, seconds, compiled - began


def main() -> None:
    """Prints one table a scene."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scenes", nargs="+", choices=("head", "chest"), default=["head", "chest"])
    add("--views", nargs="+", type=int, default=[2, 4, 8, 32, 180], metavar="N")
    add("--voxels", type=int, default=64, help="of the head along each axis (%(default)s)")
    add("--pixels", type=int, default=96, help="of the detector along each axis (%(default)s)")
    add("--arc", type=float, default=180.0, help="degrees the views share (%(default)s)")
    add("--iterations", type=int, default=100, help="of SIRT (%(default)s)")
    arguments = parser.parse_args()
    for name in arguments.scenes:
        scene = head(arguments.voxels) if name == "head" else chest()
        low, high = Window()
        print(
            f"\n{scene.title}; {arguments.pixels}^2 pixels, views over {arguments.arc:g} degrees. PSNR"
            f" in dB and MAE in HU with volumes clipped to [{low:g}, {high:g}] HU; PSNR over the whole"
            f" volume, peak {high - low:g} HU; MAE over voxels whose truth is above -300 HU.\n"
        )
        print("| views | method | PSNR | MAE | residual | seconds | compiling |")
        print("|---|---|---|---|---|---|---|")
        for views in arguments.views:
            for method, ratio, mae, residual, seconds, compiling in rows(scene, views, arguments):
                print(
                    f"| {views} | {method} | {ratio:.2f} | {mae:.1f} | {residual:.4f} |"
                    f" {seconds:.2f} | {compiling:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
