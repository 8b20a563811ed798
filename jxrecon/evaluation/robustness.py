"""Robustness: every method on X-rays by machines that are not the one it is told; `perturbations` says which.

OUT/robustness_FIELD.csv    method, perturbation, value, split, case and its metrics, one file a field of view
OUT/robustness.json         means, and what each value of each perturbation costs

A killed evaluation that is started again goes on with the row where it was. All X-rays of a case are
projected by one compiled program, whatever the cameras, and each is exposed by one a machine; a method
is compiled once, as it is always told the same cameras.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jxrecon.compile import jit
from jxrecon.data.acquisition import acquisition
from jxrecon.data.machine import developed, exposure_of, noisy, toned
from jxrecon.data.scene_xrays import axes_of, line_integrals_along
from jxrecon.data.volumes import Scenes, VolumeSet
from jxrecon.drr import stacked
from jxrecon.evaluation.compare import load
from jxrecon.evaluation.contenders import Contender, choose
from jxrecon.evaluation.perturbations import (
    PERTURBATIONS,
    Condition,
    Images,
    Taking,
    conditions_of,
)
from jxrecon.evaluation.setting import Setting, Terms, make_setting
from jxrecon.evaluation.summary import finite
from jxrecon.evaluation.table import CaseTable, Row
from jxrecon.evaluation.volumes import Finder, Share, keys_of
from jxrecon.experiment import Experiment, Machine, Xrays
from jxrecon.files import make_folder, write_file
from jxrecon.geometry import Camera, Grid
from jxrecon.metrics import statistics
from jxrecon.runs.run import Trained, data_of, hardware
from jxrecon.terminal import CaseBar
from jxrecon.types import InputError
from jxrecon.units import Window

METRICS = ("psnr_db", "mae_hu_body")
"""Of `metrics.volume`, by the same conventions."""

SUMMARY = "robustness.json"

KEYS = ("method", "perturbation", "value", "split", "case")

_SAID = ("name", "unit", "what", "values", "nothing")
"""What robustness.json says of a perturbation."""

QUICK = ("mean volume", "nearest volume", "linear prior", "fdk")
"""Rivals that take part unless others are asked for."""

SLOW_CASES = 2
"""Cases of methods that take seconds to minutes for each, unless others are asked for."""


class Party(NamedTuple):
    """Who takes part on one field of view.

    Attributes:
        setting: of one number of views.
        contenders: of `contenders.choose`.
    """

    setting: Setting
    contenders: Sequence[Contender]

    @property
    def name(self) -> str:
        """The field, for file names and titles."""
        return "x".join(map(str, self.setting.grid.shape))

    def cases_of(self, contender: Contender, slow_cases: int) -> tuple[str, ...]:
        """The cases that it takes."""
        names = self.setting.names
        return names[:slow_cases] if contender.slow else names


class Robustness(NamedTuple):
    """What was found.

    Attributes:
        summary: as in robustness.json.
        out: the folder.
    """

    summary: dict[str, Any]
    out: Path


def parties_of(
    runs: Sequence[Trained],
    experiment: Experiment | None,
    data: Path | None,
    methods: Sequence[str] | None,
    terms: Terms,
    posed: bool = False,
) -> list[Party]:
    """Runs and rivals, field by field of the runs; the runs of a field stand beside rivals of that field.

    Args:
        runs: trained, of any number of fields and kinds of X-rays.
        experiment: whose field and X-rays where there is no run.
        data: folder of the data; None: the run's own.
        methods: names of rivals; None: `QUICK`.
        terms: `counts` None: as many views as the first run of a field was made for, 2 without runs.
        posed: whether runs that find poses themselves take part with that, too.

    Raises:
        InputError: a run finds no volume, or as of `setting.make_setting` and `contenders.choose`.
    """
    groups: dict[str, list[Trained]] = {} if runs else {"": []}
    for trained in runs:
        mine = trained.run.experiment
        groups.setdefault(repr((mine.field, mine.views)), []).append(trained)
    parties = []
    for group in groups.values():
        first = group[0].run if group else None
        own = first.experiment if first else experiment
        assert own is not None
        if not hasattr(own.field, "grid"):
            raise InputError(f"{own.name} finds {own.kind.finds}, expected runs of CT volumes")
        dataset = load(own, data or (first and data_of(first)), terms.xrays, terms.stated)
        counts = terms.counts or (own.views.count if first else 2,)
        setting = make_setting(own, dataset, terms._replace(counts=counts[:1]))
        chosen = choose(setting, QUICK if methods is None else methods, group, posed)
        parties.append(Party(setting, [c for c in chosen if c.counts]))
    if len({party.name for party in parties}) < len(parties):
        raise InputError(
            "runs of one field with different X-rays: expected each in a suite of its own"
        )
    return parties


def robustness(
    parties: Sequence[Party],
    out: Path,
    perturbations: Sequence[str] | None = None,
    slow_cases: int = SLOW_CASES,
) -> Robustness:
    """Finds what is missing, then counts.

    Args:
        parties: one a field of view.
        out: folder of the results.
        perturbations: names of them; None: all.
        slow_cases: cases of slow methods.

    Raises:
        InputError: a perturbation is unknown, or the results cannot be written.
    """
    make_folder(out)
    fields = []
    try:
        for party in parties:
            conditions = conditions_of(nominal(party.setting), perturbations)
            rows = _rows(party, conditions, out / f"robustness_{party.name}.csv", slow_cases)
            fields.append(_summary(party, conditions, rows))
        first = parties[0].setting
        summary = {
            "data": first.dataset.rule,
            "synthetic": first.dataset.synthetic,
            "split": first.terms.split,
            "seed": first.terms.seed,
            "photons": first.terms.photons,
            "hardware": hardware(),
            "perturbations": [dict(zip(_SAID, p)) for p in PERTURBATIONS],
            "fields": fields,
        }
        return written(finite(summary), out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or error})") from error


def written(summary: dict[str, Any], out: Path) -> Robustness:
    """What was found, with its robustness.json in the folder."""
    write_file(out / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return Robustness(summary, out)


def nominal(setting: Setting) -> Taking:
    """X-rays as an evaluation takes them when nothing is wrong."""
    views = replace(setting.experiment.views, count=setting.counts[0])
    return Taking(views, views.cameras, setting.machines[1], setting.terms.photons)


def _rows(
    party: Party, conditions: Sequence[Condition], path: Path, slow_cases: int
) -> dict[tuple[str, ...], Row]:
    """The rows that are asked for, by `KEYS`; each is written before the next is begun."""
    setting, split = party.setting, party.setting.terms.split
    bench = setting.judge.bench(setting, setting.counts[0])
    room = Room(setting, conditions)
    prints = {c.name: c.fingerprint for c in party.contenders}
    asked = []
    with CaseTable(path, prints, METRICS, KEYS) as table, CaseBar(len(setting.names)) as bar:
        for number, contender in enumerate(party.contenders, start=1):
            names = party.cases_of(contender, slow_cases)
            keys = [[(contender.name, *c.key, split, case) for c in conditions] for case in names]
            asked += [key for case in keys for key in case]
            places = [n for n, case in enumerate(keys) if not table.rows.keys() >= set(case)]
            title = f"{party.name}, {number}/{len(party.contenders)} {contender.name}"
            bar.begin(title, len(setting.names) - len(places))
            find = None
            for place in places:
                if find is None:
                    find = Finder(contender.learn(bench), bench.problem.cameras, room.share)
                for condition, key in zip(conditions, keys[place]):
                    if key not in table.rows:
                        found = room.measured(find, place, condition)
                        table.add(key, found, to_disk=condition is conditions[-1])
                bar.advance()
        return {key: table.rows[key] for key in asked}


class Room:
    """Where the X-rays of cases are taken under all conditions, and results measured."""

    def __init__(self, setting: Setting, conditions: Sequence[Condition]) -> None:
        cameras = conditions[0].taking.cameras
        xrays = Xrays(noisy=0.0, machine=setting.machines[0])
        train = acquisition(setting.dataset.train, setting.grid, cameras, xrays)
        self.share = Share(setting, cameras, train)
        self._setting, self._conditions = setting, conditions
        self._scenes = scenes_of(setting.cases, setting.grid)
        self._ways = _ways(self._scenes, conditions)
        self._noisy = jit(noisy)
        self._measure = jit(partial(_measured, setting.experiment.field.window))
        self._through = cache(self._projected)

    def measured(self, find: Finder, place: int, condition: Condition) -> dict[str, float]:
        """The metrics of what a method finds in a case's X-rays under a condition."""
        cases = self._setting.cases
        found, _ = find(place, self.images(place, condition), keys_of(self._setting, place)[1])
        values = self._measure(np.asarray(cases.hu[place], np.float32), cases.body[place], found.hu)
        return {name: float(value) for name, value in zip(METRICS, values)}

    def images(self, place: int, condition: Condition) -> Images:
        """The X-rays of a case under a condition; their noise is that of every evaluation."""
        taking, through = condition.taking, self._through(place)
        keys = jax.random.split(keys_of(self._setting, place)[0], len(taking.cameras))
        images = []
        for camera, key in zip(taking.cameras, keys):
            image = _developing(taking.machine)(through[_name(camera, taking.machine)], camera)
            if taking.photons is not None:
                image = self._noisy(image, jnp.float32(taking.photons), key)
            images.append(toned(image, taking.machine.gamma))
        return taking.stored(tuple(images))

    def _projected(self, place: int) -> dict[Any, Float[Array, "part rows columns"]]:
        """Line integrals of a case in all views of all conditions, by their names."""
        hu = jnp.asarray(np.asarray(self._scenes.hu[place]))
        affine = jnp.asarray(self._scenes.affines[place], jnp.float32)
        found: dict[Any, Any] = {}
        for (axis, hardened, _), views in self._ways.items():
            through = _program(axis, hardened)(hu, affine, stacked([c for _, c in views]))
            found.update(zip((name for name, _ in views), np.asarray(through)))
        return found


