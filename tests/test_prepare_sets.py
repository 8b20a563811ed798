"""Public sets as they are published become data that training reads: TCIA DICOM, OpenKBP, label folders."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage
from skimage.draw import polygon2mask
from test_prepare import body, write_nifti, write_series
from written_dicom import save

from jxrecon import prepare
from jxrecon.data import openkbp_csv, rtstruct
from jxrecon.data.openkbp import OFFSET_MM, field_centres
from jxrecon.data.splits import covers
from jxrecon.io.meshes import read_mesh
from jxrecon.io.nifti import read_volume
from jxrecon.mesh import enclosed_volume
from jxrecon.types import InputError


def sequence(**items):
    data = Dataset()
    for name, value in items.items():
        setattr(data, name, value)
    return [data]


def write_structures(path, uid, regions):
    """An RTSTRUCT: regions are (name, contours in LPS mm)."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = (
        RTStructureSetStorage,
        f"{uid}.9",
        "RTSTRUCT",
    )
    series = sequence(SeriesInstanceUID=uid)
    study = sequence(RTReferencedSeriesSequence=series)
    data.ReferencedFrameOfReferenceSequence = sequence(RTReferencedStudySequence=study)
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions, 1):
        data.StructureSetROISequence += sequence(ROINumber=number, ROIName=name)
        drawn = [sequence(ContourData=np.ravel(c).tolist())[0] for c in contours]
        data.ROIContourSequence += sequence(ReferencedROINumber=number, ContourSequence=drawn)
    save(path, data)


def square(low, high, z):
    return [(low, low, z), (high, low, z), (high, high, z), (low, high, z)]


def test_tcia_dicom_becomes_splits_with_the_organs_drawn_on_it(tmp_path, capsys, run_command):
    source, out = tmp_path / "HNSCC", tmp_path / "hn"
    for n in range(4):
        hu = body(shift=n)
        write_series(source / f"P{n}" / "CT", hu, f"P{n}", f"1.2.{n}")
    write_series(source / "P3" / "again", body(shift=7), "P3", "1.2.7")
    ring = [square(10.2, 20.8, 5.0), square(12.2, 15.8, 5.0)]  # with a hole
    regions = [("Parotid_R", ring), ("PTV70", [square(0, 9, 5)]), ("BODY", [square(0, 30, 5)])]
    write_structures(source / "P1" / "structures.dcm", "1.2.1", regions)
    between = [("Larynx", [square(1, 9, 5.5 + 0.01)[:2] + square(1, 9, 7)[2:]])]
    write_structures(source / "P2" / "structures.dcm", "1.2.2", between)
    words = ["hn", source, out, "--validation", 0.25, "--test", 0.25]
    assert run_command(prepare, *words) == 0
    said = capsys.readouterr()
    assert "5 cases in" in said.out
    assert "1 with labels" in said.out
    assert (
        "a contour of 'Larynx' lies at slice 6.25 of the CT, expected it in one; the CT is"
        in said.err
    )
    rows = {
        row["name"]: row
        for row in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    }
    assert rows["P3_1"]["split"] == rows["P3_2"]["split"]
    assert {row["split"] for row in rows.values()} == {"train", "validation", "test"}
    assert np.ptp(np.asarray(Image.open(out / "pictures" / "P1.png"))) > 60  # tissue beside air
    (found,) = out.glob("*/P1_labels.nii.gz")
    labels, affine = read_volume(found)
    np.testing.assert_array_equal(affine, read_volume(found.with_name("P1_ct.nii.gz"))[1])
    index = np.argwhere(labels == 3)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    expected = np.argwhere(
        polygon2mask((36, 36), [(10.2, 10.2), (20.8, 10.2), (20.8, 20.8), (10.2, 20.8)])
    )
    hole = {(x, y) for x in (13, 14, 15) for y in (13, 14, 15)}
    wanted = {(-x, -y, 5) for x, y in map(tuple, expected) if (x, y) not in hole}
    assert {tuple(p) for p in np.rint(world).astype(int)} == wanted  # LPS to RAS
    assert set(np.unique(labels)) == {0, 3}
    assert rows["P1"]["rois_left_out"] == ["PTV70", "BODY"]
    assert run_command(prepare, *words, "--seed", 5) == 0  # other lots: moved, not made again
    assert "(5 were there)" in capsys.readouterr().out
    assert len(list(out.glob("*/*_ct.nii.gz"))) == 5


