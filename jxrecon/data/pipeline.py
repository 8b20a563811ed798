"""Batches as a function of the step, made ahead of time by one background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from jxrecon.data.volumes import VolumeSet
from jxrecon.types import VolumeBatch

T = TypeVar("T")


def batch_at(volumes: VolumeSet, step: int, batch_size: int, seed: int) -> VolumeBatch:
    """The batch of a step: the same for the same (step, seed), whatever came before.

    The training set is walked in epochs, each a permutation drawn from (seed, epoch); batches
    follow each other without a gap, so one may hold the end of an epoch and the start of the next.

    Args:
        volumes: n volumes.
        step: counted from 0.
        batch_size: b; may exceed n.
        seed: of the order, at least 0.

    Returns:
        NumPy arrays: hu [b, x, y, z] float32, index [b] int32.
    """
    count = len(volumes.names)
    epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    orders = {e: np.random.default_rng((seed, e)).permutation(count) for e in epochs.tolist()}
    index = np.array([orders[e][p] for e, p in zip(epochs.tolist(), places)], np.int32)
    hu = volumes.hu[index].astype(np.float32)
    return VolumeBatch(hu, index)  # type: ignore[arg-type]  # on the host still


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
