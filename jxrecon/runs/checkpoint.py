"""Checkpoints that tell when they are damaged: Orbax, with a checksum of every array beside it.

Orbax alone restores a flipped bit as a wrong number, casts a wrong dtype without a word, and takes an
empty step folder for the newest step; here all three end in a line that names the step and the array.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint import checkpoint_managers

from jxrecon.files import no_link
from jxrecon.runs import manifest
from jxrecon.runs.sharding import to_host
from jxrecon.types import InputError, PyTree

_LATEST = 2


class _Leaf(NamedTuple):
    """What is known of a saved array: its shape, the name of its dtype and the CRC32 of its bytes."""

    shape: list[int]
    dtype: str
    crc32: int


class _Record(NamedTuple):
    """What is written beside the arrays of a step."""

    leaves: dict[str, _Leaf]
    metric: float | None
    step: int


class _Damaged(InputError):
    """A step cannot be restored as it was saved."""


class Checkpoints:
    """The checkpoints of one run: the latest two, and the best by the metric given to `save`.

    With several processes, all of them make the same calls.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Opens a folder; unless `read_only`, creates it and clears what a killed save left behind.

        Raises:
            InputError: the folder cannot be created, or does not exist and is to be read.
        """
        absl_logging.set_verbosity(absl_logging.FATAL)  # what matters is raised below
        _pass_over_dropped()
        self.folder = folder.absolute()
        if read_only and not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder, expected the checkpoints of a run")
        if not read_only:
            no_link(folder)  # or steps of others would be deleted
        self._records: dict[int, _Record] = {}
        self._pending: int | None = None
        self._failed = False
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Keep(self._records),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            lightweight_initialize=True,  # the full one fails on a damaged step
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be used for checkpoints ({_one_line(error)})"
            ) from error
        for step in self._manager.all_steps():
            with suppress(_Damaged):  # told when the step is asked for
                self._records[step] = self._read_record(step)

    def steps(self) -> list[int]:
        """The steps that lie in the folder, damaged or not, in order."""
        return sorted(self._manager.all_steps())

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, metric) of the checkpoint with the highest metric, if any has one."""
        return _best(self._records)

    def save(self, step: int, state: PyTree, metric: float | None = None) -> None:
        """Begins to save a state; it counts as saved once `wait` or the next `save` has returned.

        The arrays are copied before this returns, so that they may be donated. A step that is there
        already is left alone.

        Raises:
            InputError: this or the previous checkpoint could not be written.
            FloatingPointError: an array holds NaN: nothing can be resumed from it.
        """
        self.wait()
        if step in self._records:
            return
        if step in self._manager.all_steps():
            self._delete([step])  # damaged
        self._probe(step)
        flat = _flatten(jax.tree.map(_array, state))
        leaves = {}
        for name, leaf in flat.items():
            array = to_host(leaf)
            if jax.dtypes.issubdtype(array.dtype, np.inexact) and np.isnan(array).any():
                raise FloatingPointError(f"{name} holds NaN")
            leaves[name] = _Leaf(list(array.shape), str(array.dtype), _crc32(array))
        self._pending = step
        self._records[step] = _Record(leaves, metric, step)
        text = json.dumps(self._records[step]._asdict(), sort_keys=True)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(flat),
                    record=ocp.args.JsonSave({"text": text, "crc32": zlib.crc32(text.encode())}),
                ),
            )
        except Exception as error:  # Orbax raises what its storage raises
            raise self._not_written(step, error) from None

    def wait(self) -> None:
        """Returns when all that was begun lies on the disk.

        Raises:
            InputError: it could not be written; the checkpoints before it are intact.
        """
        step, self._pending = self._pending, None
        if step is None:
            return
        with _hushed():
            try:
                self._manager.wait_until_finished()
                if jax.process_index() == 0 and (self.folder / str(step)).is_dir():
                    manifest.seal(self.folder / str(step))
            except Exception as error:
                raise self._not_written(step, error) from None

    def restore_latest_valid(self, abstract: PyTree) -> tuple[PyTree, int] | None:
        """(newest state that is whole, its step), None without a checkpoint; warns of damaged ones.

        Args:
            abstract: the state as `jax.eval_shape` gives it, its leaves with the shardings to restore
                to (`sharding.with_shardings`).

        Raises:
            InputError: every checkpoint is damaged, or they are of another state: arrays missing or
                unknown, another shape, another dtype.
        """
        steps = self.steps()[::-1]
        for step, earlier in zip(steps, [*steps[1:], None]):
            try:
                return self._restore(step, abstract), step
            except _Damaged as damage:
                if earlier is None:
                    raise InputError(f"{damage}; no earlier one is left") from damage
                line = f"warning: {damage}; going back to step {earlier}"
                print(line, file=sys.stderr, flush=True)
        return None

    def restore(self, which: int | Literal["best"], abstract: PyTree) -> tuple[PyTree, int]:
        """The state of one step, or of the one with the highest metric, and its step.

        Raises:
            InputError: there is no such checkpoint, it is damaged or of another state.
        """
        if which == "best":
            if self.best is None:
                raise InputError(f"{self.folder}: no checkpoint with a metric, expected a best one")
            which = self.best[0]
        if which not in self.steps():
            raise InputError(f"{self.folder}: no step {which}, expected one of {self.steps()}")
        return self._restore(which, abstract), which

    def rewind(self, step: int) -> None:
        """Removes what lies after `step`: the damaged steps that a resumed run will reach again."""
        self._delete([s for s in self.steps() if s > step])

    def close(self) -> None:
        """Waits for what was begun and ends Orbax's threads; what has failed is not waited for again."""
        self.wait()
        if not self._failed:
            self._manager.close()

    def _delete(self, steps: Iterable[int]) -> None:
        for step in steps:
            self._manager.delete(step)
            self._records.pop(step, None)

    def _probe(self, step: int) -> None:
        """Lets a disk that refuses do so here: within Orbax threads would wait for each other for long."""
        place = self.folder / f".probe_{os.getpid()}"
        try:
            place.mkdir()
            place.rmdir()
        except OSError as error:
            raise self._not_written(step, error) from None

    def _not_written(self, step: int, error: Exception) -> InputError:
        self._failed, self._pending = True, None
        self._records.pop(step, None)
        for part in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
            shutil.rmtree(part, ignore_errors=True)  # a full disk has room again
        for place in (self.folder, self.folder.parent):
            with suppress(OSError):  # empty: Orbax made them anew after they had been removed
                place.rmdir()
        return InputError(
            f"checkpoint step {step} could not be written to {self.folder}"
            f" ({_one_line(error)}); the checkpoints before it are intact"
        )

    def _damaged(self, step: int, what: str) -> _Damaged:
        return _Damaged(f"checkpoint step {step} in {self.folder} is damaged: {what}")

    def _read_record(self, step: int) -> _Record:
        record = self._read(step, "record", ocp.args.JsonRestore())
        text = record.get("text")
        if not isinstance(text, str) or zlib.crc32(text.encode()) != record.get("crc32"):
            raise self._damaged(step, "record has a wrong checksum")
        content = json.loads(text)
        of = content.get("step", step)  # runs of before did not say
        if of != step:
            raise self._damaged(step, f"it holds a copy of step {of}")
        return _Record({k: _Leaf(*v) for k, v in content["leaves"].items()}, content["metric"], of)

    def _read(self, step: int, item: str, args: Any, names: Iterable[str] = ()) -> Any:
        """One item of a step; `names` are those of its arrays, to say which one is damaged."""
        with _hushed():
            try:
                return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
            except Exception as error:  # whatever a damaged file makes Orbax raise
                message = _one_line(error)
            mentioned = [name for name in names if name in message]
            raise self._damaged(step, f"{max(mentioned, key=len, default=item)}: {message}")

    def _restore(self, step: int, abstract: PyTree) -> PyTree:
        saved = self._read_record(step).leaves
        wanted = _flatten(jax.tree.map(_raw, abstract))
        where = f"checkpoint step {step} in {self.folder}"
        for names, word in (
            (wanted.keys() - saved.keys(), "lacks"),
            (saved.keys() - wanted.keys(), "has"),
        ):
            if names:
                raise InputError(
                    f"{where} {word} {sorted(names)[0]} ({len(names)} such arrays): it is of another"
                    " model, expected one of this experiment"
                )
        for name, leaf in wanted.items():
            found, expected = saved[name], (list(leaf.shape), str(leaf.dtype))
            if (found.shape, found.dtype) != expected:
                raise InputError(
                    f"{where}: {name} is {found.dtype}{found.shape}, expected {expected[1]}{expected[0]}"
                )
        state = self._read(step, "state", ocp.args.StandardRestore(wanted), wanted)
        for name, leaf in state.items():
            if _crc32(to_host(leaf)) != saved[name].crc32:
                raise self._damaged(step, f"{name} has a wrong checksum")
        if wrong := manifest.damage(self.folder / str(step)):  # where no array shows it
            raise self._damaged(step, wrong)
        return _unflatten(abstract, state)


