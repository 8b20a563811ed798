"""A folder of organs, as meshes or label volumes, brought to one topology: a file a mesh, and a table."""

from __future__ import annotations

import csv
import io
import re
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
from jxrecon.correspondence.likeness import check_extent, check_like
from jxrecon.correspondence.mean_template import build_template, frequency_of
from jxrecon.correspondence.organ import sound, surface_of
from jxrecon.correspondence.soundness import Report
from jxrecon.files import write_file
from jxrecon.io.finding import find_files, safe_names
from jxrecon.io.meshes import Unsaid, read_mesh, write_mesh
from jxrecon.io.nifti import is_volume, read_volume
from jxrecon.io.preparation import (
    How,
    Made,
    Outcome,
    Source,
    content_of,
    groups_of,
    points_picture,
    prepare,
)
from jxrecon.mesh import Mesh, Template
from jxrecon.mesh import template as template_of
from jxrecon.mesh.points import sampled
from jxrecon.terminal import noted
from jxrecon.types import InputError

MESHES = (".ply", ".obj", ".stl", ".vtk", ".vtp")
"""Endings of the files that are read as surfaces."""

TEMPLATE, TABLE = "template.ply", "registration.csv"
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


class Shape(NamedTuple):
    """The template.

    Attributes:
        template: a mesh to use; None: out/template.ply if there is one, else the mean of up to 12 of the
            organs on a geodesic sphere.
        vertices: how many such a mean has; the nearest 10 f^2 + 2.
    """

    template: Path | None = None
    vertices: int = VERTICES


class Reading(NamedTuple):
    """How the sources are read.

    Attributes:
        label: value of the organ's voxels in label volumes; None: all above 0.
        largest: leave all pieces but the largest out, however large they are.
        unsaid: frame and units of surfaces whose files do not say them.
    """

    label: int | None = None
    largest: bool = False
    unsaid: Unsaid = Unsaid()


def find_organs(folder: Path, out: Path | None = None) -> list[Source]:
    """The surfaces and label volumes in a folder and below, in the order of their names.

    Args:
        folder: to look in.
        out: where results go; what is in there is no source.

    Raises:
        InputError: there is no such folder, nothing in it, it is `out`, or a file is called template.
    """
    kinds = "PLY, OBJ, STL, VTK or NIfTI files"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected {kinds}")
    found = find_files(
        folder, lambda path: is_volume(path) or path.suffix.lower() in MESHES, apart=out
    ).told(folder)
    if not found.files:
        raise InputError(f"{folder}: no organs found, expected {kinds}")
    short = [Path(re.sub(r"\.gz$", "", path.name, flags=re.I)).stem for path in found.files]
    twice = Counter(name.lower() for name in short)
    wanted = []
    for path, name in zip(found.files, short):
        place = path.relative_to(folder)
        if twice[name.lower()] > 1:  # the folders tell them apart
            name = "_".join((*place.parts[:-1], name))
        if f"{name.lower()}.ply" == TEMPLATE:
            raise InputError(
                f"{path}: its mesh would be called {TEMPLATE} as the template is, expected another name"
            )
        wanted.append((name, str(place)))
    names = safe_names(wanted)
    return sorted(Source(name, name, (path,)) for name, path in zip(names, found.files))


def read_organ(path: Path, reading: Reading = Reading()) -> Mesh:  # noqa: B008
    """The surface in a file, or of a label in a volume: one sound piece, faces outwards.

    Raises:
        InputError: the file cannot be read, holds no surface or no such label, or several large pieces.
    """
    if is_volume(path):
        voxels, affine = read_volume(path)
        return surface_of(voxels, affine, reading.label, origin=str(path), largest=reading.largest)
    return sound(read_mesh(path, unsaid=reading.unsaid), str(path), reading.largest)


