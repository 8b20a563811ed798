"""CPU seconds of the first training steps, cold and with a warm compilation cache, and what they go to.

    python tools/bench_start.py [--exp x2vision_hn] [--size small] [--set FIELD=VALUE] [--steps 2]

Two processes train the same steps one after the other on a cache folder that is empty at first. Tracing is
Python's share, lowering what makes XLA's language of it, XLA what compiles that, or reads it from the cache;
they are wall seconds and are added up over all programs, so on a busy machine more than the processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

PARTS = {
    "jaxpr_trace_duration": "tracing",
    "jaxpr_to_mlir_module_duration": "lowering",
    "backend_compile_duration": "XLA",
}
"""The last part of an event of `jax.monitoring` -> how it is called here."""


def main() -> None:
    """Prints a line a start."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", default="x2vision_hn")
    parser.add_argument("--size", default="small")
    parser.add_argument("--set", action="append", default=[], help="as of jxrecon train; repeats")
    parser.add_argument("--steps", type=int, default=2)
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
            parts = ", ".join(f"{name} {told[name]:.1f}" for name in PARTS.values())
            print(
                f"{args.exp} {args.size} {label}: {told['cpu']:.1f} CPU s, {told['wall']:.1f} s wall"
                f" ({parts}; {told['programs']} programs), peak {told['peak_gb']:.2f} GB",
                flush=True,
            )


def _work(args: argparse.Namespace) -> None:
    """Trains, and prints what it took as JSON."""
    began = time.monotonic()
    import jax

    from jxrecon.train import command

    took: Counter[str] = Counter()

    def listen(event: str, seconds: float, **_: Any) -> None:
        part = PARTS.get(event.rpartition("/")[2])
        if part is not None:
            took[part] += seconds
            took["programs"] += part == "XLA"

    jax.monitoring.register_event_duration_secs_listener(listen)
    assignments = [f"--set={one}" for one in (*args.set, f"schedule.steps={args.steps}")]
    where = ["--exp", args.exp, "--size", args.size, "--workdir", str(args.worker)]
    code = command([*where, *assignments, "--no-evaluate"])
    assert code == 0, code
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"cpu": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 1e6}
    print(json.dumps({**told, "wall": time.monotonic() - began, **took}))


if __name__ == "__main__":
    main()
