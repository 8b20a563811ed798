"""The table of cases: on disk row by row, found again after a kill."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jxrecon.files import append_to, write_file

Row = dict[str, Any]
"""One method on one case: method, views, split, case, its metrics, fingerprint."""

KEYS = ("method", "views", "split", "case")
"""Columns that tell rows apart."""


class CaseTable:
    """cases.csv: one row a method and case, on disk as soon as it is known, found again after a kill.

    Attributes:
        rows: its keys, as (method, views, split, case), all as text -> row.
    """

    def __init__(
        self,
        path: Path,
        fingerprints: dict[str, str],
        metrics: Iterable[str],
        keys: tuple[str, ...] = KEYS,
    ) -> None:
        """Opens the file and keeps what still holds.

        Args:
            path: of the file, made where missing.
            fingerprints: of the data and weights of each method; rows of others are dropped, and so
                is the torn last row of a killed run.
            metrics: names of the columns with numbers.
            keys: columns that tell rows apart, the method first.
        """
        self._fingerprints, self._metrics, self._keys = fingerprints, tuple(metrics), keys
        # the last column shows a torn line
        self._columns = (*keys, *self._metrics, "fingerprint")
        self.rows: dict[tuple[str, ...], Row] = {}
        for row in self._read_rows(path):
            if fingerprints.get(row["method"]) == row["fingerprint"]:
                self.rows[tuple(row[key] for key in keys)] = row
        self._path = path
        self._write_whole()
        self._file = append_to(path)

    def __enter__(self) -> CaseTable:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._write_whole()  # a case that was done again has one row

    def _write_whole(self) -> None:
        header = _line(self._columns)
        write_file(self._path, header + "".join(map(self._line, self.rows.values())))

    def add(self, key: tuple[str, ...], metrics: dict[str, float], to_disk: bool = True) -> None:
        """Writes a row, which outlives a kill; through to the disk, so that it outlives a power cut."""
        row = {**dict(zip(self._keys, key, strict=True)), **metrics}
        row["fingerprint"] = self._fingerprints[key[0]]
        self.rows[key] = row
        self._file.write(self._line(row))
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())

    def _line(self, row: Row) -> str:
        values = (row[column] for column in self._columns)
        return _line(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)

    def _read_rows(self, path: Path) -> Iterator[Row]:
        """The whole rows of the file; nothing where there is none or its columns are others."""
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            with suppress(
                csv.Error
            ):  # a field of over 131,072 characters: what follows is done again
                if tuple(reader.fieldnames or ()) != self._columns:
                    return
                for row in reader:
                    with suppress(TypeError, ValueError):
                        yield {**row, **{name: float(row[name]) for name in self._metrics}}


def _line(cells: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
