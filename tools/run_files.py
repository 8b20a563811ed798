"""All networks of a run in one file of PyTorch's layout, and from there back into a run.

NAME.pth           a dict: state_dict; network and arguments, by which `torch_modules.load` builds the module;
                   experiment, by which `from_torch.py` makes the run again
NAME.safetensors   the state dict, the rest as metadata
NAME.npz           of IGCN+ and Pixel2Mesh, the tensors as the released TensorFlow codes name them, no more
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import tensor_files
from tensor_files import Tensors
from twins import Twin, tensors_of, twin_of, with_tensors

from jxrecon.compile import jit
from jxrecon.data.surround import SURROUND
from jxrecon.experiment import Experiment
from jxrecon.files import cache_folder, write_file
from jxrecon.kinds import TEMPLATE
from jxrecon.likelihood.check import CHECK
from jxrecon.runs import config, run, shipped
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.run import Run
from jxrecon.types import InputError, PyTree, shown

ENDINGS = (".pth", ".pt", ".safetensors", ".npz")
"""Of one file for a whole run."""

_FACTS = {"network": str, "arguments": dict, "experiment": dict}
_KEPT = ("config.json", TEMPLATE, SURROUND, CHECK)
"""Files of a run that belong to its data and not to its weights."""


class RunFile(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: the state dict.
        facts: network, arguments and experiment; empty where a file has only tensors.
    """

    tensors: Tensors
    facts: dict[str, Any]


def of_run(opened: Run, state: PyTree, ending: str = "") -> tuple[Twin, RunFile]:
    """The networks of a run, and what a file of them with this ending holds.

    Raises:
        InputError: PyTorch has no twin of its method, or of an ablation of it, or TensorFlow has none.
    """
    twin, experiment = twin_of(opened, state), opened.experiment
    if ending == ".npz":
        if twin.tensorflow is None:
            raise InputError(
                f"{twin.network} has no TensorFlow code, expected .pth or .safetensors"
            )
        return twin, RunFile(tensors_of(twin, state, tensorflow=True), {})
    facts = {
        "network": twin.network,
        "arguments": twin.arguments,
        "experiment": config.to_dict(experiment),
    }
    return twin, RunFile(tensors_of(twin, state), facts)


def write(file: RunFile, path: Path) -> None:
    """Writes it, whole or not at all.

    Raises:
        InputError: a .pth is asked for and there is no PyTorch.
    """
    if path.suffix == ".npz":
        tensor_files.write_npz(path, file.tensors)
    elif path.suffix == ".safetensors":
        tensor_files.write_safetensors(path, file.tensors, file.facts)
    else:
        tensor_files.write_pth(path, file.tensors, lambda s: {**file.facts, "state_dict": s})


def read(path: Path) -> RunFile:
    """Reads it, or a file of tensors alone.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    tensors, beside = tensor_files.read(path, "a file of to_torch.py")
    facts = {name: beside[name] for name in _FACTS if name in beside}
    for name, value in facts.items():
        if not isinstance(value, _FACTS[name]):
            raise InputError(f"{path}: {name} is {shown(value)}, expected {_FACTS[name].__name__}")
    return RunFile(tensors, facts)


class Source(NamedTuple):
    """What a run is made of beside the weights of a file.

    Attributes:
        base: a run, or weights that ship, whose weights they replace; None: a new run.
        exp: experiment of a new one, a name or a Python file; empty: the file's.
        size: one of its sizes.
        assignments: as of `--set`.
        data: its folder of data; None: the built-in, SYNTHETIC population.
    """

    base: Path | None = None
    exp: str = ""
    size: str | None = None
    assignments: Sequence[str] = ()
    data: Path | None = None


def into_run(file: RunFile, origin: Path, out: Path, source: Source) -> tuple[Twin, PyTree]:
    """Writes a run folder with the weights of a file; for weights that ship, such a file.

    A copy of a run keeps its step and its optimisers; a new run begins at step 0, all else as training
    starts it.

    Returns:
        the networks and the state, as they are read back.

    Raises:
        InputError: the tensors are not those of the run's networks, or the folder holds a run.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"--out {out} is there already, expected a new run")
    trust = [Path(source.exp)] if source.exp.endswith(".py") else []
    base = None if source.base is None else run.open_run(source.base, trust)
    if base is not None and base.weights is not None:
        return _ship(base, file, origin, out)
    if out.suffix in ENDINGS:
        raise InputError(f"--out {out}: expected the folder of a run for {origin}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as temporary:  # so that no half of a run is left
        folder = Path(temporary, out.name)
        if base is None:
            _start(file, origin, folder, source, trust)
        else:
            _copy(base, file, origin, folder)
        folder.rename(out)
    written = run.open_run(out, trust)
    state, _ = run.restore(written)
    return twin_of(written, state), state


def _ship(base: Run, file: RunFile, origin: Path, out: Path) -> tuple[Twin, PyTree]:
    """Weights that ship, in place of those that `base` is."""
    assert base.weights is not None
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: expected NAME.safetensors for weights that ship")
    state, step = run.restore(base)
    shipped.write(
        out, _replaced(base, state, file, origin), shipped.read_config(base.weights)[0], step
    )
    state, _ = shipped.read(out, jax.eval_shape(lambda: state))
    return twin_of(base, state), state


def _copy(base: Run, file: RunFile, origin: Path, folder: Path) -> None:
    """A run with other weights."""
    state, step = run.restore(base)
    state = _replaced(base, state, file, origin)
    for name in _KEPT:
        if (base.folder / name).exists():
            write_file(folder / name, (base.folder / name).read_bytes())
    _save(folder, state, step)


def _start(file: RunFile, origin: Path, out: Path, source: Source, trust: Sequence[Path]) -> None:
    """A new run of the experiment."""
    experiment, exp = _experiment(file, origin, source, trust)
    dataset = experiment.load(experiment, source.data, cache_folder("data"))
    started = run.start(folder, experiment, exp, source.data, dataset)
    state = jit(started.method.init)(jax.random.key(experiment.schedule.seed))
    state = _replaced(started, state, file, origin)
    if getattr(started.method, "fit", None) is not None:
        cases = experiment.kind.acquire(experiment, dataset.train)
        state = jit(started.method.fit)(state, cases.everything())
    _save(folder, state, 0)


def _experiment(
    file: RunFile, origin: Path, source: Source, trust: Sequence[Path]
) -> tuple[Experiment, str]:
    """The experiment of a new run, and the name or file that it is found by."""
    if source.exp:
        found = config.find(source.exp, source.size)
        return config.override(found, list(source.assignments)), source.exp
    if not file.facts:
        raise InputError(f"{origin}: names no experiment, expected --exp NAME or --run RUN")
    saved = file.facts["experiment"]
    name, size = saved.get("name"), saved.get("size")
    if not (isinstance(name, str) and isinstance(size, str)):
        raise InputError(f"{origin}: experiment is {shown(saved)}, expected its name and size")
    found = config.find_saved(name, size, trust, str(origin))
    experiment = config.from_dict(found, config.completed(found, saved), f"{origin}: experiment")
    return config.override(experiment, list(source.assignments)), name


def _replaced(opened: Run, state: PyTree, file: RunFile, origin: Path) -> PyTree:
    try:
        return with_tensors(twin_of(opened, state), state, file.tensors)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None


def _save(folder: Path, state: PyTree, step: int) -> None:
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save(step, state)
