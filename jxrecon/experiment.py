"""What an experiment is: plain frozen dataclasses, all that a run depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jxrecon.geometry import Camera, Grid, centred_grid, evenly_spaced
from jxrecon.units import Window


@dataclass(frozen=True)
class Field:
    """The field of view that is reconstructed: voxels along x, y, z and their spacing in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float] = (-1024.0, 2000.0)

    @property
    def grid(self) -> Grid:
        """The grid centred in the world: cameras look at its middle."""
        return centred_grid(self.shape, self.spacing_mm)

    @property
    def window(self) -> Window:
        return Window(*self.window_hu)


@dataclass(frozen=True)
class Views:
    """The standard X-rays: evenly spaced over a half circle, so two of them are biplanar."""

    pixels: int
    count: int = 2
    detector_mm: float = 384.0
    source_axis_mm: float = 1000.0
    source_detector_mm: float = 1500.0

    @property
    def cameras(self) -> tuple[Camera, ...]:
        return evenly_spaced(
            self.count,
            source_axis_mm=self.source_axis_mm,
            source_detector_mm=self.source_detector_mm,
            shape=(self.pixels, self.pixels),
            pixel_mm=self.detector_mm / self.pixels,
        )


@dataclass(frozen=True)
class Schedule:
    """How long training runs and how often it looks up; counts are steps."""

    steps: int
    batch_size: int
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 500
    evaluate_cases: int = 8
    save_every: int = 500
    best: str = "psnr_db"  # the eval term that the best checkpoint maximises; "-name" minimises it


@dataclass(frozen=True)
class Population:
    """The built-in synthetic data: how many subjects of each split, and their seed."""

    train: int = 256
    validation: int = 12
    seed: int = 0


class Rival(NamedTuple):
    """A method beside which the runs of an experiment stand.

    Attributes:
        build: (problem) -> Method; one `train_step` on the whole training set fits it.
        default: whether it takes part in the evaluation of a run without being asked for by name.
        untrained: whether X-rays are all it needs, so that it reconstructs without a run.
        needs_earlier: whether its state is an earlier CT of the same patient, HU on the problem's grid.
    """

    build: Callable[[Any], Any]
    default: bool = False
    untrained: bool = False
    needs_earlier: bool = False


class Kind(NamedTuple):
    """What differs between experiments that find volumes, surfaces or styles; see `jxrecon.kinds`.

    Attributes:
        finds: what they find, in words.
        problem: (experiment, number of training cases, run folder) -> the problem that methods are built for.
        keep: (dataset, run folder) -> None: writes what the problem needs beside config.json.
        judge: () -> how results are measured and counted, an `evaluation.bench.Judge`; None: not at all.
        sections: (`evaluation.compare.Results`) -> the report's sections with pictures.
        reconstruct: (run, X-rays, `inference.request.Request`) -> what was found in them.
    """

    finds: str
    problem: Callable[[Experiment, int, Path], Any]
    keep: Callable[[Any, Path], None] = lambda dataset, folder: None
    judge: Callable[[], Any] | None = None
    sections: Callable[[Any], list[Any]] | None = None
    reconstruct: Callable[..., Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on. Functions are not saved: they come with the name.

    Attributes:
        name: file in experiments/ without its ending.
        size: which of its sizes.
        kind: VOLUMES, SURFACES or STYLES of `jxrecon.kinds`.
        field: of the volume that is found; None with another kind.
        population: how many cases there are, made up or drawn; of another type with another kind.
        settings: the method's own frozen dataclass.
        build: (settings, problem) -> Method.
        load: (experiment, folder or None, cache folder or None) -> Dataset; None is built-in data.
        rivals: name -> method to compare with, shared by the experiments of one field.
    """

    name: str
    size: str
    kind: Kind = dataclasses.field(repr=False)
    field: Field = None  # type: ignore[assignment]
    views: Views
    schedule: Schedule
    settings: Any
    population: Any = dataclasses.field(default_factory=Population)
    build: Callable[..., Any] = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]
    load: Callable[..., Any] = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]
    rivals: dict[str, Rival] = dataclasses.field(default_factory=dict, repr=False)


FUNCTIONS = ("kind", "build", "load", "rivals")
"""Fields of an experiment that come with its name and are not saved."""
