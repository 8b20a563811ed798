"""What training patients say about the geometry of a patient's X-rays: a check, a warning, poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jxrecon.data.volumes import VolumeSet
from jxrecon.files import cache_folder
from jxrecon.geometry import AnyCamera
from jxrecon.inference.patient import Request
from jxrecon.io.views import View
from jxrecon.likelihood.check import (
    CHECK,
    Check,
    Finding,
    Shadows,
    check_of,
    judge,
    places_among,
    read_shadows,
    shadows_of,
    write_shadows,
)
from jxrecon.likelihood.known import Known, known_from
from jxrecon.likelihood.modes import Packed, unpacked
from jxrecon.likelihood.patients import Patients, patients_of
from jxrecon.likelihood.pose import BELIEVED, PARAMETERS, Images, Refined, search_of
from jxrecon.runs import shipped
from jxrecon.runs.run import Run, data_of
from jxrecon.types import InputError

Say = Callable[[str], None]

_SHOWN = 5
"""Hypotheses that are listed."""


def training_cases(run: Run) -> VolumeSet:
    """The cases that a run learnt from.

    Raises:
        InputError: it knows none, or its data is not at hand.
    """
    if run.untrained or run.experiment.load is None:
        raise InputError(
            f"{run.experiment.name} knows no training cases, expected a run that does (--run, --surround)"
        )
    data: VolumeSet = run.experiment.load(run.experiment, data_of(run), cache_folder("data")).train
    return data


def training_patients(run: Run) -> Patients:
    """The same as patients to be projected; errors as there."""
    return patients_of(training_cases(run), run.problem.grid)


def check_for(run: Run, cameras: Sequence[AnyCamera], say: Say) -> Check:
    """The check of X-rays by these cameras: stored with the run or shipped, or made of its training cases.

    Args:
        run: trained on CT volumes.
        cameras: as told, about the isocentre.
        say: called with what is done, before it takes its time.

    Raises:
        InputError: there is none for these cameras, and the training cases are not at hand.
    """
    return _at_hand(run, cameras) or check_of(_learnt(run, cameras, say))


def _at_hand(run: Run, cameras: Sequence[AnyCamera]) -> Check | None:
    """The check that is shipped or stored; None where there is none for these cameras."""
    known = shipped_patients(run)
    if known is not None:
        return known.check(cameras)
    shadows = _stored(run, cameras)
    return None if shadows is None else check_of(shadows)


def shipped_patients(run: Run) -> Known | None:
    """What ships of the patients that shipped weights learnt from; None for any other run."""
    path = None if run.weights is None else shipped.patients_of(run.rule)
    if path is None:
        return None
    arrays, facts, _ = shipped.contents(path)
    small = Packed(*(arrays[f".{name}"] for name in Packed._fields))
    return known_from(unpacked(small), facts, str(path))


def _stored(run: Run, cameras: Sequence[AnyCamera]) -> Shadows | None:
    path = run.folder / CHECK
    return read_shadows(path).of(cameras) if not run.untrained and path.is_file() else None


def _learnt(run: Run, cameras: Sequence[AnyCamera], say: Say) -> Shadows:
    say(f"learning from {run.rule} what X-rays by such cameras look like")
    try:
        patients = training_patients(run)
    except InputError as error:
        raise InputError(
            f"{run.folder}: has no {CHECK} for these cameras, and its training cases are not at hand: {error}"
        ) from None
    if places_among(cameras, run.problem.cameras) is None:
        return shadows_of(patients, cameras)
    found = shadows_of(patients, run.problem.cameras)
    try:
        write_shadows(run.folder / CHECK, found)
    except InputError as error:
        say(f"{error}; not kept")
    mine = found.of(cameras)
    assert mine is not None  # of the trained cameras
    return mine


def warning(run: Run, views: Sequence[View], request: Request) -> str | None:
    """A line where another geometry is clearly likelier or the patient unlike the training; else None.

    Looks only where that costs seconds: with what the run has stored, or where its training files are at
    hand and the cameras those of the training.
    """
    source = request.surround or run
    if source.untrained or request.xrays not in (None, source.experiment.xrays.of):
        return None
    cameras = [view.camera for view in views]
    trained = places_among(cameras, source.problem.cameras) is not None
    at_hand = trained and source.data is not None and source.data.is_dir()
    try:
        check = _at_hand(source, cameras)
        if check is None and at_hand:
            check = check_of(_learnt(source, cameras, request.say))
        if check is None:
            return None
        found = judge(check, [view.image for view in views])
    except InputError as error:
        return f"the X-rays' geometry is not checked: {error}"
    if found.doubted:
        return (
            f"warning: these X-rays are likelier to be {_quoted(found)} than as told, by "
            f"{found.ahead[0]:.0f} nats (margin {found.margin:.0f}); jxrecon check says more"
        )
    if found.strange:
        return (
            f"warning: the patient is unlike those of the training (distance {found.distance:.2f}, farther "
            f"than {found.nearer:.0%} of them): do not trust the result"
        )
    return None


def _quoted(found: Finding) -> str:
    return " or ".join(f'"{name}"' for name in (found.best, *found.as_likely))


def lines(found: Finding) -> list[str]:
    """What a check found, as lines to print."""
    ahead = max(found.ahead[0], 0.0)
    first = "as told: no other hypothesis is clearly likelier"
    if found.doubted:
        first = f"NOT AS TOLD: likelier to be {_quoted(found)}"
    second = "UNLIKE" if found.strange else "like"
    rows = [
        f"{first} ({ahead:.0f} nats at most, margin {found.margin:.0f})",
        f"{second} the training patients: distance {found.distance:.2f} by the likeliest hypothesis, farther "
        f"than {found.nearer:.0%} of those left out",
        "likeliest hypotheses, nats above what is told:",
    ]
    listed = list(zip(found.names, found.ahead))[:_SHOWN]
    rows += [f"  {ahead:10.0f}  {name}" for name, ahead in listed]
    blind = [name for name, told in zip(found.names, found.told) if not told]
    if blind:
        rows.append(
            f"cannot be told from X-rays, people being nearly symmetric: {', '.join(blind)}"
        )
    return rows


class Turned(NamedTuple):
    """X-rays whose poses were found.

    Attributes:
        views: as they would be if all but the first stood where they are told.
        found: where they stand.
        of_field: (the field's share of `views`, or None where they show no more) -> X-rays of the field from
            where they stand.
    """

    views: list[View]
    found: Refined
    of_field: Callable[[Images | None], list[View]]


def refined(run: Run, views: Sequence[View], request: Request) -> Turned:
    """Where the X-rays stand, and what they would be where they are told to stand.

    By the training patients of a run, or what ships of them.

    Raises:
        InputError: the training cases are not at hand, or there is one X-ray alone.
    """
    source = request.surround or run
    request.say(f"learning from {source.rule} where the X-rays were taken from")
    told, known = [view.camera for view in views], shipped_patients(source)
    search = known.search(told) if known else search_of(training_patients(source), told)
    found = search.refine([view.image for view in views])
    for view, motion, deviation, limit in zip(
        views[1:], found.motion, found.deviation, found.at_limit
    ):
        request.say(
            f"{view.origin} was taken from elsewhere than told (+- one standard deviation):"
        )
        for name, value, spread in zip(PARAMETERS, motion, deviation):  # those that are believed
            request.say(f"  {name:<42}{value:+6.1f} +- {spread:.1f}")
        if limit:
            request.say(
                "  at the limit of the search: farther off than is looked, or an unusual patient"
            )
    seen = [view._replace(image=np.asarray(y)) for view, y in zip(views, found.images)]
    turn = search.turning(run.problem.grid)

    def of_field(share: Images | None) -> list[View]:
        images = [view.image for view in views] if share is None else turn(found, share)
        items = zip(views, images, found.cameras)
        return [view._replace(image=np.asarray(y), camera=there) for view, y, there in items]

    return Turned(seen, found, of_field)


def facts_of(found: Refined) -> dict[str, Any]:
    """The poses found, for the JSON file beside a volume."""
    return {
        "parameters": PARAMETERS[:BELIEVED],
        "motion": found.motion.round(3).tolist(),
        "deviation": found.deviation.round(3).tolist(),
        "cameras": [camera.to_dict() for camera in found.cameras],
    }
