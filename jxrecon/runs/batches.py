"""Batches as a function of the step, made ahead of time by one background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

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


def batch_at(cases: Cases[Batch], step: int, batch_size: int, seed: int) -> Batch:
    """The batch of a step: the same for the same (step, seed), whatever came before.

    The training set is walked in epochs, each a permutation drawn from (seed, epoch); batches
    follow each other without a gap, so one may hold the end of an epoch and the start of the next.

    Args:
        cases: n of them.
        step: counted from 0.
        batch_size: b; may exceed n.
        seed: of the order, at least 0.

    Returns:
        what `cases.batch` makes of the b chosen cases, NumPy arrays.
    """
    count = len(cases.names)
    epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    orders = {e: np.random.default_rng((seed, e)).permutation(count) for e in epochs.tolist()}
    index = np.array([orders[e][p] for e, p in zip(epochs.tolist(), places)], np.int32)
    return cases.batch(index)


def prefetch(make: Callable[[int], T], start: int, stop: int, depth: int = 2) -> Iterator[T]:
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
