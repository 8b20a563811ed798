"""Batches by step and the thread that makes them ahead."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from jxrecon.data.volumes import VolumeSet
from jxrecon.runs import batches
from jxrecon.runs.batches import Waiting, batch_at, parted, places_at, prefetch


def volumes(count):
    hu = np.arange(count, dtype=np.int16)[:, None, None, None] * np.ones((1, 2, 3, 4), np.int16)
    names = tuple(f"case_{i}" for i in range(count))
    return VolumeSet(names, hu, hu > -300, np.tile(np.eye(4), (count, 1, 1)))


@pytest.mark.parametrize(("count", "batch_size"), [(6, 3), (7, 3), (3, 8), (1, 1)])
def test_every_epoch_holds_each_volume_once(count, batch_size):
    steps = 3 * count
    index = np.concatenate([batch_at(volumes(count), s, batch_size, 5).index for s in range(steps)])
    for epoch in index.reshape(-1, count):
        assert sorted(epoch.tolist()) == list(range(count))


def test_a_batch_depends_on_its_step_and_seed_alone():
    data = volumes(9)
    walked = [batch_at(data, step, 4, seed=1) for step in range(12)]
    alone = batch_at(data, 11, 4, seed=1)
    np.testing.assert_array_equal(alone.index, walked[11].index)
    np.testing.assert_array_equal(alone.hu, walked[11].hu)
    orders = {
        tuple(np.concatenate([batch_at(data, s, 3, k).index for s in (0, 1, 2)])) for k in range(8)
    }
    assert len(orders) == 8
    epochs = [
        np.concatenate([batch_at(data, 3 * e + s, 3, 0).index for s in (0, 1, 2)]) for e in (0, 1)
    ]
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_holds_the_volumes_it_names():
    batch = batch_at(volumes(5), 2, 4, seed=0)
    assert (batch.hu.dtype, batch.index.dtype) == (np.float32, np.int32)
    assert batch.hu.shape == (4, 2, 3, 4)
    np.testing.assert_array_equal(batch.hu[:, 0, 0, 0], batch.index)


@pytest.mark.parametrize(
    ("cases", "count", "out"),
    [(76, 4, [9, 28, 47, 66]), (1, 4, []), (10, 0, []), (3, 5, [0, 2])],
)
def test_cases_kept_out_are_evenly_spread_and_never_all(cases, count, out):
    data = volumes(cases)
    learnt, kept = parted(data, count)
    names = [f"case_{n}" for n in out]
    assert (list(kept.names) if kept else []) == names
    assert sorted([*learnt.names, *names]) == sorted(data.names)
    if kept is not None:
        assert kept.batch(np.arange(len(out))).index.tolist() == out
        seen = {int(i) for step in range(cases) for i in batch_at(learnt, step, 3, 0).index}
        assert seen == set(range(cases)) - set(out)
        assert places_at(learnt, 0, 2, 0).max() < len(learnt.names)


@pytest.mark.parametrize("depth", [0, 1, 2, 50])
def test_prefetch_keeps_the_order(depth):
    assert list(prefetch(lambda step: step * step, 3, 20, depth)) == [s * s for s in range(3, 20)]


def test_prefetch_of_nothing_is_empty():
    assert list(prefetch(lambda step: step, 4, 4)) == []


def test_prefetch_works_ahead_but_not_without_bound():
    made = []
    items = prefetch(lambda step: made.append(step) or step, 0, 100, depth=2)
    assert next(items) == 0
    for _ in range(200):
        if len(made) == 3:
            break
        time.sleep(0.01)
    assert made == [0, 1, 2]
    items.close()


def test_an_error_is_raised_where_its_item_would_come():
    def make(step):
        if step == 2:
            raise ValueError("bad step 2")
        return step

    items = prefetch(make, 0, 10)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="bad step 2"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_closing_early_ends_the_thread_and_what_has_not_begun():
    made = []
    before = threading.active_count()
    items = prefetch(lambda step: made.append(step) or step, 0, 1000, depth=3)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
    assert len(made) <= 4


def test_share_of_waiting_counts_what_the_next_item_took(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def made():
        for _ in range(4):
            now[0] += 3.0
            yield

    items = Waiting(made())
    for _ in range(4):
        next(items)
        now[0] += 1.0  # of the step
    assert items.share() == 0.75
    now[0] += 1.0
    assert items.share() == 0.0  # counted anew
