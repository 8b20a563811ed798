"""Flags that commands share: X-rays with their cameras, and what a simulated exposure shows.

What the flags mean is read here too; libraries are imported there, so that help comes at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jxrecon.types import InputError

if TYPE_CHECKING:
    from jxrecon.drr.exposure import Exposure
    from jxrecon.io.meshes import Unsaid
    from jxrecon.io.radiographs import Given
    from jxrecon.units import Stated


def add_xray_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds the flags that `xrays_of` reads; several X-rays by one flag or by its repetition."""
    text = "cameras come from a JSON sidecar beside each X-ray, or from these flags"
    add = parser.add_argument_group("X-rays", text).add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    add(
        "--xray",
        type=Path,
        metavar="FILE",
        required=required,
        help="DICOM, NIfTI, NPZ, NPY, PNG or TIFF",
        **several,
    )
    views = "frontal, lateral, ap, pa, ll, rl (as a clinic displays them) or ANGLE[,ELEVATION]"
    add("--view", help=f"{views}, one an X-ray", **several)
    each = "one for all X-rays, or one for each"
    add("--sad", type=float, help=f"source-axis distance, mm; {each}", **several)
    add("--sid", type=float, help=f"source-detector distance, mm; {each}", **several)
    add("--pixel-mm", help=f"pixel pitch on the detector, mm, ROW[,COLUMN]; {each}", **several)
    lies = "where rows and columns run to, such as L,F for left and feet; one for each"
    add("--patient-orientation", metavar="ROW,COLUMN", help=lies, **several)
    add("--frame", type=int, help=f"of a DICOM file with several, from 1; {each}", **several)
    add("--isocentre", help="X,Y,Z in mm of the X-rays' world that the views turn about")
    add("--intensity", choices=("log", "raw", "display"), help="what the pixels are")
    i0 = "intensity of the unattenuated beam, for --intensity raw"
    add("--i0", type=float, help=f"{i0}; {each}", **several)
    levels = "of whole numbers: value x scale + offset = line integral (raw: intensity)"
    add("--scale", type=float, help=levels)
    add("--offset", type=float, help="see --scale")
    add("--inverted", action="store_true", default=None, help="bright is dark, as in MONOCHROME1")


def xrays_of(options: argparse.Namespace) -> list[tuple[Path, Given]]:
    """Every X-ray with what the flags say about it.

    Raises:
        InputError: there are more or fewer views than X-rays, or a flag's numbers are none.
    """
    from jxrecon.io.radiographs import Given

    count = len(options.xray)
    pitches = [_pitch(text) for text in options.pixel_mm or ()]
    orientations = [tuple(text.split(",")) for text in options.patient_orientation or ()]
    each = {
        "--view": ("view", options.view),
        "--sad": ("source_axis_mm", options.sad),
        "--sid": ("source_detector_mm", options.sid),
        "--pixel-mm": ("pixel_mm", pitches),
        "--patient-orientation": ("patient_orientation", orientations),
        "--frame": ("frame", options.frame),
        "--i0": ("i0", options.i0),
    }
    said: list[dict[str, Any]] = [{} for _ in options.xray]
    for flag, (name, values) in each.items():
        alone = flag not in ("--view", "--patient-orientation") and len(values or ()) == 1
        if values and not alone and len(values) != count:
            raise InputError(
                f"{len(values)} {flag} for {count} --xray: expected one for each, or none"
            )
        for one, value in zip(said, [*values] * count if alone else values or ()):
            one[name] = value
    if options.isocentre is not None:
        said = [{**one, "isocentre_mm": _isocentre(options.isocentre)} for one in said]
    names = ("intensity", "inverted", "scale", "offset")
    shared = {name: getattr(options, name) for name in names}
    return [(path, Given(**one, **shared)) for path, one in zip(options.xray, said)]


def _pitch(text: str) -> tuple[float, float]:
    from jxrecon.io.xray_views import numbers

    pitch = numbers(text, (1, 2), "--pixel-mm")
    return pitch[0], pitch[-1]


def _isocentre(text: str) -> tuple[float, float, float]:
    from jxrecon.io.xray_views import numbers

    x, y, z = numbers(text, (3,), "--isocentre")
    return x, y, z


