"""Batches as a function of the step, made ahead of time by one background thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Int32

T = TypeVar("T")
Batch = TypeVar("Batch", covariant=True)


class Cases(Protocol, Generic[Batch]):
    """A split of a data set, as training takes it.

    Attributes:
        names: of the cases, no two alike.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def batch(self, index: Int32[np.ndarray, " b"]) -> Batch:
        """These cases, on the host, with `index` in the batch."""


class Part(NamedTuple):
    """Some of the cases; `index` in their batches stays the place among all of them."""

    whole: Cases
    places: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of these cases."""
        return tuple(self.whole.names[place] for place in self.places)

    def batch(self, index: Int32[np.ndarray, " b"]) -> Any:
        """These cases, on the host."""
        return self.whole.batch(np.array(self.places, np.int32)[index])


def parted(cases: Cases, count: int) -> tuple[Cases, Part | None]:
    """(the others, `count` cases evenly spread among all), never all of them; None: none are kept out."""
    total = len(cases.names)
    count = min(count, total - 1)
    out = [(2 * k + 1) * total // (2 * count) for k in range(count)]
    if not out:
        return cases, None
    return Part(cases, tuple(n for n in range(total) if n not in out)), Part(cases, tuple(out))


def batch_at(cases: Cases[Batch], step: int, batch_size: int, seed: int) -> Batch:
    """The batch of a step, NumPy arrays: what `cases.batch` makes of the cases at `places_at`."""
    return cases.batch(places_at(cases, step, batch_size, seed))


def places_at(cases: Cases, step: int, batch_size: int, seed: int) -> Int32[np.ndarray, " b"]:
    """Which cases a step learns from: the same for the same (step, seed), whatever came before.

    The training set is walked in epochs, each a permutation drawn from (seed, epoch); batches
    follow each other without a gap, so one may hold the end of an epoch and the start of the next.

    Args:
        cases: n of them.
        step: counted from 0.
        batch_size: b; may exceed n.
        seed: of the order, at least 0.
    """
    count = len(cases.names)
    epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    orders = {e: np.random.default_rng((seed, e)).permutation(count) for e in epochs.tolist()}
    return np.array([orders[e][p] for e, p in zip(epochs.tolist(), places)], np.int32)


def prefetch(
    make: Callable[[int], T], start: int, stop: int, depth: int = 2
) -> Generator[T, None, None]:
    """make(start), ..., make(stop - 1) in order, up to `depth` of them made ahead in a thread.

    An error in `make` is raised where its item would have come. Closing the iterator drops what
    has not begun and waits for what has.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        try:
            for step in range(start, stop):
                pending.append(pool.submit(make, step))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Waiting(Generic[T]):
    """Items of a `prefetch`, and for how long their user waits for them.

    Attributes:
        seconds: spent in waiting since the start or the last `share`.
    """

    def __init__(self, items: Generator[T, None, None]) -> None:
        self._items, self.seconds, self._since = items, 0.0, time.monotonic()

    def __next__(self) -> T:
        began = time.monotonic()
        try:
            return next(self._items)
        finally:
            self.seconds += time.monotonic() - began

    def share(self) -> float:
        """Of the time since the start or the last call, how much was spent in waiting, 0 to 1.

        No less than what the devices wait: they may still compute meanwhile.
        """
        now = time.monotonic()
        share = self.seconds / max(now - self._since, 1e-9)
        self.seconds, self._since = 0.0, now
        return share

    def close(self) -> None:
        """Drops what has not begun and waits for what has."""
        self._items.close()
