"""What is handed on of training patients, so that X-rays are checked and poses found without them.

Their components (`modes`), which any camera may look at, and what patients who were left out taught at the
cameras of the training: margin, distances, errors. X-rays by other cameras are judged by what was taught at
those that look the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon.geometry import AnyCamera, Camera, camera_from_dict, vectors
from jxrecon.likelihood import model as models
from jxrecon.likelihood.check import Check, judged_left_out
from jxrecon.likelihood.hypotheses import Hypothesis, hypotheses, stances
from jxrecon.likelihood.model import FOLDS, left_out
from jxrecon.likelihood.modes import RANK, Modes, Rows, modes_of
from jxrecon.likelihood.patients import Patients
from jxrecon.likelihood.pose import Missed, Search, missed_of, search_by
from jxrecon.types import InputError

WITHIN_DEG = 20.0
"""How far from the direction of a camera of the training a view may look."""


class LeftOut(NamedTuple):
    """What left-out training patients teach of a check.

    Attributes:
        residual: mean square of what their X-rays have beside the components.
        margin: as of `Check`.
        distances: the same.
    """

    residual: float
    margin: float
    distances: Float[np.ndarray, " n"]


class Known(NamedTuple):
    """All that is handed on.

    Attributes:
        modes: of the training patients.
        cameras: of the training.
        left_out: numbers of cameras, in ascending order -> what their X-rays taught.
        missed: numbers of a camera that is believed and one that is moved -> what poses are missed by.
    """

    modes: Modes
    cameras: tuple[Camera, ...]
    left_out: dict[tuple[int, ...], LeftOut]
    missed: dict[tuple[int, ...], Missed]

    def check(self, cameras: Sequence[AnyCamera]) -> Check:
        """The check of X-rays by these cameras, about the isocentre.

        Raises:
            InputError: they do not look as cameras of the training do.
        """
        taught = self.left_out.get(tuple(sorted(self._places(cameras))))
        if taught is None:
            raise InputError(
                f"nothing is known of {len(cameras)} such X-rays together, expected each of another view"
            )
        asked = tuple(hypotheses(cameras))
        rows = [_stance_rows(self.modes, camera) for camera in cameras]
        return Check(asked, _models(asked, rows, taught.residual), taught.margin, taught.distances)

    def search(self, cameras: Sequence[AnyCamera]) -> Search:
        """The search for the poses of all these cameras but the first; errors as above and of `search_by`."""
        places = self._places(cameras)
        pairs = [(places[0], place) for place in places[1:]]
        if not all(pair in self.missed for pair in pairs):
            raise InputError("two X-rays look the same way, expected each of another view")
        return search_by(self.modes, cameras, [self.missed[pair] for pair in pairs])

    def _places(self, cameras: Sequence[AnyCamera]) -> list[int]:
        own = np.stack([_direction(camera) for camera in self.cameras])
        places = []
        for n, camera in enumerate(cameras, 1):
            cosines = own @ _direction(camera)
            if cosines.max() < np.cos(np.radians(WITHIN_DEG)):
                raise InputError(
                    f"X-ray {n} looks in a direction that the training patients' X-rays do not, expected "
                    f"one within {WITHIN_DEG:g} degrees of theirs"
                )
            places.append(int(cosines.argmax()))
        return places

    def facts(self) -> dict[str, Any]:
        """What JSON holds, all but the modes."""
        return {
            "cameras": [camera.to_dict() for camera in self.cameras],
            "left_out": [
                {"of": of, **one._asdict(), "distances": one.distances.round(4).tolist()}
                for of, one in self.left_out.items()
            ],
            "missed": [
                {"of": of, **one._asdict(), "errors": one.errors.round(3).tolist()}
                for of, one in self.missed.items()
            ],
        }


def known_from(modes: Modes, facts: dict[str, Any], origin: str) -> Known:
    """What `Known.facts` told of these modes.

    Args:
        modes: of the same.
        facts: from JSON.
        origin: the file, to name in errors.
    """
    return Known(
        modes,
        tuple(camera_from_dict(told, origin) for told in facts["cameras"]),  # type: ignore[misc]
        {
            tuple(one["of"]): LeftOut(one["residual"], one["margin"], np.array(one["distances"]))
            for one in facts["left_out"]
        },
        {
            tuple(one["of"]): Missed(one["residual"], np.array(one["errors"]))
            for one in facts["missed"]
        },
    )


def known_of(patients: Patients, cameras: Sequence[Camera], rank: int = RANK) -> Known:
    """What is to be handed on of training patients and the cameras of a training."""
    n, numbers = len(patients.mu), range(len(cameras))
    taken = np.stack([patients.xrays(camera)[:n] for camera in cameras], 1)
    parts = []
    for fold in range(min(FOLDS, n)):
        others = np.setdiff1d(np.arange(n), left_out(n, fold))
        part = modes_of(patients._replace(mu=patients.mu[others]), rank)
        parts.append([_stance_rows(part, camera) for camera in cameras])
    taught = {}
    for count in numbers:
        for of in combinations(numbers, count + 1):
            mine = [cameras[n] for n in of]
            rows = [[part[n] for n in of] for part in parts]
            taught[of] = _taught(tuple(hypotheses(mine)), rows, taken[:, of])
    missed: dict[tuple[int, ...], Missed] = {
        of: missed_of(patients, [cameras[n] for n in of], rank)[0]
        for of in permutations(numbers, 2)
    }
    return Known(modes_of(patients, rank), tuple(cameras), taught, missed)


def _taught(
    asked: tuple[Hypothesis, ...],
    parts: Sequence[Sequence[Sequence[Rows]]],
    right: Float[np.ndarray, "n v p p"],
) -> LeftOut:
    """What patients teach whose X-rays these are, by the components of the parts without them."""
    beside = []
    for fold, rows in enumerate(parts):
        mine = right[left_out(len(right), fold)].reshape(-1, right[0].size)
        model = _models(asked[:1], rows, 1.0)[asked[0].stances]
        apart = mine - model.mean
        beside.append(np.square(apart).sum(1) - np.square(apart @ model.components.T).sum(1))
    residual = max(float(np.concatenate(beside).mean()) / right[0].size, models.LEAST)
    without = [_models(asked, rows, residual) for rows in parts]
    return LeftOut(residual, *judged_left_out(asked, without, right))


def _stance_rows(modes: Modes, camera: AnyCamera) -> list[Rows]:
    """X-rays of the components by every stance of a camera."""
    return [modes.xrays(stance, near=camera) for stance in stances(camera).values()]


def _models(
    asked: Sequence[Hypothesis], rows: Sequence[Sequence[Rows]], residual: float
) -> dict[tuple[int, ...], models.XrayModel]:
    """Stances of the cameras -> the distribution of their X-rays."""

    @cache
    def one(places: tuple[int, ...]) -> models.XrayModel:
        both = np.concatenate([view[place] for view, place in zip(rows, places)], 1)
        return models.of_rows(both, residual)

    return {h.stances: one(h.stances) for h in asked}


def _direction(camera: AnyCamera) -> Float[np.ndarray, "3"]:
    """From the isocentre towards the source, or against parallel rays."""
    first, *_ = vectors(camera)
    towards = first if isinstance(camera, Camera) else -first
    return towards / np.linalg.norm(towards)