def scenes_of(cases: VolumeSet, grid: Grid) -> Scenes:
    """The scenes of cases; the fields themselves where no more is known."""
    return cases.scenes or Scenes(cases.hu, np.stack([grid.affine] * len(cases.hu)), 0.0)


def _name(camera: Camera, machine: Machine) -> Any:
    """What tells the line integrals of a view from others: the camera's numbers, one energy or many."""
    numbers = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(camera)])
    return numbers.tobytes(), machine.kvp > 0.0


def _ways(scenes: Scenes, conditions: Sequence[Condition]) -> dict[Any, list[tuple[Any, Camera]]]:
    """(axis that rays are walked along, many energies, pixels) -> (name, camera) of every view, once."""
    views = {
        _name(camera, condition.taking.machine): camera
        for condition in conditions
        for camera in condition.taking.cameras
    }
    ways: dict[Any, list[tuple[Any, Camera]]] = {}
    axes = axes_of(list(scenes.affines), list(views.values()))
    for (name, camera), axis in zip(views.items(), axes, strict=True):
        ways.setdefault((axis, name[1], camera.shape), []).append((name, camera))
    return ways


@cache
def _program(axis: int | None, hardened: bool) -> Any:
    """(hu, affine, cameras) -> line integrals of each part in each view, [view, part, rows, columns]."""
    parts_of = exposure_of(Machine(kvp=100.0 if hardened else 0.0)).volumes

    def through(hu: Any, affine: Any, cameras: Camera) -> Array:
        parts = parts_of(hu.astype(jnp.float32))
        return jax.lax.map(lambda c: line_integrals_along(axis, parts, affine, c), cameras)

    return jit(through)


