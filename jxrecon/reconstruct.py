"""A CT volume from X-ray files: `python -m jxrecon.reconstruct --run DIR --xray FILE --out DIR`.

With a run that finds surfaces, an organ's surface: `... --mesh REFERENCE.ply`, the organ before it moved.

Classical methods need no run: `--method sirt --grid 128,128,128 --spacing-mm 2`, from any number of X-rays.

Methods know a grid about the world's origin, so the X-rays' cameras are moved until the point that
they turn about, the isocentre, lies there; the volume's affine takes it back to the X-rays' world.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from jxrecon import drr
from jxrecon.cli import entry
from jxrecon.compile import check_compiler, jit
from jxrecon.files import write_file
from jxrecon.geometry import Camera, Grid, camera_at
from jxrecon.io import images, radiographs
from jxrecon.io.nifti import write_volume
from jxrecon.io.radiographs import Given, Radiograph
from jxrecon.methods.base.method import Problem, Reconstruction
from jxrecon.report.slices import DISPLAY_HU, PLANES
from jxrecon.runs import config
from jxrecon.runs.run import Run, open_run, restore
from jxrecon.style import open_style
from jxrecon.terminal import Spinner
from jxrecon.types import InputError

SAME_POINT_MM = 1.0
"""How far apart the isocentres that two X-rays tell may lie."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.reconstruct",
        description="Reconstructs a CT volume (HU, NIfTI), or an organ's surface, from X-rays with a "
        "trained run. Cameras "
        "come from a JSON sidecar beside each X-ray, or from --view, --sad, --sid and --pixel-mm.",
    )
    add = parser.add_argument
    add("--run", type=Path, help="folder of a trained run")
    add(
        "--method",
        help="instead of --run: an untrained method of --exp, such as fdk, sirt, cgls, tv",
    )
    add("--exp", default="x2vision_hn", help="experiment that lists --method (%(default)s)")
    add("--grid", help="X,Y,Z voxels to reconstruct with --method, about the isocentre")
    add("--spacing-mm", help="their spacing, S or X,Y,Z in mm")
    add(
        "--xray",
        type=Path,
        required=True,
        action="append",
        help="NIfTI, NPZ or PNG, once per X-ray",
    )
    add("--out", type=Path, required=True, help="folder for volume or surface and preview")
    add(
        "--mesh",
        type=Path,
        help="the organ's known shape, in the X-rays' world (PLY, OBJ, STL, VTK)",
    )
    add("--format", default="ply", help="of surfaces: ply, stl, vtk or several (%(default)s)")
    add(
        "--view",
        action="append",
        help="frontal, lateral or ANGLE[,ELEVATION] in degrees, once per --xray and in their order",
    )
    add("--sad", type=float, help="source-axis distance, mm")
    add("--sid", type=float, help="source-detector distance, mm")
    add("--pixel-mm", help="pixel pitch on the detector, mm, ROW[,COLUMN]")
    add("--isocentre", help="X,Y,Z in mm of the X-rays' world that the views turn about")
    add("--intensity", choices=("log", "raw", "display"), help="what the pixels are")
    add("--i0", type=float, help="intensity of the unattenuated beam, for --intensity raw")
    add("--checkpoint", default="latest", help="latest, best or a step (%(default)s)")
    add("--seed", type=int, default=0, help="of the method's random starts (%(default)s)")
    add(
        "--style",
        type=Path,
        help="folder of a run of jxrecon.style: real X-rays look synthetic first",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    options = _parser().parse_args(argv)
    which = options.checkpoint
    if which not in ("latest", "best"):
        if not which.isdigit():
            raise InputError(f"--checkpoint {which}: expected latest, best or a step")
        which = int(which)
    xrays = [radiographs.read(path, given) for path, given in _given(options)]
    if options.style is not None:
        xrays = list(map(open_style(options.style), xrays))
    isocentre = common_isocentre(xrays)
    for xray in xrays:
        print(radiographs.table(xray))
    check_compiler()
    if options.run is not None and options.method is not None:
        raise InputError(f"--run {options.run} and --method {options.method}: expected one of them")
    run = untrained(options) if options.run is None else open_run(options.run)
    if run.experiment.kind:
        return run.experiment.kind.reconstruct(options, run, xrays, isocentre, which)
    if options.mesh is not None:
        raise InputError(
            f"--mesh {options.mesh}: {run.experiment.name} finds a volume, expected none"
        )
    views = [prepare(xray, isocentre, run.problem.cameras[0]) for xray in xrays]
    pixels = ", ".join("{} x {}".format(*view.camera.shape) for view in views)
    middle = ", ".join(f"{x:.1f}" for x in isocentre)
    field = " x ".join(f"{x:.0f}" for x in run.problem.grid.extent_mm)
    print(f"field of {field} mm about the isocentre ({middle}) mm; X-rays taken at {pixels} pixels")
    if options.run is None:
        state, step = run.method.init(jax.random.key(options.seed)), 0
        print(
            f"{options.method} on {' x '.join(map(str, run.problem.grid.shape))} voxels; {run.rule}"
        )
    else:
        state, step = restore(run, which)
        name, size = run.experiment.name, run.experiment.size
        print(f"{name} {size}, step {step}, of {options.run}; {run.rule}")

    with Spinner("compiling") as spinner:

        def progress(iteration: int, objective: float) -> None:
            spinner.tell(f"iteration {int(iteration)}  objective {float(objective):.5g}")

        result = _reconstruct(run, state, views, options.seed, progress)
    hu = np.asarray(result.hu, np.float32)
    again = reprojections(hu, run.problem.grid, views)
    errors = [
        float(np.linalg.norm(a - view.image) / np.linalg.norm(view.image)) for a, view in again
    ]
    affine = run.problem.grid.affine.copy()
    affine[:3, 3] += isocentre
    name = _name(options.xray)
    write_volume(options.out / f"{name}.nii.gz", hu, affine)
    if result.trace:
        write_file(options.out / f"{name}_trace.csv", _csv_bytes(result))
    write_file(options.out / f"{name}_preview.png", _preview_bytes(hu, run, again))
    facts = {
        "run": None if options.run is None else str(options.run),
        "experiment": _title(run),
        "step": step,
        "seed": options.seed,
        "synthetic_training_data": run.synthetic,
        "isocentre_mm": isocentre.tolist(),
        "xrays": [str(path) for path in options.xray],
        "style": None if options.style is None else str(options.style),
        "reprojection_error": errors,
    }
    write_file(options.out / f"{name}_facts.json", (json.dumps(facts, indent=1) + "\n").encode())
    for view, error in zip(views, errors):
        print(f"re-projection error |Ax - y| / |y| {error:.4f}  {view.origin}")
    print(options.out / f"{name}.nii.gz")
    return 0


def untrained(options: argparse.Namespace) -> Run:
    """What stands in for a run where a method needs no training.

    Raises:
        InputError: there is no such method, or the grid or its spacing is not one.
    """
    if options.method is None:
        raise InputError("nothing tells how to reconstruct, expected --run DIR or --method NAME")
    experiment = config.find(options.exp)
    if options.method not in experiment.optional:
        known = ", ".join(experiment.optional) or "none"
        raise InputError(
            f"--method {options.method}: {options.exp} has no such untrained method, expected {known}"
        )
    field = experiment.field
    if options.grid is not None:
        numbers = radiographs.numbers(options.grid, (3,), "--grid")
        if not all(n >= 1 and n == int(n) for n in numbers):
            raise InputError(f"--grid {options.grid}: expected three whole numbers of voxels")
        shape = int(numbers[0]), int(numbers[1]), int(numbers[2])
        field = dataclasses.replace(field, shape=shape)
    if options.spacing_mm is not None:
        mm = radiographs.numbers(options.spacing_mm, (1, 3), "--spacing-mm")
        if not min(mm) > 0:
            raise InputError(f"--spacing-mm {options.spacing_mm}: expected positive millimetres")
        field = dataclasses.replace(field, spacing_mm=(mm[0], mm[len(mm) // 2], mm[-1]))
    pitch = camera_at(
        0.0, pixel_mm=1.5 * min(field.spacing_mm)
    )  # a voxel where rays pass the middle
    problem = Problem(field.grid, (pitch,), field.window, 0)
    method = experiment.optional[options.method](problem)
    experiment = dataclasses.replace(experiment, name=options.method, size="", field=field)
    return Run(Path(), experiment, None, problem, method, False, "no training data")


def _title(run: Run) -> str:
    return f"{run.experiment.name} {run.experiment.size}".strip()


class View(NamedTuple):
    """An X-ray as a method takes it.

    Attributes:
        image: line integrals, [rows, columns].
        camera: in the world whose origin is the isocentre.
        origin: the file.
    """

    image: Float[np.ndarray, "rows columns"]
    camera: Camera
    origin: str


def common_isocentre(xrays: list[Radiograph]) -> Float[np.ndarray, "3"]:
    """The point that all views turn about, in the X-rays' world, mm.

    What sidecars or flags tell; else the point nearest to all lines from source to detector centre.

    Raises:
        InputError: the X-rays tell different points, or tell none and their lines do not fix one.
    """
    told = [(x.isocentre_mm, x.origin) for x in xrays if x.isocentre_mm is not None]
    for isocentre, origin in told:
        apart = np.linalg.norm(isocentre - told[0][0])
        if apart > SAME_POINT_MM:
            raise InputError(
                f"{origin}: its isocentre lies {apart:.1f} mm from that of {told[0][1]}, "
                "expected X-rays of one world (see --isocentre)"
            )
    if told:
        return told[0][0]
    # sum_i (1 - d_i d_i^T) (x - s_i) = 0
    sources = np.array([_from_source(xray).source for xray in xrays], np.float64)
    lines = np.array([xray.camera.centre for xray in xrays], np.float64) - sources
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    across = np.eye(3) - lines[:, :, None] * lines[:, None, :]
    normal = across.sum(0)
    if np.linalg.eigvalsh(normal)[0] < 1e-2:  # lines within about 8 degrees of each other
        raise InputError(
            f"{xrays[0].origin}: nothing tells the isocentre, expected isocentre_mm in its sidecar "
            "or --isocentre X,Y,Z"
        )
    return np.linalg.solve(normal, np.einsum("nij,nj->i", across, sources))


def prepare(xray: Radiograph, isocentre_mm: Float[np.ndarray, "3"], like: Camera) -> View:
    """The X-ray about the origin, averaged in blocks of pixels down to about the pitch of a camera.

    Along each axis a block is the whole number of pixels that fits into one pixel of that
    camera, both measured where they cross the isocentre; coarser X-rays stay as
    they are. Rows and columns that fill no block are left out at the image's end.

    Raises:
        InputError: the detector does not see the isocentre, or the rays are parallel.
    """
    move = jnp.asarray(-isocentre_mm, jnp.float32)
    camera = _from_source(xray).moved(jnp.eye(3, dtype=jnp.float32), move)
    row, column = _pixel_of_origin(camera)
    rows, columns = camera.shape
    if not (-0.5 <= row <= rows - 0.5 and -0.5 <= column <= columns - 0.5):
        raise InputError(
            f"{xray.origin}: the isocentre falls on row {row:.0f}, column {column:.0f}, expected it "
            f"on the {rows} x {columns} pixels (see --isocentre, --sid, --pixel-mm)"
        )
    wanted, found = _pitch_at_origin(like), _pitch_at_origin(camera)
    blocks = np.minimum(np.maximum(1, np.floor(wanted / found + 1e-3)), camera.shape).astype(int)
    kept = np.array(camera.shape) // blocks * blocks
    lost_rows, lost_columns = (np.array(camera.shape) - kept) / 2
    camera = camera.replace(
        centre=camera.centre - float(lost_rows) * camera.v - float(lost_columns) * camera.u,
        shape=(int(kept[0]), int(kept[1])),
    )
    shape = (int(kept[0] // blocks[0]), int(kept[1] // blocks[1]))
    image = xray.line_integrals[: kept[0], : kept[1]]
    image = image.reshape(shape[0], blocks[0], shape[1], blocks[1]).mean((1, 3))
    return View(image, camera.resized(shape), xray.origin)


def reprojections(
    hu: Float[np.ndarray, "x y z"], grid: Grid, views: list[View]
) -> list[tuple[Float[np.ndarray, "rows columns"], View]]:
    """The line integrals of the volume in every view, beside the view."""

    @jit
    def project(hu: Float[Array, "x y z"]) -> list[Float[Array, "rows columns"]]:
        return list(drr.project(drr.hu_to_mu(hu), grid.affine, [view.camera for view in views]))

    return [(np.asarray(image), view) for image, view in zip(project(hu), views)]


def _given(options: argparse.Namespace) -> list[tuple[Path, Given]]:
    """Every X-ray with what the flags say about it."""
    views = options.view or [None] * len(options.xray)
    if len(views) != len(options.xray):
        raise InputError(
            f"{len(views)} --view for {len(options.xray)} --xray: expected one for each, or none"
        )
    pitch = isocentre = None
    if options.pixel_mm is not None:
        pitch = radiographs.numbers(options.pixel_mm, (1, 2), "--pixel-mm")
    if options.isocentre is not None:
        isocentre = radiographs.numbers(options.isocentre, (3,), "--isocentre")
    return [
        (
            path,
            Given(
                view,
                options.sad,
                options.sid,
                None if pitch is None else (pitch[0], pitch[-1]),
                None if isocentre is None else (isocentre[0], isocentre[1], isocentre[2]),
                options.intensity,
                options.i0,
            ),
        )
        for path, view in zip(options.xray, views)
    ]


def _reconstruct(run: Run, state, views: list[View], seed: int, progress) -> Reconstruction:
    cameras = tuple(view.camera for view in views)

    @jit
    def reconstruct(state, images, key):
        return run.method.reconstruct(state, images, cameras, key, progress)

    measured = tuple(jnp.asarray(view.image) for view in views)
    result = reconstruct(state, measured, jax.random.key(seed))
    return jax.block_until_ready(result)


def _from_source(xray: Radiograph) -> Camera:
    if not isinstance(xray.camera, Camera):
        raise InputError(f"{xray.origin}: parallel rays, expected an X-ray from a point source")
    return xray.camera


def _normal(camera: Camera) -> np.ndarray:
    normal = np.cross(camera.u, camera.v).astype(np.float64)
    return normal / np.linalg.norm(normal)


def _pitch_at_origin(camera: Camera) -> Float[np.ndarray, "2"]:
    """Pixel pitch between rows and between columns, shrunk to where the rays pass the origin."""
    normal = _normal(camera)
    source, centre = np.asarray(camera.source, np.float64), np.asarray(camera.centre, np.float64)
    shrink = abs(normal @ source) / abs(normal @ (centre - source))
    return shrink * np.array([np.linalg.norm(camera.v), np.linalg.norm(camera.u)])


def _pixel_of_origin(camera: Camera) -> tuple[float, float]:
    """(row, column) that the ray through the world's origin falls on; nan if it misses the plane."""
    source, centre, u, v = (
        np.asarray(part, np.float64) for part in (camera.source, camera.centre, camera.u, camera.v)
    )
    normal = np.cross(u, v)
    if (
        not (normal @ source) * (normal @ (source - centre)) > 0
    ):  # the origin lies behind the source
        return np.nan, np.nan
    point = source - source * (normal @ (centre - source)) / (normal @ -source)
    across = np.linalg.lstsq(np.stack([v, u], 1), point - centre, rcond=None)[0]
    row, column = across + (np.array(camera.shape) - 1) / 2
    return float(row), float(column)


def _name(paths: list[Path]) -> str:
    """The words that all X-rays' names begin with, and _recon: ct_frontal, ct_lateral -> ct_recon."""
    words = [images.stem(path).split("_") for path in paths]
    shared = takewhile(lambda same: len(set(same)) == 1, zip(*words))
    return "_".join([*(same[0] for same in shared), "recon"])


def _csv_bytes(result: Reconstruction) -> bytes:
    columns = {term: np.asarray(values) for term, values in result.trace.items()}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["iteration", *columns])
    for iteration, row in enumerate(zip(*columns.values())):
        writer.writerow([iteration, *(f"{value:.6g}" for value in row)])
    return stream.getvalue().encode()


def _preview_bytes(
    hu: np.ndarray, run: Run, again: list[tuple[Float[np.ndarray, "rows columns"], View]]
) -> bytes:
    """A PNG: a row of X-ray, re-projection and difference for each view, then three slices."""
    figure = Figure(figsize=(9, 3 * (len(again) + 1)), layout="constrained")
    axes = figure.subplots(len(again) + 1, 3, squeeze=False)
    training = " (trained on synthetic anatomy)" if run.synthetic else ""
    figure.suptitle(f"{_title(run)}{training}")
    for row, (image, view) in zip(axes, again):
        pixel_mm = [float(np.linalg.norm(step)) for step in (view.camera.v, view.camera.u)]
        high = float(view.image.max())
        difference = max(float(np.abs(image - view.image).max()), 1e-6)
        pictures = (
            (view.image, f"X-ray, 0 to {high:.2g}", "gray", 0, high),
            (image, "re-projection", "gray", 0, high),
            (
                image - view.image,
                f"difference, ±{difference:.2g}",
                "RdBu_r",
                -difference,
                difference,
            ),
        )
        for panel, (picture, title, colours, low, top) in zip(row, pictures):
            panel.imshow(picture, colours, vmin=low, vmax=top, aspect=pixel_mm[0] / pixel_mm[1])
            panel.set_title(title, fontsize=9)
    spacing_mm = run.problem.grid.spacing_mm
    for panel, plane in zip(axes[-1], PLANES):
        columns, rows = plane.axes
        across = ({0, 1, 2} - {columns, rows}).pop()
        picture = np.take(hu, hu.shape[across] // 2, across).T[::-1, ::-1]
        low, top = DISPLAY_HU
        aspect = spacing_mm[rows] / spacing_mm[columns]
        panel.imshow(picture, "gray", vmin=low, vmax=top, aspect=aspect)
        left, up = plane.letters
        panel.set_title(f"{plane.name}, {low:g} to {top:g} HU, {left} left, {up} up", fontsize=9)
    for panel in axes.flat:
        panel.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    return stream.getvalue()


if __name__ == "__main__":
    raise SystemExit(entry(main))
