"""Many sources made into files of a data set, several at once: what is done is not done again.

    OUT/manifest.jsonl   a line a case: where it comes from with SHA-256, what was written, how it was cut,
                         what was noted on the way, its licence
    OUT/rejects.csv      what could not be used, and why
    OUT/pictures.html    a picture of every case

A case is done while its sources, the settings and what was written are the same to the last bit. Whatever
goes wrong with one source is a line of rejects.csv; only a disk that refuses ends the run.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import html
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from jxrecon.files import append_to, locked, one_line, write_file
from jxrecon.terminal import CaseBar, note, noted
from jxrecon.types import InputError

MANIFEST, REJECTS, PAGE, PICTURES = "manifest.jsonl", "rejects.csv", "pictures.html", "pictures"
"""Names of the files beside the cases, and of the folder of pictures."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_HEIGHT = 160  # of a picture, pixels


class Source(NamedTuple):
    """What a case is made from.

    Attributes:
        name: of the case: one path component, no two alike.
        patient: whose it is; may be empty.
        files: all of them.
    """

    name: str
    patient: str
    files: tuple[Path, ...]


class Made(NamedTuple):
    """A source that was read and can be used, before anything is written.

    Attributes:
        write: writes the case's files, and returns their paths and more facts.
        size: bytes that they take at most.
        content: SHA-256 of the numbers read: equal for the same scan under another name or in another format.
        facts: what JSON can write: the source's affine, the crop.
        picture: to look at.
    """

    write: Callable[[], tuple[Sequence[Path], dict[str, Any]]]
    size: int
    content: str
    facts: dict[str, Any]
    picture: UInt8[np.ndarray, "rows columns"] | None = None


class How(NamedTuple):
    """How sources are prepared, whatever they become.

    Attributes:
        jobs: sources at once.
        dry: write nothing.
        licence: of all sources; None: as a file LICENSE or dataset.json beside them says.
    """

    jobs: int = 1
    dry: bool = False
    licence: str | None = None


class Reject(NamedTuple):
    """A source that cannot be used: a row of rejects.csv."""

    name: str
    patient: str
    source: str
    reason: str


Row = dict[str, Any]
"""A line of the manifest."""


class Outcome(NamedTuple):
    """What became of the sources.

    Attributes:
        rows: of the cases that are there, in the order of the sources.
        skipped: how many of them had been there before.
        rejected: the others.
        size: bytes that were written, or would be.
    """

    rows: list[Row]
    skipped: int
    rejected: list[Reject]
    size: int = 0

    def told(self, out: Path) -> str:
        """How much a dry run would write."""
        place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        short = "" if self.size <= free else ", TOO LITTLE"
        return (
            f"dry run: {len(self.rows) - self.skipped} cases to write, {self.skipped} there, "
            f"{len(self.rejected)} left out; at most {self.size / 1e9:.3g} GB of {free / 1e9:.3g} GB "
            f"free{short}"
        )


def prepare(
    sources: Sequence[Source],
    out: Path,
    make: Callable[[Source], Made],
    settings: dict[str, Any],
    how: How = How(),  # noqa: B008
) -> Outcome:
    """Makes a case of every source.

    Args:
        sources: no two of one name.
        out: folder to fill; `make` writes there.
        make: reads a source; raises InputError where it cannot be used.
        settings: all that the result depends on beside the source.
        how: see `How`.

    Raises:
        InputError: `out` cannot be written or is being filled by another process, or the disk is full.
    """
    if how.dry:
        return _prepared(sources, out, make, settings, how)
    with locked(out, "preparation"):
        return _prepared(sources, out, make, settings, how)


def _prepared(
    sources: Sequence[Source],
    out: Path,
    make: Callable[[Source], Made],
    settings: dict[str, Any],
    how: How,
) -> Outcome:
    known = _read_manifest(out / MANIFEST)
    settings = json.loads(json.dumps(settings))
    rows: dict[str, Row] = {}
    rejected: dict[str, Reject] = {}
    skipped = size = 0
    for source, made in _results(sources, out, make, settings, known, how):
        if isinstance(made, Reject):
            rejected[source.name] = made
            print(f"left out: {source.name}: {made.reason}", file=sys.stderr)
            continue
        rows[source.name] = made
        done = known.get(source.name) is made
        skipped += done
        size += 0 if done else made["size"]
        if not (how.dry or done):
            with append_to(out / MANIFEST) as lines:
                lines.write(json.dumps(made) + "\n")
    ordered = [rows[source.name] for source in sources if source.name in rows]
    left_out = [rejected[source.name] for source in sources if source.name in rejected]
    if not how.dry:
        stale = sorted(known.keys() - {source.name for source in sources})
        if stale:
            note(f"{out}: holds {len(stale)} cases of no source now: {', '.join(stale[:8])}")
        write_records(out, ordered, left_out)
    return Outcome(ordered, skipped, left_out, size)


