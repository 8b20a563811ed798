"""The standard field of openkbp_hn: where it lies in each patient and whose CT fills it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from jxrecon.files import component, one_line
from jxrecon.geometry import Grid
from jxrecon.types import InputError, shown

FULL_SHAPE = (80, 96, 112)
"""The field's finest grid, 2.8 x 2.5 x 1.8 mm; coarser grids are block means of it."""

OFFSET_MM = (0.0, 10.0, -50.0)
"""From the midpoint of the parotids to the middle of the field."""

_TABLE = "patients.csv"
_CENTRE = ("crop_x_mm", "crop_y_mm", "crop_z_mm")


def is_openkbp(folder: Path) -> bool:
    """Whether a folder holds a patients.csv with the columns of the field."""
    try:
        with (folder / _TABLE).open(newline="", encoding="utf-8") as lines:
            return {"patient", "split", *_CENTRE, "covers_hn"} <= {*next(csv.reader(lines), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def field_centres(folder: Path, split: str) -> dict[str, tuple[float, float, float]]:
    """Patients of a split whose CT fills the field, and the field's centre in each, world mm.

    Raises:
        InputError: the table cannot be read, or holds a coordinate that is not a finite number or a patient
            that can be no file's name.
    """
    centres = {}
    table = folder / _TABLE
    with table.open(newline="", encoding="utf-8") as lines:
        for row in _rows(lines, table):
            if row["split"] != split or row["covers_hn"] != "1":
                continue
            texts = [row[column] for column in _CENTRE]
            try:
                middle = [float(text) for text in texts]
            except (TypeError, ValueError):
                middle = [math.nan]
            if not all(map(math.isfinite, middle)):
                raise InputError(
                    f"{table}: {row['patient']} has {', '.join(_CENTRE)} = {shown(texts)}, "
                    "expected three numbers in mm"
                )
            x, y, z = (m + o for m, o in zip(middle, OFFSET_MM))
            centres[component(row["patient"] or "", str(table))] = (x, y, z)
    return centres


def _rows(lines: TextIO, table: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table; raises InputError where it is no text or a field is too long."""
    try:
        yield from csv.DictReader(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as CSV ({one_line(error)})") from None


def samples_of(grid: Grid) -> tuple[int, int, int] | None:
    """Points a voxel of this grid averages, so that it is a block mean of the full field.

    None where the full field cannot be divided into the grid's shape.
    """
    if any(full % n for full, n in zip(FULL_SHAPE, grid.shape)):
        return None
    x, y, z = (full // n for full, n in zip(FULL_SHAPE, grid.shape))
    return x, y, z
