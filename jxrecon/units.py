"""Hounsfield units, attenuation and the display window: stated once, converted at the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Array, Float

from jxrecon.types import InputError

HU_AIR = -1000.0
"""CT number of air, by definition of the Hounsfield scale."""

MU_WATER_PER_MM = 0.0192
"""Linear attenuation of water in 1/mm at about 70 keV (NIST XCOM: 0.1929 cm^2/g at 1 g/cm^3)."""


class Window(NamedTuple):
    """The HU range a network sees as [-1, 1], and the data range of every metric that names it.

    Attributes:
        low: HU that maps to -1.
        high: HU that maps to +1.
    """

    low: float = -1024.0
    high: float = 2000.0

    @property
    def range(self) -> float:
        """Width of the window in HU: the peak of a PSNR in this window."""
        return self.high - self.low

    def to_unit(self, hu: Float[Array, "..."]) -> Float[Array, "..."]:
        """HU -> [-1, 1], values outside the window clipped."""
        return (hu.clip(self.low, self.high) - self.low) * (2.0 / self.range) - 1.0

    def to_hu(self, unit: Float[Array, "..."]) -> Float[Array, "..."]:
        """[-1, 1] -> HU, without clipping: the inverse of `to_unit` inside the window."""
        return (unit + 1.0) * (self.range / 2.0) + self.low


@dataclass(frozen=True)
class Stated:
    """What the user says about a file's numbers: HU = number x hu_scale + hu_offset. None: nothing.

    Of an offset and its negative, and of a scale and its inverse, the one that gives air and tissue counts.
    """

    hu_scale: float | None = None
    hu_offset: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError where no number can be made HU so."""
        for flag, value in (("--hu-scale", self.hu_scale), ("--hu-offset", self.hu_offset)):
            if value is not None and not math.isfinite(value):
                raise InputError(f"{flag} {value}: expected a finite number")
        if self.hu_scale is not None and not self.hu_scale > 0:
            raise InputError(f"--hu-scale {self.hu_scale:g}: expected a positive number")

    @property
    def nothing(self) -> bool:
        return self.hu_scale is None and self.hu_offset is None


NOTHING_STATED = Stated()
