"""Polygons out of PLY files, and triangles into them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jxrecon.mesh import Mesh
from jxrecon.types import InputError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


def read_ply(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, corners a polygon, indices) of a PLY, ASCII or binary; other properties are passed over.

    Raises:
        InputError: it is no such file or cut short; without the file's name.
    """
    header, mark, body = content.partition(b"end_header")
    if not header.startswith(b"ply") or not mark:
        raise InputError("its header does not begin with ply and end with end_header")
    body = body[2:] if body[:2] == b"\r\n" else body[1:]
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
        names = [one for one, _ in properties]
        values = stream.element(count, properties)
        if name == "vertex":
            vertices = np.stack([values[names.index(axis)] for axis in "xyz"], axis=1)
        elif name == "face":
            lists = [n for n, one in enumerate(names) if one in ("vertex_indices", "vertex_index")]
            if count and not lists:
                raise InputError("its faces have no list vertex_indices")
            if count:
                counts, indices = values[lists[0]]
    return vertices, counts, indices


class _Stream:
    """Elements of a PLY one after the other, ASCII or binary."""

    def __init__(self, body: bytes, order: str) -> None:
        self.order, self.at = order, 0
        self.body: Any = body if order else body.split()  # bytes, or words

    def element(self, count: int, properties: list) -> list:
        """Values of every property, float or int [count]; of a list (lengths, values in one row)."""
        if not count:
            return [
                (np.empty(0, int),) * 2 if len(t) == 2 else np.empty(0, int) for _, t in properties
            ]
        start = self.at
        lengths = [len(values) for values in self._record(properties)]
        self.at = start
        columns = self._alike(count, properties, lengths)
        if columns is not None:
            return columns
        values = []  # faces of different numbers of corners: one at a time
        for rows, (_, types) in zip(
            zip(*(self._record(properties) for _ in range(count))), properties
        ):
            joined, row_lengths = np.concatenate(rows), np.array([len(row) for row in rows], int)
            values.append((row_lengths, joined) if len(types) == 2 else joined)
        return values

    def _record(self, properties: list) -> list[np.ndarray]:
        """The values of every property of the next record."""
        return [
            self._take(types[-1], int(self._take(types[0], 1)[0]) if len(types) == 2 else 1)
            for _, types in properties
        ]

    def _alike(self, count: int, properties: list, lengths: list[int]) -> list | None:
        """All records at once; None where a list is not as long as in the first one."""
        fields: list = []
        for n, ((_, types), length) in enumerate(zip(properties, lengths)):
            fields += [(f"n{n}", self.order + types[0], 1)] if len(types) == 2 else []
            fields.append((f"p{n}", self.order + types[-1], length))
        record = np.dtype([(name, kind, (width,)) for name, kind, width in fields])
        size = count * (record.itemsize if self.order else sum(width for _, _, width in fields))
        if len(self.body) - self.at < size:
            return None
        if self.order:
            data = np.frombuffer(self.body, record, count, self.at)
        else:
            table = np.array(self.body[self.at : self.at + size], "S").reshape(count, -1)
            numbers, data, column = table.astype(np.float64), np.zeros(count, record), 0
            for name, kind, width in fields:
                part = numbers[:, column : column + width]
                if np.dtype(kind).kind in "iu" and not np.isfinite(part).all():
                    return None
                data[name], column = part, column + width
        values: list = []
        for n, ((_, types), length) in enumerate(zip(properties, lengths)):
            part = data[f"p{n}"].reshape(-1)
            if len(types) == 2 and (data[f"n{n}"] != length).any():
                return None
            values.append((np.full(count, length), part) if len(types) == 2 else part)
        self.at += size
        return values

    def _take(self, kind: str, count: int) -> np.ndarray:
        dtype = np.dtype(self.order + kind)
        size = dtype.itemsize * count if self.order else count
        if count < 0:
            raise InputError(f"a list of {count} values")
        if self.at + size > len(self.body):
            raise InputError("cut short, fewer numbers than its header declares")
        part = self.body[self.at : self.at + size]
        self.at += size
        return np.frombuffer(part, dtype) if self.order else np.array(part, "S").astype(dtype)


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
