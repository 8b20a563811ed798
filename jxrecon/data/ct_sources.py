"""The CTs below a folder as sources of cases: DICOM volumes, by patient, and files that hold a whole CT."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jxrecon.io import dicom
from jxrecon.io.ct import ENDINGS, KINDS, check_extent, read_ct
from jxrecon.io.finding import Found, ends, find_files, safe_names
from jxrecon.io.preparation import Source
from jxrecon.terminal import progress
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

_LIDC = re.compile(r"LIDC-IDRI-\d{4}")
_RAW = (".raw", ".zraw", ".RAW")  # where the voxels of an .mhd lie


class Cts(NamedTuple):
    """What a folder holds.

    Attributes:
        sources: one a CT, sorted by name.
        uids: SeriesInstanceUID of those that are DICOM, by name.
        rest: files that are no CT.
        passed: (path, why) of what was not looked at.
    """

    sources: list[Source]
    uids: dict[str, str]
    rest: list[Path]
    passed: tuple[tuple[Path, str], ...]

    def told(self, folder: Path) -> Cts:
        """Itself, after a note on the files that were passed over."""
        rest = tuple((path, "that are no CT") for path in self.rest)
        taken = tuple(path for source in self.sources for path in source.files)
        Found(taken, (*self.passed, *rest)).told(folder)
        return self


def find_cts(folder: Path, out: Path | None = None) -> Cts:
    """The CTs below a folder.

    A case of DICOM is called as the patient, with a number where there are several; of others as the file.
    Whose a file is that is no DICOM: LIDC-IDRI-NNNN where the path has one, else the first folder below,
    else the file's name.

    Args:
        folder: to look in.
        out: where results go; what is in there is no source.

    Raises:
        InputError: there is no such folder, no CT in it, or it is `out`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected {KINDS}")
    found = find_files(folder, apart=out)
    whole = [path for path in found.files if ends(path, ENDINGS)]
    raws = {path: [r for e in _RAW if (r := path.with_suffix(e)).is_file()] for path in whole}
    beside = {*whole, *(raw for paths in raws.values() for raw in paths)}
    others = [path for path in found.files if path not in beside]
    cases = []
    for path in whole:
        name, place = _stem(path), path.relative_to(folder)
        cases.append((name, _patient(place), (path, *raws[path]), str(place), ""))
    for series in dicom.find_series(progress(others, "looking for CT series", len(others))):
        patient = series.patient or series.uid
        identity = f"{series.uid} {series.part}"
        cases.append((patient, patient, series.files, identity, series.uid))
    if not cases:
        raise InputError(f"{folder}: no CT found, expected {KINDS}")
    count, seen, wanted = Counter(case[0] for case in cases), Counter[str](), []
    for name, _, _, identity, _ in cases:
        seen[name] += 1
        wanted.append((f"{name}_{seen[name]}" if count[name] > 1 else name, identity))
    sources: list[Source] = []
    uids: dict[str, str] = {}
    for name, (_, patient, files, _, uid) in zip(safe_names(wanted), cases):
        sources.append(Source(name, patient, files))
        uids |= {name: uid} if uid else {}
    taken = {path for source in sources for path in source.files}
    rest = [path for path in others if path not in taken]
    return Cts(sorted(sources), uids, rest, found.passed)


def read_source(
    source: Source, fix: bool = False, stated: Stated = NOTHING_STATED
) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """The CT of a source in HU, and its affine.

    Raises:
        InputError: as `read_ct` and `dicom.read_series`.
    """
    if ends(source.files[0], ENDINGS):
        return read_ct(source.files[0], stated)
    hu, affine = dicom.read_series(source.files, fix, stated)
    check_extent(hu.shape, affine, str(source.files[0]))
    return hu, affine


def _stem(path: Path) -> str:
    stem = path.name[: -len(ends(path, ENDINGS) or "")]
    return stem[:-3] if stem.lower().endswith("_ct") else stem


def _patient(path: Path) -> str:
    known = _LIDC.search(str(path))
    return known[0] if known else (path.parts[0] if len(path.parts) > 1 else _stem(path))
