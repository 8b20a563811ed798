"""Where an X-ray is taken from and how its picture lies: names of views, angles, Patient Orientation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from jxrecon.geometry import AnyCamera, vectors
from jxrecon.types import InputError

AnyKind = TypeVar("AnyKind", bound=AnyCamera)

_VIEWS = {
    "frontal": (0.0, 0.0),
    "lateral": (90.0, 0.0),
    "ap": (0.0, 0.0),
    "pa": (180.0, 0.0),
    "rl": (90.0, 0.0),
    "ll": (270.0, 0.0),
}
"""Name -> (angle, elevation) of the source; ll is a left lateral: the left side at the detector."""

_FROM_BEHIND = {"pa", "ll"}
"""Views whose picture a clinic shows as seen from the detector: patient's right, or face, on its left."""

VIEWS = "frontal, lateral, ap, pa, ll, rl or ANGLE[,ELEVATION] in degrees"

_TOWARDS = {
    "R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1),
}  # fmt: skip


def named_view(name: str) -> str | None:
    """The view that a word of a file's name says, as in p07_lateral; None where none does, or several."""
    words = set(re.split(r"[^a-z]+", name.lower())) & set(_VIEWS)
    return words.pop() if len(words) == 1 else None


def numbers(text: str, counts: tuple[int, ...], origin: str) -> tuple[float, ...]:
    """Comma-separated finite numbers, as many as one of `counts`.

    Raises:
        InputError: it is anything else; `origin` names the flag or file.
    """
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in counts or not np.isfinite(values).all():
        expected = " or ".join(str(count) for count in counts)
        raise InputError(f"{origin} {text}: expected {expected} finite numbers joined by commas")
    return values


def view_angles(text: str, origin: str = "--view") -> tuple[float, float]:
    """(angle, elevation) of the source in degrees, see `geometry.camera_at`, of one of `VIEWS`.

    Raises:
        InputError: it is none of these.
    """
    if text.lower() in _VIEWS:
        return _VIEWS[text.lower()]
    try:
        angle, elevation = (*numbers(text, (1, 2), origin), 0.0)[:2]
    except InputError:
        raise InputError(f"{origin} {text}: expected {VIEWS}") from None
    return angle, elevation


def as_displayed(camera: AnyKind, view: str) -> AnyKind:
    """The camera of a picture as a clinic displays this view: for pa and ll seen from the detector.

    In ap, pa, frontal the patient's right is on the picture's left; in ll, rl, lateral the face is.
    """
    return camera.replace(u=-camera.u) if view.lower() in _FROM_BEHIND else camera


def direction_of(letters: str, origin: str) -> Float[np.ndarray, "3"]:
    """RAS direction of a value of Patient Orientation (0020,0020), such as L or AL (anterior, somewhat left).

    Raises:
        InputError: a letter is none of R, L, A, P, H, F.
    """
    word = letters.strip().upper()
    if not word or set(word) - set(_TOWARDS):
        raise InputError(
            f"{origin}: {letters!r}, expected letters of R, L, A, P, H, F, such as L or AL"
        )
    weights = 2.0 ** -np.arange(len(word))  # the first letter says most
    towards = weights @ np.array([_TOWARDS[letter] for letter in word], np.float64)
    length = np.linalg.norm(towards)
    if length == 0:
        raise InputError(f"{origin}: {letters!r}, expected one direction")
    return towards / length


def oriented(camera: AnyKind, letters: Sequence[str], origin: str) -> AnyKind:
    """The camera whose rows and columns run as Patient Orientation says.

    Args:
        camera: of a picture that lies otherwise in the same plane; its pitches are kept.
        letters: where the columns' numbers grow to along a row, and the rows' along a column.
        origin: of the letters, to name in an error.

    Raises:
        InputError: a direction does not lie in the picture, or both are one.
    """
    if len(letters) != 2:
        raise InputError(f"{origin}: {letters}, expected two directions, such as L,F")
    _, _, u, v = vectors(camera)
    lengths = np.linalg.norm([u, v], axis=1)
    axes = np.array([u, -u, v, -v]) / np.repeat(lengths, 2)[:, None]
    wanted = np.array([direction_of(word, origin) for word in letters])
    fits = axes @ wanted.T
    (row, column), told = fits.argmax(0), "\\".join(letters)
    if fits.max(0).min() < 0.5 or row // 2 == column // 2:
        raise InputError(
            f"{origin}: {told} does not lie in the picture, whose rows and columns run "
            f"{_letters(u)} and {_letters(v)}, expected such (see --view, --patient-orientation)"
        )
    as_type: Callable[[np.ndarray], np.ndarray] = lambda x: np.asarray(x, np.float32)  # noqa: E731
    return camera.replace(u=as_type(axes[row] * lengths[0]), v=as_type(axes[column] * lengths[1]))


def _letters(step: np.ndarray) -> str:
    """The Patient Orientation of a direction."""
    shares = {letter: float(np.dot(step, axis)) for letter, axis in _TOWARDS.items()}
    most = max(shares.values())
    named = sorted((x for x in shares if shares[x] > 0.1 * most), key=lambda x: -shares[x])
    return "".join(named)


def picture_of(camera: AnyCamera) -> str:
    """Which way the rows and columns of a camera's picture run, as Patient Orientation has it."""
    _, _, u, v = vectors(camera)
    return f"{_letters(u)}\\{_letters(v)}"
