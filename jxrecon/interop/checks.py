"""What all conventions ask of a camera's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from jxrecon.geometry import AnyCamera, Camera, unit_normal, vectors
from jxrecon.types import InputError

ORIGIN = (0.0, 0.0, 0.0)

Three: TypeAlias = Sequence[float] | np.ndarray
"""Three numbers, as a tuple, a list or an array."""


def cone(**parts: Any) -> Camera:
    """A camera of NumPy float64 vectors."""
    return Camera(**parts)


def detector_of(camera: AnyCamera, name: str) -> tuple[np.ndarray, ...]:
    """Source, centre, u, v and the detector's unit normal away from the source."""
    if not isinstance(camera, Camera):
        raise InputError(f"{name} knows no parallel rays, expected a Camera")
    source, centre, u, v = vectors(camera)
    normal = unit_normal(camera)
    depth = normal @ (centre - source)
    if depth == 0:
        raise InputError(f"the source lies in the detector's plane, expected a view for {name}")
    cosine = u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
    if abs(cosine) > 1e-5:
        angle = np.rad2deg(np.arccos(cosine))
        raise InputError(f"u and v stand at {angle:.4f} degrees, expected right angles for {name}")
    return source, centre, u, v, normal * np.sign(depth)


def positive(value: Any, name: str) -> float:
    """A positive number of mm, or an InputError that names it."""
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "iuf" or not 0 < number < np.inf:
        raise InputError(f"{name} is {value!r}, expected a positive number of mm")
    return float(number)


def pitches(value: Any, name: str) -> tuple[float, float]:
    """Pixel pitch (between rows, between columns) of one number or a pair, or an InputError."""
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2:
        raise InputError(f"{name} is {value!r}, expected one number or (rows, columns) in mm")
    return positive(pair[0], name), positive(pair[1], name)


def pixels(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns), or an InputError."""
    numbers = np.asarray(shape)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu" or (numbers < 1).any():
        raise InputError(f"detector of {shape!r} pixels, expected (rows, columns) above 0")
    return int(numbers[0]), int(numbers[1])