def write_records(out: Path, rows: Sequence[Row], rejected: Sequence[Reject]) -> None:
    """Writes manifest, rejects and the page of pictures."""
    write_file(out / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Reject._fields, *rejected])
    write_file(out / REJECTS, text.getvalue())
    write_file(out / PAGE, _page(rows, rejected))


def _results(
    sources: Sequence[Source],
    out: Path,
    make: Callable[[Source], Made],
    settings: dict[str, Any],
    known: dict[str, Row],
    how: How,
) -> Iterator[tuple[Source, Row | Reject]]:
    """(source, its row or why there is none) as they come, with a bar."""

    def one(source: Source) -> Row | Reject:
        try:
            hashes = [_hashed(path) for path in source.files]
            row = known.get(source.name)
            if row and row["settings"] == settings and _same(row, hashes, out):
                return row
            with noted() as lines:
                made = make(source)
                facts = {**made.facts}
                paths: Sequence[Path] = ()
                if not how.dry:
                    paths, more = made.write()
                    facts |= more
                    if made.picture is not None:
                        write_file(out / PICTURES / f"{source.name}.png", png_bytes(made.picture))
            for line in lines:
                note(line)
            return {
                "name": source.name,
                "patient": source.patient,
                "sources": hashes,
                "content": made.content,
                "settings": settings,
                "outputs": [_hashed(path, out) for path in paths],
                "size": made.size,
                "warnings": lines,
                "licence": how.licence or licence_of(source.files[0]),
                **facts,
            }
        except Exception as error:  # whatever it is, the other sources do not suffer from it
            if _disk_refuses(error):
                raise
            reason = str(error) if isinstance(error, InputError) else _unexpected(source, error)
            return Reject(
                source.name, source.patient, str(source.files[0]), " ".join(reason.split())
            )

    bar = CaseBar(len(sources))
    pool = ThreadPoolExecutor(how.jobs)
    with bar:
        bar.begin("preparing", 0)
        try:
            running = {pool.submit(one, source): source for source in sources}
            for future in as_completed(running):
                yield running[future], future.result()
                bar.advance()
        finally:  # Ctrl-C too: what has not begun is not begun
            pool.shutdown(cancel_futures=True)


def _unexpected(source: Source, error: Exception) -> str:
    return (
        f"{source.files[0]}: cannot be prepared ({type(error).__name__}: {one_line(error)[:200]})"
    )


def _disk_refuses(error: BaseException | None) -> bool:
    """Whether a disk that is full or read-only lies behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _hashed(path: Path, below: Path | None = None) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    shown = path.absolute() if below is None else path.relative_to(below)
    return {"path": str(shown), "bytes": path.stat().st_size, "sha256": digest}


def _same(row: Row, hashes: list[dict[str, Any]], out: Path) -> bool:
    """Whether sources and outputs are as they were, wherever the sources lie now."""
    if [one["sha256"] for one in row["sources"]] != [one["sha256"] for one in hashes]:
        return False
    paths = [(out / one["path"], one) for one in row["outputs"]]
    return bool(paths) and all(p.is_file() and _hashed(p, out) == one for p, one in paths)


def _read_manifest(path: Path) -> dict[str, Row]:
    """The rows by name, the last of a name; lines that are none are dropped, and told."""
    rows: dict[str, Row] = {}
    if not path.is_file():
        return rows
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            shas = [one["sha256"] for one in row["sources"]]
            outputs = [(one["path"], one["sha256"], one["bytes"]) for one in row["outputs"]]
            inside = all(not {"..", "/"} & set(Path(one).parts) for one, *_ in outputs)
            if not (inside and all(isinstance(sha, str) for sha in shas)):
                raise ValueError
            rows[row["name"]] = {**row, "settings": row["settings"], "size": int(row["size"])}
        except (ValueError, KeyError, TypeError, RecursionError):
            note(f"{path}: line {number} is damaged, its case is prepared again")
    return rows


def licence_of(path: Path) -> str:
    """What a file LICENSE, or the Decathlon's dataset.json, in the folders above a file says, near first."""
    for folder in path.absolute().parents[:6]:
        for found in sorted(folder.glob("[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*")):
            if found.is_file():
                text = found.read_bytes()[:4096].decode("utf-8", "replace")
                return next(
                    (line.strip() for line in text.splitlines() if line.strip()), found.name
                )
        try:
            told = json.loads((folder / "dataset.json").read_bytes())
            if named := told.get("licence") or told.get("license"):
                return str(named)
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    return "not told"


