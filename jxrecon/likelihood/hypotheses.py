"""What else X-rays may be than what is told of them: other orders, orientations, intensities, cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.geometry import AnyCamera, Camera, pixel_mm, vectors
from jxrecon.types import AnyArray

Stack = Float[np.ndarray, "views pixels pixels"]

AS_GIVEN = "as given"

WITHIN_DEG = 20.0
"""How far from straight ahead a view may look and still be called frontal or lateral."""

MAGNIFIED = (0.85, 0.93, 1.07, 1.15)
"""Factors of the shadows' size."""

NEARER = (0.9, 1.1)
"""Factors of the distance from source to isocentre; that from source to detector stays."""

ISOCENTRE_MM = 20.0
"""Shift of the isocentre along each axis of the world."""

SHIFTED = 8 / 128
"""Shift of a view along its rows or columns, as a share of its height or width."""


class Hypothesis(NamedTuple):
    """One way in which X-rays may have come about.

    Attributes:
        name: what it is, in words.
        stances: for every view which of the `stances` of its camera took it.
        arrange: (X-rays of all views as given) -> in the order and orientation that their cameras want.
        read: (pixels as given) -> line integrals.
        told: whether X-rays can tell it at all.
    """

    name: str
    stances: tuple[int, ...]
    arrange: Callable[[Stack], Stack] = lambda stack: stack
    read: Callable[[Float[AnyArray, "r c"]], Float[AnyArray, "r c"]] = lambda image: image
    told: bool = True


# Cameras.


def stances(camera: AnyCamera) -> dict[str, AnyCamera]:
    """Where a camera may stand, first where it is told to."""
    found = {AS_GIVEN: camera}
    for factor in MAGNIFIED:
        found[f"magnified {factor:g} times"] = camera.replace(
            u=camera.u / factor, v=camera.v / factor
        )
    if isinstance(camera, Camera):
        source, *_ = vectors(camera)
        for factor in NEARER:
            name = f"source-axis distance {factor - 1:+.0%}"
            found[name] = _shifted(camera, (factor - 1.0) * source)
    for axis, (plus, minus) in enumerate((("right", "left"), ("front", "back"), ("head", "feet"))):
        for side, word in ((1.0, plus), (-1.0, minus)):
            name = f"isocentre {ISOCENTRE_MM:g} mm towards the {word}"
            found[name] = _shifted(camera, side * ISOCENTRE_MM * np.eye(3)[axis])
    rows, columns = camera.shape
    down, right = camera.v * (SHIFTED * rows), camera.u * (SHIFTED * columns)
    ways = {
        "up": down,
        "down": -down,
        "left": right,
        "right": -right,
    }  # the picture's, not the detector's
    for word, step in ways.items():
        found[f"shifted {word}"] = camera.replace(centre=camera.centre + step)
    return found


def _shifted(camera: AnyCamera, by_mm: Float[np.ndarray, "3"]) -> AnyCamera:
    return camera.moved(jnp.eye(3, dtype=jnp.float32), jnp.asarray(by_mm, jnp.float32))


def view_names(cameras: Sequence[AnyCamera]) -> list[str]:
    """frontal, lateral, or the number of the X-ray; numbered where two would be called alike."""
    names = []
    for n, camera in enumerate(cameras, 1):
        first, *_ = vectors(camera)
        x, y, _ = np.abs(first) / np.linalg.norm(first)
        near = np.cos(np.radians(WITHIN_DEG))
        names.append("frontal" if y > near else "lateral" if x > near else f"X-ray {n}")
    return [f"X-ray {n}" if names.count(name) > 1 else name for n, name in enumerate(names, 1)]


# Orders and orientations.

