"""Files of weights, read and written: in the published layouts and in ours.

Published: a .pth, or a plain safetensors of its state dict; which family and net it is of is found from
its tensors and, where those leave it open, from its name. Ours: a run folder, or one safetensors whose
names are the paths of the parameters below `generator/`, `generators/synthetic/` and so on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensor_files
from cyclegan_weights import CycleGAN
from flax.traverse_util import flatten_dict
from nerp_weights import NeRP
from tensor_files import Tensors
from weights import Weights, check, compare
from x2ct_weights import X2CT

from jxrecon.compile import jit
from jxrecon.experiment import Experiment
from jxrecon.files import cache_folder, one_line
from jxrecon.runs import run
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.types import InputError, shown

FAMILIES: tuple[type[Weights], ...] = (X2CT, CycleGAN, NeRP)

_NAME = re.compile(r"(?:(?P<epoch>.+)_net_|.*_)?(?P<net>[GD](?:_[AB])?)")
_NORMS = "norms of "  # begins the names of running statistics in our files
_KEPT = "official.safetensors"  # in a run folder: what only the published layout needs


# The published layouts.


def read_official(path: Path, net: str = "", real: str = "A") -> Weights:
    """A published checkpoint or a safetensors of its state dict.

    Args:
        path: of the file.
        net: which one it is; empty: as its name says, where its tensors do not.
        real: "A" or "B", the domain of the real images, where there are two.

    Raises:
        InputError: there is no such file, it is damaged, or it is no net of a known family.
    """
    state, facts = _read(path)
    for name, value in state.items():
        if value.dtype.kind not in "fiu" or (value.dtype.kind == "f" and value.itemsize < 4):
            raise InputError(f"{path}: {name} is {value.dtype}, expected float32 or float64")
    family = next((one for one in FAMILIES if one.recognises(state)), None)
    if family is None:
        raise InputError(
            f"{path}: begins with {next(iter(state), 'nothing')}, expected a generator or"
            f" discriminator of {' or '.join(one.FAMILY for one in FAMILIES)}, or --run or --exp"
        )
    found = _NAME.fullmatch(path.stem)
    if found and found["epoch"]:
        epoch = found["epoch"]
        facts = {"epoch": int(epoch) if epoch.isdecimal() else epoch, **facts}
    try:
        weights = family.from_state(state, facts, net or (found["net"] if found else ""), real)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (LookupError, ValueError) as error:  # tensors of too few axes
        raise InputError(f"{path}: no tensors of {family.FAMILY} ({one_line(error)})") from None
    _check(weights, path)
    return weights


def _check(weights: Weights, path: Path) -> None:
    """`weights.check`, also of tensors so odd that no module can be told from them."""
    try:
        check(weights, path)
    except InputError:
        raise
    except Exception as error:
        line = one_line(error)[:200]
        raise InputError(f"{path}: no tensors of {weights.FAMILY} ({line})") from None


def write_official(weights: Weights, path: Path) -> None:
    """Writes a .pth as the published code does, or a plain .safetensors of the state dict."""
    if path.suffix == ".safetensors":
        tensor_files.write_safetensors(path, weights.to_state(), {"facts": weights.facts})
    else:
        tensor_files.write_pth(path, weights.to_state(), weights.pack)


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """(state dict, facts) of a file."""
    examples = " or ".join(family.EXAMPLE for family in FAMILIES)
    state, beside = tensor_files.read(path, f"a checkpoint such as {examples}")
    if path.suffix != ".safetensors":
        facts: Any = {name: beside[name] for name in ("iters", "epoch", "lr") if name in beside}
    else:
        facts = beside.get("facts", {})
    plain = isinstance(facts, dict) and all(
        isinstance(value, int | float | str) for value in flatten_dict(facts).values()
    )
    if not plain:
        raise InputError(
            f"{path}: facts are {shown(facts)}, expected an object of numbers and text"
        )
    return state, facts


# Ours: one file.


def write_ours(nets: Sequence[Weights], path: Path, params: bool = True) -> None:
    """Writes a parameter file of a family's nets; without `params` only what else there is to keep."""
    arrays: dict[str, np.ndarray] = {}
    for weights in nets:
        leaves = jax.tree.leaves_with_path(weights.params["params"]) if params else []
        for parts, leaf in leaves:
            name = "/".join([weights.field, *(p.key for p in parts)])
            arrays[name] = np.ascontiguousarray(leaf)
        arrays |= {f"{_NORMS}{weights.field}/{name}": a for name, a in weights.buffers.items()}
    facts = {weights.field: {"net": weights.net, **weights.facts} for weights in nets}
    tensor_files.write_safetensors(path, arrays, {"facts": facts})


def read_ours(path: Path) -> list[Weights]:
    """The nets of a parameter file, generators first.

    Raises:
        InputError: there is no such file, it is damaged, or holds something else.
    """
    nets = [weights for weights in _read_ours(path) if weights.params["params"]]
    if not nets:
        raise InputError(f"{path}: holds no parameters, expected a generator or a discriminator")
    for weights in nets:
        _check(weights, path)
    return nets


