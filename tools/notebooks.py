"""Runs the notebooks' sources and writes the .ipynb beside each, with small outputs.

    python tools/notebooks.py [NAME ...]        # experiments/notebooks/NAME.py; default: all
    python tools/notebooks.py --keep NAME ...   # only takes over changed text, outputs as they are

A source is Python in jupytext's percent format; a notebook is edited there. Needs the extra `notebooks`.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import jupytext
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "notebooks"
COLOURS = 64
"""Of a picture's palette: a third of the bytes."""


def main() -> None:
    """Writes the notebooks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sources = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--keep", action="store_true", help="run nothing, keep the outputs")
    options = parser.parse_args()
    for name in options.names or sources:
        source, path = FOLDER / f"{name}.py", FOLDER / f"{name}.ipynb"
        notebook = jupytext.read(source)
        if options.keep:
            take_outputs(notebook, jupytext.read(path))
        else:
            run(notebook)
        notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
        tidy(notebook)
        jupytext.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def run(notebook: Any) -> None:
    """Runs all cells in an empty folder; an error of one ends it."""
    from nbclient import NotebookClient

    os.environ.pop("MPLBACKEND", None)  # the kernel's own shows pictures
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=None, resources=place).execute()


def tidy(notebook: Any) -> None:
    """Numbers the cells and leaves of their outputs what is for the reader, in few bytes."""
    code = 0
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"{number:02d}", {}
        if cell.cell_type == "code":
            code += 1
            cell.execution_count = code
            cell.outputs = joined([small(output) for output in cell.outputs if shown(output)])


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs with neighbouring lines of text as one."""
    kept: list[Any] = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def shown(output: Any) -> bool:
    """Whether it is for the reader: no progress bar, no warning."""
    return output.output_type == "display_data" or output.get("name") == "stdout"


def small(output: Any) -> Any:
    """The output with its picture in few colours."""
    if output.output_type == "stream":
        return output
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
    content = io.BytesIO()
    picture.quantize(COLOURS).save(content, "png", optimize=True)
    output.metadata, output.data = {}, {"image/png": base64.b64encode(content.getvalue()).decode()}
    return output


def take_outputs(notebook: Any, old: Any) -> None:
    """Takes the outputs of cells in the same place."""
    kept = [cell for cell in old.cells if cell.cell_type == "code"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, before in zip(cells, kept, strict=True):
        cell.outputs = before.outputs


if __name__ == "__main__":
    main()
