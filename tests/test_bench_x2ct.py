"""The benchmark of X2CT-GAN measures what it says, on a toy network."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "bench_x2ct.py"


@pytest.mark.slow
def test_every_contender_steps_once_a_round(tmp_path):
    out = tmp_path / "bench.json"
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parents[1]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(TOOL), "--tiny", "--threads", "1", "--rounds", "2"]
    done = subprocess.run(
        [*command, "--out", str(out)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["sizes"]["4"]
    torch = importlib.util.find_spec("torch") is not None
    assert set(results) == {"jxrecon", "torch"} if torch else {"jxrecon"}
    assert ("No module named 'torch'" in done.stdout) != torch
    for result in results.values():
        assert len(result["rounds"]) == 2
        assert result["cpu_s"] > 0
        assert 0 < result["peak_gb"] < 20
        losses = [entry["loss"] for entry in result["rounds"]]
        assert all(map(math.isfinite, losses))
        assert losses[0] != losses[1]  # it learns
