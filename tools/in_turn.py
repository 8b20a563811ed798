"""Contenders that step in turn, each in a process of its own: CPU seconds of a step, and peak memory.

One waits while the other works, so both see the same machine. Starting, compiling and `WARM_UP` steps are
done before the first round. On an accelerator what counts is wall time; peak memory is the device's, on a CPU
the process's largest resident set, compiling included.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

WARM_UP = 2  # steps before the first that counts


class Contender(NamedTuple):
    """Its step, which gives its loss, the platform that it runs on, and peak bytes there."""

    step: Callable[[], float]
    device: str = "cpu"
    peak_bytes: Callable[[], float | None] = lambda: None


def compare(commands: Mapping[str, Sequence[str]], rounds: int, what: str) -> dict[str, Any]:
    """Prints a line a contender, and their ratio where there are two.

    Args:
        commands: contender -> arguments of its process, which calls `work`.
        rounds: steps of each that count.
        what: is compared, for the lines.

    Returns:
        contender -> its rounds and their medians; those that could not start are missing.
    """
    workers = {name: _Worker(command) for name, command in commands.items()}
    results: dict[str, Any] = {}
    for name, worker in workers.items():
        ready = worker.answer()
        if "skipped" in ready:
            print(f"{name:8} {what}: {ready['skipped']}")
        else:
            results[name] = {**ready, "rounds": []}
    for _ in range(rounds):
        for name in results:
            results[name]["rounds"].append(workers[name].step())
    for name, result in results.items():
        result["peak_gb"] = workers[name].stop()
        for unit in ("cpu_s", "wall_s"):
            result[unit] = statistics.median(r[unit] for r in result["rounds"])
        print(
            f"{name:8} {what}: {result['cpu_s']:8.3f} CPU-s a step, {result['wall_s']:8.3f} s wall,"
            f" peak {result['peak_gb']:.2f} GB, {result['start_cpu_s']:.0f} CPU-s to start,"
            f" loss {result['rounds'][-1]['loss']:.4f}"
        )
    if len(results) == 2:
        print(f"ratio    {what}: {_ratios(*results.values())}", flush=True)
    return results


def _ratios(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Seconds of one over the other's, round by round."""
    clock, of = ("cpu_s", "CPU ") if one["device"] == "cpu" else ("wall_s", "")
    found = [a[clock] / b[clock] for a, b in zip(one["rounds"], other["rounds"])]
    middle = statistics.median(found)
    return f"{middle:.2f} of the other's {of}seconds, {min(found):.2f} to {max(found):.2f}"


def work(make: Callable[[], Contender], threads: int) -> None:
    """What a contender's process does: a step whenever a line comes in, one JSON object a line out.

    Args:
        make: gives it; an ImportError skips the contender.
        threads: cores that it may use.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)  # before the pools of threads are made
    try:
        contender = make()
    except ImportError as error:
        _say(skipped=str(error))
        return
    for _ in range(WARM_UP):
        contender.step()
    _say(start_cpu_s=time.process_time(), device=contender.device)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        loss = contender.step()
        _say(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall, loss=loss)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _say(peak_gb=(contender.peak_bytes() or resident) / 1e9)


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


class _Worker:
    """A contender's process: it steps when told to."""

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(list(command), stdin=pipe, stdout=pipe, text=True)

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self._process.wait()}")
        return dict(json.loads(line))

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self.answer()

    def stop(self) -> float:
        """Ends the process; gives its peak memory in GB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = float(self.answer()["peak_gb"])
        self._process.wait()
        return peak
