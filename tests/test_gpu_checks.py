"""tools/gpu_checks.sh runs from end to end, at toy size on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "gpu_checks.sh"


@pytest.mark.slow
def test_every_part_measures_something(tmp_path: Path) -> None:
    environment = {**os.environ, "TOY": "1", "PYTHON": sys.executable}
    subprocess.run([SCRIPT, tmp_path], env=environment, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    failed = {name for name, code in results["exit_codes"].items() if code}
    assert failed <= (set() if importlib.util.find_spec("torch") else {"x2ct"})  # beside PyTorch
    assert results["projector"]
    assert results["adversarial"]["cases_per_s"] > 0
    assert results["warm_start"]["peak_gb"] > 0
    steps = [one for one in results["training"] if one["split"] == "train"]
    assert [one["step"] for one in steps] == [1, 2, 3, 4]
