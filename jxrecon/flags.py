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
    from jxrecon.io.radiographs import Given
    from jxrecon.units import Stated


def add_xray_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds the flags that `xrays_of` reads; several X-rays by one flag or by its repetition."""
    text = "cameras come from a JSON sidecar beside each X-ray, or from these flags"
    add = parser.add_argument_group("X-rays", text).add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    add("--xray", type=Path, metavar="FILE", required=required, help="NIfTI, NPZ or PNG", **several)
    add("--view", help="frontal, lateral or ANGLE[,ELEVATION] in degrees, one an X-ray", **several)
    add("--sad", type=float, help="source-axis distance, mm")
    add("--sid", type=float, help="source-detector distance, mm")
    add("--pixel-mm", help="pixel pitch on the detector, mm, ROW[,COLUMN]")
    add("--isocentre", help="X,Y,Z in mm of the X-rays' world that the views turn about")
    add("--intensity", choices=("log", "raw", "display"), help="what the pixels are")
    add("--i0", type=float, help="intensity of the unattenuated beam, for --intensity raw")
    add("--inverted", action="store_true", default=None, help="bright is dark, as in MONOCHROME1")


def xrays_of(options: argparse.Namespace) -> list[tuple[Path, Given]]:
    """Every X-ray with what the flags say about it.

    Raises:
        InputError: there are more or fewer views than X-rays, or a flag's numbers are none.
    """
    from jxrecon.io.radiographs import Given

    views = options.view or [None] * len(options.xray)
    if len(views) != len(options.xray):
        raise InputError(
            f"{len(views)} --view for {len(options.xray)} --xray: expected one for each, or none"
        )
    said = {"intensity": options.intensity, "i0": options.i0, **scene_of(options)}
    said["inverted"] = options.inverted
    return [(path, Given(view, **said)) for path, view in zip(options.xray, views)]


def scene_of(options: argparse.Namespace) -> dict[str, Any]:
    """What --sad, --sid, --pixel-mm and --isocentre say, by the names of `Given` and `Scene`.

    Raises:
        InputError: a flag's numbers are none.
    """
    from jxrecon.io.radiographs import numbers

    said = {"source_axis_mm": options.sad, "source_detector_mm": options.sid}
    said = {name: value for name, value in said.items() if value is not None}
    if options.pixel_mm is not None:
        pitch = numbers(options.pixel_mm, (1, 2), "--pixel-mm")
        said["pixel_mm"] = pitch[0], pitch[-1]
    if options.isocentre is not None:
        said["isocentre_mm"] = numbers(options.isocentre, (3,), "--isocentre")
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
