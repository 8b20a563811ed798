"""A folder of CTs in the layout and geometry of X2CT-GAN's data set: what `jxrecon prepare lidc` makes.

Every DICOM series or NIfTI, MetaImage or NRRD file is a case. The lists of training and test share no
patient: of DICOM the Patient ID, of others LIDC-IDRI-NNNN where the path has one, else the first folder
below the source, else the file. The authors' body masks were never released: ours takes their place.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jxrecon.data import lidc
from jxrecon.files import write_file
from jxrecon.io import dicom
from jxrecon.io.ct import ENDINGS, KINDS, read_ct
from jxrecon.io.finding import ends
from jxrecon.terminal import progress
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

LEAKED = "LIDC-IDRI-0442"
"""The patient that is in both of the authors' lists."""

_LIDC = re.compile(r"LIDC-IDRI-\d{4}")


class Source(NamedTuple):
    """One CT to prepare: its files are one file that holds it, or the slices of a DICOM series."""

    name: str
    patient: str
    files: tuple[Path, ...]


class Outcome(NamedTuple):
    """The cases of "train" and "test", how many were there already, a line for each that cannot be used."""

    lists: dict[str, list[str]]
    skipped: int
    rejected: list[str]


def find_sources(folder: Path) -> list[Source]:
    """The CTs below a folder, in the order of their names.

    Raises:
        InputError: there is no such folder, or no CT in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected {KINDS}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found: list[tuple[str, str, tuple[Path, ...]]] = [
        (_stem(path), _patient(path.relative_to(folder)), (path,))
        for path in files
        if ends(path, ENDINGS)
    ]
    others = [path for path in files if not ends(path, ENDINGS)]
    for series in dicom.find_series(progress(others, "looking for CT series", len(others))):
        patient = series.patient or series.uid
        found.append((patient, patient, series.files))
    if not found:
        raise InputError(f"{folder}: no CT found, expected {KINDS}")
    count, seen, sources = Counter(name for name, _, _ in found), Counter[str](), []
    for name, patient, paths in found:
        safe = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "case"
        seen[name] += 1
        many = f"_{seen[name]}" if count[name] > 1 else ""
        sources.append(Source(f"{safe}{many}", patient, paths))
    return sorted(sources)


def _stem(path: Path) -> str:
    return path.name[: -len(ends(path, ENDINGS) or "")].removesuffix("_ct")


def _patient(path: Path) -> str:
    known = _LIDC.search(str(path))
    return known[0] if known else (path.parts[0] if len(path.parts) > 1 else _stem(path))


def split(sources: Sequence[Source], share: float, seed: int) -> dict[str, list[str]]:
    """Names of the cases of train and test: about `share` of the patients, by lot, are in test.

    A patient's lot depends on the seed and on the name alone; with two patients or more neither list is
    empty.
    """
    patients = sorted(
        {source.patient for source in sources},
        key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest(),
    )
    count = min(max(1, round(share * len(patients))), len(patients) - 1)
    test = set(patients[:count])
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for source in sources:
        lists["test" if source.patient in test else "train"].append(source.name)
    return lists


def prepare_folder(
    sources: Sequence[Source],
    out: Path,
    share: float = 0.1,
    seed: int = 0,
    edge: int = lidc.EDGE,
    fix: bool = False,
    stated: Stated = NOTHING_STATED,
) -> Outcome:
    """Writes a file a case, the two lists and rejected.txt; finished cases are not prepared again.

    Args:
        sources: CTs found by `find_sources`.
        out: folder to fill: CASE/ct_xray_data.h5, train.txt, test.txt, rejected.txt.
        share, seed: as in `split`.
        edge: voxels and pixels along each edge; the paper's is 320.
        fix: repair DICOM series, see `dicom.read_series`.
        stated: what the user says about the numbers in the files.

    Raises:
        InputError: no CT can be used, or the folder cannot be written.
    """
    done: list[Source] = []
    rejected: list[str] = []
    skipped = 0
    for source in progress(sources, "preparing", len(sources)):
        path = out / source.name / lidc.FILE
        if _finished(path, edge):
            skipped += 1
        else:
            try:
                _prepare_case(source, path, edge, fix, stated)
            except InputError as error:
                rejected.append(f"{source.name}: {error}")
                print(f"left out: {rejected[-1]}", file=sys.stderr)
                continue
        done.append(source)
    write_file(out / "rejected.txt", "".join(f"{line}\n" for line in rejected))
    if not done:
        raise InputError(f"none of the {len(rejected)} CTs can be used; {rejected[0]}")
    lists = split(done, share, seed)
    leaked = {source.name for source in done if source.patient == LEAKED}
    for name, cases in lists.items():
        write_file(out / f"{name}.txt", "".join(f"{case}\n" for case in cases))
        if leaked & set(cases):
            print(f"note: {LEAKED}, which is in both of the authors' lists, is in {name}.txt alone")
    return Outcome(lists, skipped, rejected)


def _prepare_case(source: Source, path: Path, edge: int, fix: bool, stated: Stated) -> None:
    """Writes a case's file: volume and X-rays in the paper's geometry."""
    first = source.files[0]
    if ends(first, ENDINGS):
        hu, affine = read_ct(first, stated)
    else:
        hu, affine = dicom.read_series(source.files, fix, stated)
    try:
        ct = lidc.standard_volume(hu, affine, edge)
    except InputError as error:
        raise InputError(f"{first}: {error}") from None
    lidc.write_case(path, lidc.Case(ct, *lidc.make_xrays(ct, 1.0, edge)))


def _finished(path: Path, edge: int) -> bool:
    try:
        return path.is_file() and lidc.read_case(path).ct.shape == (edge,) * 3
    except InputError:
        return False