def _read_ours(path: Path) -> list[Weights]:
    arrays, facts = _read(path)
    nets = {}
    for family in FAMILIES:
        for field, net in family.FIELDS.items():
            rest = facts.get(field, {})
            if not isinstance(rest, dict) or not isinstance(rest.get("net", net), str):
                raise InputError(f"{path}: facts of {field} are {shown(rest)}, expected an object")
            rest = dict(rest)
            nets[field] = family(rest.pop("net", net), field, {"params": {}}, {}, rest)
    for name, array in arrays.items():
        whole = name.removeprefix(_NORMS)
        field = next((field for field in nets if whole.startswith(f"{field}/")), None)
        if field is None:
            raise InputError(f"{path}: {name} is unknown, expected {'/, '.join(nets)}/")
        rest = whole.removeprefix(f"{field}/")
        if name.startswith(_NORMS):
            nets[field].buffers[rest] = array
            continue
        *parents, last = rest.split("/")
        node = nets[field].params["params"]
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise InputError(f"{path}: {shown(name)} lies below a tensor, expected a module")
        if last in node:
            raise InputError(f"{path}: {shown(name)} is a module, too, expected a tensor")
        node[last] = array
    return list(nets.values())


# Ours: a run.


def write_run(
    nets: Sequence[Weights], folder: Path, experiment: Experiment, exp: str, data: Path | None
) -> None:
    """Writes a run folder with one checkpoint, at step 0: the nets, and all else as training starts it.

    Args:
        nets: of one family.
        folder: a new one.
        experiment: resolved.
        exp: the name or file that it was found by.
        data: folder that training goes on with; None: the built-in population.

    Raises:
        InputError: the nets are not of this experiment's architecture, or the folder holds a run.
    """
    if (folder / "config.json").exists():
        raise InputError(f"{folder} holds a run already, expected a new folder")
    source = f"{nets[0].FAMILY} weights {', '.join(f'{w.net} {w.facts}' for w in nets)}, converted"
    dataset: Any = _Dataset(_Cases(("",) * experiment.population.train), source)
    if data is not None:
        cache = cache_folder()
        dataset = experiment.load(experiment, data, cache / "data" if cache else None)
    problem = experiment.kind.problem(experiment, len(dataset.train.names), folder)
    method = experiment.build(experiment.settings, problem)
    key = jax.random.key(experiment.schedule.seed)
    shapes = jax.eval_shape(method.init, key)
    for weights in nets:
        origin = f"experiment {experiment.name}, size {experiment.size}: {weights.field}"
        compare(weights.params, _get(shapes, weights.field), origin)
    run.start(folder, experiment, exp, data, dataset, keep=data is not None)
    state = jit(method.init)(key)
    for weights in nets:
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights.params)
        state = _put(state, weights.field, params)
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save(0, state)
    write_ours(nets, folder / _KEPT, params=False)


def read_run(
    folder: Path, which: int | Literal["latest", "best"] = "latest", trust: Sequence[Path] = ()
) -> list[Weights]:
    """The nets of a run of a known family, generators first; `trust` as of `open_run`.

    Raises:
        InputError: there is no such run or checkpoint, or it is of another method.
    """
    state, step = run.restore(run.open_run(folder, trust), which)
    kept = {w.field: w for w in _read_ours(folder / _KEPT)} if (folder / _KEPT).exists() else {}
    nets = []
    for family in FAMILIES:
        for field, net in family.FIELDS.items():
            params = _get(state, field)
            if params is None:
                continue
            rest = kept.get(field, family(net, field, {}, {}, {}))
            facts = rest.facts if step == 0 else {"iters": step}
            params = jax.tree.map(np.asarray, params)
            nets.append(dataclasses.replace(rest, params=params, facts=facts))
    if not nets:
        known = " or ".join(family.FAMILY for family in FAMILIES)
        raise InputError(f"{folder}: a run of another method, expected one of {known}")
    for weights in nets:
        check(weights, folder)
    return nets


def _get(state: Any, field: str) -> dict[str, Any] | None:
    """The parameters at a place of a training state, below "params"; None: nothing is there."""
    for part in field.split("/"):
        state = getattr(state, part, None)
    if not isinstance(state, dict) or not state:
        return None
    return state if "params" in state else {"params": state}


def _put(state: Any, field: str, params: dict[str, Any]) -> Any:
    """The state with these parameters at that place."""
    part, _, rest = field.partition("/")
    old = getattr(state, part)
    if rest:
        return state.replace(**{part: _put(old, rest, params)})
    return state.replace(**{part: params if "params" in old else params["params"]})


class _Cases(NamedTuple):
    names: tuple[str, ...]


class _Dataset(NamedTuple):
    """What `run.start` asks of a dataset."""

    train: _Cases
    rule: str
    synthetic: bool = False
