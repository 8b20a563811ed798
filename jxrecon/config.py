"""Experiments as plain frozen dataclasses: found by name, changed by `--set`, saved, compared.

An experiment is one file of `experiments/` with `get_config(size)`, whose docstring is its lab note.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jxrecon.geometry import Camera, Grid, centred_grid, evenly_spaced
from jxrecon.types import InputError
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


def _experiments_folder() -> Path:
    """Installed beside this file from a wheel; the repository's own folder in a clone."""
    installed = Path(__file__).parent / "experiments"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "experiments"


def names() -> list[str]:
    """The experiments that can be run, in alphabetical order."""
    return sorted(p.stem for p in _experiments_folder().glob("*.py") if not p.stem.startswith("_"))


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jxrecon_experiment_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find(name: str, size: str | None = None) -> Experiment:
    """The experiment of this name at this size (None: the size its file picks for this device).

    Args:
        name: a name of `names()`, or the path of a Python file of one's own with `get_config(size)`.
        size: a size that the experiment offers.

    Raises:
        InputError: there is no such experiment or no such size.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"--exp {name}: no such file, expected a Python file with get_config(size)"
            )
    elif name in names():
        path = _experiments_folder() / f"{name}.py"
    else:
        raise InputError(f"--exp {name}: no such experiment, expected one of {', '.join(names())}")
    return _import_file(path).get_config(size)


def to_dict(value: Any) -> Any:
    """The saved form: dataclasses as dicts, tuples as lists, functions left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        functions = ("build", "load", "baselines", "optional", "with_earlier_scan", "kind")
        return {k: to_dict(v) for k, v in items.items() if k not in functions}
    if isinstance(value, dict):
        return {k: to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    return value


def from_dict(template: Any, saved: Any, path: str = "config") -> Any:
    """`template` with its plain fields taken from `saved`: the inverse of `to_dict`.

    Raises:
        InputError: a field is missing, unknown or of another type.
    """
    if dataclasses.is_dataclass(template) and not isinstance(template, type):
        known = to_dict(template)
        if not isinstance(saved, dict) or set(saved) != set(known):
            found = sorted(saved) if isinstance(saved, dict) else saved
            raise InputError(f"{path}: found {found}, expected the fields {sorted(known)}")
        values = {k: from_dict(getattr(template, k), v, f"{path}.{k}") for k, v in saved.items()}
        return dataclasses.replace(template, **values)
    if isinstance(template, tuple):
        if not isinstance(saved, list) or (template and not saved):
            raise InputError(f"{path}: found {saved!r}, expected a list such as {list(template)}")
        kinds = template if len(template) == len(saved) else [template[0]] * len(saved)
        return tuple(from_dict(t, v, f"{path}[{i}]") for i, (t, v) in enumerate(zip(kinds, saved)))
    if isinstance(template, float) and isinstance(saved, int) and not isinstance(saved, bool):
        return float(saved)
    if template is not None and type(saved) is not type(template):
        raise InputError(
            f"{path}: found {saved!r}, expected {type(template).__name__} such as {template!r}"
        )
    return saved


def override(experiment: Experiment, assignments: list[str]) -> Experiment:
    """The experiment with `--set a.b=value` applied; values are read as JSON, else as text.

    Raises:
        InputError: an assignment has no such field or its value another type.
    """
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found:
            raise InputError(
                f"--set {assignment}: expected FIELD=VALUE, such as schedule.steps=100"
            )
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        saved = to_dict(experiment)
        *parents, last = path.split(".")
        node = saved
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise InputError(
                f"--set {assignment}: no field {path}, expected one of {_paths(saved)}"
            )
        node[last] = value
        experiment = from_dict(experiment, saved, "--set")
    return experiment


def _paths(saved: dict[str, Any], prefix: str = "") -> str:
    flat: list[str] = []
    for key, value in saved.items():
        flat += [_paths(value, f"{prefix}{key}.")] if isinstance(value, dict) else [prefix + key]
    return ", ".join(flat)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Lines 'field: old -> new' for every plain field in which two saved configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted({*old, *new}):
            name = f"{path}.{key}" if path else key
            lines += differences(old.get(key), new.get(key), name)
        return lines
    return [] if old == new else [f"{path}: {old} -> {new}"]
