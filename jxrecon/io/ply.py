"""Polygons out of PLY files, and triangles into them."""

from __future__ import annotations

import re
import struct
import warnings
from array import array

import numpy as np

from jxrecon.mesh import Mesh
from jxrecon.types import InputError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


_POLYGONS = (["vertex_indices"], ["vertex_index"])
"""Properties of a face that has no other: the names of its list of corners."""


def numbers_in(text: bytes | str) -> np.ndarray:
    """The numbers of a text, float64, without making an object of each.

    Raises:
        InputError: something else stands between them.
    """
    if not text.strip():
        return np.empty(0)  # NumPy finds a -1 there
    with warnings.catch_warnings(action="error"):
        try:
            return np.fromstring(text, np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise InputError("what should be a number is none") from None


def read_ply(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, corners a polygon, indices) of a PLY, ASCII or binary; other properties are passed over.

    Raises:
        InputError: it is no such file or cut short; without the file's name.
    """
    end = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", content)
    if not content.startswith(b"ply") or not end:
        raise InputError("its header does not begin with ply and end with end_header")
    header, body = content[: end.start()], content[end.end() :]
    form = ""
    elements: list[tuple[str, int, list]] = []
    for line in header.decode("ascii", "replace").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            types = [_TYPES[word] for word in words[2 if words[1] == "list" else 1 : -1]]
            elements[-1][2].append((words[-1], types))
    orders = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
    if form not in orders:
        raise InputError(f"format {form!r}, expected one of {', '.join(orders)}")
    stream = _Stream(body, orders[form])
    vertices, counts, indices = np.empty((0, 3)), np.empty(0, int), np.empty(0, int)
    for name, count, properties in elements:
        if count < 0 or count > len(body):
            raise InputError(f"it declares {count} of {name} in {len(body)} bytes")
        if not count:
            continue
        names = [one for one, _ in properties]
        least = 3 if name == "face" and names in _POLYGONS else 0
        values = stream.element(count, properties, least)
        if name == "vertex":
            vertices = np.stack([values[names.index(axis)][1] for axis in "xyz"], axis=1)
        elif name == "face":
            lists = [n for n, one in enumerate(names) if [one] in _POLYGONS]
            if not lists:
                raise InputError("its faces have no list vertex_indices")
            counts, indices = values[lists[0]]
        elif name == "tristrips":
            lists = [n for n, one in enumerate(names) if one.startswith("vertex_ind")]
            if not lists:
                raise InputError("its strips have no list vertex_indices")
            counts, indices = _of_tristrips(*values[lists[0]])
    return vertices, counts, indices


def _of_tristrips(lengths: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(corners a triangle, indices) of lists of strips: -1 within a list begins the next one."""
    row = np.insert(row, np.cumsum(lengths)[:-1], -1)
    ends = np.append(np.flatnonzero(row < 0), len(row))
    lengths = np.diff(ends, prepend=-1) - 1
    return triangles_of_strips(lengths[lengths > 0], row[row >= 0])


def triangles_of_strips(lengths: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(corners a triangle, indices) of strips one after the other.

    Every second triangle of a strip is the other way round; those without area, which join strips, are left
    out.
    """
    starts = np.cumsum(lengths) - lengths
    pieces = np.maximum(lengths - 2, 0)
    step = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = np.repeat(starts, pieces) + step
    odd = (step % 2)[:, None] == 1
    places = first[:, None] + np.where(odd, [[1, 0, 2]], [[0, 1, 2]])
    corners = np.asarray(indices, np.int64)[places]
    corners = corners[(np.diff(np.sort(corners, 1), axis=1) != 0).all(1)]
    return np.full(len(corners), 3), corners.ravel()


class _Stream:
    """Elements of a PLY one after the other; ASCII is taken as binary, every number a float64."""

    def __init__(self, body: bytes, order: str) -> None:
        self.order, self.at = order, 0
        self.body = body if order else numbers_in(body).tobytes()

    def element(
        self, count: int, properties: list, least: int = 0
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """(how many a record, all values in one row) of each property: one a record if no list.

        Lists of fewer than `least` values are refused as soon as one is found.
        """
        start, first = self.at, self._record(properties)
        fields: list = []
        for n, ((_, types), values) in enumerate(zip(properties, first)):
            fields += [(f"length {n}", self._stored(kind)) for kind in types[:-1]]
            fields.append((f"values {n}", self._stored(types[-1]), values.shape))
        record, self.at = np.dtype(fields), start
        if len(self.body) - start >= count * record.itemsize:
            data = np.frombuffer(self.body, record, count, start)
            lists = [n for n, (_, types) in enumerate(properties) if types[1:]]
            if all((data[f"length {n}"] == len(first[n])).all() for n in lists):
                self.at += data.nbytes
                return [
                    (np.full(count, len(values)), typed(data[f"values {n}"].ravel(), types[-1]))
                    for n, ((_, types), values) in enumerate(zip(properties, first))
                ]
        return self._ragged(count, properties, least)

    def _ragged(
        self, count: int, properties: list, least: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Lists of different lengths, such as polygons: found one by one, then taken all at once."""
        plan = []
        for _, types in properties:
            length = None
            if types[1:]:
                code = np.dtype(types[0]).char if self.order else "d"
                length = struct.Struct((self.order or "=") + code)
            plan.append((length, self._stored(types[-1]).itemsize, array("q"), array("q")))
        at, end = self.at, len(self.body)
        for record in range(count):
            for length, size, starts, lengths in plan:
                n = 1
                if length is not None:
                    n = int(length.unpack_from(self.body, at)[0])
                    at += length.size
                    if n < least:
                        raise InputError(f"face {record} has {n} corners, expected {least} or more")
                starts.append(at)
                lengths.append(n)
                at += n * size
            if not self.at <= at <= end:
                raise InputError("cut short, fewer numbers than its header declares")
        columns = [
            (np.array(lengths), self._taken(np.array(starts), np.array(lengths) * size, types[-1]))
            for (_, types), (_, size, starts, lengths) in zip(properties, plan)
        ]
        self.at = at
        return columns

    def _taken(self, starts: np.ndarray, sizes: np.ndarray, kind: str) -> np.ndarray:
        """The values in some pieces of the body, which follow each other in order."""
        first = int(starts[0])
        steps = np.zeros(int(starts[-1] + sizes[-1]) - first + 1, np.int8)
        np.add.at(steps, starts - first, np.int8(1))
        np.add.at(steps, starts + sizes - first, np.int8(-1))
        inside = np.cumsum(steps, dtype=np.int8).view(bool)[:-1]
        content = np.frombuffer(self.body, np.uint8, len(inside), first)[inside]
        return typed(content.view(self._stored(kind)), kind)

    def _record(self, properties: list) -> list[np.ndarray]:
        """The values of every property of the next record."""
        return [
            self._take(types[-1], int(self._take(types[0], 1)[0]) if types[1:] else 1)
            for _, types in properties
        ]

    def _take(self, kind: str, count: int) -> np.ndarray:
        size = self._stored(kind).itemsize * count
        if count < 0:
            raise InputError(f"a list of {count} values")
        if self.at + size > len(self.body):
            raise InputError("cut short, fewer numbers than its header declares")
        self.at += size
        return typed(np.frombuffer(self.body, self._stored(kind), count, self.at - size), kind)

    def _stored(self, kind: str) -> np.dtype:
        return np.dtype(self.order + kind if self.order else np.float64)


def typed(values: np.ndarray, kind: str) -> np.ndarray:
    """Numbers as the type that a file declares; raises InputError where they are none of its kind."""
    whole = np.dtype(kind).kind not in "iu" or values.dtype.kind != "f"
    if not whole and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise InputError("what should be a whole number is none")
    return values.astype(kind)


def ply_bytes(mesh: Mesh, comment: str) -> bytes:
    """A binary PLY of float32 vertices and triangles, with a comment in its header."""
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment {comment}\nelement vertex {len(mesh.vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(len(mesh.faces), np.dtype([("n", "u1"), ("i", "<i4", 3)]))
    faces["n"], faces["i"] = 3, mesh.faces
    return header.encode() + mesh.vertices.astype("<f4").tobytes() + faces.tobytes()
