"""What an evaluation is made of: who measures, at which bench, and what was found there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jxrecon.files import component
from jxrecon.metrics.metric import Metric
from jxrecon.types import PyTree


class Righted(NamedTuple):
    """X-rays put right.

    Attributes:
        images: as any method may take them.
        cameras: of these.
        turned: (the field's share of these, or None where X-rays show no more than the field) -> (X-rays of
            the field from where the cameras are believed to have stood, these cameras), for a method of
            `any_camera`; None: the share and `cameras`.
    """

    images: Any
    cameras: Any
    turned: Callable[[Any], tuple[Any, Any]] | None = None


class Knowledge(NamedTuple):
    """What a method goes by beside the X-rays.

    Attributes:
        method: fitted, for this problem.
        state: (place of a case) -> state: the same trained one, or something of this very patient.
        remedy: (X-rays, cameras) -> them put right before the method is given them; None: as they are.
        start: whose volume the method starts from; None: its own way.
        earlier: (place of a case) -> an earlier scan of the patient, given beside the state; None: none.
    """

    method: Any
    state: Callable[[int], PyTree]
    remedy: Callable[[Any, Any], Righted] | None = None
    start: Knowledge | None = None
    earlier: Callable[[int], PyTree] | None = None


class Found(NamedTuple):
    """A result of one case.

    Attributes:
        place: of the case in its split.
        result: as it is written: HU [x, y, z] in whole numbers, or vertices [v, 3] in mm.
        metrics: by name.
        costs: by name, as in `metrics.metric.COSTS`.
    """

    place: int
    result: np.ndarray
    metrics: dict[str, float]
    costs: dict[str, float]


class Bench(NamedTuple):
    """What every method is given and measured by at one number of views, compiled once for all of them.

    Attributes:
        views: how many.
        problem: of that number of views.
        training: () -> all training cases with X-rays of these views, as a method's `fit` takes them.
        run_cases: (knowledge, places of cases) -> what was found, case by case.
        search: () -> the search for the poses of these views, `likelihood.pose.Search`, made once.
    """

    views: int
    problem: Any
    training: Callable[[], Any]
    run_cases: Callable[[Knowledge, Sequence[int]], Iterator[Found]]
    search: Callable[[], Any] | None = None


class Remedy(NamedTuple):
    """Something done to X-rays, or to what is believed of their cameras, before a method is given them.

    Attributes:
        name: as in the tables.
        learn: (bench) -> (X-rays, cameras) -> them put right; may learn from the bench's training cases.
            Where it gives other cameras, methods are compiled for those, unless one program serves
            `any_camera`, and what surrounds the field is regressed for `Righted.cameras`.
        note: what a reader must know of it.
        digest: of all that it depends on beside the bench.
    """

    name: str
    learn: Callable[[Bench], Callable[[Any, Any], Righted]]
    note: str
    digest: int = 0


class Judge(NamedTuple):
    """How results of one kind are measured, counted and kept.

    Attributes:
        metrics: by name, in the order of the tables.
        judged: the metric of verdicts, and by which pictures are chosen.
        main: metrics of the first table, with intervals and tests.
        counts: numbers of views that are compared unless others are asked for.
        photons: a pixel of the unattenuated beam, unless others are asked for; None: X-rays have no noise.
        bar: the rival that a method has to pass, or None: who does not has not earned its weights.
        unit: what is independent of each other, in the plural: cases of one unit are averaged before a test.
        unit_of: (cases of a split, place) -> which unit.
        bench: (setting, number of views) -> Bench.
        complete: (row of the table) -> whether nothing can be measured now that could not be then.
        check: (setting, run) -> None; raises InputError unless the run fits.
        ending: of the files of results.
        light: whether these files are small: those of rivals are kept without being asked for.
        save: (path, result, setting, place) -> None.
        terms: (setting) -> further entries of summary.json: what the X-rays are, the grid.
    """

    metrics: dict[str, Metric]
    judged: str
    main: tuple[str, ...]
    counts: tuple[int, ...]
    photons: float | None
    bar: str | None
    unit: str
    unit_of: Callable[[Any, int], Any]
    bench: Callable[[Any, int], Bench]
    complete: Callable[[dict[str, Any]], bool]
    check: Callable[[Any, Any], None]
    ending: str
    light: bool
    save: Callable[[Path, np.ndarray, Any, int], None]
    terms: Callable[[Any], dict[str, Any]]


def recon_path(out: Path, method: str, count: int, case: str, ending: str) -> Path:
    """Where the result of a case lies below the folder of an evaluation.

    Raises:
        InputError: a name would lead elsewhere.
    """
    method, case = component(method, "experiment.name"), component(case, "cases")
    return out / "recon" / method / f"{count} view{'s' if count > 1 else ''}" / f"{case}{ending}"


class Timed:
    """A jitted function, compiled for its first arguments; times the calls and tells its memory."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> tuple[Any, dict[str, float]]:
        """(result, costs): seconds without compilation, and 1e6 bytes of temporaries and results."""
        if self._compiled is None:
            self._compiled = self._function.lower(*arguments).compile()
        began = time.perf_counter()
        result = jax.block_until_ready(self._compiled(*arguments))
        seconds = time.perf_counter() - began
        account = self._compiled.memory_analysis()
        memory = float("nan")  # where the backend does not tell
        if account is not None:
            memory = (account.temp_size_in_bytes + account.output_size_in_bytes) / 1e6
        return result, {"seconds": seconds, "memory_mb": memory}
