"""Training: one loop for every method.

The loop owns jit, donation, sharding, checkpoints and logs; of a method it knows `Method` alone. Step
`s` depends on the state before it, on (seed, s) and on nothing else: a run that is killed and started
again ends in the same bits as one that was not.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jxrecon.compile import jit
from jxrecon.devices import cases_over
from jxrecon.experiment import Acquired
from jxrecon.files import locked
from jxrecon.runs import sharding
from jxrecon.runs.batches import Cases, Part, Waiting, batch_at, parted, places_at, prefetch
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.growth import grown, shared
from jxrecon.runs.log import MetricsLog
from jxrecon.runs.run import Run, Trained, abstract_state
from jxrecon.runs.signals import Interrupted, Signals
from jxrecon.terminal import Meter
from jxrecon.types import Key, PyTree

_EVALUATION = np.uint32(2**32 - 1)  # folded into the key of evaluations; steps count up from 0


class Diverged(Exception):
    """A term of a step is not finite."""


def fit(run: Run, dataset: Any, model_axis: int = 1, grow: Trained | None = None) -> PyTree:
    """Trains to the last step of the schedule, from the newest checkpoint if there is one.

    Args:
        run: of `runs.run.start`.
        dataset: what `experiment.load` gave.
        model_axis: devices that share one copy of the state.
        grow: the run that a new one takes over what fits from.

    Returns:
        the state after the last step; it is saved.

    Raises:
        InputError: the batch cannot be shared out over the devices, or a checkpoint is of another
            state, or cannot be written; another training is under way in the folder, or it was removed.
        Diverged: a term or an array of the state is not a number; the checkpoints before are kept.
        Interrupted: by SIGTERM or SIGINT, after the step in hand was finished and saved.
    """
    schedule, began = run.experiment.schedule, time.monotonic()
    mesh = sharding.make_mesh(model_axis)
    abstract = abstract_state(run, mesh)
    spread = sharding.batch_sharding(mesh, schedule.batch_size)
    acquire, method = run.experiment.kind.acquire, run.method
    train = acquire(run.experiment, dataset.train)
    validation = acquire(run.experiment, dataset.validation)
    train_step, eval_step = compiled_steps(run, train, validation, abstract, mesh)
    learnt, kept_out = parted(dataset.train, getattr(method, "kept_out", 0))
    held_out = _held_out(run, dataset, mesh)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        still_there = stack.enter_context(_alone(run.folder))
        checkpoints = stack.enter_context(closing(Checkpoints(run.folder / "checkpoints")))
        state, done = _begin(run, checkpoints, abstract, train, grow)
        first = done
        metrics = stack.enter_context(closing(_Terms(run, learnt, checkpoints, done, still_there)))
        batches = stack.enter_context(closing(_batches(run, learnt, spread, done)))
        meter = stack.enter_context(Meter(done, schedule.steps, jax.process_index() != 0))
        while done < schedule.steps and not signals.caught(done, schedule.log_every):
            state, terms = train_step(state, next(batches), np.uint32(done))
            done += 1
            metrics.push(done, terms)
            if done == schedule.steps and kept_out is not None:
                state = _finished(run, train, state, kept_out, mesh)
            if done == first + 1:
                metrics.flush()
                say(f"first step after {time.monotonic() - began:.1f} s, compiling included")
            due = done % schedule.evaluate_every == 0 or done == schedule.steps
            metric = metrics.evaluated(done, eval_step(state, held_out)) if due else None
            better = metric is not None and (not checkpoints.best or metric > checkpoints.best[1])
            if better or done % schedule.save_every == 0 or done == schedule.steps:
                metrics.save(done, state, metric)
            metrics.waited(done, batches)
            meter.terms(metrics.shown)
            meter.step(done)
        metrics.save(done, state, None)
        checkpoints.wait()
        still_there()
        if signals.number:
            raise Interrupted(signals.number, done)
    return state


@contextmanager
def _alone(folder: Path) -> Iterator[Callable[[], None]]:
    """The lock of a training; of several processes, the first one has it for all."""
    if jax.process_index() == 0:
        with locked(folder, "training") as still_there:
            yield still_there
    else:
        yield lambda: None


def fit_or_tell(
    run: Run, dataset: Any, resume: str, model_axis: int = 1, grow: Trained | None = None
) -> tuple[PyTree, int]:
    """`fit` for a command: how a training ended, in words and as an exit code.

    Args:
        run: of `runs.run.start`.
        dataset: what `experiment.load` gave.
        resume: the command that goes on with it.
        model_axis: devices that share one copy of the state.
        grow: as of `fit`.

    Returns:
        (state, 0); (None, 1) when training diverged; (None, 128 + signal) when a signal ended it, saved.
    """
    try:
        return fit(run, dataset, model_axis, grow), 0
    except Interrupted as stop:
        say(f"{stop}\nresume with: {resume}")
        return None, 128 + stop.number
    except Diverged as stop:
        print("error:", stop, file=sys.stderr)
        return None, 1
    except RuntimeError as error:
        if jax.process_count() > 1:  # what a collective raises when a process is gone
            sharding.lost(error)
        raise


def compiled_steps(
    run: Run, train: Acquired, validation: Acquired, abstract: PyTree, mesh: Mesh
) -> tuple[Any, Any]:
    """The method's steps with their layout: (state, batch, number) and (state, batch).

    The first of them is of two programs where the method has a warm-up; each is compiled when it is needed.
    """
    method, seed = run.method, run.experiment.schedule.seed
    warm_up, first = getattr(method, "warm_up", None) or (0, method.train_step)
    earlier, later = (
        compiled_step(run, step, train, abstract, mesh) for step in (first, method.train_step)
    )

    def train_step(state: PyTree, batch: Any, number: np.uint32) -> tuple[PyTree, Any]:
        return (earlier if number < warm_up else later)(state, batch, number)

    def eval_step(state: PyTree, batch: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), _EVALUATION)
        with cases_over(mesh):
            return method.eval_step(state, validation.observe_still(batch, _exposing(key)), key)

    once = getattr(method, "once", False)
    return train_step, jit(eval_step, once, out_shardings=sharding.replicated(mesh))


def compiled_step(
    run: Run, step: Callable[..., Any], train: Acquired, abstract: PyTree, mesh: Mesh
) -> Any:
    """A training step of the method as the loop calls it, (state, batch, number), with its layout."""
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def train_step(state: PyTree, batch: Any, number: jax.Array) -> tuple[PyTree, Any]:
        key = jax.random.fold_in(jax.random.key(run.experiment.schedule.seed), number)
        with cases_over(mesh):
            return step(state, train.observe(batch, _exposing(key)), key)

    layout = {"out_shardings": (places, sharding.replicated(mesh)), "donate_argnums": 0}
    return jit(train_step, getattr(run.method, "once", False), **layout)


def _exposing(key: Key) -> Key:
    """The key of X-rays, apart from the method's own."""
    return jax.random.fold_in(key, 1)


