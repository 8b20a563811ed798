"""The script for the day on a GPU runs from end to end, on a CPU at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "gpu_checks.sh"


@pytest.mark.slow
def test_every_part_leaves_its_figures_in_one_file(tmp_path: Path) -> None:
    toy = {"TOY": "1", "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        [str(SCRIPT), str(tmp_path)],
        env={**os.environ, **toy, **quick},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["exit_codes"]) == 5
    assert (
        results["projector"]["sizes"]["tiny"]["times"]["jxrecon/shear_warp"]["pose"]["wall_ms"] > 0
    )
    assert results["x2ct"]["sizes"]["4"]["jxrecon"]["wall_s"] > 0
    for name in ("warm_start", "adversarial"):
        assert results[name]["cases_per_s"] > 0
        assert results[name]["peak_gb"] > 0
    assert [line["step"] for line in results["training"] if line["split"] == "train"] == [
        1,
        2,
        3,
        4,
    ]
