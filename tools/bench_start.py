"""Seconds to the first training step, cold and with a warm compilation cache.

    python tools/bench_start.py [--exp x2vision_hn] [--size small]

Two processes train the same two steps one after the other on a cache folder that is empty at first.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Prints one line a start: what the loop says of its first step, and the whole process's seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", default="x2vision_hn")
    parser.add_argument("--size", default="small")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(Path(folder, "cache"))}
        for label in ("cold", "warm"):
            command = [sys.executable, "-m", "jxrecon.train", "--exp", args.exp]
            command += ["--size", args.size, "--workdir", str(Path(folder, label))]
            command += ["--set", "schedule.steps=2", "--no-evaluate"]
            began = time.monotonic()
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            whole = time.monotonic() - began
            step = re.search(r"first step after ([\d.]+) s", done.stdout)
            assert step is not None, done.stdout
            print(f"{label}: first step after {step[1]} s of training, process {whole:.1f} s")


if __name__ == "__main__":
    main()
