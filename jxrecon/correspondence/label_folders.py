"""Folders of organ labels, as public sets have them, made into surfaces: what `jxrecon prepare labels` does.

Medical Decathlon    labelsTr/liver_12.nii.gz beside imagesTr/ and dataset.json
LiTS                 segmentation-12.nii beside volume-12.nii
TotalSegmentator     s0012/segmentations/liver.nii.gz, a file an organ
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jxrecon.correspondence.likeness import check_extent
from jxrecon.correspondence.organ import surface_of
from jxrecon.io.finding import Found, ends, find_files, safe_names
from jxrecon.io.meshes import write_mesh
from jxrecon.io.nifti import read_volume
from jxrecon.io.preparation import How, Made, Outcome, Source, content_of, points_picture, prepare
from jxrecon.mesh.points import sampled
from jxrecon.types import InputError

_NIFTI = (".nii.gz", ".nii")


class Settings(NamedTuple):
    """Which organ of the labels.

    Attributes:
        organ: name of TotalSegmentator's file without its ending.
        labels: values of the organ's voxels; none: all above 0, as liver and tumours in it.
        largest: leave all parts but the largest out, however large they are.
    """

    organ: str | None = None
    labels: tuple[int, ...] = ()
    largest: bool = False


def find_labels(folder: Path, organ: str | None, out: Path | None = None) -> list[Source]:
    """A source for every label volume of the organ, in whichever of the layouts a folder has.

    Raises:
        InputError: there is no such folder, no labels in it, or TotalSegmentator's without an organ.
    """
    found = find_files(folder, lambda path: ends(path, _NIFTI) is not None, apart=out)
    cases: list[tuple[str, Path]] = []
    organs, passed = set(), list(found.passed)
    for path in found.files:
        stem, above = path.name[: -len(ends(path, _NIFTI) or "")], path.parent.name
        if above.lower() == "segmentations":
            organs.add(stem)
            if stem == organ:
                cases.append((path.parent.parent.name, path))
                continue
        elif above.lower() in ("labelstr", "labelsts") or stem.lower().startswith("segmentation-"):
            cases.append((stem, path))
            continue
        passed.append((path, "that are no labels of it"))
    if not cases and organs:
        raise InputError(
            f"{folder}: no labels of --organ {organ}, expected one of {', '.join(sorted(organs)[:12])} ..."
        )
    if not cases:
        raise InputError(
            f"{folder}: no labels, expected labelsTr/NAME.nii.gz, segmentation-N.nii or "
            "NAME/segmentations/ORGAN.nii.gz (of other label volumes jxrecon prepare meshes takes --label)"
        )
    Found(tuple(path for _, path in cases), tuple(passed)).told(folder)
    names = safe_names([(name, str(path.relative_to(folder))) for name, path in cases])
    return sorted(Source(name, name, (path,)) for name, (_, path) in zip(names, cases))


def prepare_folder(sources: list[Source], out: Path, settings: Settings, how: How) -> Outcome:
    """Writes NAME.ply, the organ's surface by marching cubes, of every source; see `preparation`.

    Raises:
        InputError: no labels can be used, or the folder cannot be written.
    """

    def make(source: Source) -> Made:
        path = source.files[0]
        labels, affine = read_volume(path)
        if (labels != np.rint(labels)).any() or labels.min() < 0:
            raise InputError(
                f"{path}: holds {labels.min():g} to {labels.max():g}, expected whole labels"
            )
        if settings.labels and not np.isin(labels, settings.labels).any():
            held = ", ".join(f"{value:g}" for value in np.unique(labels)[:12])
            raise InputError(f"{path}: no voxel of {settings.labels}, it holds {held}")
        organ = np.isin(labels, settings.labels) if settings.labels else labels > 0
        mesh = surface_of(
            organ.astype(np.uint8), affine, 1, origin=str(path), largest=settings.largest
        )
        check_extent(mesh, str(path))
        target = out / f"{source.name}.ply"

        def write() -> tuple[list[Path], dict[str, object]]:
            write_mesh(target, mesh)
            return [target], {}

        facts = {"affine": affine.tolist(), "shape": list(labels.shape), "crop": None}
        picture = points_picture(sampled(mesh.vertices, mesh.faces, 20_000).points)
        size = 13 * len(mesh.faces) + 12 * len(mesh.vertices) + 300
        return Made(write, size, content_of(organ), facts, picture)

    outcome = prepare(sources, out, make, {"set": "labels", **settings._asdict()}, how)
    if not outcome.rows:
        raise InputError(
            f"none of the {len(outcome.rejected)} labels can be used; {outcome.rejected[0].reason}"
        )
    return outcome
