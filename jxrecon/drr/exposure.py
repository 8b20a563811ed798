"""Flags of a simulated exposure: tube, scatter, blur and noise of `python -m jxrecon.drr`."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr import beam
from jxrecon.types import InputError, Key

SATURATION = 1.1
"""What a noisy or scattering exposure saturates at, relative to the unattenuated beam: tau >= -0.0953."""

_RANGES = {
    "kvp": (beam.LEAST_KVP, beam.MOST_KVP, "kV"),
    "filter_mm": (0.0, 50.0, "mm of aluminium"),
    "dose": (1.0, 1e8, "photons per pixel"),
    "electronic": (0.0, 1e6, "photons"),
    "scatter": (0.0, 20.0, "as ratio of scatter to primary"),
    "scatter_mm": (0.1, 1000.0, "mm"),
    "blur_mm": (0.0, 100.0, "mm"),
    "seed": (0, 2**31 - 1, "as whole number"),
}

_NEEDS = {"filter_mm": "kvp", "electronic": "dose", "scatter_mm": "scatter"}


class Exposure(NamedTuple):
    """How X-rays are simulated.

    Attributes:
        settings: the imaging chain without the detector's pitch.
        attenuation: "linear" or "bilinear"; a spectrum splits HU into water and bone instead.
        seed: of the noise.
        simulated: what is simulated, under the names of the sidecar.
    """

    settings: beam.Settings
    attenuation: str
    seed: int
    simulated: dict[str, Any]

    def volumes(self, hu: Float[np.ndarray, "x y z"]) -> Float[Array, "part x y z"]:
        """What to project: mu in 1/mm, or the parts of water and bone."""
        if self.settings.spectrum is not None:
            return beam.split(hu)
        convert = beam.hu_to_mu_bilinear if self.attenuation == "bilinear" else beam.hu_to_mu
        return convert(hu)[None]

    def expose(
        self, through: Float[Array, "part rows columns"], key: Key, pixel_mm: tuple[float, float]
    ) -> Float[Array, "rows columns"]:
        """Line integrals of `volumes` -> line integrals of the exposure."""
        settings = self.settings._replace(pixel_mm=pixel_mm)
        return beam.radiograph(through if settings.spectrum else through[0], key, settings)

    def key(self, view: int) -> Key:
        """The noise of one view."""
        return jax.random.fold_in(jax.random.key(self.seed), view)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `exposure_of` reads."""
    group = parser.add_argument_group(
        "exposure", "what the X-rays show beside ideal line integrals (default: nothing)"
    )
    add = group.add_argument
    add(
        "--attenuation",
        choices=("linear", "bilinear"),
        help="HU to 1/mm at one energy: linear is the definition of HU (default), bilinear has "
        "bone of its own",
    )
    add("--kvp", type=float, help="tube voltage, kV: a spectrum, so that the beam hardens")
    add("--filter-mm", type=float, help="aluminium before the tube, mm (2.5; with --kvp)")
    add("--scatter", type=float, help="scatter-to-primary ratio behind the body")
    add("--scatter-mm", type=float, help="its width, standard deviation, mm (50; with --scatter)")
    add("--blur-mm", type=float, help="blur on the detector, standard deviation, mm")
    add("--dose", type=float, help="photons per pixel of the unattenuated beam: Poisson noise")
    add("--electronic", type=float, help="read-out noise, photons (0; with --dose)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")


def exposure_of(options: argparse.Namespace) -> Exposure:
    """The exposure that the flags of `add_flags` describe.

    Raises:
        InputError: a number is out of range, or a flag lacks or contradicts another.
    """
    given = {name: getattr(options, name) for name in _RANGES}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        low, high, unit = _RANGES[name]
        if not low <= value <= high:
            raise InputError(f"{_flag(name)} {value:g}: expected {low:g} to {high:g} {unit}")
        if (needed := _NEEDS.get(name, name)) not in given:
            raise InputError(f"{_flag(name)} {value:g}: expected {_flag(needed)} with it")
    if options.attenuation and "kvp" in given:
        raise InputError(
            f"--attenuation {options.attenuation}: expected without --kvp, whose spectrum sees HU as "
            "water and bone"
        )
    settings, simulated = beam.Settings(), {"attenuation": options.attenuation or "linear"}
    if "kvp" in given:
        aluminium = given.get("filter_mm", 2.5)
        spectrum = beam.energy_integrating(beam.kramers(given["kvp"], aluminium))
        settings = settings._replace(spectrum=spectrum)
        simulated = {
            "attenuation": "water and cortical bone, NIST",
            "kvp": given["kvp"],
            "filter_mm_aluminium": aluminium,
            "spectrum": "Kramers, energy-integrating",
        }
    if "scatter" in given:
        ratio, width = given["scatter"], given.get("scatter_mm", settings.scatter_mm)
        settings = settings._replace(scatter_ratio=ratio, scatter_mm=width)
        simulated |= {"scatter_to_primary": ratio, "scatter_mm": width}
    if "blur_mm" in given:
        settings = settings._replace(blur_mm=given["blur_mm"])
        simulated["blur_mm"] = given["blur_mm"]
    if "dose" in given:
        dose, electronic = given["dose"], given.get("electronic", 0.0)
        # A pixel without any photon reads as half a one.
        floor = max(beam.LEAST_TRANSMISSION, 0.5 / dose)
        settings = settings._replace(dose=dose, electronic=electronic, floor=floor)
        simulated |= {"dose_photons": dose, "electronic_photons": electronic, "seed": options.seed}
    if {"dose", "scatter"} & set(given):
        settings = settings._replace(response=beam.Response(saturation=SATURATION))
        simulated["saturation"] = SATURATION
    return Exposure(settings, simulated["attenuation"], options.seed, simulated)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