def prepare_folder(
    sources: Sequence[Source],
    out: Path,
    shape: Shape = Shape(),  # noqa: B008
    reading: Reading = Reading(),  # noqa: B008
    how: How = How(),  # noqa: B008
    settings: Settings | None = None,
) -> Outcome:
    """Fits one template to all organs and writes NAME.ply, template.ply and registration.csv.

    An organ much larger or smaller than the template, or half turned round, is left out: see `likeness`.

    Args:
        sources: organs found by `find_organs`.
        out: folder to fill, see also `preparation`.
        shape: the template.
        reading: how sources are read.
        how: how they are prepared; a dry run fits nothing.
        settings: how the fits run.

    Raises:
        InputError: no organ can be used, the template is none or not the one in `out`, or the folder
            cannot be written.
    """
    settings = settings or Settings()
    if how.dry:
        shared = template_of(typical(sources, reading)[0])
    else:
        shared = _template(sources, out, shape, reading, settings)
    operators = None if how.dry else operators_of(shared, settings)

    def make(source: Source) -> Made:
        path = source.files[0]
        organ = read_organ(path, reading)
        check_like(organ, shared, str(path))

        def write() -> tuple[list[Path], dict[str, object]]:
            found = fit(shared, organ, settings, operators, origin=str(path))
            write_mesh(out / f"{source.name}.ply", Mesh(found.vertices, shared.faces))
            return [out / f"{source.name}.ply"], {"fit": found.report._asdict()}

        picture = points_picture(sampled(organ.vertices, organ.faces, 20_000).points)
        size = 12 * len(shared.vertices) + 13 * len(shared.faces) + 300
        return Made(write, size, content_of(1000 * organ.vertices), {"crop": None}, picture)

    asked = {
        "set": "meshes",
        **reading._asdict(),
        "fit": settings,
        "template": None if how.dry else content_of(1000 * shared.vertices),
    }
    outcome = prepare(sources, out, make, asked, how)
    if not outcome.rows:
        raise InputError(
            f"none of the {len(outcome.rejected)} organs can be used; {outcome.rejected[0].reason}"
        )
    groups_of(outcome.rows)  # tells of those that are there twice
    if not how.dry:
        _write_table(out / TABLE, table_of(outcome, reading))
    return outcome


def table_of(outcome: Outcome, reading: Reading = Reading()) -> list[Row]:  # noqa: B008
    """The rows of the table: which mesh, from what, and how near it lies."""
    rows = []
    for row in outcome.rows:
        path = Path(row["sources"][0]["path"])
        labelled = reading.label is not None and is_volume(path)
        source = f"{path.name}:{reading.label}" if labelled else path.name
        rows.append({"mesh": row["name"], "source": source, **row["fit"]})
    return rows


def _template(
    sources: Sequence[Source], out: Path, shape: Shape, reading: Reading, settings: Settings
) -> Template:
    path, given = out / TEMPLATE, shape.template
    there = template_of(read_mesh(path), str(path)) if path.is_file() else None
    if given is not None:
        wanted = template_of(read_mesh(given), str(given))
        if there and not np.array_equal(there.faces, wanted.faces):
            raise InputError(f"{path}: another template than {given}, expected the same or none")
    else:
        count = 10 * frequency_of(shape.vertices) ** 2 + 2
        if there and len(there.vertices) != count:
            raise InputError(
                f"{path}: a template of {len(there.vertices)} vertices, expected {count}; "
                "give --template, --vertices or another folder"
            )
        wanted = there or build_template(typical(sources, reading), shape.vertices, settings)
    if there is None:
        write_mesh(path, Mesh(wanted.vertices, wanted.faces))
    return there or wanted


def typical(sources: Sequence[Source], reading: Reading = Reading()) -> list[Mesh]:  # noqa: B008
    """Some usable organs spread over the list, the one whose extents are nearest to the median first.

    Those that are not like it, see `likeness`, are left out.

    Raises:
        InputError: none can be used.
    """
    organs: list[tuple[Mesh, str]] = []
    first = None
    # Every n-th first; the others stand in for those that cannot be used.
    step = max(1, len(sources) // TEMPLATE_ORGANS)
    order = [source for start in range(step) for source in sources[start::step]]
    with noted():  # told when each is prepared
        for source in order:
            path = source.files[0]
            try:
                organ = read_organ(path, reading)
                check_extent(organ, str(path))
                organs.append((organ, str(path)))
            except InputError as error:
                first = first or error
            if len(organs) == TEMPLATE_ORGANS:
                break
    if not organs:
        raise InputError(f"none of the {len(sources)} organs can be used; {first}")
    extents = np.array([np.ptp(organ.vertices, axis=0) for organ, _ in organs])
    off = np.abs(np.log(extents / np.median(extents, axis=0))).sum(1)
    ordered = [organs[n] for n in np.argsort(off, kind="stable")]
    return [organ for organ, path in ordered if _is_like(organ, ordered[0][0], path)]


def _is_like(organ: Mesh, first: Mesh, path: str) -> bool:
    try:
        check_like(organ, first, path)
    except InputError:
        return False
    return True


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    write_file(path, text.getvalue())


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