def _finished(run: Run, train: Acquired, state: PyTree, kept_out: Part, mesh: Mesh) -> PyTree:
    """The state after the method has looked at the training cases that were kept out."""
    key = _exposing(jax.random.key(run.experiment.schedule.seed))
    batch = kept_out.batch(np.arange(len(kept_out.names), dtype=np.int32))

    more = (train.share_without(kept_out.places),) if run.method.field_model else ()

    def finish(state: PyTree, batch: Any) -> PyTree:
        return run.method.finish(state, train.observe_still(batch, key), *more)

    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = jit(finish, once=True, out_shardings=places, donate_argnums=0)
    return step(state, sharding.place(batch, sharding.replicated(mesh)))


def _begin(
    run: Run, checkpoints: Checkpoints, abstract: PyTree, train: Acquired, grow: Trained | None
) -> tuple[PyTree, int]:
    """The state to go on from and its step: the newest good checkpoint, or a fresh or grown one at 0."""
    restored = checkpoints.restore_latest_valid(abstract)
    if restored is None:
        return fresh_state(run, abstract, train, grow), 0
    state, step = restored
    checkpoints.rewind(step)
    say(f"resuming {run.folder} at step {step} of {run.experiment.schedule.steps}")
    return state, step


def fresh_state(run: Run, abstract: PyTree, train: Acquired, grow: Trained | None = None) -> PyTree:
    """The state before the first step: drawn, grown from another run, fitted to all training cases."""
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    key = jax.random.key(run.experiment.schedule.seed)
    state = jit(run.method.init, once=True, out_shardings=places)(key)
    if grow is not None:
        kept, total = shared(state, grow.state)
        say(f"grown from {grow.run.folder} at step {grow.step}: {kept} of {total} numbers kept")
        state = jax.device_put(grown(state, grow.state), places)
    if getattr(run.method, "fit", None) is not None:
        fit = jit(run.method.fit, out_shardings=places, donate_argnums=0)
        state = fit(state, train.everything())
    return state


