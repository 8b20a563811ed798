"""Meshes as files: every format there and back, other programs' variants, and bad files in one line."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest
import trimesh

from jxrecon.io.meshes import Unsaid, read_mesh, write_mesh
from jxrecon.mesh import Mesh, template
from jxrecon.types import InputError

TETRAHEDRON = Mesh(
    np.array([[0, 0, 0], [100.25, 0, 0], [0, 50.1, 0], [0, 0, -1e-3]], np.float32),
    np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]], np.int32),
)

ASCII_PLY = """ply
format ascii 1.0
comment made by hand
element vertex 5
property float x
property float y
property float z
property uchar red
element face 2
property list uchar int vertex_indices
property int label
end_header
0 0 0 9
1 0 0 9
1 1 0 9
0 1 0 9
0 0 1 9
4 0 1 2 3 7
3 0 1 4 7
"""

ASCII_VTK = """# vtk DataFile Version 4.2
by hand SPACE=LPS
ASCII
DATASET POLYDATA
POINTS 5 float
0 0 0 1 0 0 1 1 0
0 1 0 0 0 1

METADATA
INFORMATION 0

VERTICES 1 2
1 0
POLYGONS 2 9
4 0 1 2 3
3 0 1 4

POINT_DATA 5
SCALARS a float 1
"""

VTK_5 = """# vtk DataFile Version 5.1
vtk output
ASCII
DATASET POLYDATA
POINTS 5 double
0 0 0 1 0 0 1 1 0 0 1 0 0 0 1
POLYGONS 3 7
OFFSETS vtktypeint64
0 4 7
CONNECTIVITY vtktypeint64
0 1 2 3
0 1 4
"""

GRID_VTK = """# vtk DataFile Version 3.0
grid
ASCII
DATASET UNSTRUCTURED_GRID
POINTS 5 double
0 0 0 1 0 0 1 1 0 0 1 0 0 0 1
CELLS 3 11
4 0 1 2 3
1 2
3 0 1 4
CELL_TYPES 3
9 1 5
"""

OBJ = """# SPACE=RAS
v 0 0 0 1.0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vn 0 0 1
v 0 0 1
f 1/1/1 2/1/1 3//1 4
f -5 -4 -1
"""

SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
SQUARE_FACES = [[0, 1, 2], [0, 2, 3], [0, 1, 4]]


@pytest.fixture(scope="module")
def ball() -> Mesh:
    mesh = trimesh.creation.icosphere(1, 37.123)
    rng = np.random.default_rng(0)
    vertices = mesh.vertices + rng.normal(size=(len(mesh.vertices), 3)) + [10, -200, 3]
    return Mesh(vertices.astype(np.float32), np.array(mesh.faces, np.int32))


@pytest.mark.parametrize("lps", [False, True])
@pytest.mark.parametrize("ending", ["ply", "obj", "vtk"])
def test_a_mesh_comes_back_exactly_and_in_its_order(ball, ending, lps, tmp_path: Path) -> None:
    path = tmp_path / "deep" / f"ball.{ending}"
    write_mesh(path, ball, lps=lps)
    back = read_mesh(path)  # the header says which
    np.testing.assert_array_equal(back.vertices, ball.vertices)
    np.testing.assert_array_equal(back.faces, ball.faces)
    assert back.vertices.dtype == np.float32
    assert back.faces.dtype == np.int32
    other = read_mesh(path, lps=not lps)
    np.testing.assert_array_equal(other.vertices, ball.vertices * np.float32([-1, -1, 1]))


@pytest.mark.parametrize("lps", [False, True])
def test_stl_comes_back_with_merged_vertices(ball: Mesh, lps: bool, tmp_path: Path) -> None:
    path = tmp_path / "ball.STL"
    write_mesh(path, ball, lps=lps)
    back = read_mesh(path)
    assert len(back.vertices) == len(ball.vertices)
    np.testing.assert_array_equal(back.vertices[back.faces], ball.vertices[ball.faces])
    template(back, "ball")


@pytest.mark.parametrize("ending", ["ply", "obj", "stl"])
def test_other_programs_read_what_is_written(ball: Mesh, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ball.{ending}"
    write_mesh(path, ball)
    theirs = trimesh.load_mesh(path, process=False)
    corners = np.asarray(theirs.vertices)[np.asarray(theirs.faces)]
    np.testing.assert_allclose(corners, ball.vertices[ball.faces], rtol=1e-6)


@pytest.mark.parametrize(
    ("ending", "encoding"),
    [
        ("ply", "ascii"),
        ("ply", "binary_little_endian"),
        ("stl", None),
        ("stl_ascii", None),
        ("obj", None),
    ],
)
def test_what_other_programs_write_is_read(ball, ending, encoding, tmp_path: Path) -> None:
    theirs = trimesh.Trimesh(ball.vertices, ball.faces, process=False)
    content = theirs.export(file_type=ending, **({"encoding": encoding[:6]} if encoding else {}))
    path = tmp_path / f"ball.{ending[:3]}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    back = read_mesh(path)
    np.testing.assert_allclose(
        back.vertices[back.faces], ball.vertices[ball.faces], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ply", ASCII_PLY),
        ("b.vtk", ASCII_VTK),
        ("c.vtk", VTK_5),
        ("d.vtk", GRID_VTK),
        ("e.obj", OBJ),
    ],
)
def test_polygons_are_cut_and_extras_passed_over(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    mesh = read_mesh(path, lps=False)
    np.testing.assert_array_equal(mesh.vertices, np.float32(SQUARE))
    np.testing.assert_array_equal(mesh.faces, SQUARE_FACES)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(read_mesh(path, lps=False).faces, SQUARE_FACES)


def test_binary_ply_of_either_byte_order_with_mixed_polygons(tmp_path: Path) -> None:
    for form, order in (("little", "<"), ("big", ">")):
        header = ASCII_PLY.split("end_header")[0].replace("ascii", f"binary_{form}_endian")
        vertices = np.zeros(5, [("p", order + "f4", 3), ("red", "u1")])
        vertices["p"] = SQUARE
        content = (header + "end_header\n").encode() + vertices.tobytes()
        for polygon in ([0, 1, 2, 3], [0, 1, 4]):
            content += bytes([len(polygon)]) + np.array([*polygon, 7], order + "i4").tobytes()
        (tmp_path / "a.ply").write_bytes(content)
        mesh = read_mesh(tmp_path / "a.ply")
        np.testing.assert_array_equal(mesh.vertices, np.float32(SQUARE))
        np.testing.assert_array_equal(mesh.faces, SQUARE_FACES)


def vtp(form: str, header: str, compressed: bool) -> bytes:
    """The square as XML polydata, packed as VTK's writers may."""
    arrays = {
        "Points": ("Float32", np.array(SQUARE, "<f4")),
        "connectivity": ("Int64", np.array([0, 1, 2, 3, 0, 1, 4], "<i8")),
        "offsets": ("Int64", np.array([4, 7], "<i8")),
    }
    word, appended, texts = "<u8" if header == "UInt64" else "<u4", b"", {}
    for name, (kind, array) in arrays.items():
        raw = array.tobytes()
        if compressed:
            blocks = [zlib.compress(raw[n : n + 24]) for n in range(0, len(raw), 24)]
            head = np.array([len(blocks), 24, len(raw) % 24, *map(len, blocks)], word).tobytes()
            packed, coded = head + b"".join(blocks), base64.b64encode(head)
            coded += base64.b64encode(b"".join(blocks))
        else:
            packed = np.array([len(raw)], word).tobytes() + raw
            coded = base64.b64encode(packed)
        text = " ".join(map(str, array.ravel().tolist())) if form == "ascii" else coded.decode()
        if form.startswith("appended"):
            text, where = "", f'format="appended" offset="{len(appended)}"'
            appended += packed if form == "appended raw" else coded
        else:
            where = f'format="{form}"'
        texts[name] = f'<DataArray type="{kind}" Name="{name}" {where}>{text}</DataArray>'
    packer = ' compressor="vtkZLibDataCompressor"' if compressed else ""
    content = (
        f'<?xml version="1.0"?><VTKFile type="PolyData" byte_order="LittleEndian" '
        f'header_type="{header}"{packer}><PolyData><Piece NumberOfPoints="5" NumberOfPolys="2">'
        f"<PointData></PointData><Points>{texts['Points']}</Points>"
        f"<Polys>{texts['connectivity']}{texts['offsets']}</Polys></Piece></PolyData>"
    ).encode()
    if appended:
        encoding = form.split()[1]
        content += f'<AppendedData encoding="{encoding}">_'.encode() + appended + b"</AppendedData>"
    return content + b"</VTKFile>"


