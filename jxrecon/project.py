"""X-rays of a CT file: `jxrecon project CT.nii.gz --view frontal --view lateral --out DIR`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jxrecon.cli import command_parser, entry
from jxrecon.files import check_writable
from jxrecon.flags import add_exposure_flags, add_hu_flags, exposure_of, scene_of, stated_of
from jxrecon.types import InputError

if TYPE_CHECKING:
    from jxrecon.data.simulated import Scene

_ENDINGS = {"nifti": (".nii.gz", ".png"), "npz": (".npz",), "png": (".png",)}


def parser() -> argparse.ArgumentParser:
    """The flags of `jxrecon project`."""
    parser = command_parser(
        "project",
        "Writes X-rays of a CT: line integrals with their camera in a JSON sidecar.",
        "jxrecon project ct.nii.gz --view frontal --view=-30,10 --out xrays",
    )
    add = parser.add_argument
    add(
        "ct",
        type=Path,
        help="CT: NIfTI, MHA, MHD or NRRD, a folder of DICOM slices, an enhanced DICOM",
    )
    add("--out", type=Path, required=True, help="folder for the X-rays")
    views = "frontal, lateral, ap, pa, ll, rl or ANGLE[,ELEVATION], one an X-ray (frontal, lateral)"
    add("--view", action="append", help=views)
    add("--sad", type=float, help="source-axis distance, mm (1000)")
    add("--sid", type=float, help="source-detector distance, mm (1500)")
    add("--parallel", action="store_true", help="parallel rays, detector at the isocentre")
    add("--pixels", default="256", help="detector pixels, ROWS[,COLUMNS] (%(default)s)")
    add("--pixel-mm", help="pixel pitch, mm, ROW[,COLUMN] (all of the CT is in each view)")
    add("--isocentre", help="X,Y,Z in world mm that the views turn about (the CT's middle)")
    formats = "nifti: float32 and a PNG to look at; npz: float32; png: 16 bits (%(default)s)"
    add("--format", choices=sorted(_ENDINGS), default="nifti", help=formats)
    methods = "projector: auto, siddon, joseph, aligned or shear_warp (%(default)s)"
    add("--method", default="auto", help=methods)
    add_hu_flags(add)
    add_exposure_flags(parser)
    return parser


def main(options: argparse.Namespace) -> int:
    """Runs the command."""
    from jxrecon.data.simulated import simulated_xrays
    from jxrecon.io import radiographs

    scene, exposure = _scene(options), exposure_of(options)
    check_writable(options.out)
    xrays = simulated_xrays(options.ct, scene, exposure, options.method, stated_of(options))
    for view, xray in zip(scene.views, xrays):
        for ending in _ENDINGS[options.format]:
            path = options.out / f"{xray.origin}{ending}"
            source = f"DRR of {options.ct.name}"
            radiographs.write(path, xray, view=view, source=source, simulated=exposure.simulated)
        print(radiographs.table(xray))
    print(f"{len(xrays)} X-rays in {options.out}")
    return 0


def _scene(options: argparse.Namespace) -> Scene:
    """Where the X-rays are taken from.

    Raises:
        InputError: two views are one, a flag's numbers are none, or flags contradict each other.
    """
    from jxrecon.data.simulated import Scene, xray_name
    from jxrecon.io import images, xray_views

    scene = Scene(tuple(options.view or Scene().views), parallel=options.parallel)
    if len({xray_name(options.ct, view) for view in scene.views}) < len(scene.views):
        raise InputError(f"--view {' --view '.join(scene.views)}: expected different views")
    for view in scene.views:
        xray_views.view_angles(view)
    counts = xray_views.numbers(options.pixels, (1, 2), "--pixels")
    pixels = tuple(map(int, counts))
    if pixels != counts or min(pixels) < 1:
        raise InputError(f"--pixels {options.pixels}: expected positive whole numbers")
    if pixels[0] * pixels[-1] > images.MOST_PIXELS:
        raise InputError(f"--pixels {options.pixels}: expected at most {images.MOST_PIXELS} in all")
    for flag, value in (("--sad", options.sad), ("--sid", options.sid)):
        if options.parallel and value is not None:
            raise InputError(
                f"{flag} {value:g}: expected without --parallel, whose rays have no source"
            )
    return scene._replace(shape=(pixels[0], pixels[-1]), **scene_of(options))


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