def test_regions_are_organs_by_name_and_never_two_or_margins():
    organs = {name: rtstruct.organ_of(name) for name in (
        "Brainstem", "BRAIN STEM", "SpinalCord", "Cord", "Parotid_L", "Lt Parotid", "parotid right",
        "GLND_PAROTID_R", "Oesophagus", "Larynx", "Mandible", "Cord PRV",
        "PTV Parotid L", "Brain", "Parotids",
    )}  # fmt: skip
    assert list(organs.values()) == [
        "brainstem", "brainstem", "spinal_cord", "spinal_cord", "parotid_left", "parotid_left",
        "parotid_right", "parotid_right", "esophagus", "larynx", "mandible", None, None, None, None,
    ]  # fmt: skip


def write_openkbp(folder, hu, labels, sizes):
    """What is published, of a volume in RAS: see `openkbp_csv`."""
    folder.mkdir(parents=True)
    stored = (np.asarray(hu)[::-1, ::-1, ::-1].transpose(1, 0, 2) + 1024).ravel()
    index = np.flatnonzero(stored)
    rows = [f"{i},{v:.1f}" for i, v in zip(index.tolist(), stored[index].tolist())]
    (folder / "ct.csv").write_text("\n".join([",data", *rows]) + "\n")
    turned = np.asarray(labels)[::-1, ::-1, ::-1].transpose(1, 0, 2).ravel()
    for label, organ in enumerate(openkbp_csv.ORGANS, 1):
        voxels = np.flatnonzero(turned == label).tolist()
        if voxels:
            (folder / f"{organ}.csv").write_text(
                "\n".join([",data", *(f"{i}," for i in voxels)]) + "\n"
            )
    (folder / "voxel_dimensions.csv").write_text("".join(f"{s:.18e}\n" for s in sizes))


def test_a_voxel_of_openkbp_lies_where_its_index_says(tmp_path):
    """From front to back, from the right to the left, from head to foot, about the middle."""
    edges, places = np.array([4.0, 3.0, 2.0]), {"Larynx": (9, 30, 100), "Mandible": (70, 2, 11)}
    index = {name: (y * 128 + x) * 128 + z for name, (y, x, z) in places.items()}
    (tmp_path / "ct.csv").write_text(",data\n" + "".join(f"{i},1324\n" for i in index.values()))
    for name, i in index.items():
        (tmp_path / f"{name}.csv").write_text(f",data\n{i},\n")
    (tmp_path / "voxel_dimensions.csv").write_text("".join(f"{edge}\n" for edge in edges))
    hu, affine, labels = openkbp_csv.read_patient(tmp_path)
    assert labels.shape == hu.shape == (128, 128, 128)
    assert (labels > 0).sum() == (hu == 300).sum() == 2
    assert (hu == -1024).sum() == hu.size - 2
    for name, place in places.items():
        (voxel,) = np.argwhere(labels == openkbp_csv.ORGANS.index(name) + 1)
        assert hu[tuple(voxel)] == 300
        y, x, z = (63.5 - np.array(place)) * edges
        np.testing.assert_allclose(affine[:3, :3] @ voxel + affine[:3, 3], [x, y, z])


def test_a_ct_that_ends_within_the_standard_field_does_not_cover_it():
    hu = np.full((24, 24, 60), -1000.0, np.float32)
    hu[6:18, 6:18] = 50.0
    affine = np.diag([8.0, 8.0, 4.0, 1.0])
    affine[:3, 3] = -(np.array(hu.shape) - 1) / 2 * [8.0, 8.0, 4.0]  # z from -120 to 120
    above = {20.0: False, 15.0: True, -15.0: True, -20.0: False}  # the field: 201.6 mm
    found = {mm: covers(hu, affine, [0.0, 0.0, mm - OFFSET_MM[2]]) for mm in above}
    assert found == above
    hu[..., 30] = -1000.0
    assert not covers(hu, affine, [0.0, 0.0, -OFFSET_MM[2]])


