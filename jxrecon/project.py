"""X-rays of a CT file: `python -m jxrecon.drr CT.nii.gz --view frontal --view lateral --out DIR`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.cli import entry
from jxrecon.drr import METHODS, choose, line_integrals
from jxrecon.drr.exposure import add_flags, exposure_of
from jxrecon.geometry import AnyCamera, Grid, ParallelCamera, camera_at, parallel_at
from jxrecon.io import images, radiographs
from jxrecon.io.nifti import read_volume
from jxrecon.io.radiographs import Radiograph
from jxrecon.types import InputError

_SAD_MM, _SID_MM = 1000.0, 1500.0
_ENDINGS = {"nifti": (".nii.gz", ".png"), "npz": (".npz",), "png": (".png",)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.drr",
        description="Writes X-rays of a CT: line integrals (dimensionless) as CT_VIEW.nii.gz, exact "
        "in float32, with a 16-bit CT_VIEW.png to look at and a CT_VIEW.json that holds the camera "
        "and what was simulated.",
    )
    add = parser.add_argument
    add("ct", type=Path, help="CT in HU, .nii or .nii.gz")
    add("--out", type=Path, required=True, help="folder for the X-rays")
    add(
        "--view",
        action="append",
        help="frontal, lateral or ANGLE[,ELEVATION] in degrees, once per X-ray "
        "(default: frontal and lateral; write --view=-30 for negative numbers)",
    )
    add("--sad", type=float, help=f"source-axis distance, mm ({_SAD_MM:g})")
    add("--sid", type=float, help=f"source-detector distance, mm ({_SID_MM:g})")
    add("--parallel", action="store_true", help="parallel rays, detector at the isocentre")
    add("--pixels", default="256", help="detector pixels, ROWS[,COLUMNS] (%(default)s)")
    add("--pixel-mm", help="pixel pitch, mm, ROW[,COLUMN] (default: all of the CT is in each view)")
    add(
        "--isocentre", help="X,Y,Z in world mm that the views turn about (default: the CT's middle)"
    )
    add(
        "--format",
        choices=sorted(_ENDINGS),
        default="nifti",
        help="nifti: float32 and a PNG; npz: float32; png: 16 bits (%(default)s)",
    )
    add("--method", choices=METHODS, default="auto", help="projector (%(default)s)")
    add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    options = _parser().parse_args(argv)
    exposure = exposure_of(options)
    views = options.view or ["frontal", "lateral"]
    names = [f"{images.stem(options.ct)}_{view.replace(',', '_')}" for view in views]
    if len(set(names)) < len(names):
        raise InputError(f"--view {' --view '.join(views)}: expected different views")
    angles = [radiographs.view_angles(view) for view in views]
    pixels = radiographs.numbers(options.pixels, (1, 2), "--pixels")
    if not all(count >= 1 and count == int(count) for count in pixels):
        raise InputError(f"--pixels {options.pixels}: expected positive whole numbers")
    shape = int(pixels[0]), int(pixels[-1])
    if shape[0] * shape[1] > images.MOST_PIXELS:
        raise InputError(f"--pixels {options.pixels}: expected at most {images.MOST_PIXELS} in all")
    distances = {"--sad": options.sad, "--sid": options.sid}
    for flag, given in distances.items():
        if options.parallel and given is not None:
            raise InputError(
                f"{flag} {given:g}: expected without --parallel, whose rays have no source"
            )
    given_mm = None
    if options.pixel_mm is not None:
        given_mm = radiographs.numbers(options.pixel_mm, (1, 2), "--pixel-mm")

    hu, affine = read_volume(options.ct)
    grid = Grid(hu.shape, affine)
    isocentre = grid.centre_mm
    if options.isocentre is not None:
        isocentre = np.array(radiographs.numbers(options.isocentre, (3,), "--isocentre"))

    sad_mm = _SAD_MM if options.sad is None else options.sad
    sid_mm = _SID_MM if options.sid is None else options.sid
    camera_of = (
        parallel_at
        if options.parallel
        else partial(camera_at, source_axis_mm=sad_mm, source_detector_mm=sid_mm)
    )

    def cameras(row_mm: float, column_mm: float) -> list[AnyCamera]:
        common: dict[str, Any] = {"shape": shape, "isocentre_mm": tuple(isocentre)}
        return [camera_of(*view, pixel_mm=(row_mm, column_mm), **common) for view in angles]

    reaches = [_reach(grid, camera, options.ct) for camera in cameras(1.0, 1.0)]
    fit_mm = max(2 * reach / (n - 1 or 1) for pair in reaches for reach, n in zip(pair, shape))
    pitch = (given_mm[0], given_mm[-1]) if given_mm else (fit_mm, fit_mm)

    volumes = exposure.volumes(np.asarray(hu, np.float32))
    expose = jax.jit(partial(exposure.expose, pixel_mm=pitch))
    origins = {
        "pixel pitch": "--pixel-mm" if given_mm else "fits the CT",
        "isocentre": "--isocentre" if options.isocentre else "middle of the CT",
    }
    xrays = []
    for number, (name, view, camera) in enumerate(zip(names, views, cameras(*pitch))):
        method = options.method
        method = choose(affine, camera, grid.shape) if method == "auto" else method
        quantities = {
            **radiographs.describe(camera),
            **({} if options.parallel else {"source to axis": f"{sad_mm:.1f} mm"}),
            "isocentre": "({:.1f}, {:.1f}, {:.1f}) mm".format(*isocentre),
            "projector": method,
        }
        resolved = tuple((key, text, origins.get(key, view)) for key, text in quantities.items())
        resolved += tuple(
            (key, str(value), "simulated") for key, value in exposure.simulated.items()
        )
        project = jax.jit(partial(line_integrals, affine=affine, camera=camera, method=method))
        through = jnp.stack([project(volume) for volume in volumes])
        image = expose(through, exposure.key(number))
        xrays.append(Radiograph(np.asarray(image), camera, name, isocentre, resolved))
    for view, xray in zip(views, xrays):
        for ending in _ENDINGS[options.format]:
            path = options.out / f"{xray.origin}{ending}"
            source = f"DRR of {options.ct.name}"
            radiographs.write(path, xray, view=view, source=source, simulated=exposure.simulated)
        print(radiographs.table(xray))
    print(f"{len(views)} X-rays in {options.out}")
    return 0


def _reach(grid: Grid, camera: AnyCamera, ct: Path) -> Float[np.ndarray, "2"]:
    """How far from the detector's centre the volume's box is seen, along rows and columns in mm.

    Raises:
        InputError: a part of the box is not between source and detector.
    """
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij"), -1)
    corners = corners.reshape(-1, 3) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    centre, u, v = (np.asarray(part, np.float64) for part in (camera.centre, camera.u, camera.v))
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    if isinstance(camera, ParallelCamera):  # at a right angle to its detector
        return np.array(
            [np.abs((corners - centre) @ v).max(), np.abs((corners - centre) @ u).max()]
        )
    source = np.asarray(camera.source, np.float64)
    normal = np.cross(u, v)
    normal *= np.sign(normal @ (centre - source))
    depth, detector_mm = (corners - source) @ normal, normal @ (centre - source)
    if not (depth.min() > 0 and depth.max() < detector_mm):
        raise InputError(
            f"{ct}: lies {depth.min():.0f} to {depth.max():.0f} mm from the source, expected it "
            f"before the detector at {detector_mm:.0f} mm (see --sad, --sid, --isocentre)"
        )
    seen = source + (corners - source) * (detector_mm / depth)[:, None] - centre
    return np.array([np.abs(seen @ v).max(), np.abs(seen @ u).max()])


if __name__ == "__main__":
    raise SystemExit(entry(main))