@pytest.mark.parametrize("form", ["ascii", "binary", "appended raw", "appended base64"])
@pytest.mark.parametrize("header", ["UInt32", "UInt64"])
@pytest.mark.parametrize("compressed", [False, True])
def test_vtp_in_every_packing(form: str, header: str, compressed: bool, tmp_path: Path) -> None:
    (tmp_path / "a.vtp").write_bytes(vtp(form, header, compressed))
    mesh = read_mesh(tmp_path / "a.vtp")
    np.testing.assert_array_equal(mesh.vertices, np.float32(SQUARE))
    np.testing.assert_array_equal(mesh.faces, SQUARE_FACES)


def refusal(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    return line


def _stl(path: Path, ball: Mesh, count: int, more: bytes = b"") -> Path:
    """The ball with another count in its header and bytes at its end."""
    write_mesh(path, ball)
    content = path.read_bytes()
    path.write_bytes(content[:80] + count.to_bytes(4, "little") + content[84:] + more)
    return path


@pytest.mark.parametrize(
    ("count", "more", "told"),
    [
        (0, b"", "its length holds"),
        (2**32 - 1, b"", "its length holds"),
        (12, b"", "its header counts 12 triangles, its length holds"),
        (None, b"\r\n", "2 bytes after its"),
        (None, bytes(100), "100 bytes after its"),
    ],
)
def test_stl_of_a_wrong_count_or_length_is_read_whole_and_told(
    ball, count, more, told, tmp_path: Path, capsys
) -> None:
    path = _stl(tmp_path / "a.stl", ball, len(ball.faces) if count is None else count, more)
    whole = read_mesh(_stl(tmp_path / "b.stl", ball, len(ball.faces)))
    for found, expected in zip(read_mesh(path), whole):
        np.testing.assert_array_equal(found, expected)
    assert told in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be read as STL"):
        read_mesh(_stl(path, ball, len(ball.faces) + 1))


def test_tristrips_turn_every_second_triangle_and_restart_at_minus_one(tmp_path: Path) -> None:
    vertices = "".join(f"{x} {y} {x * y}\n" for x, y in ((0, 0), (1, 0), (0, 1), (1, 1), (2, 2)))
    header = (
        "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
        "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    )
    (tmp_path / "a.ply").write_text(f"{header}{vertices}9 0 1 2 3 -1 4 2 1 -1\n")
    faces = read_mesh(tmp_path / "a.ply").faces
    assert faces.tolist() == [[0, 1, 2], [2, 1, 3], [4, 2, 1]]
    two = header.replace("tristrips 1", "tristrips 2").replace("indices", "index")
    (tmp_path / "b.ply").write_text(f"{two}{vertices}4 0 1 2 3\n3 4 2 1\n")
    np.testing.assert_array_equal(read_mesh(tmp_path / "b.ply").faces, faces)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "cp932"])