def scene_of(options: argparse.Namespace) -> dict[str, Any]:
    """What --sad, --sid, --pixel-mm and --isocentre say, by the names of `Given` and `Scene`.

    Raises:
        InputError: a flag's numbers are none.
    """
    said = {"source_axis_mm": options.sad, "source_detector_mm": options.sid}
    said = {name: value for name, value in said.items() if value is not None}
    if options.pixel_mm is not None:
        said["pixel_mm"] = _pitch(options.pixel_mm)
    if options.isocentre is not None:
        said["isocentre_mm"] = _isocentre(options.isocentre)
    return said


def add_hu_flags(add: Any) -> None:
    """Adds the flags that `stated_of` reads, by a parser's or a group's `add_argument`."""
    text = "of a CT that does not hold HU: HU = number x scale + offset"
    add("--hu-offset", type=float, metavar="N", help=f"{text}, as -1024 (0: it does hold HU)")
    add("--hu-scale", type=float, metavar="N", help=f"{text} (1)")


def stated_of(options: argparse.Namespace) -> Stated:
    """What the user says about the numbers of a CT.

    Raises:
        InputError: a flag is no number, or the scale is not positive.
    """
    from jxrecon.units import Stated

    return Stated(options.hu_scale, options.hu_offset)


def add_mesh_flags(add: Any) -> None:
    """Adds the flags that `unsaid_of` reads, by a parser's or a group's `add_argument`."""
    units = ("mm", "cm", "m", "um", "inch")
    add("--units", choices=units, default="mm", help="of meshes whose files tell none")
    add("--lps", action="store_true", help="meshes whose files tell no frame are in LPS, not RAS")


def unsaid_of(options: argparse.Namespace) -> Unsaid:
    """What is taken of a mesh that does not say it itself."""
    from jxrecon.io.meshes import Unsaid

    return Unsaid(options.lps, options.units)


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --trust: a run folder by itself names experiments of the package alone."""
    text = "Python file of an experiment of one's own that a run may execute, where it names one; repeats"
    parser.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="FILE", help=text
    )


def add_machine_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds --machine, a name of `experiment.MACHINES`."""
    told = f"simulated machine that {text}: ideal or room (spectrum, scatter, blur, gamma)"
    parser.add_argument("--machine", metavar="NAME", help=told)


def add_exposure_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `exposure_of` reads."""
    text = "what the X-rays show beside ideal line integrals (default: nothing)"
    add = parser.add_argument_group("exposure", text).add_argument
    attenuation = "HU to 1/mm at one energy: bilinear has bone of its own (default: linear)"
    add("--attenuation", choices=("linear", "bilinear"), help=attenuation)
    add("--kvp", type=float, help="tube voltage, kV: a spectrum, so that the beam hardens")
    add("--filter-mm", type=float, help="aluminium before the tube, mm (2.5; with --kvp)")
    add("--scatter", type=float, help="scatter-to-primary ratio behind the body")
    add("--scatter-mm", type=float, help="its width, standard deviation, mm (50; with --scatter)")
    add("--blur-mm", type=float, help="blur on the detector, standard deviation, mm")
    add("--dose", type=float, help="photons per pixel of the unattenuated beam: Poisson noise")
    add("--electronic", type=float, help="read-out noise, photons (0; with --dose)")
    add("--seed", type=int, default=0, help="seed of the noise (%(default)s)")


def exposure_of(options: argparse.Namespace) -> Exposure:
    """The exposure that the flags of `add_exposure_flags` describe.

    Raises:
        InputError: a number is out of range, or a flag lacks or contradicts another.
    """
    from jxrecon.drr.exposure import NEEDS, RANGES, Exposure

    said = vars(options)
    given = {name: said[name] for name in ("attenuation", *RANGES) if said[name] is not None}
    for name, (low, high, unit) in RANGES.items():
        if name not in given:
            continue
        value, flag, needed = given[name], _flag(name), NEEDS.get(name, name)
        if not low <= value <= high:
            raise InputError(f"{flag} {value:g}: expected {low:g} to {high:g} {unit}")
        if needed not in given:
            raise InputError(f"{flag} {value:g}: expected {_flag(needed)} with it")
    if {"attenuation", "kvp"} <= set(given):
        raise InputError(
            f"--attenuation {options.attenuation}: expected without --kvp, whose spectrum sees HU as "
            "water and bone"
        )
    return Exposure(**given)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
