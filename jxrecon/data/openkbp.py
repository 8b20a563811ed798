"""The standard field of openkbp_hn: where it lies in each patient and whose CT fills it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from jxrecon.geometry import Grid
from jxrecon.types import InputError

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
        InputError: the table holds a coordinate that is not a finite number.
    """
    centres = {}
    with (folder / _TABLE).open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["split"] != split or row["covers_hn"] != "1":
                continue
            texts = [row[column] for column in _CENTRE]
            try:
                middle = [float(text) for text in texts]
            except (TypeError, ValueError):
                middle = [math.nan]
            if not all(map(math.isfinite, middle)):
                raise InputError(
                    f"{folder / _TABLE}: {row['patient']} has {', '.join(_CENTRE)} = {texts}, "
                    "expected three numbers in mm"
                )
            x, y, z = (m + o for m, o in zip(middle, OFFSET_MM))
            centres[row["patient"]] = (x, y, z)
    return centres


def samples_of(grid: Grid) -> tuple[int, int, int] | None:
    """Points a voxel of this grid averages, so that it is a block mean of the full field.

    None where the full field cannot be divided into the grid's shape.
    """
    if any(full % n for full, n in zip(FULL_SHAPE, grid.shape)):
        return None
    x, y, z = (full // n for full, n in zip(FULL_SHAPE, grid.shape))
    return x, y, z
