"""Polygons out of PLY files, and triangles into them."""

from __future__ import annotations

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
        self.body, self.order, self.at = body, order, 0
        self.words = [] if order else body.split()

    def element(self, count: int, properties: list) -> list:
        """Of every property its values, float or int [count]; of a list (lengths, values in one row)."""
        lengths = [0 if len(types) == 1 else self._peek(properties) for _, types in properties]
        fast = self._uniform(count, properties, lengths)
        if fast is not None:
            return fast
        rows: list[list] = [[] for _ in properties]
        for _ in range(count):  # faces of different numbers of corners: one at a time
            for row, (_, types) in zip(rows, properties):
                length = int(self._take(types[0], 1)[0]) if len(types) == 2 else 1
                if length < 0:
                    raise InputError(f"a list of {length} values")
                row.append(self._take(types[-1], length))
        values: list = []
        for row, (_, types) in zip(rows, properties):
            joined = np.concatenate(row) if row else np.empty(0, int)
            lengths_of = np.array([len(one) for one in row], int)
            values.append((lengths_of, joined) if len(types) == 2 else joined)
        return values

    def _peek(self, properties: list) -> int:
        """Length of the first element's list, if nothing but numbers stands before it."""
        before = 0
        for _, types in properties:
            if len(types) == 2:
                kept, self.at = self.at, self.at + before
                enough = self.at < len(self.body if self.order else self.words)
                length = int(self._take(types[0], 1)[0]) if enough else 0
                self.at = kept
                return length
            before += np.dtype(types[0]).itemsize if self.order else 1
        return 0

    def _uniform(self, count: int, properties: list, lengths: list[int]) -> list | None:
        """All elements at once, where there is at most one list and always as long as the first."""
        if sum(len(types) == 2 for _, types in properties) > 1 or min(lengths, default=0) < 0:
            return None
        fields: list = []
        for n, (_, types) in enumerate(properties):
            if len(types) == 2:
                fields.append((f"n{n}", self.order + types[0]))
            shape = (lengths[n],) if len(types) == 2 else ()
            fields.append((f"p{n}", self.order + types[-1], shape))
        record = np.dtype(fields)
        width = sum(max(int(np.prod(f[2])) if len(f) == 3 else 1, 0) for f in fields)
        if self.order:
            size = record.itemsize * count
            if len(self.body) - self.at < size:
                return None
            data = np.frombuffer(self.body, record, count, self.at)
        else:
            size = width * count
            if len(self.words) - self.at < size:
                return None
            table = np.array(self.words[self.at : self.at + size], "S").reshape(count, width)
            numbers, column, data = table.astype(np.float64), 0, np.zeros(count, record)
            for field in fields:
                wide = int(np.prod(field[2])) if len(field) == 3 else 1
                part = numbers[:, column : column + wide]
                if np.dtype(field[1]).kind in "iu" and not (np.isfinite(part)).all():
                    return None
                data[field[0]] = part.reshape(data[field[0]].shape)
                column += wide
        values: list = []
        for n, (_, types) in enumerate(properties):
            part = data[f"p{n}"]
            if len(types) == 2:
                if (data[f"n{n}"] != lengths[n]).any():
                    return None
                values.append((np.full(count, lengths[n]), part.reshape(-1)))
            else:
                values.append(part)
        self.at += size
        return values

    def _take(self, kind: str, count: int) -> np.ndarray:
        dtype = np.dtype(self.order + kind)
        size = dtype.itemsize * count if self.order else count
        if self.at + size > len(self.body if self.order else self.words):
            raise InputError("cut short, fewer numbers than its header declares")
        if self.order:
            values = np.frombuffer(self.body, dtype, count, self.at)
        else:
            values = np.array(self.words[self.at : self.at + size], "S").astype(dtype)
        self.at += size
        return values


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
