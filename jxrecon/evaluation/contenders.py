"""Who takes part in an evaluation: rivals by name, and trained runs."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.compile import jit
from jxrecon.data.earlier_scans import read_earlier, simulated_earlier_scan
from jxrecon.evaluation.bench import Bench, Knowledge, Remedy
from jxrecon.evaluation.setting import Setting
from jxrecon.experiment import Rival
from jxrecon.runs import config
from jxrecon.runs.run import Run, Trained
from jxrecon.types import InputError, PyTree


class Contender(NamedTuple):
    """A method that takes part.

    Attributes:
        name: as in the tables.
        counts: numbers of views that it takes.
        learn: (bench) -> what it goes by, trained or fitted when asked.
        fingerprint: of all that its results depend on.
        note: what a reader must know of it, or "".
        slow: `Method.slow`.
    """

    name: str
    counts: tuple[int, ...]
    learn: Callable[[Bench], Knowledge]
    fingerprint: str
    note: str = ""
    slow: bool = False


def named(name: str) -> str:
    """A method's name as it is typed: `linear-prior` and `linear_prior` are `linear prior`."""
    return name.replace("-", " ").replace("_", " ")


POSED = "own pose"
"""What a method's name is followed by where it finds the poses of the views itself."""


def choose(
    setting: Setting,
    methods: Sequence[str] | None,
    runs: Sequence[Trained] = (),
    posed: bool = False,
) -> list[Contender]:
    """Rivals in the order asked for, then the runs in theirs; each once more for every remedy of the terms.

    Args:
        setting: of the evaluation.
        methods: names of rivals of the experiment; None for all of them.
        runs: trained runs of the same problem. Those that can be given an earlier scan take part with one,
            too, where a rival does; those that can start from a volume also from that of the terms' `start`.
        posed: whether runs whose method finds poses itself take part with that, too: at the end, without
            remedies.

    Raises:
        InputError: a name is unknown, a run does not fit the setting, none can start from a volume, or nobody
            takes part.
    """
    rivals = {named(name): name for name in setting.experiment.rivals}
    asked = list(rivals) if methods is None else [named(method) for method in methods]
    for method in asked:
        if method not in rivals:
            known = ", ".join(rivals) or "none in this experiment"
            raise InputError(f"method {method}: expected some of {known}")
    number = setting.digest
    found = [
        _rival(setting, name, setting.experiment.rivals[name], number)
        for name in (rivals[method] for method in dict.fromkeys(asked))
    ]
    with_earlier = any(setting.experiment.rivals[rivals[method]].needs_earlier for method in asked)
    start, own_poses = setting.terms.start, []
    if start is not None:
        _check_start(setting, runs, start)
    for trained, name in zip(runs, names_of(runs)):
        if trained.run.experiment.kind is not setting.experiment.kind:
            raise InputError(
                f"{trained.run.folder}: finds {trained.run.experiment.kind.finds}, expected a run that "
                f"finds {setting.experiment.kind.finds}"
            )
        setting.judge.check(setting, trained.run)
        contender = _run(setting, trained, name, number)
        hints = getattr(trained.run.method, "hints", ())
        if "earlier" in hints and with_earlier:
            found.append(_with_earlier(setting, contender))
        if "start" in hints and start is not None:
            found.append(_started(setting, contender, start, number))
        found.append(contender)
        method = trained.run.method
        if posed and getattr(method, "posed", None) is not None:
            own = trained.run._replace(method=method._replace(reconstruct=method.posed))
            own_poses.append(_run(setting, trained._replace(run=own), f"{name}, {POSED}", number))
    if not found:
        raise InputError("nothing to compare: give --methods or --runs")
    remedies = setting.terms.remedies
    with_remedies = [(one, *(_remedied(one, remedy) for remedy in remedies)) for one in found]
    return [*chain(*with_remedies), *own_poses]


def _remedied(contender: Contender, remedy: Remedy) -> Contender:
    """The contender, given what the remedy makes of X-rays and cameras."""

    def learn(bench: Bench) -> Knowledge:
        return contender.learn(bench)._replace(remedy=remedy.learn(bench))

    told = f"{remedy.name} {remedy.digest} {contender.fingerprint}"
    return contender._replace(
        name=f"{contender.name}, {remedy.name}",
        learn=learn,
        fingerprint=f"{zlib.crc32(told.encode()):08x}",
        note="; ".join(filter(None, (contender.note, remedy.note))),
    )


def default_rivals(setting: Setting) -> list[str]:
    """The rivals that stand beside a run without being asked for."""
    return [name for name, rival in setting.experiment.rivals.items() if rival.default]


