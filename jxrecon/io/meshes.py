"""Surfaces as files: PLY, OBJ, STL, VTK and VTP read and checked; PLY, OBJ, STL and VTK written whole.

Vertices are world mm, RAS. Many programs (3D Slicer, ITK-SNAP) store LPS, x and y with the other sign.
A file that says SPACE=LPS or SPACE=RAS in its header, as 3D Slicer's do, is believed; others are taken as
RAS unless `lps` says otherwise. What is written here says SPACE=RAS, so that 3D Slicer reads it rightly.
Lengths are millimetres unless a header says otherwise, as that of Mimics' OBJ files does, or `unsaid`. Order
of vertices and faces is kept; polygons are cut into triangles from their first corner.
"""

from __future__ import annotations

import io
import re
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

from jxrecon.files import one_line, write_file
from jxrecon.io.ply import numbers_in, ply_bytes, read_ply
from jxrecon.io.polydata import read_vtk, read_vtp
from jxrecon.mesh.topology import Mesh, check
from jxrecon.terminal import note, noted
from jxrecon.types import InputError

Coder = TypeVar("Coder")
Polygons = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What a file holds: vertices [V, 3], corners of each polygon [P], their indices one after the other."""


_BOM = b"\xef\xbb\xbf"  # before a text of UTF-8

MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "inch": 25.4}
"""Units of length that a file may be in."""


class Unsaid(NamedTuple):
    """What is taken of a file that does not say it itself.

    Attributes:
        lps: coordinates are LPS, not RAS.
        units: one of `MM_PER_UNIT`.
    """

    lps: bool = False
    units: str = "mm"


def read_mesh(path: Path | str, *, lps: bool | None = None, unsaid: Unsaid = Unsaid()) -> Mesh:  # noqa: B008
    """The surface in a file.

    Args:
        path: *.ply, *.obj, *.stl, *.vtk or *.vtp; ASCII or binary. STL has no common vertices: those at
            exactly the same place are merged.
        lps: whether the file's coordinates are LPS, whatever it says; None: as it says, else as `unsaid`.
        unsaid: what is taken where the file says nothing.

    Returns:
        Vertices float32 in RAS mm, faces int32.

    Raises:
        InputError: no such file, unknown kind, damaged, no vertices or faces, a coordinate is not
            finite, a face names a vertex that is not there or has fewer than three corners.
    """
    path = Path(path)
    reader = _of_kind(_READERS, path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a mesh")
    kind = path.suffix[1:].upper()
    try:
        content = path.read_bytes()
        # numbers beyond a type's range are found below
        with noted() as lines, np.errstate(all="ignore"):
            vertices, counts, indices = reader(content)
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise InputError(f"{path}: cannot be read as {kind}, {one_line(error)}") from None
    for line in lines:
        note(f"{path}: {line}")
    if not len(vertices) or not len(counts):
        raise InputError(
            f"{path}: {len(vertices)} vertices and {len(counts)} faces, expected a surface"
        )
    if counts.min() < 3:
        face = int(np.flatnonzero(counts < 3)[0])
        raise InputError(f"{path}: face {face} has {counts[face]} corners, expected 3 or more")
    if len(indices) != counts.sum():
        raise InputError(f"{path}: {len(indices)} corners of faces, expected {counts.sum()}")
    faces = _triangles(counts, indices)
    head = content if kind == "VTP" else content[:4096]
    if lps is None:
        lps = b"SPACE=LPS" in head or (unsaid.lps and b"SPACE=RAS" not in head)
    mm = _mm_per_unit(head, path, unsaid)
    vertices = mm * np.asarray(vertices, np.float64) * ([-1, -1, 1] if lps else [1, 1, 1])
    mesh = Mesh(vertices, faces)
    check(mesh, str(path))
    mesh = Mesh(vertices.astype(np.float32), faces.astype(np.int32))
    return _merged(mesh) if kind == "STL" else mesh


def _mm_per_unit(head: bytes, path: Path, unsaid: Unsaid) -> float:
    """What Mimics and 3-matic write into the head of an OBJ file, or `unsaid`."""
    told = re.search(rb"1 unit\s*=\s*([0-9.eE+-]+)\s*mm", head)
    if not told:
        return MM_PER_UNIT[unsaid.units]
    mm = float(told[1]) if re.fullmatch(rb"[0-9.]+([eE][+-]?[0-9]+)?", told[1]) else 0.0
    if not 1e-6 < mm < 1e6:
        raise InputError(f"{path}: its header says that 1 unit is {told[1].decode()} mm")
    if mm != 1:
        note(f"{path}: scaled by {mm:g}, as its header says 1 unit = {mm:g} mm")
    return mm


def write_mesh(path: Path | str, mesh: Mesh, *, lps: bool = False) -> None:
    """Writes a surface as its name ends: *.ply (binary), *.stl (binary), *.obj or *.vtk (binary).

    Coordinates are stored as float32, in OBJ with digits that give the same float32 again.

    Args:
        path: the file, replaced in one step.
        mesh: vertices in RAS mm.
        lps: store LPS, and say so in the header.

    Raises:
        InputError: unknown ending, a coordinate is not finite or an index out of range, or the folder
            cannot be written.
    """
    path = Path(path)
    writer = _of_kind(_WRITERS, path)
    check(mesh, str(path))
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    signs = np.array([-1, -1, 1] if lps else [1, 1, 1], vertices.dtype)
    stored = Mesh((vertices * signs).astype(np.float32), faces.astype(np.int32))
    write_file(path, writer(stored, "SPACE=LPS" if lps else "SPACE=RAS"))


def _of_kind(coders: dict[str, Coder], path: Path) -> Coder:
    if path.suffix.lower() not in coders:
        kinds = ", ".join(coders)
        raise InputError(f"{path}: unknown kind of mesh {path.suffix!r}, expected one of {kinds}")
    return coders[path.suffix.lower()]


def _triangles(counts: Int[np.ndarray, " p"], indices: Int[np.ndarray, " n"]) -> np.ndarray:
    """[F, 3]: polygon (a, b, c, d) gives (a, b, c) and (a, c, d); concave ones may overlap."""
    first, pieces = np.cumsum(counts) - counts, counts - 2
    start = np.repeat(first, pieces)
    step = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.asarray(indices, np.int64)[np.stack([start, start + step + 1, start + step + 2], 1)]


def _merged(mesh: Mesh) -> Mesh:
    """One vertex for all at the same place, in order of appearance; faces that collapse are dropped."""
    places, first, inverse = np.unique(
        mesh.vertices + np.float32(0), axis=0, return_index=True, return_inverse=True
    )  # + 0: -0 is 0
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    faces = rank[inverse.ravel()][mesh.faces]
    kept = (np.diff(np.sort(faces, 1), axis=1) != 0).all(1)
    return Mesh(places[order], faces[kept].astype(np.int32))


def _read_stl(content: bytes) -> Polygons:
    count = _facets(content)
    if count is not None:
        facets = np.frombuffer(content, np.dtype([("f", "<f4", 12), ("a", "<u2")]), count, 84)
        corners = facets["f"][:, 3:].reshape(-1, 3)
    elif _is_ascii_stl(content):
        content = content.replace(b"\r", b"\n")
        if b"endsolid" not in content[-4096:].lower():
            raise InputError("cut short, no endsolid at its end")
        numbers, vertices = bytearray(), 0
        for vertex in re.finditer(rb"^[ \t]*vertex[ \t]([^\r\n]*)", content, re.M | re.I):
            numbers += vertex[1] + b" "
            vertices += 1
        corners = numbers_in(bytes(numbers))
        count = sum(1 for _ in re.finditer(rb"^[ \t]*facet\b", content, re.M | re.I))
        if not len(corners) == 3 * vertices == 9 * count:
            raise InputError("a facet without three vertices, or a vertex without three numbers")
        corners = corners.reshape(-1, 3)
    else:
        declared = int.from_bytes(content[80:84], "little")
        raise InputError(
            f"{len(content)} bytes, expected {84 + 50 * declared} for {declared} triangles"
        )
    return corners, np.full(len(corners) // 3, 3), np.arange(len(corners))


def _is_ascii_stl(content: bytes) -> bool:
    head = content[:4096].removeprefix(_BOM).lstrip().lower()
    return head.startswith(b"solid") and b"facet" in head


def _facets(content: bytes) -> int | None:
    """How many triangles a binary STL holds; None if it is none, or cut short.

    Some programs leave the count at 0 or -1, or add bytes at the end: then the length decides.
    """
    declared, (held, rest) = int.from_bytes(content[80:84], "little"), divmod(len(content) - 84, 50)
    if held == declared and not rest:
        return declared
    if _is_ascii_stl(content) or held < 1:
        return None
    more = content[84 + 50 * declared :]
    if not rest and (declared in (0, 2**32 - 1) or (declared < held and any(more))):
        note(f"its header counts {declared} triangles, its length holds {held}: these were taken")
        return held
    if 0 < declared <= held:
        note(f"{len(more)} bytes after its {declared} triangles were passed over")
        return declared
    return None


def _read_obj(content: bytes) -> Polygons:
    vertices, counts, indices = array("d"), array("q"), array("q")
    # In bytes: names and comments may be in any encoding.
    content = content.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = io.BytesIO(content.replace(b"\\\n", b" "))
    for number, line in enumerate(lines, 1):
        words = line.split(b"#")[0].split()
        try:
            if words[:1] == [b"v"]:
                x, y, z = words[1:4]
                vertices.extend((float(x), float(y), float(z)))
            elif words[:1] == [b"f"]:
                corners = [int(word.split(b"/")[0]) for word in words[1:]]
                counts.append(len(corners))
                # 1 is the first vertex, -1 the last one so far; 0 is none
                so_far = len(vertices) // 3
                indices.extend(n - 1 if n > 0 else so_far + n if n else -1 for n in corners)
        except (ValueError, OverflowError):
            shown = line.strip()[:60].decode("utf-8", "replace")
            raise InputError(f"line {number} is {shown!r}") from None
    if content and not vertices:
        raise InputError("it holds no line that begins with v")
    return np.array(vertices).reshape(-1, 3), np.array(counts), np.array(indices)


def _stl_bytes(mesh: Mesh, space: str) -> bytes:
    facets = np.zeros(len(mesh.faces), np.dtype([("f", "<f4", (4, 3)), ("a", "<u2")]))
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    facets["f"][:, 0] = normals / np.where(lengths > 0, lengths, 1)
    facets["f"][:, 1:] = corners
    return space.encode().ljust(80) + len(facets).to_bytes(4, "little") + facets.tobytes()


def _obj_bytes(mesh: Mesh, space: str) -> bytes:
    lines = [f"# {space}", *(f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist())]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _vtk_bytes(mesh: Mesh, space: str) -> bytes:
    count = len(mesh.faces)
    head = f"# vtk DataFile Version 3.0\njxrecon {space}\nBINARY\nDATASET POLYDATA\n"
    rows = np.concatenate([np.full((count, 1), 3), mesh.faces], axis=1).astype(">i4")
    points = f"POINTS {len(mesh.vertices)} float\n".encode() + mesh.vertices.astype(">f4").tobytes()
    cells = f"\nPOLYGONS {count} {4 * count}\n".encode() + rows.tobytes()
    return head.encode() + points + cells + b"\n"


_READERS: dict[str, Callable[[bytes], Polygons]] = {
    ".ply": read_ply,
    ".obj": _read_obj,
    ".stl": _read_stl,
    ".vtk": read_vtk,
    ".vtp": read_vtp,
}

_WRITERS: dict[str, Callable[[Mesh, str], bytes]] = {
    ".ply": ply_bytes,
    ".stl": _stl_bytes,
    ".obj": _obj_bytes,
    ".vtk": _vtk_bytes,
}
