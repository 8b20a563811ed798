"""OpenKBP as published (github.com/ababier/open-kbp): sparse CSV files, made into `--data`.

    provided-data/train-pats/pt_1/ct.csv                index, stored value; all others are 0
                                  voxel_dimensions.csv  edges of a voxel, mm
                                  Brainstem.csv ...     indices of an organ's voxels

128^3 voxels, the last axis fastest: from front to back, from the patient's right to the left, from head to
foot; the values are HU + 1024. Checked against openkbp_hn, which others made from the same files.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from jxrecon.data.splits import SPLITS, case_of, covers, move_into, parotids_centre, write_table
from jxrecon.files import one_line
from jxrecon.io.finding import Found, find_files, safe_names
from jxrecon.io.nifti import canonical
from jxrecon.io.preparation import How, Made, Outcome, Source, prepare
from jxrecon.types import InputError

N = 128
"""Voxels along each axis."""

OFFSET_HU = 1024.0

ORGANS = (
    "Brainstem",
    "SpinalCord",
    "RightParotid",
    "LeftParotid",
    "Esophagus",
    "Larynx",
    "Mandible",
)
"""Files of organs, in the order of openkbp_hn's labels from 1 on."""

_CT, _SIZES = "ct.csv", "voxel_dimensions.csv"


def find_patients(folder: Path, out: Path | None = None) -> tuple[list[Source], dict[str, str]]:
    """A source for every folder with a ct.csv, and the split of each by the folder above: train-pats, ...

    Raises:
        InputError: there is no such folder, no patient in it, or a patient in no split.
    """
    wanted = {_CT, _SIZES, *(f"{organ}.csv" for organ in ORGANS)}
    found = find_files(folder, lambda path: path.name in wanted, apart=out)
    patients = [path.parent for path in found.files if path.name == _CT]
    if not patients:
        raise InputError(f"{folder}: no patient, expected folders with {_CT}")
    files = {p: tuple(f for f in found.files if f.parent == p and f.name != _CT) for p in patients}
    taken = tuple(path for path in found.files if path.parent in files)
    passed = tuple((path, "beside no ct.csv") for path in found.files if path.parent not in files)
    Found(taken, (*found.passed, *passed)).told(folder)
    names = safe_names([(p.name, str(p.relative_to(folder))) for p in patients])
    sources, split_of = [], {}
    for name, patient in zip(names, patients):
        split = patient.parent.name.removesuffix("-pats")
        if split not in SPLITS:
            raise InputError(
                f"{patient}: lies in {patient.parent.name}, expected train-pats, validation-pats or test-pats"
            )
        sources.append(Source(name, patient.name, (patient / _CT, *files[patient])))
        split_of[name] = split
    return sources, split_of


def read_patient(
    folder: Path,
) -> tuple[Float32[np.ndarray, "x y z"], Float64[np.ndarray, "4 4"], UInt8[np.ndarray, "x y z"]]:
    """HU, affine (the origin in the middle) and labels of a patient, in RAS.

    Raises:
        InputError: a file is missing or damaged.
    """
    voxels = _sparse(folder / _CT, 2)
    stored = np.zeros(N**3, np.float32)
    stored[voxels[:, 0].astype(int)] = voxels[:, 1]
    labels = np.zeros(N**3, np.uint8)
    for label, organ in enumerate(ORGANS, 1):
        if (path := folder / f"{organ}.csv").is_file():
            labels[_sparse(path)[:, 0].astype(int)] = label
    try:
        sizes = np.loadtxt(folder / _SIZES, np.float64, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / _SIZES}: cannot be read ({one_line(error)[:120]})") from None
    if sizes.shape != (3,) or not ((sizes > 0.1) & (sizes < 50)).all():
        raise InputError(f"{folder / _SIZES}: holds {sizes.tolist()}, expected three edges in mm")
    affine = np.zeros((4, 4))
    affine[1, 0], affine[0, 1], affine[2, 2], affine[3, 3] = -sizes[0], -sizes[1], -sizes[2], 1
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, (N - 1) / 2)
    hu, turned = canonical(stored.reshape(N, N, N) - OFFSET_HU, affine)
    return hu, turned, canonical(labels.reshape(N, N, N), affine)[0]


def _sparse(path: Path, columns: int = 1) -> Float64[np.ndarray, "n c"]:
    """Indices of voxels, and their values where there are two columns."""
    try:
        with warnings.catch_warnings(action="ignore"):  # an organ may have no voxel
            table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(columns), ndmin=2)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)[:120]})") from None
    index = table[:, 0]
    right = np.isfinite(table).all(1) & (index == np.rint(index)) & (index >= 0) & (index < N**3)
    if not right.all():
        row = int(np.argmin(right)) + 2
        raise InputError(
            f"{path}: line {row} tells no voxel, expected indices from 0 to {N**3 - 1}"
        )
    if len(np.unique(index)) < len(index):
        raise InputError(f"{path}: a voxel is there twice, expected each once")
    return table.reshape(-1, columns)


def prepare_folder(folder: Path, out: Path, how: How) -> Outcome:
    """Writes {train,validation,test}/pt_N_ct.nii.gz with labels, and patients.csv.

    Raises:
        InputError: no patient can be used, or the folder cannot be written.
    """
    sources, split_of = find_patients(folder, out)

    def make(source: Source) -> Made:
        hu, affine, labels = read_patient(source.files[0].parent)
        centre = parotids_centre(labels, affine)
        whole = centre is not None and covers(hu, affine, centre)
        facts = {"parotids_mm": centre, "covers_hn": whole}
        try:
            return case_of(source.name, out, hu, affine, labels, facts)
        except InputError as error:
            raise InputError(f"{source.files[0]}: {error}") from None

    outcome = prepare(sources, out, make, {"set": "openkbp"}, how)
    if not outcome.rows:
        raise InputError(
            f"none of the {len(outcome.rejected)} patients can be used; {outcome.rejected[0].reason}"
        )
    if how.dry:
        return outcome
    outcome = move_into(outcome, out, split_of)
    write_table(outcome, out)
    return outcome
