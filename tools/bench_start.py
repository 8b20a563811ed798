"""CPU seconds of the first training step, cold and with a warm compilation cache, and what they go to.

    python tools/bench_start.py [--exp x2vision_hn] [--size small] [--set FIELD=VALUE] [--whole]

Two processes train one after the other on a cache folder that is empty at first, each to the end of its first
step, or with --whole two steps with the evaluation at their end. Tracing is Python's share, lowering what
makes XLA's language of it, XLA what compiles that, or reads it from the cache; the rest is imports, data, and
what the programs themselves compute. What is traced within a trace counts once, what is compiled within one
counts as compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

PARTS = {
    "jaxpr_trace_duration": "tracing",
    "jaxpr_to_mlir_module_duration": "lowering",
    "backend_compile_duration": "XLA",
}
"""The last part of an event of `jax.monitoring` -> how it is called here; of two at once the later counts."""

TICK = 0.005
"""Seconds between two looks at the process's CPU time."""


def main() -> None:
    """Prints a line a start."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", default="x2vision_hn")
    parser.add_argument("--size", default="small")
    parser.add_argument("--set", action="append", default=[], help="as of jxrecon train; repeats")
    parser.add_argument("--whole", action="store_true", help="two steps and an evaluation")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder, "cache"))}
        environment = {**os.environ, **cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
        for label in ("cold", "warm"):
            command = [
                sys.executable,
                __file__,
                *sys.argv[1:],
                "--worker",
                str(Path(folder, label)),
            ]
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            told = json.loads(done.stdout.splitlines()[-1])
            names = (*PARTS.values(), "rest")
            parts = ", ".join(f"{name} {told[name]:.1f}" for name in names)
            print(
                f"{args.exp} {args.size} {label}: {told['cpu']:.1f} CPU s, {told['wall']:.1f} s wall"
                f" ({parts}; {told['programs']} programs), peak {told['peak_gb']:.2f} GB",
                flush=True,
            )


def _work(args: argparse.Namespace) -> None:
    """Trains, and prints what it took as JSON."""
    ticks, over = [(time.monotonic(), 0.0)], threading.Event()

    def watch() -> None:
        while not over.wait(TICK):
            ticks.append((time.monotonic(), time.process_time()))

    threading.Thread(target=watch, daemon=True).start()
    import jax

    from jxrecon.runs import loop
    from jxrecon.train import command

    spans: list[tuple[str, float, float]] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        part = PARTS.get(event.rpartition("/")[2])
        if part is not None:
            spans.append((part, time.monotonic() - duration_secs, time.monotonic()))

    say = loop.say

    def heed(line: str) -> None:
        say(line)
        if line.startswith("first step") and not args.whole:
            ticks.append((time.monotonic(), time.process_time()))
            over.set()
            os.kill(os.getpid(), signal.SIGTERM)  # the run is saved and ends

    loop.say = heed
    jax.monitoring.register_event_duration_secs_listener(listen)
    steps = ["schedule.steps=2"] if args.whole else []
    assignments = [f"--set={one}" for one in (*args.set, *steps)]
    where = ["--exp", args.exp, "--size", args.size, "--workdir", str(args.worker)]
    code = command([*where, *assignments, "--no-evaluate"])
    over.set()
    assert code == (0 if args.whole else 128 + signal.SIGTERM), code
    told = {
        **_parts(ticks, spans),
        "cpu": ticks[-1][1],
        "wall": ticks[-1][0] - ticks[0][0],
        "programs": sum(part == "XLA" for part, *_ in spans),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(json.dumps(told))


def _parts(
    ticks: list[tuple[float, float]], spans: list[tuple[str, float, float]]
) -> dict[str, float]:
    """CPU seconds of each part, of ticks (clock, CPU seconds so far) and spans (part, from, to)."""
    clock, cpu = np.array(ticks).T
    middle, spent = (clock[1:] + clock[:-1]) / 2, np.diff(cpu)
    told, left = {}, np.ones(len(spent), bool)
    for name in reversed(PARTS.values()):
        mine = np.zeros(len(spent), bool)
        for part, begin, end in spans:
            if part == name:
                mine |= (begin <= middle) & (middle <= end)
        told[name] = float(spent[mine & left].sum())
        left &= ~mine
    return {**told, "rest": float(spent[left].sum())}


if __name__ == "__main__":
    main()
