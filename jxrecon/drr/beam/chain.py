"""The imaging chain: line integrals as a real exposure would show them, stage after stage.

| stage | on with | does |
|---|---|---|
| spectrum | `spectrum` | photons of many energies through water and bone: beam hardening |
| scatter | `scatter_ratio` | adds what matter scatters onto the detector |
| blur | `blur_mm` | Gaussian MTF of focal spot and detector |
| noise | `dose` | photon statistics and read-out |
| response | `response` | gain, dark reading, saturation, and their correction |
| log | any of them | -log of the signal, from `floor` on |

Off means None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from jxrecon.drr.beam.attenuation import LEAST_TRANSMISSION, line_integrals_of, transmission
from jxrecon.drr.beam.detector import Response, Scalar, blurred, poisson_noise, scattered
from jxrecon.drr.beam.spectrum import Spectrum, polychromatic_transmission
from jxrecon.types import InputError, Key


class Settings(NamedTuple):
    """An exposure; None turns a stage off. Close over it: its numbers may be traced, itself not.

    Attributes:
        spectrum: photon energies as the detector weighs them.
        scatter_ratio: scatter-to-primary ratio behind the body.
        scatter_mm: standard deviation of the scatter kernel on the detector, mm; ours, by choice.
        blur_mm: standard deviation of the blur on the detector, mm.
        pixel_mm: pixel pitch (between rows, between columns), mm; scatter and blur need it.
        dose: photons per pixel of the unattenuated beam.
        electronic: standard deviation of the read-out, in photons.
        noise: `poisson_noise`, or `gaussian_noise` where gradients are needed.
        response: gain, dark reading and saturation.
        floor: least signal that the logarithm sees.
    """

    spectrum: Spectrum | None = None
    scatter_ratio: Scalar | None = None
    scatter_mm: Scalar = 50.0
    blur_mm: Scalar | None = None
    pixel_mm: tuple[Scalar, Scalar] | None = None
    dose: Scalar | None = None
    electronic: Scalar = 0.0
    noise: Callable[..., Float[Array, "rows columns"]] = poisson_noise
    response: Response | None = None
    floor: float = LEAST_TRANSMISSION


def radiograph(
    through: Float[Array, "rows columns"] | Float[Array, "material rows columns"],
    key: Key | None,
    settings: Settings,
) -> Float[Array, "rows columns"]:
    """Line integrals -log(I / I0) of an exposure. Pure; jit, vmap and grad as usual.

    Args:
        through: line integrals tau of mu, or with a spectrum those of `split`: mm of each material.
        key: for the noise; None will do without.
        settings: which stages are on. With none `through` comes back as it is.

    Raises:
        InputError: `through` does not fit the spectrum, scatter or blur lack `pixel_mm`, noise lacks
            a key.
    """
    spectrum = settings.spectrum
    axes = 3 if spectrum else 2
    if through.ndim != axes:
        expected = "[rows, columns]" if axes == 2 else "[material, rows, columns] for a spectrum"
        raise InputError(f"line integrals have shape {through.shape}, expected {expected}")
    stages = (settings.scatter_ratio, settings.blur_mm, settings.dose, settings.response)
    if spectrum is None and all(stage is None for stage in stages):
        return through
    signal = polychromatic_transmission(through, spectrum) if spectrum else transmission(through)
    if settings.scatter_ratio is not None:
        pitch = _pitch(settings)
        signal = signal + scattered(signal, settings.scatter_ratio, settings.scatter_mm, pitch)
    if settings.blur_mm is not None:
        signal = blurred(signal, settings.blur_mm, _pitch(settings))
    if settings.dose is not None:
        if key is None:
            raise InputError("noise without a key, expected a JAX random key")
        signal = settings.noise(key, signal, settings.dose, settings.electronic)
    if settings.response is not None:
        signal = settings.response.corrected(settings.response.reading(signal))
    return line_integrals_of(signal, settings.floor)


def _pitch(settings: Settings) -> tuple[Scalar, Scalar]:
    if settings.pixel_mm is None:
        raise InputError("scatter or blur without pixel_mm, expected the detector's pitch in mm")
    return settings.pixel_mm
