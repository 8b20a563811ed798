"""What a simulated machine makes of X-rays: spectrum, scatter, blur; then noise and the tone curve.

through -> `developed` (no noise) -> `recorded` (noise of a dose, gamma): the X-ray as it is stored
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.drr import beam
from jxrecon.drr.exposure import RANGES, Exposure
from jxrecon.experiment import Machine
from jxrecon.geometry import AnyCamera
from jxrecon.types import InputError, Key

FULL = 8.0
"""The line integral that a tone curve leaves as it is, beside 0: 417 mm of water."""

IDEAL = Machine()

Photons = Float[Array, ""] | float


def exposure_of(machine: Machine) -> Exposure:
    """Its spectrum, scatter and blur."""
    return Exposure(
        kvp=machine.kvp or None,
        filter_mm=machine.filter_mm,
        scatter=machine.scatter or None,
        scatter_mm=machine.scatter_mm,
        blur_mm=machine.blur_mm or None,
    )


def check(machine: Machine) -> None:
    """Raises InputError for a number out of its range."""
    for name in ("kvp", "filter_mm", "scatter", "scatter_mm", "blur_mm"):
        value, (low, high, unit) = getattr(machine, name), RANGES[name]
        if not low <= value <= high and not (value == 0.0 and name == "kvp"):
            raise InputError(
                f"xrays.machine.{name} is {value:g}, expected {low:g} to {high:g} {unit}"
            )
    if not 0.1 <= machine.gamma <= 10.0:
        raise InputError(f"xrays.machine.gamma is {machine.gamma:g}, expected 0.1 to 10")


def developed(
    through: Float[Array, "part rows columns"], camera: AnyCamera, machine: Machine
) -> Float[Array, "rows columns"]:
    """Line integrals of the parts of `Exposure.volumes` -> those of the machine, without noise.

    Args:
        through: through attenuation, or with a spectrum through water and bone.
        camera: may be traced; scatter and blur are as wide as its pixels say.
        machine: the machine.
    """
    if machine.kvp == machine.scatter == machine.blur_mm == 0.0:
        return through[0]
    pitch = jnp.linalg.norm(jnp.asarray(camera.v)), jnp.linalg.norm(jnp.asarray(camera.u))
    return exposure_of(machine).expose(through, None, pitch)


def recorded(
    image: Float[Array, "rows columns"],
    machine: Machine,
    photons: Photons | None = None,
    key: Key | None = None,
) -> Float[Array, "rows columns"]:
    """As it is stored: with the noise of so many photons a pixel (None: none), by the tone curve."""
    if photons is not None:
        assert key is not None
        image = noisy(image, photons, key)
    return toned(image, machine.gamma)


def toned(image: Float[Array, "rows columns"], gamma: float) -> Float[Array, "rows columns"]:
    """By the tone curve of `Machine.gamma`; as it is for a gamma of 1."""
    return image if gamma == 1.0 else FULL * (jnp.maximum(image, 0.0) / FULL) ** gamma


def noisy(
    image: Float[Array, "rows columns"], photons: Photons, key: Key
) -> Float[Array, "rows columns"]:
    """Line integrals of a Poisson exposure; a pixel without any photon reads as half a one."""
    counts = beam.poisson_noise(key, beam.transmission(image), photons)
    return -jnp.log(jnp.maximum(counts, 0.5 / photons))