def _batches(run: Run, cases: Cases, spread: NamedSharding, first: int) -> Waiting:
    """The batches of the steps from `first`, made and moved to the devices in the background."""
    schedule = run.experiment.schedule

    def make(step: int) -> Any:
        batch = batch_at(cases, step, schedule.batch_size, schedule.seed)
        return sharding.place(batch, spread)

    return Waiting(prefetch(make, first, schedule.steps))


def _held_out(run: Run, dataset: Any, mesh: Mesh) -> Any:
    """The validation cases that training looks up at: the first few, the same at every step."""
    count = min(run.experiment.schedule.evaluate_cases, len(dataset.validation.names))
    batch = dataset.validation.batch(np.arange(count, dtype=np.int32))
    even = count % mesh.shape["data"] == 0
    spread = sharding.batch_sharding(mesh, count) if even else sharding.replicated(mesh)
    return sharding.place(batch, spread)


class _Terms:
    """The terms of the steps on their way to the log.

    They are fetched one step late, so that the next step is under way meanwhile, and all of them
    are looked at: no state is saved before the terms of its step were found finite.
    """

    def __init__(
        self,
        run: Run,
        cases: Cases,
        checkpoints: Checkpoints,
        step: int,
        still_there: Callable[[], None],
    ) -> None:
        self._run, self._cases, self._checkpoints = run, cases, checkpoints
        self._still_there = still_there
        self._log = MetricsLog(run.folder, step) if jax.process_index() == 0 else None
        self._first = step + 1
        self._pending: tuple[int, Any] | None = None
        self.shown: dict[str, float] = {}

    def push(self, step: int, terms: Any) -> None:
        """The terms of a step that was just begun; looks at those of the step before."""
        self.flush()
        self._pending = (step, terms)

    def flush(self) -> None:
        """Fetches what is pending. Raises Diverged if it is not finite."""
        if self._pending is None:
            return
        step, terms = self._pending
        self._pending = None
        values = _floats(terms)
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(step, ", ".join(bad))
        schedule = self._run.experiment.schedule
        if step == 1 or step % schedule.log_every == 0 or step == schedule.steps:
            self._write(step, "train", values)

    def evaluated(self, step: int, terms: Any) -> float | None:
        """Logs terms on held-out volumes; returns the one by which the best checkpoint is chosen."""
        self.flush()
        values = _floats(terms)
        self._write(step, "validation", values)
        best = self._run.experiment.schedule.best
        metric = values.get(best.lstrip("-"), math.nan) * (-1.0 if best.startswith("-") else 1.0)
        return metric if math.isfinite(metric) else None

    def waited(self, step: int, batches: Waiting) -> None:
        """Shows the share of the time that went in waiting for batches, compiling left out.

        It goes to TensorBoard alone: metrics.jsonl is the same for equal runs.
        """
        if step == self._first:
            batches.share()
        elif step % self._run.experiment.schedule.log_every == 0:
            share = batches.share()
            self.shown["waiting_for_data"] = share
            if self._log:
                self._log.show(step, "train/waiting_for_data", share)

    def save(self, step: int, state: PyTree, metric: float | None) -> None:
        """Saves a state, once its terms and its arrays are found to be numbers."""
        self.flush()
        self._still_there()
        try:
            self._checkpoints.save(step, state, metric)
        except FloatingPointError as error:
            raise self._diverged(step, str(error)) from error

    def close(self) -> None:
        if self._log:
            self._log.close()

    def _write(self, step: int, split: str, values: dict[str, float]) -> None:
        self.shown = {**self.shown, **values}
        self._still_there()
        if self._log:
            self._log.write(step, split, values)

    def _diverged(self, step: int, what: str) -> Diverged:
        schedule = self._run.experiment.schedule
        places = places_at(self._cases, step - 1, schedule.batch_size, schedule.seed)
        cases = ", ".join(f"{i} ({self._cases.names[i]})" for i in places)
        kept = self._checkpoints.steps()
        last = f"step {kept[-1]} in {self._checkpoints.folder}" if kept else "none"
        return Diverged(f"step {step}: {what} on the cases {cases}; last good checkpoint: {last}")


def _floats(terms: Any) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(terms).items()}


def say(line: str) -> None:
    """Prints a line, in the first process alone."""
    if jax.process_index() == 0:
        print(line, flush=True)
