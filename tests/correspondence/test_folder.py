"""A folder of surfaces and labels becomes meshes of one topology, once, and says what it left out."""

import csv

import nibabel as nib
import numpy as np
import pytest

from jxrecon import prepare
from jxrecon.correspondence import folder
from jxrecon.correspondence.fit import Fit, Settings, Stage
from jxrecon.correspondence.mean_template import geodesic_sphere
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.io.preparation import REJECTS
from jxrecon.mesh import Mesh
from jxrecon.types import InputError

QUICK = Settings(stages=(Stage(1.0, 20.0, 0.1, 3), Stage(0.1, 5.0, 0.05, 3)), steps=6, points=600)


def ellipsoid(*radii):
    sphere = geodesic_sphere(5)
    return Mesh(sphere.vertices * radii + np.array([5.0, 0, -900.0]), sphere.faces)


@pytest.fixture
def source(tmp_path):
    """Two surfaces, two files of labels, what cannot be used, and what is no organ."""
    path = tmp_path / "source"
    (path / "more").mkdir(parents=True)
    write_mesh(path / "anna.ply", ellipsoid(80, 60, 50))
    write_mesh(path / "more" / "bert.stl", ellipsoid(70, 65, 55))
    whole = ellipsoid(75, 60, 60)
    write_mesh(path / "nan.ply", whole)
    content = bytearray((path / "nan.ply").read_bytes())
    start = content.index(b"end_header\n") + 11
    content[start : start + 4] = np.float32(np.nan).tobytes()
    (path / "nan.ply").write_bytes(content)
    (path / "empty.obj").write_text("# nothing\n")
    places = np.stack(np.indices((24, 24, 24)), -1) - 11.5
    label = np.where(np.linalg.norm(places / [1, 0.9, 0.8], axis=-1) < 10, 5, 0).astype(np.uint8)
    label[np.linalg.norm(places + np.array([7.0, 7, 7]), axis=-1) < 4] = 3
    for name, voxels in (("carl.nii.gz", label), ("none.nii", np.ones_like(label))):
        image = nib.Nifti1Image(voxels, np.diag([7.0, 7, 7, 1]))
        image.set_sform(image.affine, 1)
        nib.save(image, path / name)
    (path / "README.txt").write_text("no organ")
    return path


def table(out):
    with (out / folder.TABLE).open() as file:
        return {row["mesh"]: row for row in csv.DictReader(file)}


def test_folder_gets_one_topology_and_is_not_done_again(source, tmp_path, monkeypatch):
    out, sources = tmp_path / "out", folder.find_organs(source)
    assert [s.name for s in sources] == ["anna", "bert", "carl", "empty", "nan", "none"]

    def prepared(label=5, vertices=100):
        shape, reading = folder.Shape(vertices=vertices), folder.Reading(label)
        return folder.prepare_folder(sources, out, shape, reading, settings=QUICK)

    first = prepared()
    template = read_mesh(out / folder.TEMPLATE)
    assert len(template.vertices) == 92
    rows = folder.table_of(first, folder.Reading(5))
    assert [row["mesh"] for row in rows] == ["anna", "bert", "carl"] == list(table(out))
    for row in rows:
        mesh = read_mesh(out / f"{row['mesh']}.ply")
        np.testing.assert_array_equal(mesh.faces, template.faces)
        assert float(row["assd_mm"]) < 2.5
        assert row["flipped_faces"] == 0
    anna = read_mesh(out / "anna.ply").vertices
    np.testing.assert_allclose(anna.mean(0), [5, 0, -900], atol=2)  # its own world
    with (out / REJECTS).open(newline="") as file:
        rejected = [row["reason"] for row in csv.DictReader(file)]
    assert rejected == [one.reason for one in first.rejected]
    for line, reason in zip(
        rejected, ("empty.obj: cannot be read", "expected finite", "no voxel has the value 5")
    ):
        assert reason in line

    fitted = []

    def recording(template, target, *_, origin):
        fitted.append(origin)
        vertices = np.asarray(template.vertices)
        return Fit(vertices, folder.Report(*([0.0] * 5), *([0] * 5)))

    monkeypatch.setattr(folder, "fit", recording)
    (out / "bert.ply").write_bytes(b"cut short")
    again = prepared()
    assert again.skipped == 2
    assert fitted == [str(source / "more" / "bert.stl")]
    sources_told = [row["source"] for row in folder.table_of(again, folder.Reading(5))]
    assert sources_told == ["anna.ply", "bert.stl", "carl.nii.gz:5"]
    assert again.rows[0] == first.rows[0]
    fitted.clear()
    prepared(label=3)
    assert str(source / "carl.nii.gz") in fitted  # another label
    with pytest.raises(InputError, match="a template of 92 vertices, expected 252"):
        prepared(vertices=250)


def test_command_shows_the_worst_and_exits_as_told(
    source, tmp_path, capsys, monkeypatch, run_command
):
    out, given = tmp_path / "out", tmp_path / "mine.obj"
    sphere = geodesic_sphere(3)
    write_mesh(given, Mesh(sphere.vertices * 60, sphere.faces))
    monkeypatch.setattr(folder, "Settings", lambda: QUICK)
    arguments = ["meshes", str(source), str(out), "--template", str(given), "--label", "5"]
    assert run_command(prepare, *arguments, "--limit", 2, "--strict") == 0
    said = capsys.readouterr().out
    assert "the worst 2 of 2 organs" in said
    assert "no flipped face in 2" in said
    assert "2 organs in" in said
    np.testing.assert_array_equal(read_mesh(out / "anna.ply").faces, sphere.faces)
    assert not (out / "carl.ply").exists()
    assert run_command(prepare, *arguments, "--strict") == 1
    said = capsys.readouterr()
    assert "(2 were there); 3 left out" in said.out
    assert said.err.count("left out: ") == 3

    write_mesh(given, ellipsoid(60, 60, 60))
    assert run_command(prepare, *arguments) == 2
    assert "another template than" in capsys.readouterr().err


def test_what_cannot_be_prepared_is_told_in_one_line(source, tmp_path, capsys, run_command):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    out = str(tmp_path / "out")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.obj").write_text("# nothing\n")
    for arguments, reason in (
        ([str(nothing), out], "no organs found"),
        ([str(tmp_path / "gone"), out], "no such folder"),
        ([str(source), str(source)], "sources and results in one folder"),
        ([str(source), out, "--vertices", "3"], "3 vertices: expected 50 to 4000"),
        ([str(source), out, "--limit", "0"], "--limit 0"),
        ([str(bad), out], "none of the 1 organs can be used"),
        (
            [str(source), out, "--template", str(bad / "empty.obj")],
            "empty.obj: cannot be read as OBJ",
        ),
    ):
        assert run_command(prepare, "meshes", *arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        (line,) = (line for line in lines if line.startswith("error: "))
        assert reason in line


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("a/liver.ply", "b/liver.nii.gz", "b/other.vtk", "template.ply"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="template"):
        folder.find_organs(tmp_path)
    (tmp_path / "template.ply").unlink()
    assert [s.name for s in folder.find_organs(tmp_path)] == ["a_liver", "b_liver", "other"]
    assert [s.name for s in folder.find_organs(tmp_path, tmp_path / "b")] == ["liver"]
