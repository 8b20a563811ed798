"""The projector's benchmark measures what it says, on a toy size and without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOOL = Path(__file__).resolve().parents[1] / "tools" / "bench_drr.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parents[1]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(TOOL), "--sizes", "tiny", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    done = bench("--methods", "joseph", "shear_warp", "--peers", "--rounds", "2", "--check",
                 "--out", str(out))  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("jxrecon/joseph", "jxrecon/shear_warp"):
        assert name in done.stdout
    return json.loads(out.read_text())


def test_every_task_of_every_method_is_timed_in_every_round(report):
    times = report["sizes"]["tiny"]["times"]
    assert set(times) == {"jxrecon/joseph", "jxrecon/shear_warp"}
    for tasks in times.values():
        assert set(tasks) == {"forward", "volume", "pose"}
        for cell in tasks.values():
            assert len(cell["cpu_ms_rounds"]) == 2
            assert cell["cpu_ms"] > 0
            assert cell["wall_ms"] > 0


def test_check_compares_the_images_with_the_first_methods(report):
    difference = report["sizes"]["tiny"]["difference"]
    assert difference["jxrecon/joseph"] == 0
    assert 0 < difference["jxrecon/shear_warp"] < 0.1  # 1.6 pixels a voxel: the warp blurs


def test_an_unknown_peer_is_refused_in_one_line():
    done = bench("--peers", "gvxr")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "gvxr" in done.stderr
