"""What a run folder is: the resolved experiment, what it ran on, and its checkpoints.

config.json       everything the run depends on; `--exp`, data and this file make it again
checkpoints/      the latest two and the best
surround.npz      what the patient adds to X-rays of the field, where the method needs it (data/surround.py)
check.npz         what X-rays by right and wrong cameras look like, of real patients (likelihood/check.py)
metrics.jsonl     one JSON object a line: step, split and the terms of the paper
tensorboard/      the same for TensorBoard
recon/, cases.csv, summary.json, report.html      the evaluation
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jxrecon.experiment import Experiment, Xrays
from jxrecon.files import locked, one_line, read_json, write_file
from jxrecon.runs import config, growth, sharding, shipped
from jxrecon.types import InputError, PyTree, shown
from jxrecon.units import NOTHING_STATED

_PACKAGES = ("jxrecon", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Run(NamedTuple):
    """A run: its folder, what it learns and from what.

    Attributes:
        folder: the run folder.
        experiment: resolved, with all that `--set` changed.
        data: folder of the volumes; None is the built-in synthetic population.
        problem: built from the experiment's field of view and views, or by its kind.
        method: built from the experiment's settings.
        synthetic: whether the volumes are made up.
        rule: the sentence that says where the volumes come from and how they were cut.
        untrained: whether the method has nothing to learn: there is no folder, its state is made anew.
        weights: of `runs.shipped`, in place of a folder; None: the folder's checkpoints.
        assignments: of `--set`, since the training.
    """

    folder: Path
    experiment: Experiment
    data: Path | None
    problem: Any
    method: Any
    synthetic: bool
    rule: str
    untrained: bool = False
    weights: Path | None = None
    assignments: tuple[str, ...] = ()


class Trained(NamedTuple):
    """A run with the state of one of its checkpoints.

    Attributes:
        run: the run.
        state: of its method.
        step: of the checkpoint.
    """

    run: Run
    state: PyTree
    step: int


def continues(
    folder: Path, experiment: Experiment, data: Path | None, grow: Path | None = None
) -> bool:
    """Whether the folder holds a run of this experiment on this data, to be resumed.

    Args:
        folder: of the run.
        experiment: resolved.
        data: the argument of `--data`.
        grow: the argument of `--grow`.

    Raises:
        InputError: it holds a run of another one, the line says in what they differ; or it is trained
            at the moment, or cannot be written to.
    """
    if not (folder / "config.json").exists():
        return False
    saved = _read(folder)
    known = config.completed(experiment, saved["experiment"])
    lines = config.differences(
        {"experiment": known, "data": saved["data"], "grow": saved.get("grow")},
        {
            "experiment": config.to_dict(experiment),
            "data": _absolute(data),
            "grow": _absolute(grow),
        },
    )
    if lines:
        raise InputError(
            f"{folder} holds another run ({'; '.join(lines)}): give --workdir a new folder, or the"
            " settings of that run to resume it"
        )
    if jax.process_index() == 0:
        with locked(folder, "training"):  # refuses before any time is spent
            pass
    return True


def start(
    folder: Path,
    experiment: Experiment,
    exp: str,
    data: Path | None,
    dataset: Any,
    grow: Trained | None = None,
    keep: bool = True,
) -> Run:
    """The run of this experiment in this folder: a new one with its config.json, or the one there.

    Args:
        folder: created where missing.
        experiment: resolved.
        exp: the argument of `--exp` that it was found by: a name or the path of a file.
        data: the argument of `--data`.
        dataset: what `experiment.load` gave for it.
        grow: the run that a new one begins from.
        keep: what the run needs of its training cases; False where these are not at hand.

    Raises:
        InputError: the folder holds another run or cannot be written to, or there is nothing to take over
            from the run to grow.
    """
    cases = len(dataset.train.names)
    if continues(folder, experiment, data, None if grow is None else grow.run.folder):
        saved = _read(folder)["cases"]
        if saved != cases:
            raise InputError(
                f"{folder} was trained on {saved} volumes, found {cases} in {data or 'built-in data'}:"
                " give --workdir a new folder"
            )
        _refuse_others(_read(folder).get("train"), _means(dataset.train), folder)
    elif jax.process_index() == 0:
        contents = {
            "experiment": config.to_dict(experiment),
            "exp": str(Path(exp).absolute()) if exp.endswith(".py") else exp,
            "data": _absolute(data),
            "grow": None if grow is None else _absolute(grow.run.folder),
            "cases": cases,
            "train": _means(dataset.train),
            "rule": dataset.rule,
            "synthetic": dataset.synthetic,
            "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
            "git": _git_revision(),
            "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
            "hardware": hardware(),
        }
        if keep:
            experiment.kind.keep(experiment, dataset, folder)
        if grow is not None:
            _check_growth(_assemble(folder, experiment, data, cases, False, ""), grow)
        write_file(folder / "config.json", json.dumps(contents, indent=2) + "\n")
    return _assemble(folder, experiment, data, cases, dataset.synthetic, dataset.rule)


def _means(train: Any) -> dict[str, float]:
    """Name of each training case -> the mean of its numbers, which another one in its place has not.

    Of sets without an array a case, 0.
    """
    parts = train if isinstance(train, tuple) else vars(train).values()
    count = len(train.names)
    arrays = [one for one in parts if isinstance(one, np.ndarray) and len(one) == count]
    means = [float(one.mean()) for one in arrays[0]] if arrays else [0.0] * count
    return dict(zip(train.names, means))


def _refuse_others(saved: Any, found: dict[str, float], folder: Path) -> None:
    """Refuses to go on with other cases than a run began with; runs from before tell none."""
    if not isinstance(saved, dict):
        return
    for name, mean in found.items():
        known = saved.get(name)
        if not isinstance(known, int | float) or not np.isclose(known, mean, rtol=1e-3, atol=1e-3):
            raise InputError(
                f"{folder} was trained on other data: case {name} has the mean {mean:.5g}, then "
                f"{'it was not there' if known is None else shown(known)}: give --workdir a new folder"
            )


def open_run(
    folder: Path | str, trust: Sequence[Path | str] = (), assignments: Sequence[str] = ()
) -> Run:
    """The run that a folder holds, or, where there is no such folder, the weights of this name that ship.

    Args:
        folder: the run folder.
        trust: Python files of experiments of one's own. A run that names such a file is refused unless a
            file of that name is given here; that one is executed.
        assignments: as "settings.latent.pose=true", of settings that act on reconstruction alone.

    Raises:
        InputError: there is no run, its config.json is damaged, its experiment is gone or changed, or a
            file that is not trusted; or a setting was fixed by training.
    """
    folder = Path(folder)
    weights = None if (folder / "config.json").exists() else shipped.path_of(str(folder))
    saved = _read(folder) if weights is None else shipped.read_config(weights)[0]
    origin = str(weights or folder / "config.json")
    size = saved["experiment"].get("size")
    if not isinstance(size, str):
        raise InputError(
            f"{origin}: experiment.size is {shown(size)}, expected a size such as small"
        )
    found = config.find_saved(saved["exp"], size, [Path(path) for path in trust], origin)
    known = config.completed(found, saved["experiment"])
    experiment = config.from_dict(found, known, f"{origin}: experiment")
    data = None if saved["data"] is None else Path(saved["data"])
    rest = data, saved["cases"], saved["synthetic"], saved["rule"]
    try:
        run = _assemble(folder, experiment, *rest)
        if assignments:
            _check_free(run, assignments)
            run = _assemble(folder, config.override(experiment, list(assignments)), *rest)
    except InputError:
        raise
    except Exception as error:  # whatever settings that nobody checked make a method raise
        line = f"{type(error).__name__}: {one_line(error)}"[:200]
        raise InputError(f"{origin}: its settings make no {experiment.name} ({line})") from error
    return run._replace(weights=weights, assignments=tuple(assignments))


def _check_free(run: Run, assignments: Sequence[str]) -> None:
    """Raises InputError for a setting that training has fixed."""
    free = getattr(run.method, "free", ())
    for assignment in assignments:
        path = assignment.partition("=")[0]
        if not any(path.startswith(f"{name}.") for name in free):
            allowed = ", ".join(f"{name}.*" for name in free) or "none of this run"
            raise InputError(
                f"--set {assignment}: {run.folder} was trained already, expected settings that act on "
                f"reconstruction alone: {allowed}"
            )


def restore(run: Run, which: int | Literal["latest", "best"] = "latest") -> tuple[PyTree, int]:
    """The state of a checkpoint and its step, a copy on every device.

    Args:
        run: of `open_run`.
        which: "latest" is the newest that is not damaged; a number is a step.

    Raises:
        InputError: there is none.
    """
    if run.untrained:
        return run.method.init(jax.random.key(run.experiment.schedule.seed)), 0
    if run.weights is not None:
        abstract = jax.eval_shape(lambda: run.method.ship(run.method.init(jax.random.key(0))))
        return shipped.read(run.weights, abstract)
    from jxrecon.runs.checkpoint import Checkpoints  # Orbax takes half a second

    checkpoints = Checkpoints(run.folder / "checkpoints", read_only=True)
    abstract = abstract_state(run, sharding.make_mesh())
    try:
        if which != "latest":
            return checkpoints.restore(which, abstract)
        restored = checkpoints.restore_latest_valid(abstract)
    finally:
        checkpoints.close()
    if restored is None:
        raise InputError(f"{run.folder}: no checkpoint yet, expected a trained run")
    return restored


def data_of(run: Run) -> Path | None:
    """Where the volumes lie that a run learnt from; None is the built-in population.

    Raises:
        InputError: its weights ship without them.
    """
    if run.weights is not None:
        raise InputError(
            f"{run.folder}: the weights ship without the patients they learnt from, who are needed: give "
            "--data, or a run of your own"
        )
    return run.data


def abstract_state(run: Run, mesh: jax.sharding.Mesh) -> PyTree:
    """Shapes, dtypes and places of the run's state on a mesh, without computing it."""
    shapes = jax.eval_shape(run.method.init, jax.random.key(run.experiment.schedule.seed))
    return sharding.with_shardings(shapes, sharding.state_shardings(shapes, mesh))


