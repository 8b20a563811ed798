"""The table of SIRT and TV from many views, on a toy size and without peers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "many_views_peers.py"


@pytest.mark.slow
def test_the_table_has_a_row_for_every_count_and_more_sweeps_err_less():
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parents[1]), "JAX_PLATFORMS": "cpu"}
    options = ["--peers", "--voxels", "16", "--views", "24", "--sweeps", "1", "4", "--tv", "5"]
    done = subprocess.run(
        [sys.executable, str(TOOL), *options], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows[2:]] == [
        ["A and A', ours", "1"],
        ["SIRT, ours", "1"],
        ["SIRT, ours", "4"],
        ["TV, ours", "5"],
    ]
    assert float(rows[4][2]) > float(rows[3][2]) > 10