@cache
def _developing(machine: Machine) -> Any:
    return jit(partial(developed, machine=machine))


def _measured(
    window: Window,
    truth: Float[Array, "x y z"],
    body: Bool[Array, "x y z"],
    found: Float[Array, "x y z"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """PSNR and MAE in the body of a result in whole HU, as `metrics.volume.case_metrics` has them."""
    apart = jnp.clip(jnp.rint(found), *window) - jnp.clip(truth, *window)
    psnr = 10.0 * jnp.log10(window.range**2 / jnp.mean(jnp.square(apart)))
    inside = body.astype(jnp.float32)
    return psnr, jnp.sum(inside * jnp.abs(apart)) / jnp.sum(inside)


def _summary(
    party: Party, conditions: Sequence[Condition], rows: Mapping[tuple[str, ...], Row]
) -> dict[str, Any]:
    """Means of one field over the cases, and the mean difference to X-rays with nothing wrong."""
    at: dict[tuple[str, ...], dict[str, Row]] = {}
    for (method, perturbation, value, _, case), row in rows.items():
        at.setdefault((method, perturbation, value), {})[case] = row
    results = [
        {
            "method": contender.name,
            "perturbation": condition.perturbation,
            "value": condition.value,
            **_means(at[contender.name, *condition.key], at[contender.name, *conditions[0].key]),
        }
        for contender in party.contenders
        for condition in conditions
    ]
    return {
        "name": party.name,
        **party.setting.judge.terms(party.setting),
        "notes": {c.name: c.note for c in party.contenders if c.note},
        "results": results,
    }


def _means(found: dict[str, Row], base: dict[str, Row]) -> dict[str, Any]:
    """n, means, and the change of each metric with its 95 % bootstrap interval, case by case."""
    told: dict[str, Any] = {"n": len(found)}
    for name in METRICS:
        values, before = (np.array([rows[c][name] for c in found]) for rows in (found, base))
        change = values - before
        low, high = statistics.interval(change) if len(change) > 1 else (None, None)
        told[name] = {"mean": float(values.mean()), "change": float(change.mean())}
        told[name] |= {"low": low, "high": high}
    return told
