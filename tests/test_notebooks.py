"""The notebooks are what their sources say, and run from the first cell to the last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 300_000

QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""A toy compiles for longer than it computes."""


def cells_of(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text())["cells"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_and_source_agree(notebook: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    source = notebook.with_suffix(".py")
    written = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    shown = [(c["cell_type"], "".join(c["source"])) for c in cells_of(notebook)]
    assert written == shown, "python tools/notebooks.py makes the notebook anew"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_run_and_is_small(notebook: Path) -> None:
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not any(output["output_type"] == "error" for output in outputs)
    assert notebook.stat().st_size < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_claims_hold(notebook: Path, tmp_path: Path) -> None:
    source = notebook.with_suffix(".py")
    environment = {**os.environ, "MPLBACKEND": "Agg", "XLA_FLAGS": QUICKLY}
    done = subprocess.run(
        [sys.executable, source], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
