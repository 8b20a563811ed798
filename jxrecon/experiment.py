"""What an experiment is: plain frozen dataclasses, all that a run depends on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jxrecon.geometry import Camera, Grid, centred_grid, evenly_spaced
from jxrecon.types import InputError, shown
from jxrecon.units import NOTHING_STATED, Stated, Window

MOST_STEPS = 2**31 - 1
"""Steps and seeds are counted in 32 bits."""

MOST_VOXELS, MOST_DETECTOR = 1024**3, 8192
"""Of a field; pixels along an edge of a detector."""


def _check(holds: bool, name: str, value: Any, expected: str) -> None:
    """Raises InputError for a field of an experiment that holds no sensible value."""
    if not holds:
        raise InputError(
            f"{name} is {shown(value)}, expected {expected} (--set {name}=..., config.json, or the "
            "experiment's file)"
        )


@dataclass(frozen=True)
class Field:
    """The field of view that is reconstructed: voxels along x, y, z and their spacing in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float] = (-1024.0, 2000.0)

    def __post_init__(self) -> None:
        """Raises InputError where it is no field."""
        count = math.prod(self.shape)
        good = len(self.shape) == 3 and min(self.shape) >= 1 and count <= MOST_VOXELS
        _check(good, "field.shape", self.shape, f"three counts of 1 to {MOST_VOXELS} voxels in all")
        good = len(self.spacing_mm) == 3 and all(0 < mm < math.inf for mm in self.spacing_mm)
        _check(good, "field.spacing_mm", self.spacing_mm, "three positive mm")
        low, high = self.window_hu if len(self.window_hu) == 2 else (math.nan, math.nan)
        _check(-math.inf < low < high < math.inf, "field.window_hu", self.window_hu, "low < high")

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

    def __post_init__(self) -> None:
        """Raises InputError where they are no X-rays."""
        _check(
            1 <= self.pixels <= MOST_DETECTOR, "views.pixels", self.pixels, f"1 to {MOST_DETECTOR}"
        )
        _check(1 <= self.count <= 1024, "views.count", self.count, "1 to 1024 X-rays")
        _check(
            0 < self.detector_mm < math.inf, "views.detector_mm", self.detector_mm, "positive mm"
        )
        axis, detector = self.source_axis_mm, self.source_detector_mm
        good = 0 < axis < math.inf and 0 < detector < math.inf
        _check(good, "views.source_axis_mm and source_detector_mm", (axis, detector), "positive mm")

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
class Variety:
    """How far patients are moved and cameras misplaced from step to step; standard deviations unless said.

    Attributes:
        amount: factor of all others: 0 leaves every case as it is; else it also comes mirrored.
        rotation_deg: of the patient about each axis.
        shift_mm: of the patient along each axis.
        scale: of the logarithm of size, of all axes together and again of each.
        warp_mm: smooth displacement of the patient at each node of a lattice.
        warped: share of the cases that are warped.
        pose_error_deg: of the cameras about each axis, unknown to the method.
        distance_mm: of the source along its axis, unknown to the method.
    """

    amount: float = 0.0
    rotation_deg: float = 2.0
    shift_mm: float = 4.0
    scale: float = 0.02
    warp_mm: float = 3.0
    warped: float = 0.4
    pose_error_deg: float = 0.2
    distance_mm: float = 2.0


@dataclass(frozen=True)
class Machine:
    """What a machine makes of ideal line integrals; the defaults are the ideal machine.

    Attributes:
        kvp: tube voltage in kV, whose spectrum hardens; 0: one energy, that of the CT.
        filter_mm: aluminium before the tube, with `kvp`.
        scatter: scatter-to-primary ratio behind the body.
        scatter_mm: standard deviation of the scatter on the detector.
        blur_mm: standard deviation of the blur on the detector.
        gamma: of the tone curve y -> 8 (y / 8)^gamma that the line integrals are stored by.
    """

    kvp: float = 0.0
    filter_mm: float = 2.5
    scatter: float = 0.0
    scatter_mm: float = 50.0
    blur_mm: float = 0.0
    gamma: float = 1.0


