"""How the SYNTHETIC anatomy is put together: bodies with a region, mirrored in pairs, chained in tubes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jxrecon.phantom.primitives import Primitives, Vector, ellipsoid, stack

HEAD, JAW, NECK, SHOULDER = range(4)
"""Regions: what moves together when the head turns, the mouth opens, the neck bends."""

SKULL_BASE = np.array([0.0, -25.0, 65.0])
"""Where the head turns on the atlas, mm."""

JAW_JOINT = np.array([0.0, -8.0, 82.0])
"""The axis through both temporomandibular joints, mm."""


class Blueprint(NamedTuple):
    """SYNTHETIC bodies in the order of painting, and how each follows the latents.

    Attributes:
        bodies: n primitives in HU (of the outline: millimetres of fat).
        region: [n], HEAD, JAW, NECK or SHOULDER.
        bone: [n], 1 where the value follows the density of bone.
        airway: [n], 1 where the two axes across follow the calibre of the airway.
        vertebra: [n, 3], where the vertebra a body belongs to has its middle: it scales about that.
    """

    bodies: Primitives
    region: np.ndarray
    bone: np.ndarray
    airway: np.ndarray
    vertebra: np.ndarray


class Stage(NamedTuple):
    """A slice of the blueprint's bodies, and along x, y, z what holds the largest in every subject.

    Attributes:
        bodies: which bodies of the blueprint.
        extent_mm: edges of the box about its centre that a body keeps to; None is no bound.
    """

    bodies: slice
    extent_mm: tuple[float, float, float] | None


class Builder:
    """Collects bodies in the order in which they are painted."""

    def __init__(self) -> None:
        self.parts: list[tuple[Primitives, int, bool, bool, np.ndarray]] = []

    def add(
        self,
        body: Primitives,
        region: int,
        *,
        bone: bool = False,
        airway: bool = False,
        vertebra: np.ndarray | None = None,
    ) -> None:
        about = body.centre[0] if vertebra is None else vertebra
        self.parts.append((body, region, bone, airway, np.asarray(about, np.float32)))

    def pair(self, body: Primitives, region: int, **options: Any) -> None:
        """The body on the patient's right (+x) and its mirror image on the left."""
        mirror = np.diag([-1.0, 1.0, 1.0]).astype(np.float32)
        left = body._replace(centre=body.centre @ mirror, rotation=mirror @ body.rotation @ mirror)
        self.add(body, region, **options)
        self.add(left, region, **options)

    def tube(
        self,
        points: Sequence[Sequence[float]],
        radii: Sequence[Sequence[float]],
        value: float,
        region: int,
        pieces: int,
        *,
        paired: bool = False,
        **options: Any,
    ) -> None:
        """Overlapping ellipsoids along a polyline; radii (about world x, other) at its corners."""
        corners, widths = np.asarray(points, float), np.asarray(radii, float)
        at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
        ends = np.linspace(0.0, at[-1], pieces + 1)
        path = np.stack([np.interp(ends, at, corners[:, axis]) for axis in range(3)], 1)
        for first, last, middle in zip(path[:-1], path[1:], (ends[:-1] + ends[1:]) / 2):
            across = [float(np.interp(middle, at, widths[:, axis])) for axis in range(2)]
            length = float(np.linalg.norm(last - first))
            body = ellipsoid((first + last) / 2, [*across, length], value, along(last - first))
            (self.pair if paired else self.add)(body, region, **options)

    def tubes(self, *tube: Any, **options: Any) -> None:
        """A tube on the patient's right and its mirror image on the left, piece by piece."""
        self.tube(*tube, paired=True, **options)

    def build(self) -> Blueprint:
        bodies, regions, bone, airway, vertebra = zip(*self.parts)
        return Blueprint(
            stack(bodies),
            np.asarray(regions, np.int32),
            np.asarray(bone, np.float32),
            np.asarray(airway, np.float32),
            np.stack(vertebra),
        )


Parts = dict[str, tuple[tuple[Callable[[Builder], None], ...], tuple[float, float, float] | None]]
"""Stages in the order of painting: what adds the bodies of each, and `Stage.extent_mm`."""


def assemble(parts: Parts) -> tuple[Blueprint, dict[str, Stage]]:
    """All these SYNTHETIC bodies, and which of them belong to each stage."""
    b, cut = Builder(), {}
    for name, (adders, extent_mm) in parts.items():
        first = len(b.parts)
        for add in adders:
            add(b)
        cut[name] = Stage(slice(first, len(b.parts)), extent_mm)
    return b.build(), cut


def along(direction: Vector) -> np.ndarray:
    """Rotation [3, 3] whose local z points along `direction`, local x as near the world's as can be."""
    z = np.asarray(direction, float) / np.linalg.norm(direction)
    side = np.array([0.0, 1.0, 0.0] if abs(z[0]) > 0.95 else [1.0, 0.0, 0.0])
    x = side - (side @ z) * z
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)
