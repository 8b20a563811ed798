"""A folder of organs, as meshes or label volumes, brought to one topology: a file a mesh, and a table."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jxrecon.correspondence.fit import Settings, fit, operators_of
from jxrecon.correspondence.mean_template import build_template, frequency_of
from jxrecon.correspondence.organ import sound, surface_of
from jxrecon.correspondence.soundness import Report
from jxrecon.files import write_file
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.io.nifti import is_volume, read_volume
from jxrecon.mesh import Mesh, Template
from jxrecon.mesh import template as template_of
from jxrecon.terminal import progress
from jxrecon.types import InputError

MESHES = (".ply", ".obj", ".stl", ".vtk", ".vtp")
"""Endings of the files that are read as surfaces."""

TEMPLATE, TABLE, REJECTED = "template.ply", "registration.csv", "rejected.txt"
"""Names of the other files."""

COLUMNS = ("mesh", "source", *Report._fields)
"""Columns of the table."""

VERTICES = 1002
"""Vertices of the template by default."""

WORST = 10
"""How many organs are printed."""

TEMPLATE_ORGANS = 12
"""Most organs whose mean becomes the template."""

_HEADS = {
    "mesh": "mesh", "mean mm": "assd_mm", "to organ": "to_organ_mm", "from organ": "from_organ_mm",
    "HD95": "hd95_mm", "largest": "largest_mm", "flipped": "flipped_faces",
    "self-cut": "self_intersecting_faces", "rim edges": "organ_rim_edges",
}  # fmt: skip
"""Head of a printed column -> its name in the file."""

Row = dict[str, str | float]


class Source(NamedTuple):
    """An organ to fit a template to.

    Attributes:
        name: name of its mesh.
        path: file of the surface or the label volume.
    """

    name: str
    path: Path


class Outcome(NamedTuple):
    """What became of a folder.

    Attributes:
        rows: rows of the table, by name.
        skipped: how many were there already.
        rejected: a line for each that cannot be used.
    """

    rows: list[Row]
    skipped: int
    rejected: list[str]


def find_organs(folder: Path, out: Path | None = None) -> list[Source]:
    """The surfaces and label volumes in a folder and below, in the order of their names.

    Args:
        folder: to look in.
        out: where results go; what is in there is no source.

    Raises:
        InputError: there is no such folder, nothing in it, it is `out`, or two files would have one
            name.
    """
    kinds = "PLY, OBJ, STL, VTK or NIfTI files"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected {kinds}")
    results = out.resolve() if out else None
    if results == folder.resolve():
        raise InputError(f"{out}: sources and results in one folder, expected two")
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and results not in path.resolve().parents
        and not path.name.startswith(".")
        and (is_volume(path) or path.suffix.lower() in MESHES)
    ]
    if not paths:
        raise InputError(f"{folder}: no organs found, expected {kinds}")
    short = [Path(path.name.removesuffix(".gz")).stem for path in paths]
    twice = Counter(short)
    sources = []
    for path, name in zip(paths, short):
        if twice[name] > 1:  # the folders tell them apart
            name = "_".join((*path.relative_to(folder).parts[:-1], name))
        sources.append(Source(name, path))
    count = Counter(source.name.lower() for source in sources)
    for source in sources:
        if count[source.name.lower()] > 1 or f"{source.name.lower()}.ply" == TEMPLATE:
            raise InputError(
                f"{source.path}: its mesh would be called {source.name}.ply like another file, "
                "expected other names"
            )
    return sorted(sources)


def read_organ(path: Path, label: int | None = None) -> Mesh:
    """The surface in a file, or of a label in a volume: one sound piece, faces outwards.

    Args:
        path: file of a surface or a label volume.
        label: value of the organ's voxels; None: all above 0.

    Raises:
        InputError: the file cannot be read, or holds no surface or no such label.
    """
    if is_volume(path):
        voxels, affine = read_volume(path)
        return surface_of(voxels, affine, label, origin=str(path))
    return sound(read_mesh(path), str(path))


def prepare_folder(
    sources: Sequence[Source],
    out: Path,
    template: Path | None = None,
    vertices: int = VERTICES,
    label: int | None = None,
    settings: Settings | None = None,
) -> Outcome:
    """Fits one template to all organs and writes meshes, table and template as they come.

    Meshes that are there with the template's faces and a row in the table are not fitted again.

    Args:
        sources: organs found by `find_organs`.
        out: folder to fill: template.ply, NAME.ply, registration.csv, rejected.txt.
        template: a mesh to use as the template; None: out/template.ply if there is one, else the mean
            of up to 12 of the organs on a geodesic sphere.
        vertices: how many such a template has; the nearest 10 f^2 + 2.
        label: see `read_organ`.
        settings: how the fits run.

    Raises:
        InputError: no organ can be used, the template is none or not the one in `out`, or the folder
            cannot be written.
    """
    settings, rejected = settings or Settings(), []
    shared = _template(sources, out, template, vertices, label, settings)
    operators = operators_of(shared, settings)
    known, rows, skipped = _read_table(out / TABLE), {}, 0
    for source in progress(sources, "fitting", len(sources)):
        path = out / f"{source.name}.ply"
        row, told = known.get(source.name), source.path.name
        if label is not None and is_volume(source.path):
            told += f":{label}"  # another label is another source
        if row and row["source"] == told and _finished(path, shared):
            rows[source.name], skipped = row, skipped + 1
            continue
        try:
            organ = read_organ(source.path, label)
            found = fit(shared, organ, settings, operators, origin=str(source.path))
        except InputError as error:
            rejected.append(f"{source.name}: {error}")
            print(f"left out: {rejected[-1]}", file=sys.stderr)
            continue
        write_mesh(path, Mesh(found.vertices, shared.faces))
        rows[source.name] = {"mesh": source.name, "source": told, **found.report._asdict()}
        _write_table(out / TABLE, {**known, **rows})
    ordered = [rows[source.name] for source in sources if source.name in rows]
    write_file(out / REJECTED, "".join(f"{line}\n" for line in rejected))
    if not ordered:
        raise InputError(f"none of the {len(rejected)} organs can be used; {rejected[0]}")
    return Outcome(ordered, skipped, rejected)


def _template(
    sources: Sequence[Source],
    out: Path,
    given: Path | None,
    vertices: int,
    label: int | None,
    settings: Settings,
) -> Template:
    path = out / TEMPLATE
    there = template_of(read_mesh(path), str(path)) if path.is_file() else None
    if given is not None:
        wanted = template_of(read_mesh(given), str(given))
        if there and not np.array_equal(there.faces, wanted.faces):
            raise InputError(f"{path}: another template than {given}, expected the same or none")
    else:
        count = 10 * frequency_of(vertices) ** 2 + 2
        if there and len(there.vertices) != count:
            raise InputError(
                f"{path}: a template of {len(there.vertices)} vertices, expected {count}; "
                "give --template, --vertices or another folder"
            )
        wanted = there or build_template(typical(sources, label), vertices, settings)
    if there is None:
        write_mesh(path, Mesh(wanted.vertices, wanted.faces))
    return there or wanted


def typical(sources: Sequence[Source], label: int | None = None) -> list[Mesh]:
    """Some usable organs spread over the list, the one whose extents are nearest to the median first.

    Raises:
        InputError: none can be used.
    """
    organs: list[Mesh] = []
    first = None
    # Every n-th first; the others stand in for those that cannot be used.
    step = max(1, len(sources) // TEMPLATE_ORGANS)
    order = [source for start in range(step) for source in sources[start::step]]
    for source in order:
        try:
            organs.append(read_organ(source.path, label))
        except InputError as error:
            first = first or error
        if len(organs) == TEMPLATE_ORGANS:
            break
    if not organs:
        raise InputError(f"none of the {len(sources)} organs can be used; {first}")
    extents = np.array([np.ptp(organ.vertices, axis=0) for organ in organs])
    off = np.abs(np.log(extents / np.median(extents, axis=0))).sum(1)
    return [organs[n] for n in np.argsort(off, kind="stable")]


def _finished(path: Path, template: Template) -> bool:
    try:
        mesh = read_mesh(path)
    except InputError:
        return False
    same = np.array_equal(mesh.faces, template.faces)
    return same and len(mesh.vertices) == len(template.vertices)


def _write_table(path: Path, rows: dict[str, Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for _, row in sorted(rows.items()):
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    write_file(path, text.getvalue())


def _read_table(path: Path) -> dict[str, Row]:
    """The rows of a table, by name; none where there is no table or it has other columns."""
    rows: dict[str, Row] = {}
    if not path.is_file():
        return rows
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            return rows
        for cells in reader:
            try:
                numbers = {
                    name: float(cells[name]) if name.endswith("_mm") else int(cells[name])
                    for name in Report._fields
                }
            except (TypeError, ValueError):
                continue
            rows[cells["mesh"]] = {"mesh": cells["mesh"], "source": cells["source"], **numbers}
    return rows


def print_quality(rows: Sequence[Row]) -> None:
    """Prints a summary of the fits, and the worst organs by mean surface distance."""
    distances = np.array([float(row["assd_mm"]) for row in rows])
    sound_ones = sum(row["flipped_faces"] == 0 for row in rows)
    uncut = sum(row["self_intersecting_faces"] == 0 for row in rows)
    low, middle, high = np.percentile(distances, [5, 50, 95])
    worst = sorted(rows, key=lambda row: -float(row["assd_mm"]))[:WORST]
    table = Table(title=f"the worst {len(worst)} of {len(rows)} organs by mean surface distance")
    for n, head in enumerate(_HEADS):
        table.add_column(head, justify="right" if n else "left", no_wrap=True)
    for row in worst:
        cells = (row[name] for name in _HEADS.values())
        table.add_row(*(Text(f"{v:.2f}" if isinstance(v, float) else str(v)) for v in cells))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(
        f"mean surface distance {distances.mean():.2f} mm (median {middle:.2f}, 5 % {low:.2f}, 95 % "
        f"{high:.2f}, largest {distances.max():.2f}); no flipped face in {sound_ones}, none that cuts "
        f"another in {uncut} of {len(rows)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
