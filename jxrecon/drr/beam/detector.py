"""From the photons that pass to what a detector reads: scatter, blur, quantum noise, response.

Signals are relative to the unattenuated beam, as transmission is: 1 where nothing absorbs.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.beam.attenuation import LEAST_TRANSMISSION, Scalar
from jxrecon.types import Key

Image: TypeAlias = Float[Array, "rows columns"]


def blurred(image: Image, sigma_mm: Scalar, pixel_mm: tuple[Scalar, Scalar]) -> Image:
    """Convolution with a Gaussian of standard deviation sigma_mm, mirrored at the detector's edges.

    The discrete Gaussian of T. Lindeberg, IEEE PAMI 12:234, 1990: heat flow on the pixel grid, in
    the cosine basis a product with

        MTF(f) = exp(-s^2 (1 - cos(2 pi f p))),    s = sigma / p, pixel pitch p

    which is exp(-2 pi^2 sigma^2 f^2) for blur wider than a pixel. No weight is negative, the sum of
    the image is kept, the variance is sigma^2 for every sigma >= 0, and sigma has a gradient.
    Rounding leaves about 1e-6 of the brightest pixel everywhere.

    Args:
        image: any signal.
        sigma_mm: standard deviation on the detector, mm (full width at half maximum / 2.355).
        pixel_mm: pixel pitch (between rows, between columns), mm.
    """
    mm = jnp.asarray(sigma_mm, jnp.float32)
    rows, columns = (_flow(n, mm / pitch) for n, pitch in zip(image.shape, pixel_mm))
    along_rows = jnp.matmul(rows.astype(image.dtype), image, precision="highest")
    return jnp.matmul(along_rows, columns.astype(image.dtype).T, precision="highest")


def _flow(n: int, sigma: Float[Array, ""]) -> Float[Array, "n n"]:
    """The matrix of `blurred` along one axis of n pixels, sigma in pixels: doubly stochastic."""
    frequency = np.pi * np.arange(n) / n
    cosines = np.cos(frequency[:, None] * (np.arange(n)[None] + 0.5)) * np.sqrt(2.0 / n)
    cosines[0] = np.sqrt(1.0 / n)
    basis = jnp.asarray(cosines, jnp.float32)
    gain = jnp.exp(-(sigma**2) * jnp.asarray(1.0 - np.cos(frequency), jnp.float32))
    return jnp.matmul(basis.T, gain[:, None] * basis, precision="highest")


def scattered(
    transmission: Image, ratio: Scalar, sigma_mm: Scalar, pixel_mm: tuple[Scalar, Scalar]
) -> Image:
    """Scatter, to be added to the primary: a broad Gaussian over the primary that passed matter.

        S = ratio G * (T (1 - T))

    T (1 - T) is nothing in air and T behind what absorbs nearly all: behind a wide thick body the
    scatter-to-primary ratio is `ratio` (behind a slab `ratio` (1 - T)). A model of one parameter, not
    a transport calculation: the kernel depends neither on thickness nor on the gap to the detector.

    Args:
        transmission: the primary.
        ratio: scatter-to-primary ratio behind the body; a chest without a grid has 1 to 5.
        sigma_mm, pixel_mm: as `blurred`.
    """
    return ratio * blurred(transmission * (1.0 - transmission), sigma_mm, pixel_mm)


def poisson_noise(
    key: Key, signal: Float[Array, "*pixels"], dose: Scalar, electronic: Scalar = 0.0
) -> Float[Array, "*pixels"]:
    """Photons counted: Poisson(dose signal) / dose, plus electronic noise. Not differentiable.

    Args:
        key: consumed.
        signal: expected, relative to the unattenuated beam; below 0 counts as 0.
        dose: photons per pixel of the unattenuated beam, below 1e8. An energy-integrating detector
            counts as many equal quanta; the spread of their energies is left out.
        electronic: standard deviation of the read-out, in photons.
    """
    counting, reading = jax.random.split(key)
    counts = jax.random.poisson(counting, jnp.maximum(signal, 0.0) * dose).astype(signal.dtype)
    return (counts + electronic * jax.random.normal(reading, signal.shape, signal.dtype)) / dose


def gaussian_noise(
    key: Key, signal: Float[Array, "*pixels"], dose: Scalar, electronic: Scalar = 0.0
) -> Float[Array, "*pixels"]:
    """The same mean and variance with a gradient: signal + sqrt(signal dose + electronic^2) / dose n.

    n is standard normal and given by the key alone, so that signal, dose and electronic can be
    differentiated. Near the Poisson distribution from about 20 photons on. Arguments as
    `poisson_noise`.
    """
    seen = jnp.maximum(signal, LEAST_TRANSMISSION)  # the root's slope stays finite
    spread = jnp.sqrt(seen * dose + jnp.square(electronic)) / dose
    return signal + spread * jax.random.normal(key, signal.shape, signal.dtype)


class Response(NamedTuple):
    """How a detector turns signal into its reading, in units of its own.

    Attributes:
        gain: reading of the unattenuated beam above the dark reading.
        offset: dark reading.
        saturation: greatest reading.
    """

    gain: Scalar = 1.0
    offset: Scalar = 0.0
    saturation: Scalar = float("inf")

    def reading(self, signal: Float[Array, "*pixels"]) -> Float[Array, "*pixels"]:
        """min(gain signal + offset, saturation)."""
        return jnp.minimum(self.gain * signal + self.offset, self.saturation)

    def corrected(self, reading: Float[Array, "*pixels"]) -> Float[Array, "*pixels"]:
        """Dark and flat field correction: (reading - offset) / gain, the signal if none saturated."""
        return (reading - self.offset) / self.gain
