"""Experiments by name: found, changed by `--set`, saved as plain JSON, compared.

An experiment is one file of `experiments/` with `get_config(size)`, whose docstring is its lab note.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from jxrecon.experiment import FUNCTIONS, MACHINES, Experiment, Machine
from jxrecon.types import InputError, shown


def _experiments_folder() -> Path:
    """Inside the package where it was installed from a wheel; beside it in a clone."""
    installed = Path(__file__).parents[1] / "experiments"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "experiments"


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
        InputError: there is no such experiment or no such size, or its file fails.
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
    try:
        return _import_file(path).get_config(size)
    except InputError:
        raise
    except Exception as error:  # a file of the user's own, or one written for another version
        line = next(
            (f.lineno for f in extract_tb(error.__traceback__)[::-1] if f.filename == str(path)), 0
        )
        raise InputError(
            f"{path}, line {line}: {type(error).__name__}: {error}; expected get_config(size) that returns "
            "an Experiment of this version"
        ) from error


def find_saved(name: str, size: str | None, trust: Sequence[Path], origin: str) -> Experiment:
    """The experiment that a run folder names: one of the package, or a file that the user trusts.

    A run folder is data, perhaps of somebody else: what it names is not executed for that alone.

    Args:
        name: as `find` takes it.
        size: as `find` takes it.
        trust: Python files that may be executed, where the run names a file of the same name.
        origin: the file that names it.

    Raises:
        InputError: there is no such experiment, or it is a file that is not trusted.
    """
    if not name.endswith(".py"):
        if name not in names():
            raise InputError(
                f"{origin}: experiment {shown(name)}, expected one of {', '.join(names())}"
            )
        return find(name, size)
    ours = next((path for path in trust if path.name == os.path.basename(name)), None)
    if ours is None:
        raise InputError(
            f"{origin}: its experiment is the Python file {shown(name, 300)}, which a run folder does not "
            "execute by itself: give --trust FILE if you know that file"
        )
    return find(str(ours), size)


def to_dict(value: Any) -> Any:
    """The saved form: dataclasses as dicts, tuples as lists, functions left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {k: to_dict(v) for k, v in items.items() if k not in FUNCTIONS}
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
            raise InputError(f"{path}: found {shown(found)}, expected the fields {sorted(known)}")
        values = {k: from_dict(getattr(template, k), v, f"{path}.{k}") for k, v in saved.items()}
        return dataclasses.replace(template, **values)
    if isinstance(template, tuple):
        if not isinstance(saved, list) or (template and not saved):
            raise InputError(
                f"{path}: found {shown(saved)}, expected a list such as {list(template)}"
            )
        kinds = template if len(template) == len(saved) else [template[0]] * len(saved)
        return tuple(from_dict(t, v, f"{path}[{i}]") for i, (t, v) in enumerate(zip(kinds, saved)))
    if isinstance(template, float) and isinstance(saved, int) and not isinstance(saved, bool):
        saved = float(saved) if abs(saved) < 2**63 else math.inf
    if template is not None and type(saved) is not type(template):
        raise InputError(
            f"{path}: found {shown(saved)}, expected {type(template).__name__} such as {template!r}"
        )
    if isinstance(saved, float) and not math.isfinite(saved) and saved != template:
        raise InputError(f"{path}: found {saved}, expected a finite number")
    return saved


def completed(template: Any, saved: Any) -> Any:
    """A saved form with the defaults of the fields that it lacks: those that came after the run was made.

    What else does not fit `template` stays, for `from_dict` to tell.
    """
    if not dataclasses.is_dataclass(template) or not isinstance(saved, dict):
        return saved
    filled = dict(saved)
    for field in dataclasses.fields(template):
        if field.name in saved:
            filled[field.name] = completed(getattr(template, field.name), saved[field.name])
        elif field.name in FUNCTIONS:
            continue
        elif field.default is not dataclasses.MISSING:
            filled[field.name] = to_dict(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            filled[field.name] = to_dict(field.default_factory())
    return filled


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
        except (ValueError, RecursionError):  # more digits or levels than JSON is read with, too
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


def machine(name: str, experiment: Experiment) -> Machine:
    """A machine of `experiment.MACHINES` for the X-rays of an experiment.

    Raises:
        InputError: there is none of this name, or the experiment's X-rays are not taken by machines.
    """
    if name not in MACHINES:
        raise InputError(f"--machine {name}: expected one of {', '.join(MACHINES)}")
    if experiment.field is None or experiment.kind.judge is None:
        raise InputError(
            f"--machine {name}: {experiment.name} finds {experiment.kind.finds}, expected an experiment "
            "that finds CT volumes"
        )
    return MACHINES[name]


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
    return [] if old == new else [f"{path}: {shown(old)} -> {shown(new)}"]