class _Keep(checkpoint_managers.PreservationPolicy):
    """Keeps the latest two and the best of the steps whose record can be read."""

    def __init__(self, records: dict[int, _Record]) -> None:
        self._records = records

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [info.step for info in checkpoints]
        kept = [s for s in sorted(steps) if s in self._records][-_LATEST:]
        if best := _best(self._records):
            kept.append(best[0])
        for step in self._records.keys() - kept:
            del self._records[step]
        return [step in self._records for step in steps]


def _best(records: dict[int, _Record]) -> tuple[int, float] | None:
    """The step of the highest metric, the earliest of equals, and that metric."""
    rated = [(step, r.metric) for step, r in sorted(records.items()) if r.metric is not None]
    return max(rated, key=lambda pair: pair[1], default=None)


def _flatten(state: PyTree) -> dict[str, Any]:
    """Leaves by their path, such as params/dense/kernel."""
    paths = jax.tree_util.tree_flatten_with_path(state)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "state" for path, _ in paths]
    assert len(set(names)) == len(names), "two leaves of the state have the same path"
    return {name: leaf for name, (_, leaf) in zip(names, paths)}


def _unflatten(abstract: PyTree, flat: dict[str, Any]) -> PyTree:
    """The inverse of `_flatten`; random keys are wrapped again as `abstract` has them."""

    def wrap(leaf: Any, array: Any) -> Any:
        if not _is_key(leaf):
            return array
        kinds: list[Any] = []  # of an abstract key, the kind is known only while tracing
        jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), leaf)
        return jax.random.wrap_key_data(array, impl=kinds[0])

    wrapped = [wrap(leaf, flat[name]) for name, leaf in _flatten(abstract).items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), wrapped)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _array(leaf: Any) -> Any:
    """The array that is saved for a leaf."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _raw(leaf: Any) -> Any:
    """The same of an abstract leaf."""
    if not _is_key(leaf):
        return leaf
    numbers = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.ShapeDtypeStruct(numbers.shape, numbers.dtype, sharding=leaf.sharding)


def _crc32(array: np.ndarray) -> int:
    """CRC32 of the array's bytes in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _one_line(error: BaseException) -> str:
    """What a disk that refuses says, however deep it lies; else the first 200 characters, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    reasons = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES))
    return next((reason for reason in reasons if reason in text), text[:200])


@cache  # once a process: storage threads report when they come to it
def _pass_over_dropped() -> None:
    """Keeps off the terminal the reads and writes that Orbax drops when another one fails."""

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        dropped = "Event loop is closed" in str(unraisable.exc_value)
        if not dropped and "orbax" not in getattr(code, "co_filename", ""):
            before(unraisable)

    before = sys.unraisablehook
    sys.unraisablehook = hook


@contextmanager
def _hushed() -> Iterator[None]:
    """Keeps off the terminal what asyncio says of them."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except InputError:
        gc.collect()  # what was dropped reports now
        raise
    finally:
        logger.setLevel(level)
