"""Polygons out of VTK's files: legacy (*.vtk) of versions 1 to 5, and XML (*.vtp)."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
import zlib
from typing import TypeAlias

import numpy as np

from jxrecon.io.nifti import DEFLATE_RATIO
from jxrecon.io.ply import numbers_in, triangles_of_strips, typed
from jxrecon.types import InputError

_TYPES = {
    "float": "f4", "double": "f8", "char": "i1", "unsigned_char": "u1", "short": "i2",
    "unsigned_short": "u2", "int": "i4", "unsigned_int": "u4", "long": "i8", "unsigned_long": "u8",
    "vtktypeint64": "i8", "vtktypeuint64": "u8", "vtkidtype": "i8",
}  # fmt: skip

_XML_TYPES = {
    f"{name}{bits}": f"{letter}{bits // 8}"
    for name, letter in (("Int", "i"), ("UInt", "u"), ("Float", "f"))
    for bits in (8, 16, 32, 64)
}

MOST_BYTES = 1 << 28
"""What a compressed array may unpack to: 22 million points."""

_MOST_TAGS, _MOST_LINES = 100_000, 100_000  # of XML; of a legacy file, beside its arrays

_Cells: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Corners a cell, and their indices in one row."""


def read_vtk(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, corners a polygon, indices) of a legacy file: polydata, or flat cells of a grid.

    Raises:
        InputError: it is no such file, cut short, or its cells are not flat; without the file's name.
    """
    stream = _Legacy(content)
    vertices, polygons, cells, kinds = np.empty((0, 3)), [], None, None
    lines = 0
    while (words := stream.words()) is not None:
        if (lines := lines + 1) > _MOST_LINES:
            raise InputError(f"more than {_MOST_LINES} lines beside its arrays")
        name = words[0].upper() if words else ""
        if name == "POINTS":
            vertices = stream.array(3 * int(words[1]), _TYPES[words[2].lower()]).reshape(-1, 3)
        elif name in ("VERTICES", "LINES", "POLYGONS", "TRIANGLE_STRIPS", "CELLS"):
            found = stream.cells(int(words[1]), int(words[2]))
            if name == "CELLS":
                cells = found
            elif name in ("POLYGONS", "TRIANGLE_STRIPS"):
                polygons.append(found if name == "POLYGONS" else triangles_of_strips(*found))
        elif name == "CELL_TYPES":
            kinds = stream.array(int(words[1]), "i4")
        elif name in ("POINT_DATA", "CELL_DATA"):
            break
    if cells is not None and kinds is not None:
        polygons.append(_flat(*cells, kinds))
    return vertices, *_joined(polygons)


class _Legacy:
    """Lines and arrays of a legacy file."""

    def __init__(self, content: bytes) -> None:
        self.stream, self.size = io.BytesIO(content), len(content)
        head = [self.stream.readline() for _ in range(4)]
        version = re.match(rb"# vtk DataFile Version (\d+)", head[0])
        if not version or not head[3].endswith(b"\n"):
            raise InputError("its first line does not name a vtk DataFile Version")
        form, dataset = head[2].strip().upper(), head[3].split()
        if form not in (b"ASCII", b"BINARY"):
            raise InputError(f"its third line is {form[:20]!r}, expected ASCII or BINARY")
        kinds = (b"POLYDATA", b"UNSTRUCTURED_GRID")
        if dataset[:1] != [b"DATASET"] or dataset[-1].upper() not in kinds:
            raise InputError(f"its fourth line is {head[3][:-1][:40]!r}, expected DATASET POLYDATA")
        self.version, self.binary = int(version[1]), form == b"BINARY"

    def words(self) -> list[str] | None:
        """The words of the next line, None at the end of the file."""
        line = self.stream.readline()
        return line.decode("latin-1").split() if line else None

    def array(self, count: int, kind: str) -> np.ndarray:
        """The next `count` numbers: big endian, or as text."""
        if not 0 <= count <= self.size:
            raise InputError(f"it declares {count} numbers in {self.size} bytes")
        if self.binary:
            dtype = np.dtype(">" + kind)
            content = self.stream.read(dtype.itemsize * count)
            if len(content) < dtype.itemsize * count:
                raise InputError("cut short, fewer bytes than it declares")
            return np.frombuffer(content, dtype)
        text, found = bytearray(), 0
        while found < count:
            line = self.stream.readline()
            if not line:
                raise InputError("cut short, fewer numbers than it declares")
            text += line
            found += len(line.split())
        if found > count:
            raise InputError("more numbers than it declares")
        return typed(numbers_in(bytes(text)), kind)

    def cells(self, count: int, size: int) -> _Cells:
        """Up to version 4 in one row, from 5 on offsets and indices."""
        if self.version < 5:
            return _unrolled(self.array(size, "i4"), count)
        parts = []
        for length in (count, size):
            words = self.words() or self.words() or ["nothing"]
            if words[0].upper() not in ("OFFSETS", "CONNECTIVITY"):
                raise InputError(f"{words[0][:20]!r} among its cells, expected OFFSETS")
            parts.append(self.array(length, _TYPES[words[1].lower()]))
        return np.diff(parts[0]), parts[1]


def read_vtp(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, corners a polygon, indices) of XML polydata: text, base64 or raw, plain or zlib.

    Raises:
        InputError: it is no such file, or damaged; without the file's name.
    """
    head, mark, tail = content.partition(b"<AppendedData")
    appended, encoded = b"", False
    if mark:  # raw bytes are no XML: cut out before it is parsed
        attributes, _, rest = tail.partition(b">")
        encoded = b"base64" in attributes
        appended = rest.partition(b"_")[2]
        head += b"</VTKFile>"
    if b"<!ENTITY" in head or head.count(b"<") > _MOST_TAGS:
        raise InputError(
            f"it declares entities or has more than {_MOST_TAGS} tags, expected polydata"
        )
    root = ElementTree.fromstring(head)
    if root.tag != "VTKFile" or root.get("type") != "PolyData":
        raise InputError(f"it is a {root.get('type') or root.tag}, expected PolyData")
    compressor = root.get("compressor")
    if compressor not in (None, "vtkZLibDataCompressor"):
        raise InputError(f"it is packed by {compressor}, expected vtkZLibDataCompressor")
    order = "<" if root.get("byte_order", "LittleEndian") == "LittleEndian" else ">"
    head_type = np.dtype(order + _XML_TYPES[root.get("header_type", "UInt32")])

    def array(element: ElementTree.Element) -> np.ndarray:
        kind = np.dtype(order + _XML_TYPES[element.get("type", "")])
        form = element.get("format", "ascii")
        if form == "ascii":
            return typed(numbers_in(element.text or ""), kind.str)
        if form == "appended":
            data, coded = appended[int(element.get("offset", 0)) :], encoded
        else:
            data, coded = (element.text or "").strip().encode(), True
        return np.frombuffer(_unpacked(data, coded, head_type, compressor is not None), kind)

    vertices, polygons, before = [np.empty((0, 3))], [], 0
    for piece in root.iter("Piece"):
        points = piece.find("Points/DataArray")
        if points is None:
            continue
        vertices.append(array(points).reshape(-1, 3))
        for part in ("Polys", "Strips"):
            named = {one.get("Name"): one for one in piece.findall(f"{part}/DataArray")}
            if {"offsets", "connectivity"} <= set(named):
                offsets, indices = array(named["offsets"]), array(named["connectivity"])
                cells = np.diff(offsets.astype(np.int64), prepend=0), indices.astype(np.int64)
                counts, corners = cells if part == "Polys" else triangles_of_strips(*cells)
                polygons.append((counts, corners + before))
        before += len(vertices[-1])
    return np.concatenate(vertices), *_joined(polygons)


