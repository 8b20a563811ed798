"""A folder of CTs in the layout and geometry of X2CT-GAN's data set: what `jxrecon prepare lidc` makes.

Every CT that `ct_sources` finds is a case. The lists of training and test share no patient and no CT. The
authors' body masks were never released: ours takes their place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jxrecon.data import lidc
from jxrecon.data.ct_sources import read_source
from jxrecon.files import write_file
from jxrecon.io.preparation import (
    How,
    Made,
    Outcome,
    Source,
    content_of,
    groups_of,
    prepare,
    slices_picture,
)
from jxrecon.terminal import note
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

LEAKED = "LIDC-IDRI-0442"
"""The patient that is in both of the authors' lists."""


class Settings(NamedTuple):
    """What the result depends on beside the CTs.

    Attributes:
        share, seed: of the patients in test, as in `split`.
        edge: voxels and pixels along each edge; the paper's is 320.
        fix: repair DICOM series, see `dicom.read_series`.
        stated: what the user says about the numbers in the files.
    """

    share: float = 0.1
    seed: int = 0
    edge: int = lidc.EDGE
    fix: bool = False
    stated: Stated = NOTHING_STATED


def split(sources: Sequence[Source], share: float, seed: int) -> dict[str, list[str]]:
    """Names of the cases of train and test: about `share` of the patients, by lot, are in test.

    A patient's lot depends on the seed and on the name alone; with two patients or more neither list is
    empty.
    """
    order = by_lot({source.patient for source in sources}, seed)
    count = min(max(1, round(share * len(order))), len(order) - 1)
    test = set(order[:count])
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for source in sources:
        lists["test" if source.patient in test else "train"].append(source.name)
    return lists


def by_lot(patients: set[str], seed: int) -> list[str]:
    """Patients in an order that depends on the seed and on each one's name."""

    def lot(patient: str) -> str:
        return hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogateescape")).hexdigest()

    return sorted(patients, key=lot)


def prepare_folder(
    sources: Sequence[Source],
    out: Path,
    settings: Settings = Settings(),  # noqa: B008
    how: How = How(),  # noqa: B008
) -> tuple[Outcome, dict[str, list[str]]]:
    """Writes CASE/ct_xray_data.h5 of every source, train.txt and test.txt; see `preparation`.

    Returns:
        What became of the sources, and the cases of "train" and "test".

    Raises:
        InputError: no CT can be used, or the folder cannot be written.
    """
    _, _, edge, fix, stated = settings

    def make(source: Source) -> Made:
        hu, affine = read_source(source, fix, stated)
        try:
            ct = lidc.standard_volume(hu, affine, edge)
        except InputError as error:
            raise InputError(f"{source.files[0]}: {error}") from None

        def write() -> tuple[list[Path], dict[str, object]]:
            path = out / source.name / lidc.FILE
            lidc.write_case(path, lidc.Case(ct, *lidc.make_xrays(ct, 1.0, edge)))
            return [path], {}

        crop = lidc.standard_grid(hu.shape, affine, edge)
        facts = {
            "affine": affine.tolist(),
            "shape": list(hu.shape),
            "crop": {"affine": crop.affine.tolist(), "shape": list(crop.shape)},
        }
        picture = slices_picture(lidc.to_hu(ct), np.ones(3), -1000, 1000)
        return Made(write, ct.nbytes + 2 * edge**2, content_of(hu), facts, picture)

    asked = {"set": "lidc", "edge": edge, "fix": fix, "stated": astuple(stated)}
    outcome = prepare(sources, out, make, asked, how)
    if not outcome.rows:
        raise InputError(
            f"none of the {len(outcome.rejected)} CTs can be used; {outcome.rejected[0].reason}"
        )
    owners = groups_of(outcome.rows)
    owned = [Source(row["name"], owners[row["name"]], ()) for row in outcome.rows]
    lists = split(owned, settings.share, settings.seed)
    if not lists["test"]:
        note(f"{out}: all CTs are of one patient, so that none is left for test.txt")
    leaked = {row["name"] for row in outcome.rows if row["patient"] == LEAKED}
    for name, cases in () if how.dry else lists.items():
        write_file(out / f"{name}.txt", "".join(f"{case}\n" for case in cases))
        if leaked & set(cases):
            print(f"note: {LEAKED}, which is in both of the authors' lists, is in {name}.txt alone")
    return outcome, lists