def test_openkbp_as_published_becomes_openkbp_hn(real_data, tmp_path, capsys, run_command):
    known, source, out = real_data / "openkbp_hn", tmp_path / "provided-data", tmp_path / "out"
    hu, affine = read_volume(known / "train" / "pt_002_ct.nii.gz")
    labels, _ = read_volume(known / "train" / "pt_002_labels.nii.gz")
    write_openkbp(source / "train-pats" / "pt_2", hu, labels, (4.625, 4.625, 3.0))
    damaged = source / "validation-pats" / "pt_201"
    damaged.mkdir(parents=True)
    (damaged / "ct.csv").write_text(",data\n5,1000.0\n2097152,900.0\n")
    (damaged / "voxel_dimensions.csv").write_text("1\n1\n1\n")
    assert run_command(prepare, "openkbp", source, out) == 0
    assert "line 3 tells no voxel, expected indices from 0 to 2097151" in capsys.readouterr().err
    found, found_affine = read_volume(out / "train" / "pt_2_ct.nii.gz")
    np.testing.assert_array_equal(found, hu)
    np.testing.assert_allclose(found_affine, affine, atol=1e-4)
    np.testing.assert_array_equal(read_volume(out / "train" / "pt_2_labels.nii.gz")[0], labels)
    with (known / "patients.csv").open(newline="") as lines:
        row = next(r for r in csv.DictReader(lines) if r["patient"] == "pt_002")
    with (out / "patients.csv").open(newline="") as lines:
        (mine,) = csv.DictReader(lines)
    assert mine["covers_hn"] == row["covers_hn"]
    for axis in "xyz":
        assert float(mine[f"crop_{axis}_mm"]) == pytest.approx(float(row[f"crop_{axis}_mm"]), abs=3)
    assert list(field_centres(out, "train")) == ["pt_2"]


@pytest.mark.parametrize(
    ("layout", "flags"),
    [
        ("Task03_Liver/labelsTr/{}.nii.gz", []),
        ("LiTS/segmentation-{}.nii", ["--label", "1,2"]),
        ("Totalsegmentator/{}/segmentations/liver.nii.gz", ["--organ", "liver"]),
    ],
)
def test_label_folders_of_public_sets_become_surfaces(layout, flags, tmp_path, capsys, run_command):
    inside = body() > 0
    label = inside.astype(np.uint8)
    label[18:21, 18:21, 18:21] = 2  # a tumour in it
    two = label.copy()
    two[:8, :8, :8] = 1
    for name, voxels in (("7", label), ("8", label), ("9", two)):
        write_nifti(tmp_path / layout.format(name), voxels)
    write_nifti(tmp_path / layout.format("7").replace("liver", "spleen").replace("labelsTr", "imagesTr")
                .replace("segmentation-", "volume-"), body())  # fmt: skip
    root = tmp_path / layout.split("/")[0]
    (root / "dataset.json").write_text('{"licence": "CC-BY-SA 4.0"}')
    assert run_command(prepare, "labels", root, tmp_path / "out", *flags) == 0
    said = capsys.readouterr()
    assert "2 organs in" in said.out
    assert "2 pieces, the largest with" in said.err
    assert "that are no labels of it" in said.err
    for path in (tmp_path / "out").glob("*.ply"):
        assert enclosed_volume(*read_mesh(path)) == pytest.approx(inside.sum(), rel=0.03)
    rows = list(map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()))
    assert [row["licence"] for row in rows] == ["CC-BY-SA 4.0"] * 2
    assert run_command(prepare, "labels", root, tmp_path / "out", *flags, "--largest-piece") == 0
    assert "3 organs in" in capsys.readouterr().out


def test_labels_without_an_organ_or_a_layout_are_told(tmp_path, capsys, run_command):
    write_nifti(tmp_path / "s1" / "segmentations" / "liver.nii.gz", (body() > 0).astype(np.uint8))
    assert run_command(prepare, "labels", tmp_path, tmp_path / "out") == 2
    assert "no labels of --organ None, expected one of liver" in capsys.readouterr().err
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "x.nii")
    (tmp_path / "s1").rename(tmp_path / ".s1")
    assert run_command(prepare, "labels", tmp_path, tmp_path / "out") == 2
    assert "expected labelsTr/NAME.nii.gz" in capsys.readouterr().err
    with pytest.raises(InputError, match="no patient, expected folders"):
        openkbp_csv.find_patients(tmp_path)
