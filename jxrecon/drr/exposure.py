"""A simulated exposure: tube, scatter, blur and noise, and what they make of a CT's line integrals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jxrecon.drr import beam
from jxrecon.drr.beam.attenuation import Scalar
from jxrecon.drr.projection import line_integrals
from jxrecon.geometry import AnyCamera
from jxrecon.types import AnyArray, Key

SATURATION = 1.1
"""What a noisy or scattering exposure saturates at, relative to the unattenuated beam: tau >= -0.0953."""

RANGES = {
    "kvp": (beam.LEAST_KVP, beam.MOST_KVP, "kV"),
    "filter_mm": (0.0, 50.0, "mm of aluminium"),
    "dose": (1.0, 1e8, "photons per pixel"),
    "electronic": (0.0, 1e6, "photons"),
    "scatter": (0.0, 20.0, "as ratio of scatter to primary"),
    "scatter_mm": (0.1, 1000.0, "mm"),
    "blur_mm": (0.0, 100.0, "mm"),
    "seed": (0, 2**31 - 1, "as whole number"),
}
"""The least and the largest value of each number of an exposure, and its unit."""

NEEDS = {"filter_mm": "kvp", "electronic": "dose", "scatter_mm": "scatter"}
"""Numbers that mean nothing without another one."""


class Exposure(NamedTuple):
    """What an X-ray shows beside ideal line integrals; None turns a part off.

    Attributes:
        attenuation: "linear" or "bilinear"; a spectrum splits HU into water and bone instead.
        kvp: tube voltage, kV.
        filter_mm: aluminium before the tube.
        scatter: scatter-to-primary ratio behind the body.
        seed: seed of the noise.
        others: as in `beam.Settings`.
    """

    attenuation: str = "linear"
    kvp: float | None = None
    filter_mm: float = 2.5
    scatter: float | None = None
    scatter_mm: float = 50.0
    blur_mm: float | None = None
    dose: float | None = None
    electronic: float = 0.0
    seed: int = 0

    @property
    def settings(self) -> beam.Settings:
        """The imaging chain without the detector's pitch."""
        spectrum = None
        if self.kvp is not None:
            with jax.ensure_compile_time_eval():  # constants of a program, not a part of it
                spectrum = beam.energy_integrating(beam.kramers(self.kvp, self.filter_mm))
        noisy = self.dose is not None or self.scatter is not None
        return beam.Settings(
            spectrum=spectrum,
            scatter_ratio=self.scatter,
            scatter_mm=self.scatter_mm,
            blur_mm=self.blur_mm,
            dose=self.dose,
            electronic=self.electronic,
            response=beam.Response(saturation=SATURATION) if noisy else None,
            # A pixel without any photon reads as half a one.
            floor=max(beam.LEAST_TRANSMISSION, 0.5 / self.dose if self.dose else 0.0),
        )

    @property
    def simulated(self) -> dict[str, Any]:
        """What is simulated, under the names of the sidecar."""
        facts: dict[str, Any] = {"attenuation": self.attenuation}
        if self.kvp is not None:
            facts = {
                "attenuation": "water and cortical bone, NIST",
                "kvp": self.kvp,
                "filter_mm_aluminium": self.filter_mm,
                "spectrum": "Kramers, energy-integrating",
            }
        if self.scatter is not None:
            facts |= {"scatter_to_primary": self.scatter, "scatter_mm": self.scatter_mm}
        if self.blur_mm is not None:
            facts["blur_mm"] = self.blur_mm
        if self.dose is not None:
            facts |= {"dose_photons": self.dose, "electronic_photons": self.electronic}
            facts["seed"] = self.seed
        if self.dose is not None or self.scatter is not None:
            facts["saturation"] = SATURATION
        return facts

    def volumes(self, hu: Float[AnyArray, "x y z"]) -> Float[Array, "part x y z"]:
        """What to project: mu in 1/mm, or the parts of water and bone."""
        if self.kvp is not None:
            return beam.split(hu)
        convert = beam.hu_to_mu_bilinear if self.attenuation == "bilinear" else beam.hu_to_mu
        return convert(hu)[None]

    def expose(
        self,
        through: Float[Array, "part rows columns"],
        key: Key | None,
        pixel_mm: tuple[Scalar, Scalar],
    ) -> Float[Array, "rows columns"]:
        """Line integrals of `volumes` -> line integrals of the exposure."""
        settings = self.settings._replace(pixel_mm=pixel_mm)
        return beam.radiograph(through if settings.spectrum else through[0], key, settings)

    def images(
        self,
        hu: Shaped[np.ndarray, "x y z"],
        affine: Float[np.ndarray, "4 4"],
        cameras: Sequence[AnyCamera],
        pixel_mm: tuple[float, float],
        method: str = "auto",
    ) -> list[Float[np.ndarray, "rows columns"]]:
        """X-rays of a CT in every view, as line integrals of the exposure.

        Args:
            hu: the CT.
            affine: index -> world mm.
            cameras: the views, in the CT's world.
            pixel_mm: pixel pitch (between rows, between columns), which scatter and blur need.
            method: projector, one of `drr.METHODS`.
        """
        volumes, key = self.volumes(np.asarray(hu, np.float32)), jax.random.key(self.seed)
        expose = jax.jit(partial(self.expose, pixel_mm=pixel_mm))
        images = []
        for number, camera in enumerate(cameras):
            project = jax.jit(partial(line_integrals, affine=affine, camera=camera, method=method))
            through = jnp.stack([project(volume) for volume in volumes])
            images.append(np.asarray(expose(through, jax.random.fold_in(key, number))))
        return images
