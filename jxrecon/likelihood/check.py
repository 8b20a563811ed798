"""Which hypothesis about X-rays is the likeliest, by how much, and how unlike the training patients they
are.

Every hypothesis has a likelihood in closed form, `model.log_likelihood`: of the X-rays, put in the order,
orientation and intensities that it says they should have, by the training patients' X-rays from where it
says the cameras stood. A hypothesis is believed only if it is likelier than what is told by more than
ever happens to right X-rays: the margin is what 98 % of the training patients, each judged by models that
do not know them, stay below.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jxrecon import files
from jxrecon.geometry import AnyCamera, camera_from_dict, same_cameras
from jxrecon.likelihood import model as models
from jxrecon.likelihood.hypotheses import Hypothesis, Stack, hypotheses, stances
from jxrecon.likelihood.model import FEWEST_PATIENTS
from jxrecon.likelihood.patients import DARKEST, PIXELS, Patients, averaged
from jxrecon.types import AnyArray, InputError

CHECK = "check.npz"
"""In the folder of a run."""

FALSE_ALARMS = 0.02
"""Share of the left-out training patients whose right X-rays may be doubted."""

STRANGE = 3.0
"""Standard deviations of the logarithm of left-out patients' distances above which a patient is unlike
them."""

MOST_PATIENTS = 96
"""Training patients that a check keeps, evenly picked."""


_AREA = PIXELS, PIXELS


class Shadows(NamedTuple):
    """X-rays of training patients by cameras that stand right and wrong: all that a check is made of.

    Attributes:
        cameras: as told.
        images: by every one of `stances` of each; first the patients, then their mirror images; in steps of
            DARKEST / 255.
    """

    cameras: tuple[AnyCamera, ...]
    images: UInt8[np.ndarray, "views stances n2 pixels pixels"]

    def of(self, cameras: Sequence[AnyCamera]) -> Shadows | None:
        """Those of these cameras, in any order and not of all of them; None where one is another camera."""
        places = places_among(cameras, self.cameras)
        if places is None:
            return None
        return Shadows(tuple(cameras), self.images[places])

    def rows(self, places: Sequence[int]) -> Float[np.ndarray, "n2 viewspixels"]:
        """All views of a patient in a row, by these stances."""
        taken = np.stack([view[place] for view, place in zip(self.images, places)], 1)
        return taken.reshape(len(taken), -1) * (DARKEST / 255)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return self.images.shape[2] // 2


def places_among(cameras: Sequence[AnyCamera], known: Sequence[AnyCamera]) -> list[int] | None:
    """Which of the known cameras each is, with whatever pixels on its area; None where one is another."""
    places = []
    for camera in cameras:
        here = [camera.resized(_AREA)]
        same = [n for n, c in enumerate(known) if same_cameras(here, [c.resized(_AREA)], 0.1)]
        if not same:
            return None
        places.append(same[0])
    return places


def shadows_of(patients: Patients, cameras: Sequence[AnyCamera]) -> Shadows:
    """The shadows of training patients for a check of X-rays by these cameras."""
    n = len(patients.mu)
    kept = np.unique(np.linspace(0, n - 1, min(n, MOST_PATIENTS)).round().astype(int))
    patients = patients._replace(mu=patients.mu[kept])
    views = []
    for camera in cameras:
        taken = [patients.xrays(stance, near=camera) for stance in stances(camera).values()]
        views.append(np.rint(np.stack(taken) * (255 / DARKEST)).astype(np.uint8))
    return Shadows(tuple(cameras), np.stack(views))


class Check(NamedTuple):
    """What X-rays by these cameras are judged by.

    Attributes:
        hypotheses: the first is that all is as told.
        models: stances of the cameras -> the distribution of their X-rays.
        margin: by how much another hypothesis has to be likelier, nats.
        distances: Mahalanobis distances of left-out training patients, relative: about 1.
    """

    hypotheses: tuple[Hypothesis, ...]
    models: Models
    margin: float
    distances: Float[np.ndarray, " n"]


Models = dict[tuple[int, ...], models.XrayModel]


def check_of(shadows: Shadows) -> Check:
    """The check that shadows allow.

    Raises:
        InputError: there are too few patients.
    """
    if shadows.patients < FEWEST_PATIENTS:
        raise InputError(
            f"{shadows.patients} training patients, expected at least {FEWEST_PATIENTS} to check X-rays"
        )
    asked = tuple(hypotheses(shadows.cameras))
    fitted = {p: models.fit(shadows.rows(p)) for p in {h.stances for h in asked}}
    views = len(shadows.cameras)
    right = shadows.rows(asked[0].stances)[: shadows.patients]
    stacks = right.reshape(shadows.patients, views, *shadows.images.shape[3:])
    without = [{p: f.without[n] for p, f in fitted.items()} for n in range(models.FOLDS)]
    margin, distances = judged_left_out(asked, without, stacks)
    return Check(asked, {p: f.whole for p, f in fitted.items()}, margin, distances)


def judged_left_out(
    asked: Sequence[Hypothesis], without: Sequence[Models], right: Float[np.ndarray, "n v p p"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """(margin, distances) by training patients, each judged by models that do not know them.

    Args:
        asked: the hypotheses.
        without: number f: the distributions without the patients f, f + FOLDS, ...
        right: the patients' X-rays.
    """
    scores, distances = np.zeros((len(right), len(asked))), np.zeros(len(right))
    for fold, known in enumerate(without):
        others = models.left_out(len(right), fold)
        for n, hypothesis in enumerate(asked):
            stacks = [_read(hypothesis, stack) for stack in right[others]]
            scores[others, n] = _scores(hypothesis, known[hypothesis.stances], stacks)
        first = known[asked[0].stances]
        distances[others] = relative_distance(first, right[others].reshape(len(others), -1))
    told = [n for n, h in enumerate(asked) if h.told and n]
    ahead = (scores[:, told] - scores[:, :1]).max(1)
    margin = np.quantile(ahead, 1.0 - FALSE_ALARMS, method="higher")
    return max(float(margin), LEAST_MARGIN), distances


LEAST_MARGIN = 20.0
"""Of few patients the largest difference says little."""


def _read(hypothesis: Hypothesis, stack: Stack) -> Stack:
    return np.stack([np.clip(hypothesis.read(image), None, DARKEST) for image in stack])


def _scores(
    hypothesis: Hypothesis, model: models.XrayModel, stacks: Sequence[Stack]
) -> Float[np.ndarray, " n"]:
    """Log-likelihoods of patients' line integrals, read as the hypothesis has it.

    Of the line integrals, not of the pixels as given: the factor between the two densities would reward a
    reading for nothing but spreading its pixels out.
    """
    rows = np.stack([hypothesis.arrange(stack).ravel() for stack in stacks])
    return models.log_likelihood(model, rows)


def relative_distance(
    model: models.XrayModel, rows: Float[np.ndarray, "n pixels"]
) -> Float[np.ndarray, " n"]:
    """Mahalanobis distance over the root of the number of pixels."""
    return np.sqrt(models.distance(model, rows) / rows.shape[-1])


class Finding(NamedTuple):
    """What a check says of a patient's X-rays.

    Attributes:
        names: of the hypotheses, the likeliest first.
        ahead: how much likelier than "as given" each is, nats.
        told: whether X-rays can tell each at all.
        margin: of the check.
        distance: of the X-rays from the training patients', relative, by the likeliest hypothesis.
        nearer: share of left-out training patients who are nearer.
        strange: whether the X-rays are unlike the training patients', whatever the hypothesis.
    """

    names: tuple[str, ...]
    ahead: tuple[float, ...]
    told: tuple[bool, ...]
    margin: float
    distance: float
    nearer: float
    strange: bool

    @property
    def best(self) -> str:
        """The likeliest hypothesis."""
        return self.names[0]

    @property
    def doubted(self) -> bool:
        """Whether another hypothesis is clearly likelier than what is told."""
        return self.ahead[0] > self.margin

    @property
    def as_likely(self) -> tuple[str, ...]:
        """What cannot be told from the likeliest."""
        if not self.doubted:
            return ()
        near = zip(self.names[1:], self.ahead[1:])
        return tuple(name for name, ahead in near if self.ahead[0] - ahead < self.margin)


def judge(check: Check, images: Sequence[Float[AnyArray, "rows columns"]]) -> Finding:
    """How likely every hypothesis about these X-rays is.

    Args:
        check: of their cameras.
        images: line integrals as told, one a camera, on the area of its detector.
    """
    given = [np.asarray(image, np.float64) for image in images]
    stacks = {}
    for h in check.hypotheses:
        if h.read not in stacks:
            stacks[h.read] = np.stack([averaged(h.read(image)) for image in given])
    scores = np.concatenate(
        [_scores(h, check.models[h.stances], [stacks[h.read]]) for h in check.hypotheses]
    )
    believed = [s if h.told else -np.inf for s, h in zip(scores, check.hypotheses)]
    best = check.hypotheses[int(np.argmax(believed))]
    row = best.arrange(stacks[best.read]).reshape(1, -1)
    distance = float(relative_distance(check.models[best.stances], row)[0])
    logs = np.log(check.distances)
    order = np.argsort(-np.array(believed), kind="stable")  # what cannot be told comes last
    return Finding(
        names=tuple(check.hypotheses[n].name for n in order),
        ahead=tuple((scores[order] - scores[0]).tolist()),
        told=tuple(check.hypotheses[n].told for n in order),
        margin=check.margin,
        distance=distance,
        nearer=float(np.mean(check.distances < distance)),
        strange=bool(np.log(distance) > logs.mean() + STRANGE * logs.std()),
    )


def write_shadows(path: Path, shadows: Shadows) -> None:
    """Writes them as .npz, whole or not at all; errors as of `files.whole`."""
    cameras = json.dumps([camera.to_dict() for camera in shadows.cameras])
    with files.whole(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, cameras=np.array(cameras), images=shadows.images)


def read_shadows(path: Path) -> Shadows:
    """What `write_shadows` wrote.

    Raises:
        InputError: the file is gone or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            told: list[dict[str, Any]] = json.loads(str(kept["cameras"]))
            return Shadows(tuple(camera_from_dict(c, str(path)) for c in told), kept["images"])
    except Exception as error:  # whatever a damaged file makes NumPy raise
        line = files.one_line(error)[:200]
        raise InputError(
            f"{path}: cannot be read as the check of a run ({line}), expected what jxrecon check wrote"
        ) from None
