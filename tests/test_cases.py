"""Every command against awkward inputs of a clinic: the right result, or one line and exit code 2.

A row of `ROWS` is (case, command, expectation). The case is a folder of `shared/cases`, where each has a
README; words of the command that hold `{case}` or `{out}` get that folder and an empty one. The expectation
is a regular expression, which the one line of a refusal must match, or a check of what was written.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cases_folders
import numpy as np
import pytest

from jxrecon.io.radiographs import read


@pytest.fixture(scope="module")
def cases(real_data):
    folder = real_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no awkward inputs at {folder}")
    return folder


class Written(NamedTuple):
    """What a command left behind: its folder, its text, and the folder of all cases."""

    out: Path
    text: str
    cases: Path


Check = Callable[[Written], None]


class Row(NamedTuple):
    case: str
    command: str
    expected: str | Check


PROJECT = "project {ct} --view frontal --pixels 24 --pixel-mm 9 --format npz --out {out}"
"""Small and quick: one X-ray of the CT `{ct}`."""


def project(path: str) -> str:
    return PROJECT.replace("{ct}", "{case}/" + path)


def same_xray_as_the_nifti(written: Written) -> None:
    """The X-ray is that of 20b_nifti_reference to the last bit: so is the volume and its place."""
    (found,) = written.out.glob("*.npz")
    expected = _reference(written.cases)
    np.testing.assert_array_equal(read(found).line_integrals, expected)


_FOUND: dict[Path, np.ndarray] = {}


def _reference(cases: Path) -> np.ndarray:
    if cases not in _FOUND:
        from jxrecon.data.simulated import Scene, simulated_xrays

        scene = Scene(("frontal",), (24, 24), (9.0, 9.0))
        ct = cases / "20b_nifti_reference" / "src" / "ref_ct.nii.gz"
        _FOUND[cases] = simulated_xrays(ct, scene)[0].line_integrals
    return _FOUND[cases]


ROWS = [
    Row("20b_nifti_reference", project("src/ref_ct.nii.gz"), same_xray_as_the_nifti),
    Row("20b_nifti_reference", project("src/absent.nii.gz"), "absent.nii.gz: no such file"),
    *(Row(*row) for row in cases_folders.ROWS),
]


@contextmanager
def _named(row: Row) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        error.add_note(f"{row.case}: jxrecon {row.command}")
        raise


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.case}:{row.command.split()[0]}")
def test_the_result_is_right_or_refused_in_one_line(row, cases, tmp_path, capsys, run_command):
    case, out = cases / row.case, tmp_path / "out"
    if not case.is_dir():
        pytest.skip(f"no case {row.case}")
    name, *words = (word.format(case=case, out=out) for word in row.command.split())
    code = run_command(importlib.import_module(f"jxrecon.{name}"), *words)
    text = capsys.readouterr()
    with _named(row):
        if isinstance(row.expected, str):
            assert code == 2, text
            (line,) = [x for x in text.err.splitlines() if x.startswith("error:")]
            assert re.search(row.expected, line), line
            assert not out.exists() or not any(out.iterdir())
        else:
            assert code == 0, text.err
            row.expected(Written(out, text.out + text.err, cases))