MACHINES = {
    "ideal": Machine(),
    "room": Machine(kvp=100.0, scatter=0.5, blur_mm=1.5, gamma=0.9),
}
"""Machines by name. "room" is a flat panel behind a grid, by choice: no device was measured."""


@dataclass(frozen=True)
class Xrays:
    """What the X-rays show and how they are spoilt.

    Attributes:
        of: "patient", the whole CT; or "field", its voxels in the field alone: an inverse crime, for
            comparison with papers.
        photons: fewest and most of a pixel of the unattenuated beam, evenly in the logarithm.
        noisy: share of the cases of a training step with the noise of so many photons.
        variety: how cases change from step to step.
        table: whether the table stays in the patient's CT.
        machine: what takes them.
    """

    of: str = "patient"
    photons: tuple[float, float] = (2e4, 2e4)
    noisy: float = 1.0
    variety: Variety = dataclasses.field(default_factory=Variety)
    table: bool = False
    machine: Machine = dataclasses.field(default_factory=Machine)


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

    def __post_init__(self) -> None:
        """Raises InputError where no training can follow it."""
        for name, value in dataclasses.asdict(self).items():
            if name != "best":
                least = 0 if name == "seed" else 1
                good = least <= value <= MOST_STEPS
                _check(good, f"schedule.{name}", value, f"{least} to {MOST_STEPS}")


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
        slow: as `Method.slow`.
    """

    build: Callable[[Any], Any]
    default: bool = False
    untrained: bool = False
    needs_earlier: bool = False
    slow: bool = False


class Acquired(Protocol):
    """Cases as methods learn from them: a batch is brought to the device and observed there."""

    def observe(self, batch: Any, key: Any) -> Any:
        """A training batch as the method takes it: with X-rays, each time taken anew. Pure, for jit."""

    def observe_still(self, batch: Any, key: Any) -> Any:
        """The same of the cases as they are, for looking up."""

    def everything(self) -> Any:
        """All cases at once, for methods that are fitted in one go."""

    def share_without(self, places: Sequence[int]) -> Any:
        """What a `field_model` sees of X-rays, learnt without the cases at these places."""


class Kind(NamedTuple):
    """What differs between experiments that find volumes, surfaces or styles; see `jxrecon.kinds`.

    Attributes:
        finds: what they find, in words.
        problem: (experiment, number of training cases, run folder) -> the problem that methods are built for.
        acquire: (experiment, cases) -> the cases as methods learn from them, `Acquired`.
        keep: (experiment, dataset, run folder) -> None: writes what results need beside config.json.
        judge: () -> how results are measured and counted, an `evaluation.bench.Judge`; None: not at all.
        sections: (`evaluation.compare.Results`) -> the report's sections with pictures.
        reconstruct: (run, X-rays, `inference.request.Request`) -> what was found in them.
    """

    finds: str
    problem: Callable[[Experiment, int, Path], Any]
    acquire: Callable[[Experiment, Any], Acquired]
    keep: Callable[[Experiment, Any, Path], None] = lambda experiment, dataset, folder: None
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
        xrays: what the X-rays show and how they are spoilt; of volumes alone.
        ct: what is stated of the numbers in CT files that do not hold HU; of volumes alone.
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
    xrays: Xrays = dataclasses.field(default_factory=Xrays)
    ct: Stated = NOTHING_STATED
    population: Any = dataclasses.field(default_factory=Population)
    build: Callable[..., Any] = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]
    load: Callable[..., Any] = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]
    rivals: dict[str, Rival] = dataclasses.field(default_factory=dict, repr=False)


FUNCTIONS = ("kind", "build", "load", "rivals")
"""Fields of an experiment that come with its name and are not saved."""