def test_obj_may_name_its_groups_in_any_encoding(ball: Mesh, encoding: str, tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.obj", ball)
    text = "g 肝臓\n" if encoding == "cp932" else "# Körper für Übung\ng Körper\n"
    (tmp_path / "b.obj").write_bytes(text.encode(encoding) + (tmp_path / "a.obj").read_bytes())
    np.testing.assert_array_equal(
        read_mesh(tmp_path / "b.obj").vertices, read_mesh(tmp_path / "a.obj").vertices
    )


def test_units_are_those_of_the_header_else_those_stated(
    ball: Mesh, tmp_path: Path, capsys
) -> None:
    write_mesh(tmp_path / "mm.stl", ball)
    content = bytearray((tmp_path / "mm.stl").read_bytes())
    content[:80] = b"no frame".ljust(80)
    (tmp_path / "mm.stl").write_bytes(content)
    plain = read_mesh(tmp_path / "mm.stl").vertices
    stated = read_mesh(tmp_path / "mm.stl", unsaid=Unsaid(lps=True, units="cm")).vertices
    np.testing.assert_allclose(stated, plain * [-10, -10, 10], rtol=1e-6)
    lines = [f"v {x} {y} {z}" for x, y, z in (ball.vertices / 1000).tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (ball.faces + 1).tolist()]
    head = "# vertex coordinates are measured in units, where 1 unit = 1000.000000 mm"
    (tmp_path / "mimics.obj").write_text("\n".join([head, *lines]))
    found = read_mesh(tmp_path / "mimics.obj", unsaid=Unsaid(units="cm")).vertices
    np.testing.assert_allclose(found, ball.vertices, rtol=1e-5, atol=1e-4)
    assert "scaled by 1000, as its header says" in capsys.readouterr().err


def test_a_missing_or_unknown_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(read_mesh, tmp_path / "none.ply")
    assert "'.stp'" in refusal(read_mesh, tmp_path / "none.stp")
    assert "'.vtp'" in refusal(write_mesh, tmp_path / "out.vtp", TETRAHEDRON)


@pytest.mark.parametrize("ending", ["ply", "obj", "stl", "vtk"])
def test_a_damaged_file_is_refused(ball: Mesh, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ball.{ending}"
    write_mesh(path, ball)
    whole = path.read_bytes()
    for content in (b"", b"\x00\xff" * 200, whole[:40], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert refusal(read_mesh, path).startswith(f"{path}: ")


@pytest.mark.parametrize("form", ["ascii", "binary", "appended raw", "appended base64"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_vtp_is_refused(form: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.vtp"
    whole = vtp(form, "UInt32", compressed)
    for content in (
        b"",
        whole[:100],
        whole[: len(whole) * 2 // 3],
        whole.replace(b"<Points>", b""),
    ):
        path.write_bytes(content)
        assert refusal(read_mesh, path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nan.obj", OBJ.replace("v 1 1 0", "v 1 nan 0"), "vertex 2 is [1.0, nan, 0.0]"),
        ("inf.ply", ASCII_PLY.replace("1 1 0 9", "1 1e60 0 9"), "vertex 2"),
        ("index.obj", OBJ.replace("f -5 -4 -1", "f 1 2 6"), "names vertex 5, expected 0 to 4"),
        ("zero.obj", OBJ.replace("f -5 -4 -1", "f 0 1 2"), "names vertex -1"),
        ("index.ply", ASCII_PLY.replace("3 0 1 4 7", "3 0 1 9 7"), "names vertex 9"),
        ("index.vtk", ASCII_VTK.replace("3 0 1 4", "3 0 1 5"), "names vertex 5"),
        ("line.obj", OBJ.replace("f -5 -4 -1", "f 1 2"), "face 1 has 2 corners"),
        ("word.obj", OBJ.replace("v 1 1 0", "v 1 one 0"), "line 4"),
        ("empty.obj", "# nothing\n", "no line that begins with v"),
        ("points.obj", "v 0 0 0\n", "1 vertices and 0 faces"),
        ("tetra.vtk", GRID_VTK.replace("9 1 5", "10 1 5"), "type [10]"),
        ("image.vtk", ASCII_VTK.replace("POLYDATA", "STRUCTURED_POINTS"), "expected DATASET POLYDATA"),
    ],
)  # fmt: skip
def test_bad_numbers_are_refused_in_one_line(name, text, words, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    line = refusal(read_mesh, path)
    assert words in line
    assert str(path) in line


def test_an_edge_of_three_faces_is_read_but_makes_no_template(tmp_path: Path) -> None:
    path = tmp_path / "book.obj"
    path.write_text(OBJ.replace("f -5 -4 -1", "f 1 2 5\nf 2 1 4"))
    assert "3 faces meet at the edge 0-1" in refusal(template, read_mesh(path), str(path))


def test_text_of_any_ends_of_lines_case_and_comments_is_the_same_mesh(tmp_path: Path) -> None:
    corners = "".join(f"vertex {x} {y} {z}\n" for x, y, z in SQUARE[:3])
    stl = f"solid a\nfacet normal 0 0 1\nouter loop\n{corners}endloop\nendfacet\nendsolid a\n"
    expected = {}
    for name, text in (("a.obj", OBJ), ("a.stl", stl), ("a.ply", ASCII_PLY)):
        (tmp_path / name).write_text(text)
        expected[name] = read_mesh(tmp_path / name)
    comment = "comment end_header comes later\nformat "
    for name, content in (
        ("a.obj", OBJ.replace("\n", "\r").encode()),
        ("a.obj", b"\xef\xbb\xbf" + OBJ.replace("\n", "\r\n").encode()),
        ("a.stl", stl.replace("\n", "\r").encode()),
        ("a.stl", b"\xef\xbb\xbf\n" + stl.upper().encode()),
        ("a.ply", ASCII_PLY.replace("format ", comment, 1).encode()),
    ):
        (tmp_path / name).write_bytes(content)
        for found, wanted in zip(read_mesh(tmp_path / name), expected[name]):
            np.testing.assert_array_equal(found, wanted)


def test_bad_meshes_are_not_written_and_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    write_mesh(path, TETRAHEDRON)
    before = path.read_bytes()
    hole = TETRAHEDRON.vertices.copy()
    hole[2, 1] = np.nan
    assert "vertex 2" in refusal(write_mesh, path, TETRAHEDRON._replace(vertices=hole))
    wrong = TETRAHEDRON._replace(faces=TETRAHEDRON.faces + 1)
    assert "names vertex 4" in refusal(write_mesh, path, wrong)
    nothing = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert "expected a surface" in refusal(write_mesh, path, nothing)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
