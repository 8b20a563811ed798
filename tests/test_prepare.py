"""Preparing a data set writes what can be read, once, and says what it left out."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import CTImageStorage
from written_dicom import write_dicom

from jxrecon import prepare
from jxrecon.correspondence import folder
from jxrecon.data import lidc, lidc_folder

EDGE = 32


def body(n=36, shift=0):
    places = np.stack(np.indices((n, n, n)), -1) - (n - 1) / 2
    inside = np.linalg.norm(places - (shift, 0, 0), axis=-1) < 12
    return np.where(inside, 50, -1000).astype(np.int16)


def write_nifti(path, hu):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(hu, np.eye(4))
    image.set_sform(np.eye(4), 1)
    nib.save(image, path)


def write_series(folder, hu, patient, uid, skip=()):
    folder.mkdir(parents=True)
    for k in set(range(hu.shape[2])) - set(skip):
        write_dicom(
            folder / f"{k:03d}.dcm",
            hu[:, :, k].T + 1024,
            SOPClassUID=CTImageStorage,
            SOPInstanceUID=f"{uid}.{k}",
            Modality="CT",
            PatientID=patient,
            SeriesInstanceUID=uid,
            ImagePositionPatient=[0, 0, k],
            InstanceNumber=k,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )


@pytest.fixture
def source(tmp_path):
    """Two DICOM series of one patient, three NIfTI files of two patients, labels, and one without a body."""
    folder = tmp_path / "source"
    write_series(folder / "LIDC-IDRI-0442" / "study", body(shift=3), "LIDC-IDRI-0442", "1.2.5")
    write_series(folder / "LIDC-IDRI-0442" / "other", body(), "LIDC-IDRI-0442", "1.2.6", skip=[4])
    for name in ("p1/first.nii.gz", "p1/second.nii.gz", "LIDC-IDRI-0007_ct.nii.gz"):
        write_nifti(folder / name, body())
    write_nifti(folder / "p1" / "labels.nii.gz", (body() > 0).astype(np.int16))
    write_nifti(folder / "empty.nii.gz", np.full((8, 8, 8), -1000, np.int16))
    (folder / "README.txt").write_text("no CT")
    (folder / "p1" / "LICENSE").write_text("CC0\n")
    return folder


@pytest.fixture
def run(run_command):
    return lambda source, out, *flags: run_command(
        prepare, "lidc", source, out, "--edge", EDGE, *flags
    )


def test_everything_usable_is_written_listed_and_not_done_again(
    source, tmp_path, capsys, monkeypatch, run
):
    out = tmp_path / "out"
    assert run(source, out) == 0
    said = capsys.readouterr()
    cases = {path.parent.name for path in out.glob(f"*/{lidc.FILE}")}
    assert cases == {"LIDC-IDRI-0442_1", "first", "second", "LIDC-IDRI-0007"}
    assert "4 cases" in said.out
    assert "LIDC-IDRI-0442, which is in both of the authors' lists" in said.out
    with (out / "rejects.csv").open(newline="") as file:
        rejects = list(csv.DictReader(file))
    assert [one["name"] for one in rejects] == ["LIDC-IDRI-0442_2", "empty", "labels"]
    for one, reason in zip(rejects, ("slice(s) missing", "", "")):
        assert reason in one["reason"]
        assert f"left out: {one['name']}: {one['reason']}" in said.err
    lists, both = lidc.splits(out)
    assert not both
    assert {*lists["train"], *lists["test"]} == cases
    assert ("first" in lists["test"]) == ("second" in lists["test"])  # one patient
    assert ("first" in lists["test"]) == (
        "LIDC-IDRI-0007" in lists["test"]
    )  # one CT, by its voxels

    case = lidc.read_case(out / "LIDC-IDRI-0442_1" / lidc.FILE)
    assert case.ct.shape == (EDGE,) * 3
    assert (case.ct.dtype, case.xray1.dtype, case.xray1.shape) == (np.int16, np.uint8, (EDGE, EDGE))
    assert case.ct[16, 16, 16] == 1074
    # DICOM columns run to the patient's left, as W does: the ball lies 3 mm that way.
    assert np.argwhere(case.ct > 1000).mean(0)[2] == pytest.approx(15.5 + 3, abs=0.1)

    def never(*_):
        raise AssertionError("a finished case was prepared again")

    (out / "first" / lidc.FILE).write_bytes(b"cut short")
    before = (out / "second" / lidc.FILE).stat().st_mtime_ns
    assert run(source, out) == 0
    assert "(3 were there)" in capsys.readouterr().out
    assert (out / "second" / lidc.FILE).stat().st_mtime_ns == before
    lidc.read_case(out / "first" / lidc.FILE)
    assert run(source, out, "--strict") == 1

    monkeypatch.setattr(lidc, "write_case", never)
    (source / "empty.nii.gz").unlink()
    (source / "p1" / "labels.nii.gz").unlink()
    (source / "LIDC-IDRI-0442" / "other" / "000.dcm").unlink()
    assert run(source, out) == 0


def test_the_manifest_tells_where_every_case_comes_from(source, tmp_path, run):
    out = tmp_path / "out"
    run(source, out)
    cases = {path.parent.name for path in out.glob(f"*/{lidc.FILE}")}
    rows = {
        row["name"]: row
        for row in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    }
    assert rows.keys() == cases
    slices = rows["LIDC-IDRI-0442_1"]["sources"]
    for one in (slices[0], rows["first"]["sources"][0]):
        content = Path(one["path"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
    assert (len(slices), rows["first"]["licence"]) == (36, "CC0")
    np.testing.assert_array_equal(rows["first"]["affine"], np.eye(4))
    assert all((out / "pictures" / f"{name}.png").is_file() for name in cases)
    assert all(f"pictures/{name}.png" in (out / "pictures.html").read_text() for name in cases)


def test_a_case_is_bound_to_its_source_and_a_changed_one_is_made_anew(
    source, tmp_path, capsys, run
):
    out = tmp_path / "out"
    run(source, out)
    facts = (source / "p1" / "first.nii.gz").stat()
    hu = body(shift=2)
    write_nifti(source / "p1" / "first.nii.gz", hu)
    os.utime(source / "p1" / "first.nii.gz", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    content = bytearray((out / "second" / lidc.FILE).read_bytes())
    content[-9] ^= 1  # of the same length
    (out / "second" / lidc.FILE).write_bytes(content)
    capsys.readouterr()
    run(source, out)
    assert "(2 were there)" in capsys.readouterr().out
    case = lidc.read_case(out / "first" / lidc.FILE)
    assert np.argwhere(case.ct > 1000).mean(0)[2] == pytest.approx(
        15.5 - 2, abs=0.1
    )  # W: to the left
    with (out / "manifest.jsonl").open("ab") as lines:
        lines.write(b'{"name": "cut sho')
    run(source, out)
    said = capsys.readouterr()
    assert "(4 were there)" in said.out
    assert "line 5 is damaged" in said.err


def test_a_dry_run_tells_all_and_writes_nothing(source, tmp_path, capsys, run):
    assert run(source, tmp_path / "out", "--dry-run", "--strict") == 1
    said = capsys.readouterr()
    assert "dry run: 4 cases to write, 0 there, 3 left out; at most" in said.out
    assert said.err.count("left out: ") == 3
    assert not (tmp_path / "out").exists()


def test_whatever_happens_to_one_case_the_others_are_made(
    source, tmp_path, capsys, run, monkeypatch
):
    write, calls = lidc.write_case, []

    def fails(path, case):
        calls.append(path)
        if path.parent.name == "second":
            raise MemoryError
        write(path, case)

    monkeypatch.setattr(lidc, "write_case", fails)
    assert run(source, tmp_path / "out") == 0
    assert "second.nii.gz: cannot be prepared (MemoryError" in capsys.readouterr().err

    def full(path, case):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lidc, "write_case", full)
    assert run(source, tmp_path / "other", "--jobs", 1) == 2  # the disk is full: for all
    assert "No space left" in capsys.readouterr().err


def test_a_broken_series_can_be_repaired(source, tmp_path, run):
    (source / "empty.nii.gz").unlink()
    (source / "p1" / "labels.nii.gz").unlink()
    assert run(source, tmp_path / "out", "--fix", "--strict") == 0
    assert (tmp_path / "out" / "LIDC-IDRI-0442_2" / lidc.FILE).is_file()


def test_lists_share_no_patient_and_depend_on_the_seed():
    sources = [lidc_folder.Source(f"c{k}", f"p{k // 3}", ()) for k in range(60)]
    lists = [lidc_folder.split(sources, 0.1, seed) for seed in (0, 0, 1)]
    assert lists[0] == lists[1] != lists[2]
    for found in lists:
        assert len(found["test"]) == 6
        patients = [{int(name[1:]) // 3 for name in found[part]} for part in ("train", "test")]
        assert not patients[0] & patients[1]


def test_a_source_without_a_ct_is_told_in_one_line(tmp_path, capsys, run):
    (tmp_path / "x.txt").write_text("x")
    assert run(tmp_path, tmp_path / "out") == 2
    assert run(tmp_path / "gone", tmp_path / "out") == 2
    assert run(tmp_path, tmp_path / "out", "--test", "2") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "no CT found" in lines[0]
    assert "no such folder" in lines[1]
    assert "--test 2" in lines[2]


def test_flags_default_to_the_papers_edge_and_the_template_of_the_library():
    lidc_flags, mesh_flags = (
        prepare.parser().parse_args([name, "source", "out"]) for name in ("lidc", "meshes")
    )
    assert lidc_flags.edge == lidc.EDGE
    assert mesh_flags.vertices == folder.VERTICES
