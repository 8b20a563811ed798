"""Where a CT lies in its X-rays: `jxrecon register --ct CT.nii.gz --xray FILE --out DIR`.

The X-rays' cameras are known but for one rigid motion between their world and the CT's. It is written
to pose.json, and copies of the X-rays with their cameras in the CT's world beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jxrecon.cli import command_parser, entry
from jxrecon.files import check_writable, write_file
from jxrecon.flags import add_hu_flags, add_xray_flags, stated_of, xrays_of
from jxrecon.types import InputError

if TYPE_CHECKING:
    from jxrecon.pose import Pose
    from jxrecon.registration import Registration
    from jxrecon.registration.cases import Case, Search


def parser() -> argparse.ArgumentParser:
    """The flags of `jxrecon register`."""
    parser = command_parser(
        "register",
        "Finds the rigid motion between a CT and one or more X-rays of known cameras, by ascent on "
        "gradient correlation from several starts.",
        "jxrecon register --ct ct.nii.gz --xray frontal.png lateral.png --out registered",
    )
    add = parser.add_argument
    add("--ct", type=Path, help="CT: NIfTI, MHA, MHD, NRRD, a folder of DICOM slices")
    add_hu_flags(add)
    add("--out", type=Path, required=True, help="folder for pose.json, X-rays and registration.png")
    demo = "instead of --xray: SYNTHETIC X-rays of the CT (the package's chest CT) in a hidden pose"
    add("--demo", action="store_true", help=demo)
    centre = (
        "begin with the CT's middle at the X-rays' isocentre (the CT's world is nearly the X-rays')"
    )
    add("--centre", action="store_true", help=centre)
    add("--starts", type=int, default=8, help="poses to begin with (%(default)s)")
    add("--range-deg", type=float, default=10.0, help="rotation of the starts (%(default)s)")
    add("--range-mm", type=float, default=20.0, help="shift of the starts (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the starts and the demo (%(default)s)")
    add("--steps", type=int, default=80, help="steps of each scale (%(default)s)")
    add("--pitch-mm", default="10,3.5", help="voxels of the scales, coarse to fine (%(default)s)")
    add_xray_flags(parser, required=False)
    return parser


def main(options: argparse.Namespace) -> int:
    """Runs the command."""
    from jxrecon.io import radiographs
    from jxrecon.registration import register, settings_of
    from jxrecon.registration.outcome import summary
    from jxrecon.terminal import Spinner

    search = _search(options)
    check_writable(options.out)
    case = _case(options, search)
    for xray in case.xrays:
        print(radiographs.table(xray))
    first = search.first(case)
    scales = [
        f"scale {n} of {len(search.pitch_mm)}: {pitch:g} mm"
        for n, pitch in enumerate(search.pitch_mm, 1)
    ]
    images, cameras = zip(*((xray.line_integrals, xray.camera) for xray in case.xrays))
    settings, starts = settings_of(search.pitch_mm, search.steps), search.poses(first)
    began = time.monotonic()
    with Spinner(scales[0]) as spinner:

        def progress(done: int, similarity: float) -> None:
            if done < len(scales):
                spinner.tell(scales[done])
            print(f"{scales[done - 1]}, similarity {similarity:.4f}", file=sys.stderr, flush=True)

        found = register(case.mu, case.grid.affine, images, cameras, starts, settings, progress)
    seconds = time.monotonic() - began
    _write(options, case, search, found, first)
    print(summary(case, search, found, seconds))
    print(options.out / "pose.json")
    return 0


def _search(options: argparse.Namespace) -> Search:
    """Where the search begins; refuses numbers that make no sense."""
    from jxrecon.io.xray_views import numbers
    from jxrecon.registration import MOST_STARTS
    from jxrecon.registration.cases import Search

    limits = {
        "starts": (1, MOST_STARTS),
        "steps": (1, 100_000),
        "range_deg": (0, 180),
        "range_mm": (0, 10_000),
        "seed": (0, 2**31 - 1),
    }
    for name, (low, high) in limits.items():
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if not low <= value <= high:
            raise InputError(f"{flag} {value:g}: expected {low} to {high}")
    pitches = numbers(options.pitch_mm, (1, 2, 3, 4, 5), "--pitch-mm")
    if min(pitches) <= 0 or list(pitches) != sorted(pitches, reverse=True):
        raise InputError(f"--pitch-mm {options.pitch_mm}: expected positive, coarse to fine")
    given = {name: getattr(options, name) for name in limits}
    return Search(**given, pitch_mm=pitches, centre=options.centre)


def _case(options: argparse.Namespace, search: Search) -> Case:
    """What is to be registered; refuses flags that make no sense together."""
    from jxrecon.data.sample import chest_ct_path
    from jxrecon.data.simulated import Scene
    from jxrecon.registration.cases import from_files, synthetic

    if options.demo and options.xray:
        raise InputError(f"--xray {options.xray[0]}: expected without --demo, which makes its own")
    if options.demo:
        scene = Scene(tuple(options.view or Scene().views))
        sad, sid = options.sad or [scene.source_axis_mm], options.sid or [scene.source_detector_mm]
        scene = scene._replace(source_axis_mm=sad[0], source_detector_mm=sid[0])
        return synthetic(options.ct or chest_ct_path(), scene, search, stated_of(options))
    if not (options.ct and options.xray):
        missing = "--xray" if options.ct else "--ct"
        raise InputError(f"{missing} is missing, expected --ct and --xray, or --demo")
    for path in options.xray:
        if options.out.resolve() == path.resolve().parent:
            raise InputError(
                f"--out {options.out}: is the folder of {path.name}, expected another one, as copies "
                "of the X-rays are written there"
            )
    return from_files(options.ct, xrays_of(options), stated_of(options))


def _write(
    options: argparse.Namespace, case: Case, search: Search, found: Registration, first: Pose
) -> None:
    """pose.json, the X-rays with their cameras in the CT's world, registration.png."""
    from jxrecon.io import radiographs
    from jxrecon.registration.outcome import facts_of, moved_xrays
    from jxrecon.report.registration import registration_png

    ct = str(options.ct or "chest CT of the package")
    source = "SYNTHETIC X-ray of the demo, registered" if options.demo else "registered X-ray"
    for name, xray in zip(case.files, moved_xrays(case, found)):
        radiographs.write(options.out / name, xray, source=source, registered_to=ct)
    facts = facts_of(case, search, found, ct)
    write_file(options.out / "pose.json", json.dumps(facts, indent=1) + "\n")
    write_file(options.out / "registration.png", registration_png(case, found, first))


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