_TURNS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {
    "mirrored left-right": (lambda a: a[..., ::-1], False),
    "upside down": (lambda a: a[..., ::-1, :], False),
    "turned by 180 degrees": (lambda a: a[..., ::-1, ::-1], False),
    "turned by 90 degrees clockwise": (lambda a: np.rot90(a, 1, (-2, -1)), True),
    "turned by 90 degrees counter-clockwise": (lambda a: np.rot90(a, -1, (-2, -1)), True),
    "with rows and columns exchanged": (lambda a: np.swapaxes(a, -2, -1), True),
    "with rows and columns exchanged, turned by 180 degrees": (
        lambda a: np.swapaxes(a, -2, -1)[..., ::-1, ::-1],
        True,
    ),
}
"""Name -> (what undoes it, whether rows become columns)."""


def _turned(stack: Stack, views: Sequence[int], undo: Callable[[np.ndarray], np.ndarray]) -> Stack:
    stack = stack.copy()
    for view in views:
        stack[view] = undo(stack[view])
    return stack


def _exchanged(stack: Stack, order: Sequence[int]) -> Stack:
    return stack[list(order)]


def _square(camera: AnyCamera) -> bool:
    row, column = pixel_mm(camera)
    rows, columns = camera.shape
    return abs(rows * row / (columns * column) - 1.0) < 0.02


# Intensities.


def _inverted(image: Float[AnyArray, "r c"]) -> Float[AnyArray, "r c"]:
    return image.max() - image


def _from_raw(image: Float[AnyArray, "r c"]) -> Float[AnyArray, "r c"]:
    return -np.log(np.maximum(image, 1e-9) / max(float(image.max()), 1e-9))


def _from_decadic(image: Float[AnyArray, "r c"]) -> Float[AnyArray, "r c"]:
    return image * np.log(10.0)


def hypotheses(cameras: Sequence[AnyCamera]) -> list[Hypothesis]:
    """All that is asked about X-rays of these cameras; the first is that they are as told."""
    names, still = view_names(cameras), (0,) * len(cameras)
    found = [Hypothesis(AS_GIVEN, still)]
    for a, b in combinations(range(len(cameras)), 2):
        if cameras[a].shape == cameras[b].shape and len(cameras) < 4:
            order = list(range(len(cameras)))
            order[a], order[b] = b, a
            name = f"{names[a]} and {names[b]} exchanged"
            found.append(Hypothesis(name, still, partial(_exchanged, order=order)))
    groups = [([n], name) for n, name in enumerate(names)]
    if len(cameras) > 1:
        groups.append((list(range(len(cameras))), "all X-rays"))
    for views, name in groups:
        for turn, (undo, quarter) in _TURNS.items():
            if quarter and not all(_square(cameras[view]) for view in views):
                continue
            arrange = partial(_turned, views=views, undo=undo)
            blind = turn == "mirrored left-right" and all(_blind(cameras[view]) for view in views)
            found.append(Hypothesis(f"{name} {turn}", still, arrange, told=not blind))
    found += [
        Hypothesis("intensities inverted", still, read=_inverted),
        Hypothesis("raw intensities, not their logarithm", still, read=_from_raw),
        Hypothesis("logarithms to the base 10", still, read=_from_decadic),
    ]
    return found + _by_cameras(cameras, names)


def _by_cameras(cameras: Sequence[AnyCamera], names: Sequence[str]) -> list[Hypothesis]:
    found = []
    for place, name in enumerate(stances(cameras[0])):
        if place == 0:
            continue
        if not name.startswith("shifted"):
            found.append(Hypothesis(name, (place,) * len(cameras)))
            continue
        for n, view in enumerate(names):
            stance = tuple(place if n == m else 0 for m in range(len(cameras)))
            found.append(Hypothesis(f"{view} {name}", stance))
    return found


def _blind(camera: AnyCamera) -> bool:
    """Whether a view looks along the plane that people are symmetric about: left and right look alike."""
    first, *_ = vectors(camera)
    return bool(abs(first[0]) < np.sin(np.radians(WITHIN_DEG)) * np.linalg.norm(first))