def digest(trained: Trained, data: int) -> int:
    """A number of the run's settings and weights, and of the data's own number."""
    settings = json.dumps(config.to_dict(trained.run.experiment.settings))
    mine = zlib.crc32(settings.encode(), data)
    for leaf in jax.tree.leaves(trained.state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        mine = zlib.crc32(np.asarray(leaf).tobytes(), mine)
    return mine


def _rival(setting: Setting, name: str, rival: Rival, number: int) -> Contender:
    """A method fitted for each number of views anew, or one that is given an earlier scan."""
    note = _earlier_note(setting) if rival.needs_earlier else ""

    def learn(bench: Bench) -> Knowledge:
        method = rival.build(bench.problem)
        if rival.needs_earlier:
            return Knowledge(method, _earlier_scans(setting))
        state = _fitted(method, bench)
        return Knowledge(method, lambda place: state)

    return Contender(name, setting.counts, learn, f"{number:08x}", note, rival.slow)


def _earlier_note(setting: Setting) -> str:
    """Where the earlier scan comes from, in words."""
    if setting.earlier:
        return "given an earlier scan of the same patient"
    return "given a SIMULATED earlier scan of the same patient: the truth, deformed and moved"


def _fitted(method: Any, bench: Bench) -> PyTree:
    """The state of a method that learns from the whole training set at once, or not at all."""
    state = method.init(jax.random.key(0))
    if method.fit is None:
        return state
    return jax.block_until_ready(jit(method.fit)(state, bench.training()))  # before clocks start


def _earlier_scans(setting: Setting) -> Callable[[int], PyTree]:
    """(place of a case) -> the patient's earlier scan, or a SIMULATED one: the truth, deformed."""
    volumes, terms = setting.cases, setting.terms
    key = jax.random.key(terms.seed)
    x, y, z = (float(mm) for mm in setting.grid.spacing_mm)
    simulate = jit(lambda hu, key: simulated_earlier_scan(hu, (x, y, z), key))

    def state(place: int) -> PyTree:
        path = setting.earlier.get(setting.names[place])
        if path is not None:
            stated = setting.experiment.ct if terms.stated.nothing else terms.stated
            shape, affine = setting.grid.shape, volumes.affines[place]
            return jnp.asarray(read_earlier(path, shape, affine, stated))
        truth = jnp.asarray(volumes.hu[place], jnp.float32)
        return simulate(truth, jax.random.fold_in(key, place))

    return state


def _run(setting: Setting, trained: Trained, name: str, number: int) -> Contender:
    method, own = trained.run.method, trained.run.experiment.views.count
    bound = getattr(method, "own_views", False)
    told = [f"trained for {trained.step} steps", *trained.run.assignments]
    return Contender(
        name,
        tuple(count for count in setting.counts if count == own or not bound),
        lambda bench: Knowledge(method, lambda place: trained.state),
        f"{digest(trained, number):08x}",
        "; ".join(told) + (_made_for(setting, trained.run) if bound else ""),
        getattr(method, "slow", False),
    )


def _with_earlier(setting: Setting, contender: Contender) -> Contender:
    """The run as it is, and an earlier scan of the patient."""
    return contender._replace(
        name=f"{contender.name} with prior",
        learn=lambda bench: contender.learn(bench)._replace(earlier=_earlier_scans(setting)),
        note=f"{contender.note}; {_earlier_note(setting)}",
    )


def _started(setting: Setting, contender: Contender, start: Trained, number: int) -> Contender:
    """The run as it is, started from the volumes of another one."""
    other = _run(setting, start, start.run.experiment.name, number)
    return contender._replace(
        name=f"{contender.name} from {other.name}",
        counts=tuple(count for count in contender.counts if count in other.counts),
        learn=lambda bench: contender.learn(bench)._replace(start=other.learn(bench)),
        fingerprint=f"{contender.fingerprint}{other.fingerprint}",
        note=f"{contender.note}; starts from the volume of {start.run.folder.name}",
    )


def _check_start(setting: Setting, runs: Sequence[Trained], start: Trained) -> None:
    """Raises InputError unless a run can start from volumes of this one."""
    if not any("start" in getattr(run.method, "hints", ()) for run, _, _ in runs):
        raise InputError(
            f"--start {start.run.folder}: no run can start from a volume, expected one of x2vision_hn whose "
            "settings.prior.codes is principal"
        )
    setting.judge.check(setting, start.run)


def _made_for(setting: Setting, run: Run) -> str:
    """What a network of fixed views was made for, and whether it learnt from other X-rays than these."""
    shown, xrays = "field" if setting.cases.scenes is None else "patient", run.experiment.xrays
    told = f"; made for {run.experiment.views.count} of these views"
    if xrays.of != shown:
        told += f"; learnt from X-rays of the {xrays.of}, is given those of the {shown}"
    if xrays.machine != setting.machines[1]:
        told += "; learnt from X-rays of another machine than it is given"
    return told


def names_of(runs: Sequence[Trained]) -> list[str]:
    """The experiments' names; with the folders where two are alike.

    Raises:
        InputError: two runs cannot be told apart.
    """
    names = [run.experiment.name for run, _, _ in runs]
    told = [
        f"{name} ({run.folder.name})" if names.count(name) > 1 else name
        for name, (run, _, _) in zip(names, runs)
    ]
    twice = next((name for name in told if told.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two runs are named {twice}, expected one run of each")
    return told
