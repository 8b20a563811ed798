"""Who takes part in a comparison: baselines by name, methods with an earlier scan, trained runs."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.compile import jit
from jxrecon.data.earlier_scans import read_earlier, simulated_earlier_scan
from jxrecon.evaluation.bench import Knowledge
from jxrecon.evaluation.setting import Setting
from jxrecon.methods.base.method import Method, Problem
from jxrecon.runs import config
from jxrecon.runs.run import Run, restore
from jxrecon.types import InputError, PyTree


class Contender(NamedTuple):
    """A method that takes part.

    Attributes:
        name: as in the tables.
        counts: numbers of views that it takes.
        learn: (problem) -> what it goes by, trained or fitted when asked.
        fingerprint: of all that its reconstructions depend on.
        note: what a reader must know of it, or "".
    """

    name: str
    counts: tuple[int, ...]
    learn: Callable[[Problem], Knowledge]
    fingerprint: str
    note: str = ""


def named(name: str) -> str:
    """A method's name as it is typed: `linear-prior` and `linear_prior` are `linear prior`."""
    return name.replace("-", " ").replace("_", " ")


def choose(setting: Setting, methods: Sequence[str] | None, runs: Sequence[Run]) -> list[Contender]:
    """Baselines in the experiment's order, then the runs in theirs.

    Args:
        setting: of the comparison.
        methods: names of the experiment's baselines, None for all that it compares by default.
        runs: trained runs of the same field and X-rays.

    Raises:
        InputError: a name is unknown, or a run does not fit the setting.
    """
    experiment, number = setting.experiment, setting.digest
    known = {
        named(name): name
        for name in (*experiment.baselines, *experiment.optional, *experiment.with_earlier_scan)
    }
    asked = list(known) if methods is None else [named(method) for method in methods]
    for method in asked:
        if method not in known:
            raise InputError(f"--methods {method}: expected some of {', '.join(known)}")
    found = []
    for name in (known[method] for method in dict.fromkeys(asked)):
        if name in experiment.with_earlier_scan:
            found.append(_with_earlier_scan(setting, name, number))
        else:
            build = experiment.baselines.get(name) or experiment.optional[name]
            found.append(baseline(setting, name, build))
    names = _names_of(runs)
    for run, name in zip(runs, names):
        _check_fits(setting, run)
        found.append(_run(setting, run, name, number))
    if not found:
        raise InputError("nothing to compare: give --methods or --runs")
    return found


def fitted(method: Any, cases: Any) -> tuple[Any, PyTree]:
    """A baseline after its one step on the whole training set."""
    batch = jax.tree.map(jnp.asarray, cases.batch(np.arange(len(cases.names), dtype=np.int32)))
    key = jax.random.key(0)
    return method, jit(method.train_step)(method.init(key), batch, key)[0]


def digest(run: Run, state: PyTree, data: int) -> int:
    """A number of the run's settings and weights, and of the data's own number."""
    mine = zlib.crc32(json.dumps(config.to_dict(run.experiment.settings)).encode(), data)
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        mine = zlib.crc32(np.asarray(leaf).tobytes(), mine)
    return mine


def baseline(setting: Setting, name: str, build: Callable[[Problem], Method]) -> Contender:
    """A method that is fitted in one step on the whole training set, for each number of views anew."""

    def learn(problem: Problem) -> Knowledge:
        method, state = fitted(build(problem), setting.dataset.train)
        return Knowledge(method, lambda place: state)

    return Contender(name, setting.counts, learn, f"{setting.digest:08x}")


def _with_earlier_scan(setting: Setting, name: str, number: int) -> Contender:
    """A method that is given an earlier scan of each patient, or a SIMULATED one: the truth, deformed."""
    build = setting.experiment.with_earlier_scan[name]
    volumes, key = getattr(setting.dataset, setting.split), jax.random.key(setting.seed)
    x, y, z = (float(mm) for mm in setting.grid.spacing_mm)
    simulate = jit(lambda hu, key: simulated_earlier_scan(hu, (x, y, z), key))

    def state(place: int) -> PyTree:
        path = setting.earlier.get(setting.names[place])
        if path is not None:
            return jnp.asarray(read_earlier(path, setting.grid.shape, volumes.affines[place]))
        truth = jnp.asarray(volumes.hu[place], jnp.float32)
        return simulate(truth, jax.random.fold_in(key, place))

    return Contender(
        name,
        setting.counts,
        lambda problem: Knowledge(build(problem), state),
        f"{number:08x}",
        "given an earlier scan of the same patient"
        if setting.earlier
        else "given a SIMULATED earlier scan of the same patient: the truth, smoothly deformed and moved",
    )


def _run(setting: Setting, run: Run, name: str, number: int) -> Contender:
    state, step = restore(run)
    own = (len(run.problem.cameras),)
    counts = own if run.method.own_views else setting.counts
    trained = f"trained for {step} steps"
    return Contender(
        name,
        tuple(count for count in setting.counts if count in counts),
        lambda problem: Knowledge(run.method, lambda place: state),
        f"{digest(run, state, number):08x}",
        trained + (f"; made for {own[0]} of these views" if run.method.own_views else ""),
    )


def _names_of(runs: Sequence[Run]) -> list[str]:
    """The experiments' names; with the folders where two are alike."""
    names = [run.experiment.name for run in runs]
    return [
        f"{name} ({run.folder.name})" if names.count(name) > 1 else name
        for name, run in zip(names, runs)
    ]


def _check_fits(setting: Setting, run: Run) -> None:
    """Raises InputError unless the run knows the setting's field and X-rays."""
    mine, its = setting.experiment, run.experiment
    if its.kind is not None:
        raise InputError(f"--runs {run.folder}: finds no volumes, expected a run that does")
    pairs = (
        ("field", config.to_dict(mine.field), config.to_dict(its.field)),
        (
            "X-rays",
            config.to_dict(dataclasses.replace(mine.views, count=1)),
            config.to_dict(dataclasses.replace(its.views, count=1)),
        ),
    )
    for what, expected, found in pairs:
        if lines := config.differences(expected, found):
            raise InputError(
                f"--runs {run.folder}: other {what} than those compared ({'; '.join(lines)}), expected "
                "runs of one field and the same X-rays"
            )
