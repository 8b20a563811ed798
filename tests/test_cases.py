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

from jxrecon.data.sample import chest_ct_path
from jxrecon.data.simulated import Scene, simulated_xrays
from jxrecon.io.nifti import read_volume
from jxrecon.io.radiographs import Given, read


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
        scene = Scene(("frontal",), (24, 24), (9.0, 9.0))
        ct = cases / "20b_nifti_reference" / "src" / "ref_ct.nii.gz"
        _FOUND[cases] = simulated_xrays(ct, scene)[0].line_integrals
    return _FOUND[cases]


CAMERA = "--sad 1000 --sid 1500 --pixel-mm 6.5789475"
RECONSTRUCT = "reconstruct --method cgls --grid 10,10,10 --spacing-mm 30 --out {out}"
"""Small and quick: a coarse volume from X-rays of the package's chest CT."""


def xrays(frontal: str, lateral: str, flags: str = "") -> str:
    return f"{RECONSTRUCT} --xray {{case}}/{frontal} {{case}}/{lateral} {flags}"


def counts(
    frontal: str, lateral: str, i0: float, view: str = "frontal", camera: str = CAMERA
) -> str:
    flags = f"{camera} --view {view} lateral --intensity raw --i0 {i0}"
    return xrays(frontal, lateral, flags)


def same_volume(most_hu: float) -> Check:
    """The volume that the same X-rays give as float32, to so many HU on average."""

    def check(written: Written) -> None:
        (found,) = written.out.glob("*recon.nii.gz")
        if written.cases not in _VOLUMES:
            folder, flags = written.cases / "53_tiff_jpeg", f"{CAMERA} --view frontal lateral"
            words = xrays("frontal.npy", "lateral.npy", f"{flags} --intensity log")
            out = written.out.with_name("float")
            words = [word.format(case=folder, out=out) for word in words.split()[1:]]
            assert importlib.import_module("jxrecon.reconstruct").command(words) == 0
            (path,) = out.glob("*recon.nii.gz")
            _VOLUMES[written.cases] = read_volume(path)[0].astype(float)
        apart = np.abs(read_volume(found)[0] - _VOLUMES[written.cases])
        assert apart.mean() <= most_hu, apart.mean()

    return check


def seen_from_behind(written: Written) -> None:
    """The PA picture is what `project --view pa` makes of the CT it shows: not mirrored."""
    given = Given("pa", 1000.0, 1500.0, (6.5789475, 6.5789475), intensity="raw", i0=60000.0)
    found = read(written.cases / "59_pa_view" / "pa_as_displayed.png", given)
    scene = Scene(("pa",), (96, 112), (6.5789475, 6.5789475))
    (expected,) = simulated_xrays(chest_ct_path(), scene)
    np.testing.assert_allclose(found.camera.u, expected.camera.u)
    apart = np.abs(found.line_integrals - expected.line_integrals).mean()
    assert apart < 0.02, apart


def says(pattern: str, check: Check) -> Check:
    """The right result, with a line that matches."""

    def both(written: Written) -> None:
        assert re.search(pattern, written.text), written.text
        check(written)

    return both


_VOLUMES: dict[Path, np.ndarray] = {}

ROWS = [
    Row("20b_nifti_reference", project("src/ref_ct.nii.gz"), same_xray_as_the_nifti),
    Row("20b_nifti_reference", project("src/absent.nii.gz"), "absent.nii.gz: no such file"),
    *(Row(*row) for row in cases_folders.ROWS),
    Row("02_offset_1024", project("ct.nii.gz"), r"ct.nii.gz: its lowest value is 24.*--hu-offset -1024"),
    Row("02_offset_1024", project("ct.nii.gz") + " --hu-offset -1024", same_xray_as_the_nifti),
    Row("02_offset_1024", project("ct.nii.gz") + " --hu-offset 1024", same_xray_as_the_nifti),
    Row("02_offset_1024", project("ct.nii.gz") + " --hu-scale 2", r"ct.nii.gz: with --hu-scale 2"),
    Row("13_other_formats", project("ct.mha"), same_xray_as_the_nifti),
    Row("13_other_formats", project("ct.nrrd"), same_xray_as_the_nifti),
    Row("20_dcm_reference", project("src"), same_xray_as_the_nifti),
    Row("23_two_phases", project("src"), r"src: expected one CT series, found .*AcquisitionNumber 2"),
    Row("24_no_preamble", project("a"), same_xray_as_the_nifti),
    Row("24_no_preamble", project("b"), same_xray_as_the_nifti),
    Row("24_no_preamble", project("c"), same_xray_as_the_nifti),
    Row("31_jpegls", project("src"), r"IM0000.dcm: .*(jxrecon\[dicom\]|no readable pixels)"),
    Row("31b_jpeg_lossless", project("src"), r"IM0000.dcm: .*(jxrecon\[dicom\]|no readable pixels)"),
    Row("32_enhanced", project("src"), same_xray_as_the_nifti),
    Row("32_enhanced", project("src/enhanced.dcm"), same_xray_as_the_nifti),
    Row("35_not_hu", project("src"), r"IM0000.dcm: its Rescale Type is Z_EFF"),
    Row("47a_instance_number", project("src"), same_xray_as_the_nifti),
    Row("46_name_collisions", project("src/q0"), same_xray_as_the_nifti),
    Row("46_name_collisions", project("src"), r"src: expected one CT series, found"),
    Row("51_png_modes", xrays("1.png", "RGB.png"), r"1.png: PNG of mode 1 and 1 bits"),
    Row("51_png_modes", xrays("RGB.png", "RGBA.png"), r"RGB.png .*no patient is so thin"),
    Row("53_tiff_jpeg", xrays("frontal_16.tif", "lateral_16.tif"), same_volume(0.5)),
    Row("53_tiff_jpeg", xrays("frontal_32.tiff", "lateral_plain.npz"), same_volume(0.01)),
    Row("53_tiff_jpeg", xrays("frontal.jpg", "lateral.jpg"), r"frontal.jpg: unknown kind.*lossy"),
    # 12 bits: one count of 4095 is 0.9 % of the beam behind the spine.
    Row("54_dicom_xrays", xrays("dx_frontal.dcm", "dx_lateral.dcm", "--i0 4095"), same_volume(2)),
    Row("54_dicom_xrays", xrays("cr_frontal.dcm", "xa_lateral", "--i0 4095 --view ap rl"), same_volume(2)),
    Row("54_dicom_xrays", xrays("dx_frontal.dcm", "dx_lateral.dcm"), r"dx_frontal.dcm: .*--i0"),
    Row("54_dicom_xrays", xrays("xa_frontal", "xa_lateral", "--i0 4095"),
        r"xa_frontal: Positioner.*PatientOrientation.*--view"),
    Row("57_raw_counts", counts("a_frontal.png", "a_lateral.png", 60000),
        says("2 of intensity 0, filled", same_volume(2))),
    Row("57_raw_counts", counts("c_frontal.png", "c_lateral.png", 60000),
        r"c_frontal.png: air has the intensity 65535, above i0 60000"),
    Row("57_raw_counts", counts("e8_frontal.png", "e8_lateral.png", 255),
        says("10 of intensity 0, filled", same_volume(40))),
    Row("58_two_sizes", counts("frontal.png", "lateral.png", 60000,
        camera="--sad 1000 --sid 1500 --pixel-mm 6.5789475 13.157895"), same_volume(5)),
    Row("59_pa_view", counts("pa_as_displayed.png", "lateral.png", 60000, "pa"), seen_from_behind),
]  # fmt: skip


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
