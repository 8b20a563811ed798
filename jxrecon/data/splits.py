"""Prepared volumes in the layout that `--data` takes: train/, validation/, test/ with NAME_ct.nii.gz."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jxrecon.data.body import body_mask
from jxrecon.data.lidc_folder import by_lot
from jxrecon.data.openkbp import OFFSET_MM
from jxrecon.data.volumes import LIMITS_HU
from jxrecon.files import make_folder, write_file
from jxrecon.io.nifti import write_volume
from jxrecon.io.preparation import (
    Made,
    Outcome,
    content_of,
    groups_of,
    slices_picture,
    write_records,
)
from jxrecon.types import InputError

SPLITS = ("train", "validation", "test")


def case_of(
    name: str,
    out: Path,
    hu: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    labels: Shaped[np.ndarray, "x y z"] | None,
    facts: dict[str, Any],
) -> Made:
    """A CT, uncut, and its labels, to be written as NAME_ct.nii.gz and NAME_labels.nii.gz.

    Raises:
        InputError: there is no body in it.
    """
    if not body_mask(hu, affine).any():
        raise InputError("no body found, expected a CT of a patient in HU")
    clipped = np.clip(hu, *LIMITS_HU)

    def write() -> tuple[list[Path], dict[str, Any]]:
        paths = [out / f"{name}_ct.nii.gz"]
        write_volume(paths[0], clipped, affine)
        if labels is not None:
            paths.append(out / f"{name}_labels.nii.gz")
            write_volume(paths[1], labels, affine)
        return paths, {}

    told = {"affine": affine.tolist(), "shape": list(hu.shape), "crop": None, **facts}
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    size = 2 * hu.size * (1 if labels is None else 2)
    return Made(write, size, content_of(hu), told, slices_picture(clipped, spacing, -1000, 1000))


def by_shares(outcome: Outcome, shares: tuple[float, float], seed: int) -> dict[str, str]:
    """Name -> split: about these shares of the patients, by lot, are in validation and in test.

    Cases of one patient, or with one content, are in one split.
    """
    owners = groups_of(outcome.rows)
    order = by_lot(set(owners.values()), seed)
    validation = min(max(1, round(shares[0] * len(order))), len(order) - 1)
    test = min(round(shares[1] * len(order)), max(0, len(order) - 1 - validation))
    place = dict.fromkeys(order[:validation], "validation")
    place |= dict.fromkeys(order[validation : validation + test], "test")
    return {name: place.get(owner, "train") for name, owner in owners.items()}


def move_into(outcome: Outcome, out: Path, split_of: Mapping[str, str]) -> Outcome:
    """Moves the files of every case to its split, and says so in the manifest."""
    rows = []
    for row in outcome.rows:
        moved = []
        for one in row["outputs"]:
            name = Path(one["path"]).name
            target = out / split_of[row["name"]] / name
            if (source := out / one["path"]) != target:
                make_folder(target.parent)
                os.replace(source, target)
            for other in (out / split / name for split in SPLITS):
                if other != target:
                    other.unlink(missing_ok=True)  # from when it was in another split
            moved.append({**one, "path": str(target.relative_to(out))})
        rows.append({**row, "outputs": moved, "split": split_of[row["name"]]})
    write_records(out, rows, outcome.rejected)
    return outcome._replace(rows=rows)


def parotids_centre(
    labels: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> list[float] | None:
    """The midpoint of the centroids of labels 3 and 4, world mm; None where one is missing."""
    middles = []
    for label in (3, 4):
        index = np.argwhere(labels == label)
        if not len(index):
            return None
        middles.append(affine[:3, :3] @ index.mean(0) + affine[:3, 3])
    return [round(float(x), 1) for x in np.mean(middles, axis=0)]


def covers(
    hu: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], centre: list[float]
) -> bool:
    """Whether the body fills every slice of the standard field of openkbp_hn about this centre."""
    half = 1.8 * 112 / 2
    middle = centre[2] + OFFSET_MM[2]
    z = affine[2, 2] * np.arange(hu.shape[2]) + affine[2, 3]
    inside = np.abs(z - middle) <= half
    ends = z.min() - abs(affine[2, 2]) / 2, z.max() + abs(affine[2, 2]) / 2
    if ends[0] > middle - half or ends[1] < middle + half:
        return False
    return bool(body_mask(hu, affine)[:, :, inside].any((0, 1)).all())


def write_table(outcome: Outcome, out: Path) -> None:
    """patients.csv of openkbp_hn: where the standard field lies in each patient, from the parotids."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes = ("crop_x_mm", "crop_y_mm", "crop_z_mm")
    writer.writerow(["patient", "split", *axes, "crop_from", "covers_hn"])
    for row in outcome.rows:
        centre = row["parotids_mm"] or ["", "", ""]
        told = "parotids" if row["parotids_mm"] else ""
        writer.writerow([row["name"], row["split"], *centre, told, int(row["covers_hn"])])
    write_file(out / "patients.csv", text.getvalue())
