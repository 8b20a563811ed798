"""TCIA's head-and-neck sets as `--data` takes them: what `jxrecon prepare hn` makes of a local folder.

A set such as HNSCC or Head-Neck-PET-CT holds DICOM series of CT and, for many patients, the organs that were
drawn on them (RTSTRUCT), which become NAME_labels.nii.gz. CTs keep their voxels; nothing is cut.
"""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

from jxrecon.data import rtstruct
from jxrecon.data.ct_sources import Cts, find_cts, read_source
from jxrecon.data.splits import by_shares, case_of, move_into
from jxrecon.io.preparation import How, Made, Outcome, Source, prepare
from jxrecon.terminal import note
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated


class Settings(NamedTuple):
    """What the result depends on beside the CTs.

    Attributes:
        validation, test: shares of the patients.
        seed: of the splits.
        fix: repair DICOM series, see `dicom.read_series`.
        stated: what the user says about the numbers in the files.
    """

    validation: float = 0.15
    test: float = 0.0
    seed: int = 0
    fix: bool = False
    stated: Stated = NOTHING_STATED


def find_sources(folder: Path, out: Path | None = None) -> tuple[list[Source], dict[str, Path]]:
    """The CTs below a folder with the structure sets drawn on them; and those sets by case.

    Raises:
        InputError: as of `find_cts`.
    """
    cts: Cts = find_cts(folder, out)
    sets = rtstruct.find(cts.rest)
    drawn = {name: sets[uid] for name, uid in cts.uids.items() if uid in sets}
    used = set(drawn.values())
    cts._replace(rest=[path for path in cts.rest if path not in used]).told(folder)
    sources = [
        one._replace(files=(*one.files, drawn[one.name])) if one.name in drawn else one
        for one in cts.sources
    ]
    return sources, drawn


def prepare_folder(folder: Path, out: Path, settings: Settings, how: How) -> Outcome:
    """Writes {train,validation,test}/NAME_ct.nii.gz, and NAME_labels.nii.gz where organs were drawn.

    Raises:
        InputError: no CT can be used, or the folder cannot be written.
    """
    sources, drawn = find_sources(folder, out)

    def make(source: Source) -> Made:
        path = drawn.get(source.name)
        files = tuple(one for one in source.files if one != path)
        hu, affine = read_source(source._replace(files=files), settings.fix, settings.stated)
        facts: dict[str, Any] = {}
        labels = None
        if path is not None:
            try:
                labels, facts = rtstruct.read_labels(path, hu.shape, affine)
            except InputError as error:
                note(f"{error}; the CT is taken without labels")
        try:
            return case_of(source.name, out, hu, affine, labels, facts)
        except InputError as error:
            raise InputError(f"{source.files[0]}: {error}") from None

    asked = {"set": "hn", "fix": settings.fix, "stated": astuple(settings.stated)}
    outcome = prepare(sources, out, make, asked, how)
    if not outcome.rows:
        raise InputError(
            f"none of the {len(outcome.rejected)} CTs can be used; {outcome.rejected[0].reason}"
        )
    if how.dry:
        return outcome
    shares = settings.validation, settings.test
    return move_into(outcome, out, by_shares(outcome, shares, settings.seed))
