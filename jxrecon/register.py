"""Where a CT lies in its X-rays: `python -m jxrecon.register --ct CT.nii.gz --xray FILE --out DIR`.

The X-rays' cameras are known but for one rigid motion between their world and the CT's. It is written
to pose.json, and copies of the X-rays with their cameras in the CT's world beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from jxrecon.cli import entry
from jxrecon.compile import check_compiler, jit
from jxrecon.drr import line_integrals
from jxrecon.files import write_file
from jxrecon.geometry import AnyCamera
from jxrecon.io import images, radiographs
from jxrecon.pose import Pose, pose_error
from jxrecon.reconstruct import common_isocentre
from jxrecon.registration import (
    MOST_STARTS,
    Registration,
    cameras_at_rest,
    coarser_image,
    coarser_volume,
    random_poses,
    register,
    settings_of,
)
from jxrecon.registration.cases import Case, check_in_view, from_files, synthetic
from jxrecon.terminal import Spinner
from jxrecon.types import InputError

PICTURE_PIXELS = 256
"""X-rays are drawn with about so many rows or columns, the CT with voxels of about 2 mm."""

NEAR_DEG, NEAR_MM = 2.0, 5.0
"""A start that ended so near to the pose found has found the same."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.register",
        description="Finds the rigid motion between a CT and one or more X-rays of known cameras, by "
        "ascent on gradient correlation from several starts. Cameras come from a JSON sidecar beside "
        "each X-ray, or from --view, --sad, --sid and --pixel-mm, as for jxrecon.reconstruct.",
    )
    add = parser.add_argument
    add("--ct", type=Path, help="CT in HU, .nii or .nii.gz")
    add(
        "--xray",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="NIfTI, NPZ or PNG; all of one world",
    )
    add("--out", type=Path, required=True, help="folder for pose.json, X-rays and registration.png")
    add(
        "--demo",
        action="store_true",
        help="instead of --xray: synthetic X-rays of the CT (default: the chest CT that ships with "
        "the package) in a hidden pose, which is found again",
    )
    add(
        "--view",
        nargs="+",
        action="extend",
        help="frontal, lateral or ANGLE[,ELEVATION] in degrees, one for each X-ray",
    )
    add("--sad", type=float, help="source-axis distance, mm")
    add("--sid", type=float, help="source-detector distance, mm")
    add("--pixel-mm", help="pixel pitch on the detector, mm, ROW[,COLUMN]")
    add("--isocentre", help="X,Y,Z in mm of the X-rays' world that the views turn about")
    add("--intensity", choices=("log", "raw", "display"), help="what the pixels are")
    add("--i0", type=float, help="intensity of the unattenuated beam, for --intensity raw")
    add(
        "--centre",
        action="store_true",
        help="begin with the CT's middle at the X-rays' isocentre (default: the CT's world is the "
        "X-rays', nearly)",
    )
    add("--starts", type=int, default=8, help="poses to begin with (%(default)s)")
    add("--range-deg", type=float, default=10.0, help="rotation of the starts (%(default)s)")
    add("--range-mm", type=float, default=20.0, help="shift of the starts (%(default)s)")
    add("--seed", type=int, default=0, help="of the starts and the demo (%(default)s)")
    add("--steps", type=int, default=80, help="of each scale (%(default)s)")
    add("--pitch-mm", default="10,3.5", help="voxels of the scales, coarse to fine (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    options = _parser().parse_args(argv)
    pitches = _checked(options)
    case = synthetic(options) if options.demo else from_files(options)
    about = case.grid.centre_mm
    shift = np.zeros(3)
    if options.centre:
        shift = common_isocentre(case.xrays) - about
    first = Pose(jnp.zeros(3, jnp.float32), jnp.asarray(shift, jnp.float32))
    cameras = [xray.camera for xray in case.xrays]
    for xray, camera in zip(case.xrays, cameras_at_rest(cameras, first, about)):
        print(radiographs.table(xray))
        check_in_view(case.grid, camera, xray.origin)
    check_compiler()

    others = random_poses(
        jax.random.key(options.seed), options.starts - 1, options.range_deg, options.range_mm
    )
    starts = Pose(
        jnp.concatenate([first.rotation[None], others.rotation]),
        jnp.concatenate([jnp.zeros((1, 3)), others.translation_mm]) + first.translation_mm[None],
    )
    settings = settings_of(pitches, options.steps)
    pictures = [xray.line_integrals for xray in case.xrays]
    began = time.monotonic()
    with _Scales(pitches) as progress:
        found = register(case.mu, case.grid.affine, pictures, cameras, starts, settings, progress)
    seconds = time.monotonic() - began
    _write(options, case, found, first)
    _tell(options, case, found, seconds, pitches)
    return 0


def _checked(options: argparse.Namespace) -> tuple[float, ...]:
    """The scales' pitches; refuses flags that make no sense together."""
    if options.demo and options.xray:
        raise InputError(f"--xray {options.xray[0]}: expected without --demo, which makes its own")
    if not options.demo and not (options.ct and options.xray):
        missing = "--xray" if options.ct else "--ct"
        raise InputError(f"{missing} is missing, expected --ct and --xray, or --demo")
    counts = {"--starts": (options.starts, MOST_STARTS), "--steps": (options.steps, 100000)}
    for flag, (value, most) in counts.items():
        if not 1 <= value <= most:
            raise InputError(f"{flag} {value}: expected 1 to {most}")
    ranges = {"--range-deg": (options.range_deg, 180.0), "--range-mm": (options.range_mm, 1e4)}
    for flag, (reach, limit) in ranges.items():
        if not 0 <= reach <= limit:
            raise InputError(f"{flag} {reach:g}: expected 0 to {limit:g}")
    if not 0 <= options.seed < 2**31:
        raise InputError(f"--seed {options.seed}: expected 0 to {2**31 - 1}")
    pitches = radiographs.numbers(options.pitch_mm, (1, 2, 3, 4, 5), "--pitch-mm")
    if min(pitches) <= 0 or list(pitches) != sorted(pitches, reverse=True):
        raise InputError(f"--pitch-mm {options.pitch_mm}: expected positive, coarse to fine")
    return pitches


def _write(options: argparse.Namespace, case: Case, found: Registration, first: Pose) -> None:
    """pose.json, the X-rays with their cameras in the CT's world, registration.png."""
    about, cameras = found.about_mm, [xray.camera for xray in case.xrays]
    back = found.pose.inverse()
    source = "registered X-ray" if case.true is None else "SYNTHETIC X-ray of the demo, registered"
    for n, (xray, camera) in enumerate(
        zip(case.xrays, cameras_at_rest(cameras, found.pose, about))
    ):
        isocentre = xray.isocentre_mm
        if isocentre is not None:
            isocentre = np.asarray(back.points(jnp.asarray(isocentre), about), np.float64)
        ending = ".nii.gz" if options.demo else images.suffix(options.xray[n])
        path = options.out / f"{case.names[n]}{ending}"
        moved = xray._replace(camera=camera, isocentre_mm=isocentre)
        radiographs.write(path, moved, source=source, registered_to=str(options.ct or "chest CT"))
    write_file(
        options.out / "pose.json",
        (json.dumps(_facts(options, case, found), indent=1) + "\n").encode(),
    )
    write_file(options.out / "registration.png", _picture_bytes(case, found, first))


def _facts(options: argparse.Namespace, case: Case, found: Registration) -> dict[str, Any]:
    matrix = np.asarray(found.pose.matrix(), np.float64)
    translation = np.asarray(found.pose.translation_mm, np.float64)
    world = np.eye(4)
    world[:3, :3] = matrix
    world[:3, 3] = found.about_mm + translation - matrix @ found.about_mm
    facts: dict[str, Any] = {
        "meaning": "CT's world -> X-rays' world: x -> R (x - about) + about + t, mm, RAS",
        "rotation_vector_rad": np.asarray(found.pose.rotation, np.float64).tolist(),
        "rotation_matrix": matrix.tolist(),
        "translation_mm": translation.tolist(),
        "about_mm": found.about_mm.tolist(),
        "world": world.tolist(),
        "similarity": found.objective,
        "similarity_by_scale": [values.tolist() for _, values in found.starts],
        "starts_agreeing": _agreeing(found),
        "settings": {
            name: getattr(options, name)
            for name in ("starts", "range_deg", "range_mm", "seed", "steps", "pitch_mm", "centre")
        },
        "ct": str(options.ct or "chest CT of the package"),
        "xrays": [xray.origin for xray in case.xrays],
        "synthetic": case.true is not None,
    }
    if case.true is not None:
        error = pose_error(found.pose, case.true, found.about_mm)
        facts["demo"] = {
            "true_rotation_vector_rad": np.asarray(case.true.rotation, np.float64).tolist(),
            "true_translation_mm": np.asarray(case.true.translation_mm, np.float64).tolist(),
            "error_deg": float(error.rotation_deg),
            "error_mm": float(error.translation_mm),
        }
    return facts


def _agreeing(found: Registration) -> int:
    """How many starts ended the first scale near to the pose found."""
    poses, values = found.starts[0]
    errors = [
        pose_error(jax.tree.map(lambda x: x[n], poses), found.pose, found.about_mm)  # noqa: B023
        for n in range(len(values))
    ]
    return sum(bool(e.rotation_deg < NEAR_DEG and e.translation_mm < NEAR_MM) for e in errors)


def _tell(
    options: argparse.Namespace,
    case: Case,
    found: Registration,
    seconds: float,
    pitches: tuple[float, ...],
) -> None:
    """Prints what was found."""
    angle = float(np.rad2deg(np.linalg.norm(found.pose.rotation)))
    turns = ", ".join(f"{x:.2f}" for x in np.rad2deg(np.asarray(found.pose.rotation)))
    shifts = ", ".join(f"{x:.2f}" for x in np.asarray(found.pose.translation_mm))
    middle = ", ".join(f"{x:.1f}" for x in found.about_mm)
    print(f"the CT turns by {angle:.2f} degrees about its middle ({middle}) mm and shifts")
    lines = [
        ("rotation vector", f"({turns}) degrees"),
        ("translation", f"({shifts}) mm"),
        ("similarity", f"{found.trace[0]:.4f} at its start, {found.objective:.4f} now (at most 1)"),
        ("starts that agree", f"{_agreeing(found)} of {options.starts} within {NEAR_DEG:g} degrees, "
         f"{NEAR_MM:g} mm after the scale of {pitches[0]:g} mm"),
        ("time", f"{seconds:.1f} s with compilation"),
    ]  # fmt: skip
    if case.true is not None:
        error = pose_error(found.pose, case.true, found.about_mm)
        still = pose_error(Pose(jnp.zeros(3), jnp.zeros(3)), case.true, found.about_mm)
        lines += [
            (
                "hidden pose",
                f"{still.rotation_deg:.2f} degrees, {still.translation_mm:.2f} mm away",
            ),
            (
                "error",
                f"{error.rotation_deg:.3f} degrees, {error.translation_mm:.3f} mm (SYNTHETIC)",
            ),
        ]
    for name, text in lines:
        print(f"  {name:<20}{text}")
    if len(case.xrays) == 1:
        print("one X-ray: the shift along its rays is the least certain number")
    print(options.out / "pose.json")


def _picture_bytes(case: Case, found: Registration, first: Pose) -> bytes:
    """A PNG: of each view the X-ray, the projection found, and both in colour before and after."""
    mu, affine = coarser_volume(case.mu, case.grid.affine, 2.0)
    figure = Figure(figsize=(12, 3.2 * len(case.xrays)), layout="constrained")
    axes = figure.subplots(len(case.xrays), 4, squeeze=False)
    if case.true is not None:
        figure.suptitle("SYNTHETIC X-rays")

    @jit
    def project(camera: AnyCamera) -> Array:  # traced, so that both poses are one program
        return line_integrals(mu, affine, camera, "joseph")

    titles = ("X-ray", "projection, registered", "before", "after: X-ray green, projection magenta")
    for row, xray in zip(axes, case.xrays):
        block = max(1, min(xray.camera.shape) // PICTURE_PIXELS)
        image, camera = coarser_image(xray.line_integrals, xray.camera, (block, block))
        before, after = (
            _toned(np.asarray(project(*cameras_at_rest([camera], pose, found.about_mm))), image)
            for pose in (first, found.pose)
        )
        low, high = np.percentile(image, [0.5, 99.5])
        image, before, after = (
            ((x - low) / max(high - low, 1e-6)).clip(0, 1) for x in (image, before, after)
        )
        overlays = (np.stack([drr, image, drr], -1) for drr in (before, after))
        pixel_mm = [float(np.linalg.norm(step)) for step in (camera.v, camera.u)]
        for panel, picture, title in zip(row, (image, after, *overlays), titles):
            panel.imshow(picture, "gray", vmin=0, vmax=1, aspect=pixel_mm[0] / pixel_mm[1])
            panel.set_title(title, fontsize=9)
            panel.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    return stream.getvalue()


def _toned(projection: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The projection in the X-ray's brightness: a straight line through both images' spread."""
    spread = max(float(projection.std()), 1e-6)
    return (projection - projection.mean()) * (float(image.std()) / spread) + image.mean()


class _Scales(Spinner):
    """The scale being climbed, and a line after each."""

    def __init__(self, pitches_mm: tuple[float, ...]) -> None:
        self._pitches = pitches_mm
        super().__init__(self._text(0))

    def _text(self, number: int) -> str:
        return f"scale {number + 1} of {len(self._pitches)}: {self._pitches[number]:g} mm"

    def __call__(self, number: int, similarity: float) -> None:
        if number < len(self._pitches):
            self.tell(self._text(number))
        print(f"{self._text(number - 1)}, similarity {similarity:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(entry(main))
