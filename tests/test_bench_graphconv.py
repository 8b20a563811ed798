"""The graph convolutions' benchmark measures what it says, on a toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "bench_graphconv.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parents[1]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(TOOL), "--vertices", "40", "--channels", "8", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_table_and_segment_sum_are_timed_and_give_the_same(tmp_path: Path) -> None:
    done = bench("--batch", "2", "--rounds", "2", "--out", str(tmp_path / "bench.json"))
    assert done.returncode == 0, done.stderr
    times = json.loads((tmp_path / "bench.json").read_text())["ms"]["8x40"]
    for name in ("jxrecon table", "jraph segment_sum", "matrix products alone"):
        assert times[name]["gradient"] > 0
    rows = [line for line in done.stdout.splitlines() if line.startswith(("jraph", "torch", "PyT"))]
    assert rows
    assert all(float(row.split()[-1]) < 1e-5 for row in rows)


def test_a_wrong_size_is_refused_in_one_line() -> None:
    done = bench("--batch", "0")
    assert done.returncode == 2
    assert "--batch: 0" in done.stderr.splitlines()[-1]