def _check_growth(run: Run, old: Trained) -> None:
    """Raises InputError where nothing is taken over."""
    fresh = jax.eval_shape(run.method.init, jax.random.key(0))
    if not growth.shared(fresh, old.state)[0]:
        raise InputError(
            f"--grow {old.run.folder}: no array of {old.run.experiment.name} {old.run.experiment.size} has "
            f"name and shape of one of {run.experiment.name} {run.experiment.size}"
        )


def _assemble(
    folder: Path, experiment: Experiment, data: Path | None, cases: int, synthetic: bool, rule: str
) -> Run:
    problem = experiment.kind.problem(experiment, cases, folder)
    method = experiment.build(experiment.settings, problem)
    return Run(folder, experiment, data, problem, method, synthetic, rule)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no config.json, expected the folder of a run")
    saved = read_json(path)
    kinds = {"experiment": dict, "exp": str, "cases": int, "synthetic": bool, "rule": str}
    for name, kind in {**kinds, "data": str | None}.items():
        value: Any = saved.get(name) if isinstance(saved, dict) else None
        wrong = not isinstance(value, kind) or (isinstance(value, int) and not 0 <= value < 2**31)
        if wrong or name not in saved or (isinstance(value, str) and "\0" in value):
            raise InputError(
                f"{path}: no proper {name!r}, expected a file that training has written"
            )
    # Runs of versions that knew no other X-rays.
    saved["experiment"].setdefault("xrays", config.to_dict(Xrays("field", noisy=0.0)))
    saved["experiment"].setdefault("ct", config.to_dict(NOTHING_STATED))
    return saved


def _absolute(data: Path | None) -> str | None:
    return None if data is None else str(data.absolute())


def _git_revision() -> str | None:
    """The commit of the clone that this package lies in, -dirty with changes; None outside one."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(here.parent), *arguments]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None  # installed, perhaps below a repository of another project
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def hardware() -> str:
    """Devices and processor of this machine, in words."""
    device = jax.devices()[0]
    return (
        f"{jax.device_count()} x {device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores,"
        f" {platform.system()} {platform.machine()}"
    )