def _unpacked(data: bytes, encoded: bool, head: np.dtype, compressed: bool) -> bytes:
    """The bytes of one array: its lengths first, then one block, or compressed ones."""

    def take(data: bytes, count: int) -> tuple[bytes, bytes]:
        """(count bytes, what follows them), where a piece of base64 ends after them."""
        if not encoded:
            return data[:count], data[count:]
        letters = 4 * -(-count // 3)
        return base64.b64decode(data[:letters])[:count], data[letters:]

    width = head.itemsize
    if not compressed:
        size = int(np.frombuffer(take(data, width)[0], head, 1)[0])
        if encoded and b"=" not in data[: 4 * -(-width // 3)]:  # lengths and block in one piece
            return take(data, width + size)[0][width:]
        return _whole(take(take(data, width)[1], size)[0], size)
    blocks, usual, last = (int(n) for n in np.frombuffer(take(data, 3 * width)[0], head, 3))
    total = (blocks - 1) * usual + (last or usual) if blocks else 0
    if not 0 <= total <= min(MOST_BYTES, DEFLATE_RATIO * len(data)) or not blocks <= len(data):
        raise InputError(f"it declares {blocks} blocks of {usual} bytes in {len(data)}")
    lengths, rest = take(data, (3 + blocks) * width)
    sizes = np.frombuffer(lengths, head)[3:].astype(np.int64)
    if len(sizes) != blocks or not 0 <= sizes.min(initial=0) <= sizes.max(initial=0) <= len(data):
        raise InputError("the lengths of its blocks do not fit its bytes")
    packed, found = _whole(take(rest, int(sizes.sum()))[0], int(sizes.sum())), bytearray()
    for n, (end, size) in enumerate(zip(np.cumsum(sizes), sizes), 1):
        expected = last or usual if n == blocks else usual
        part = zlib.decompressobj().decompress(packed[end - size : end], expected + 1)
        found += _whole(part, expected)
    return bytes(found)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise InputError(f"cut short, {len(data)} of {size} bytes")
    return data


def _unrolled(row: np.ndarray, count: int) -> _Cells:
    """(3, a, b, c, 4, ...) taken apart."""
    if count and len(row) == 4 * count and (row[::4] == 3).all():
        return row[::4].astype(np.int64), row.reshape(-1, 4)[:, 1:].reshape(-1)
    counts, kept, at = [], np.ones(len(row), bool), 0
    for _ in range(count):
        if at >= len(row) or row[at] < 0:
            raise InputError("the lengths of its cells do not fit their numbers")
        counts.append(int(row[at]))
        kept[at] = False
        at += counts[-1] + 1
    return np.array(counts, int), row[kept]


def _flat(counts: np.ndarray, indices: np.ndarray, kinds: np.ndarray) -> _Cells:
    """The triangles and polygons of a grid without volume; points and lines are left out."""
    solid = kinds[(kinds > 9) | (kinds == 8) | (kinds == 6)]
    if len(solid) or len(kinds) != len(counts):
        raise InputError(f"cells of VTK's type {solid[:1].tolist()}, expected triangles")
    flat = np.isin(kinds, (5, 7, 9))  # a triangle, a polygon, a quadrilateral
    return counts[flat], indices[np.repeat(flat, counts)]


def _joined(polygons: list[_Cells]) -> _Cells:
    empty = np.empty(0, np.int64)
    counts, indices = zip(*[(empty, empty), *polygons])
    return np.concatenate(counts).astype(np.int64), np.concatenate(indices).astype(np.int64)