def content_of(numbers: Shaped[np.ndarray, "..."]) -> str:
    """SHA-256 of rounded numbers and their shape, whatever type they are kept in."""
    whole = np.ascontiguousarray(np.rint(np.asarray(numbers, np.float32)), "<i4")
    return hashlib.sha256(repr(whole.shape).encode() + whole.tobytes()).hexdigest()


def groups_of(rows: Sequence[Row]) -> dict[str, str]:
    """Name of each case -> whose it is: cases of one patient, or with one content, belong together.

    Cases with one content are told.
    """
    owner: dict[str, str] = {}
    first: dict[str, str] = {}

    def root(patient: str) -> str:
        while owner.setdefault(patient, patient) != patient:
            patient = owner[patient]
        return patient

    patients = {row["name"]: row["patient"] or row["name"] for row in rows}
    for row in rows:
        other = first.setdefault(row["content"], row["name"])
        if other != row["name"]:
            note(f"{other} and {row['name']} hold the same numbers: count them as one")
        low, high = sorted((root(patients[other]), root(patients[row["name"]])))
        owner[high] = low
    return {name: root(patient) for name, patient in patients.items()}


def slices_picture(
    volume: Shaped[np.ndarray, "x y z"], spacing_mm: np.ndarray, low: float, high: float
) -> UInt8[np.ndarray, "rows columns"]:
    """The middle slices across z, y and x side by side, head up, front up in the first."""
    x, y, z = (n // 2 for n in volume.shape)
    cuts = [(volume[:, :, z], 0, 1), (volume[:, y], 0, 2), (volume[x], 1, 2)]
    parts = []
    for cut, across, up in cuts:
        grey = np.clip((np.asarray(cut, np.float32) - low) / (high - low), 0, 1) * 255
        shape = np.array(cut.shape) * spacing_mm[[across, up]]
        width = max(1, round(_HEIGHT * shape[0] / shape[1]))
        picture = Image.fromarray(grey.T[::-1].astype(np.uint8))
        parts.append(np.asarray(picture.resize((min(width, 4 * _HEIGHT), _HEIGHT))))
    return np.concatenate(parts, axis=1)


def points_picture(points: Shaped[np.ndarray, "p 3"]) -> UInt8[np.ndarray, "rows columns"]:
    """A surface's sampled points seen along z, y and x, to one scale."""
    middle, half = (points.min(0) + points.max(0)) / 2, np.ptp(points, axis=0).max() / 1.9
    edges = np.linspace(-half, half, _HEIGHT + 1)
    parts = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        moved = points[:, [a, b]] - middle[[a, b]]
        count = np.histogram2d(moved[:, 0], moved[:, 1], (edges, edges))[0]
        grey = np.sqrt(count / max(1.0, float(np.percentile(count, 99.5)))).clip(0, 1)
        parts.append((255 * grey).T[::-1].astype(np.uint8))
    return np.concatenate(parts, axis=1)


def png_bytes(picture: UInt8[np.ndarray, "rows columns"]) -> bytes:
    """An 8-bit PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def _page(rows: Sequence[Row], rejected: Sequence[Reject]) -> str:
    """One picture a case, with what was noted of it."""
    figures = [
        f'<figure><img loading="lazy" src="{PICTURES}/{html.escape(row["name"])}.png" alt="">'
        f"<figcaption>{html.escape(row['name'])}"
        + "".join(f"<br><small>{html.escape(line)}</small>" for line in row["warnings"])
        + "</figcaption></figure>"
        for row in rows
    ]
    lines = "".join(f"<li>{html.escape(f'{one.name}: {one.reason}')}</li>" for one in rejected)
    style = (
        "body{font:14px sans-serif;background:#111;color:#ddd}figure{display:inline-block;margin:6px;"
        "max-width:520px;vertical-align:top}img{max-width:100%}"
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{len(rows)} cases</title><style>{style}</style>'
        f"<h1>{len(rows)} cases, {len(rejected)} left out</h1>{''.join(figures)}<ul>{lines}</ul>\n"
    )
