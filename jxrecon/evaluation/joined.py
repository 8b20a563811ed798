"""What several calls of the robustness suite left, as one: methods need not share a call, nor settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jxrecon.evaluation.robustness import SUMMARY, Robustness, written
from jxrecon.files import make_folder
from jxrecon.types import InputError

ALIKE = ("synthetic", "split", "seed", "photons", "perturbations")
"""What calls have in common."""

ALIKE_OF_A_FIELD = ("field", "window_hu", "xrays")
"""What those of one field have, too."""


def joined(folders: Sequence[Path], out: Path) -> Robustness:
    """The methods of all these calls, field by field; one that several calls have is the first one's.

    Args:
        folders: of the calls, each with its robustness.json.
        out: folder of the joined robustness.json.

    Raises:
        InputError: a folder has no results or those of other terms, or `out` is one of them.
    """
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise InputError(f"--out {out}: expected another folder than those that are joined")
    calls = {folder: _read(folder / SUMMARY) for folder in folders}
    first, summary = folders[0], calls[folders[0]]
    fields: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder, call in calls.items():
        _check_alike(ALIKE, (first, summary), (folder, call))
        for field in call["fields"]:
            known = fields.setdefault(field["name"], (folder, field))
            if known[0] is not folder:
                _check_alike(ALIKE_OF_A_FIELD, known, (folder, field))
                fields[field["name"]] = known[0], _with_methods_of(field, known[1])
    hardware = "; ".join(dict.fromkeys(call["hardware"] for call in calls.values()))
    make_folder(out)
    both = {**summary, "hardware": hardware, "fields": [field for _, field in fields.values()]}
    return written(both, out)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name} in it, expected the --out of a suite")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = {*ALIKE, "data", "hardware"} <= found.keys() and bool(found["fields"])
    except (ValueError, AttributeError, KeyError):
        whole = False
    if not whole:
        raise InputError(f"{path}: not of the robustness suite, or of another version")
    return found


def _check_alike(
    names: Sequence[str], one: tuple[Path, dict[str, Any]], other: tuple[Path, dict[str, Any]]
) -> None:
    """Raises InputError unless these entries are the same."""
    for name in names:
        if one[1][name] != other[1][name]:
            raise InputError(
                f"{other[0]}: other {name} than {one[0]}, expected calls of the same cases, X-rays and noise"
            )


def _with_methods_of(other: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """The field with the results and notes of methods that only the other call has."""
    known = {result["method"] for result in field["results"]}
    new = [result for result in other["results"] if result["method"] not in known]
    notes = {**other["notes"], **field["notes"]}
    return {**field, "notes": notes, "results": [*field["results"], *new]}
