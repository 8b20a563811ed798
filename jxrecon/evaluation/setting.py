"""What is equal for all who are compared: cases, cameras for every number of views, noise, seeds."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.data.earlier_scans import find_earlier
from jxrecon.evaluation.bench import Judge, Remedy
from jxrecon.experiment import Experiment, Machine
from jxrecon.geometry import Camera, Grid, camera_at
from jxrecon.methods.base.method import Problem
from jxrecon.runs import config
from jxrecon.runs.run import Trained
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

SPLITS = ("train", "validation", "test")


class Terms(NamedTuple):
    """What is asked of an evaluation, beside who takes part.

    Attributes:
        split: whose cases are reconstructed.
        limit: only the first so many of them.
        counts: numbers of views, evenly spaced over a half circle; None: those of the kind.
        photons: a pixel of the unattenuated beam; 0 is no noise, None what the kind's judge takes.
        seed: of noise and of random starts.
        earlier: folder of earlier CTs of the same patients; None: they are SIMULATED.
        every_gap: whether re-projection is measured in every gap between the views, or in the first alone.
        surround: whether methods with a forward model of the field get the field's share of the X-rays.
        xrays: what X-rays show, "patient" or "field", where the data is read for it; None: as the experiment
            says.
        stated: what the numbers of CT files are; nothing: as the experiment says.
        machine: what takes the X-rays; None: the experiment's own, from whose X-rays methods learn anyway.
        remedies: with each of which every method takes part a second time.
        start: a run whose volumes others start from, where they can.
    """

    split: str = "validation"
    limit: int | None = None
    counts: tuple[int, ...] | None = None
    photons: float | None = None
    seed: int = 0
    earlier: Path | None = None
    every_gap: bool = True
    surround: bool = True
    xrays: str | None = None
    stated: Stated = NOTHING_STATED
    machine: Machine | None = None
    remedies: tuple[Remedy, ...] = ()
    start: Trained | None = None


class Setting(NamedTuple):
    """The terms of an evaluation, checked, and what they are about.

    Attributes:
        experiment: whose field, window and X-rays; its number of views is not looked at.
        dataset: of `experiment.load`.
        terms: as asked.
        judge: of the experiment's kind.
        names: of the cases, in order.
        earlier: case -> file of an earlier CT of the same patient; empty where they are SIMULATED.
    """

    experiment: Experiment
    dataset: Any
    terms: Terms
    judge: Judge
    names: tuple[str, ...]
    earlier: Mapping[str, Path]

    @property
    def cases(self) -> Any:
        """The split that is evaluated."""
        return getattr(self.dataset, self.terms.split)

    @property
    def patient(self) -> bool:
        """Whether X-rays show more than the field."""
        scenes = getattr(self.cases, "scenes", None)
        return scenes is not None and scenes.beyond > 0.0

    @property
    def machines(self) -> tuple[Machine, Machine]:
        """(from whose X-rays methods learn, what takes those that they are given)."""
        own = self.experiment.xrays.machine
        return own, self.terms.machine or own

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of views."""
        return self.terms.counts or self.judge.counts

    @property
    def grid(self) -> Grid:
        """The grid of all volumes."""
        return self.experiment.field.grid

    @property
    def unseen(self) -> tuple[Camera, ...]:
        """Views that no method is given: half-way between those of the largest number of views."""
        views, most = self.experiment.views, max(self.counts)
        if not self.terms.every_gap:
            return (_half_way_from_first(views.cameras),)
        return tuple(
            camera_at(
                180.0 * (i + 0.5) / most,
                source_axis_mm=views.source_axis_mm,
                source_detector_mm=views.source_detector_mm,
                shape=(views.pixels, views.pixels),
                pixel_mm=views.detector_mm / views.pixels,
            )
            for i in range(most)
        )

    def problem(self, count: int) -> Problem:
        """What is to be found from so many X-rays."""
        views = dataclasses.replace(self.experiment.views, count=count)
        cases = len(self.dataset.train.names)
        return Problem(self.grid, views.cameras, self.experiment.field.window, cases)

    @property
    def digest(self) -> int:
        """A number of all that every result depends on: field, X-rays, noise, cases."""
        views = dataclasses.replace(self.experiment.views, count=1)
        plain = (config.to_dict(self.experiment.field), config.to_dict(views))
        terms = (max(self.counts), self.terms.photons, self.terms.seed, self.terms.surround)
        machines = self.machines if set(self.machines) != {Machine()} else ()
        found = zlib.crc32(repr((plain, *terms, *machines)).encode())
        for path in self.earlier.values():
            found = zlib.crc32(repr((path.name, path.stat().st_mtime_ns)).encode(), found)
        for cases in (self.dataset.train, self.cases):
            for part in jax.tree.leaves(tuple(cases)):
                content = part if isinstance(part, np.ndarray) else repr(part).encode()
                found = zlib.crc32(np.ascontiguousarray(content).tobytes(), found)
        return found


def make_setting(experiment: Experiment, dataset: Any, terms: Terms = Terms()) -> Setting:  # noqa: B008
    """The setting of these terms.

    Raises:
        InputError: results of this kind are not measured, there is no such split or it is empty, a
            number is out of its range, or a case has no earlier scan in the folder.
    """
    if experiment.kind.judge is None:
        raise InputError(
            f"{experiment.name} finds {experiment.kind.finds}: there is no truth to measure them by"
        )
    judge = experiment.kind.judge()
    split, limit, counts, photons = terms[:4]
    counts = judge.counts if counts is None else counts
    if split not in SPLITS:
        raise InputError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1 case")
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        told = ",".join(str(count) for count in counts)
        raise InputError(f"--views {told}: expected different numbers from 1 on, such as 1,2,4,8")
    if photons is not None and not 0 <= photons < 1e8:
        raise InputError(
            f"--photons {photons:g}: expected less than 1e8 a pixel, or 0 for no noise"
        )
    if terms.remedies and experiment.field is None:
        raise InputError(
            f"{experiment.name} finds {experiment.kind.finds}, expected no remedies of their X-rays"
        )
    photons = judge.photons if photons is None else photons or None
    cases = getattr(dataset, split, None)
    if cases is None or not cases.names:
        raise InputError(f"--split {split}: no cases in it; {dataset.rule}")
    names = cases.names[:limit]
    earlier = {} if terms.earlier is None else find_earlier(terms.earlier, names)
    terms = terms._replace(counts=counts, photons=photons)
    return Setting(experiment, dataset, terms, judge, names, earlier)


def _half_way_from_first(cameras: tuple[Camera, ...]) -> Camera:
    """The first camera turned half-way to the second of evenly spaced views: 45 degrees for two."""
    angle = np.pi / (2 * len(cameras))
    c, s = np.cos(angle), np.sin(angle)
    rotation = jnp.asarray([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], jnp.float32)
    return cameras[0].moved(rotation, jnp.zeros(3, jnp.float32))
