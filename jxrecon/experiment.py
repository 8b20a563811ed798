"""What an experiment is: plain frozen dataclasses, all that a run depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
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


class Kind(NamedTuple):
    """What methods of another kind than CT volumes find, as the entry points need it.

    Attributes:
        keep: (dataset, run folder) -> None: writes what the problem needs beside the config.
        problem: (experiment, training cases, run folder) -> the problem.
        evaluate: as `jxrecon.evaluate.evaluate`.
        reconstruct: (options of `jxrecon.reconstruct`, run, X-rays, their isocentre in mm, checkpoint)
            -> exit code.
    """

    keep: Callable[..., None]
    problem: Callable[..., Any]
    evaluate: Callable[..., None]
    reconstruct: Callable[..., int]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on. The fields of functions are not saved: they come with the name.

    Attributes:
        name: file in experiments/ without its ending.
        size: which of its sizes.
        field: of the volume that is found; None with another kind.
        population: how many cases there are, made up or drawn; of another type with another kind.
        settings: the method's own frozen dataclass.
        build: (settings, problem) -> Method.
        load: (experiment, folder or None, cache folder or None) -> Dataset; None is built-in data.
        baselines: name -> (problem -> Method), fitted in one step on the whole training set.
        optional: more of them, which take part when asked for by name.
        with_earlier_scan: name -> (problem -> Method whose state is an earlier CT of the same patient in
            HU on the problem's grid), for comparisons.
        kind: of what is found; None is a CT volume.
    """

    name: str
    size: str
    field: Field = None  # type: ignore[assignment]
    views: Views
    schedule: Schedule
    settings: Any
    population: Any = dataclasses.field(default_factory=Population)
    build: Callable[..., Any] = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]
    load: Callable[..., Any] = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]
    baselines: dict[str, Callable[..., Any]] = dataclasses.field(default_factory=dict, repr=False)
    optional: dict[str, Callable[..., Any]] = dataclasses.field(default_factory=dict, repr=False)
    with_earlier_scan: dict[str, Callable[..., Any]] = dataclasses.field(
        default_factory=dict, repr=False
    )
    kind: Kind | None = dataclasses.field(default=None, repr=False)
