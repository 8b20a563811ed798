"""The volumes of an experiment: the built-in synthetic population or a folder of CTs, on one grid."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int16, Int32
from scipy.spatial import cKDTree

from jxrecon import phantom
from jxrecon.data.body import TISSUE_HU, body_mask, fill_cavities, without_surroundings
from jxrecon.data.openkbp import field_centres, is_openkbp, samples_of
from jxrecon.experiment import Experiment
from jxrecon.geometry import Grid, box_corners_mm
from jxrecon.io.cache import fingerprint, load_arrays, save_arrays, stamp
from jxrecon.io.ct import ENDINGS, holds_ct, patient_of, read_ct
from jxrecon.io.finding import by_case
from jxrecon.io.nifti import resample
from jxrecon.terminal import note, progress
from jxrecon.types import InputError, SceneBatch, VolumeBatch
from jxrecon.units import HU_AIR, Stated

LIMITS_HU = (-1024, 3071)
"""What a 12-bit CT can hold; paddings such as -2048 are air."""

CT_ENDINGS = tuple(f"_ct{ending}" for ending in ENDINGS)
"""What follows the name of a case in its file's, in any case of letters; a DICOM folder is a case, too."""

COVERAGE = 0.9
"""Share of the field's height that the body must fill."""

SAME_HU = 1.0
"""Root mean square of the difference of block means up to which two volumes are one CT."""

_NOBODY = re.compile(r"^\W*$|^[0x]+$|anon|unknown|none|de-?ident|patient ?id", re.I)
_CACHE_FORMAT = 2  # raised when a change of the code changes what is read
_THREADS = 2


class Scenes(NamedTuple):
    """The whole CTs about the fields of a split, all of one shape: smaller ones have air around them.

    Attributes:
        hu: CT values in HU, axes [case, x, y, z] (RAS); a memory map where they were cached.
        affines: index -> mm in the frame of the experiment's grid: the cameras' world.
        beyond: share of the patients' voxels that lie outside of the field; 0: no surround.
    """

    hu: Int16[np.ndarray, "n i j k"]
    affines: Float64[np.ndarray, "n 4 4"]
    beyond: float


class VolumeSet(NamedTuple):
    """Volumes on the grid of an experiment.

    Attributes:
        names: names of the n cases, no two alike.
        hu: CT values in HU, air outside the body, axes [case, x, y, z].
        body: True inside the patient, cavities included.
        affines: index -> the patient's own world in mm (RAS), where the file had one.
        scenes: the whole CTs that X-rays show; None: the fields alone.
    """

    names: tuple[str, ...]
    hu: Int16[np.ndarray, "n x y z"]
    body: Bool[np.ndarray, "n x y z"]
    affines: Float64[np.ndarray, "n 4 4"]
    scenes: Scenes | None = None

    def batch(self, index: Int32[np.ndarray, " b"]) -> VolumeBatch | SceneBatch:
        """These cases, on the host: hu in float32."""
        hu = self.hu[index].astype(np.float32)
        if self.scenes is None:
            return VolumeBatch(hu, index)  # type: ignore[arg-type]
        affine = self.scenes.affines[index].astype(np.float32)
        return SceneBatch(hu, index, self.scenes.hu[index], affine)  # type: ignore[arg-type]

    def some(self, places: Int[np.ndarray, " m"]) -> VolumeSet:
        """The cases at these places alone."""
        scenes = self.scenes
        if scenes is not None:
            scenes = scenes._replace(hu=scenes.hu[places], affines=scenes.affines[places])
        names = tuple(self.names[place] for place in places)
        return VolumeSet(names, self.hu[places], self.body[places], self.affines[places], scenes)


class Dataset(NamedTuple):
    """The splits of an experiment and where they come from.

    Attributes:
        train: what methods learn from.
        validation: what they are judged on.
        rule: where the data comes from and how it was cut, in a sentence or two to be printed.
        synthetic: whether it is made up.
        test: the split of a third subfolder, where there is one.
        rejected: one line a file that was left out.
    """

    train: VolumeSet
    validation: VolumeSet
    rule: str
    synthetic: bool
    test: VolumeSet | None = None
    rejected: tuple[str, ...] = ()


class _Case(NamedTuple):
    """One file to be read; `centre_mm` None: where the body says."""

    path: Path
    name: str
    centre_mm: tuple[float, float, float] | None


def load(experiment: Experiment, folder: Path | None, cache: Path | None = None) -> Dataset:
    """The data of an experiment, on its grid.

    Args:
        experiment: its field says the grid, its population the built-in subjects.
        folder: subfolders train/, validation/ and perhaps test/ of `NAME_ct.nii.gz` (or another ending that
            `io.ct` reads) or folders NAME of DICOM slices;
            None is the synthetic population. With the patients.csv of openkbp_hn the field is the
            standard one; otherwise it lies about the middle of each body's bounding box.
        cache: where to keep what was read, for the next time; None keeps nothing.

    Raises:
        InputError: the folder lacks a split, no file of a split can be used, or one CT is in two splits.
    """
    if folder is None:
        return _synthetic(experiment)
    grid, folder = experiment.field.grid, Path(folder)
    standard = is_openkbp(folder)
    samples = samples_of(grid) if standard else None
    sets: dict[str, VolumeSet] = {}
    rejected: list[str] = []
    splits = [s for s in ("train", "validation", "test") if s != "test" or (folder / s).is_dir()]
    found = {split: _cases(folder, split, standard) for split in splits}
    _refuse_patients(found, folder)
    for split, cases in found.items():
        sets[split], bad = _read_split(cases, split, grid, samples, cache, experiment.ct)
        rejected += bad
    for line in rejected:
        print(f"left out: {line}", file=sys.stderr)
    refuse_shared(sets, folder)
    extent = " x ".join(f"{n:.0f}" for n in grid.extent_mm)
    place = (
        "standard field of openkbp_hn (10 mm before and 50 mm below the parotids, covers_hn = 1)"
        if standard
        else f"field about the middle of the body's bounding box, {COVERAGE:.0%} of its height filled"
    )
    counts = ", ".join(f"{len(volumes.names)} {split}" for split, volumes in sets.items())
    rule = (
        f"CT of {folder.resolve().name}/: {place}, {extent} mm, air outside the body; "
        f"{counts}, {len(rejected)} left out."
    )
    return Dataset(
        sets["train"], sets["validation"], rule, False, sets.get("test"), tuple(rejected)
    )


def _synthetic(experiment: Experiment) -> Dataset:
    """Subjects 0 .. train-1 of the built-in population, and the next ones for validation."""
    grid, population = experiment.field.grid, experiment.population
    if min(population.train, population.validation) < 1:
        raise InputError(
            f"population: {population.train} train and {population.validation} validation subjects, "
            "expected at least one of each"
        )

    def split(start: int, count: int) -> VolumeSet:
        subjects = progress(range(start, start + count), "painting synthetic subjects", count)
        hu = np.stack([phantom.population(grid, population.seed, i, 1)[0] for i in subjects])
        return VolumeSet(
            names=tuple(f"synthetic_{i:04d}" for i in range(start, start + count)),
            hu=hu,
            body=np.stack([fill_cavities(volume > TISSUE_HU) for volume in hu]),
            affines=np.tile(grid.affine, (count, 1, 1)),
        )

    rule = (
        f"SYNTHETIC head-and-neck population, seed {population.seed}: subjects 0 to "
        f"{population.train - 1} train, the next {population.validation} validation."
    )
    train = split(0, population.train)
    return Dataset(train, split(population.train, population.validation), rule, True)


def _cases(folder: Path, split: str, standard: bool) -> list[_Case]:
    if not (folder / split).is_dir():
        raise InputError(f"{folder}: no subfolder {split}/, expected train/ and validation/")
    centres = field_centres(folder, split) if standard else {}
    files = by_case(
        folder / split, CT_ENDINGS, lambda name: not standard or name in centres, holds_ct
    )
    cases = {name: _Case(path, name, centres.get(name)) for name, path in files.items()}
    if not cases:
        wanted = " of patients with covers_hn = 1" if standard else ""
        raise InputError(
            f"{folder / split}: no volumes, expected files NAME_ct.nii.gz or DICOM folders{wanted}"
        )
    for name in sorted(centres.keys() - cases.keys()):  # to be listed as absent
        cases[name] = _Case(folder / split / f"{name}{CT_ENDINGS[0]}", name, centres[name])
    return list(cases.values())


def _refuse_patients(found: Mapping[str, Sequence[_Case]], folder: Path) -> None:
    """Refuses a patient in two splits, by the Patient ID of DICOM; IDs that name nobody are told."""
    seen: dict[str, tuple[str, _Case]] = {}
    for split, case in ((split, case) for split, cases in found.items() for case in cases):
        patient = patient_of(case.path)
        other, first = seen.setdefault(patient, (split, case))
        if not patient or other == split:
            continue
        both = f"{split}/{case.name} and {other}/{first.name} have one Patient ID, {patient!r}"
        if not _NOBODY.search(patient):
            raise InputError(f"{folder}: {both}, expected no patient in two splits")
        note(f"{folder}: {both}")


def refuse_shared(sets: Mapping[str, VolumeSet], folder: Path) -> None:
    """Refuses a CT that is in two splits, under whatever name, and tells of one that is twice in a split.

    CTs are the same where the means of their voxels over blocks are: files may differ in compression, type
    or origin.

    Raises:
        InputError: two splits share a CT.
    """
    items = [(split, name) for split, cases in sets.items() for name in cases.names]
    blocks = np.concatenate([_blocks(cases.hu) for cases in sets.values()])
    pairs = cKDTree(blocks).query_pairs(SAME_HU * np.sqrt(blocks.shape[1]))
    for (one, a), (other, b) in ((items[i], items[j]) for i, j in sorted(pairs)):
        if one != other:
            raise InputError(
                f"{folder}: {other}/{b} is the same CT as {one}/{a}, expected no patient in two splits"
            )
        note(f"{folder}: {one}/{b} is the same CT as {one}/{a}")


def _blocks(hu: Int16[np.ndarray, "n x y z"]) -> np.ndarray:
    """Means over up to 8 blocks of voxels along each axis, a row a volume."""
    means, size = hu.astype(np.float32), 1
    for axis, n in enumerate(hu.shape[1:], start=1):
        starts = np.unique(np.linspace(0, n, 9).astype(int)[:-1])
        means, size = np.add.reduceat(means, starts, axis), size * n / len(starts)
    return means.reshape(len(hu), -1) / size


def _read_split(
    cases: Sequence[_Case],
    split: str,
    grid: Grid,
    samples: tuple[int, int, int] | None,
    cache: Path | None,
    stated: Stated,
) -> tuple[VolumeSet, list[str]]:
    stamps = [(case.centre_mm, *stamp(case.path)) for case in cases]
    key = fingerprint(
        _CACHE_FORMAT, grid.shape, grid.affine.tolist(), samples, stamps, astuple(stated)
    )
    kept = None if cache is None else Path(cache) / f"{split}_{key[:16]}.npz"
    names = [case.name for case in cases]
    return read_split(
        names, lambda n: _read_case(cases[n], grid, samples, stated), f"{split}/", kept, key
    )


def read_split(
    names: Sequence[str],
    read: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
    place: str,
    kept: Path | None,
    key: str,
) -> tuple[VolumeSet, list[str]]:
    """All usable cases of a split, from the cache where it is that of the key; and a line for each other one.

    Args:
        names: names of the cases.
        read: number of a case -> HU, body and affine; what cannot be used raises InputError.
        place: where the cases lie, to be printed.
        kept: file of the cache; None keeps nothing.
        key: fingerprint of all that the volumes depend on.

    Raises:
        InputError: no case can be used.
    """
    if kept is not None and (found := load_arrays(kept, key)) is not None:
        good, hu = tuple(found["names"].tolist()), found["hu"]
        body = np.unpackbits(found["body"], count=hu.size).astype(bool).reshape(hu.shape)
        return VolumeSet(good, hu, body, found["affines"]), found["rejected"].tolist()

    def usable(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | InputError:
        try:
            return read(number)
        except InputError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(usable, range(len(names)))
        results = list(progress(made, f"reading {place}", len(names)))
    cases = [(name, r) for name, r in zip(names, results) if not isinstance(r, InputError)]
    bad = [str(r) for r in results if isinstance(r, InputError)]
    if not cases:
        raise InputError(f"none of the {len(bad)} volumes of {place} can be used; {bad[0]}")
    hu, body, affines = map(np.stack, zip(*(r for _, r in cases)))
    volumes = VolumeSet(tuple(n for n, _ in cases), hu, body, affines)
    if kept is not None:
        arrays = {"names": volumes.names, "hu": volumes.hu, "affines": volumes.affines}
        packed = {"body": np.packbits(volumes.body), "rejected": np.array(bad, np.str_)}
        save_arrays(kept, key, arrays | packed)
    return volumes, bad


def _read_case(
    case: _Case, grid: Grid, samples: tuple[int, int, int] | None, stated: Stated
) -> tuple[Int16[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"], Float64[np.ndarray, "4 4"]]:
    """HU and body of one file on the field, and the field's place in the patient."""
    hu, affine = read_ct(case.path, stated)
    body = body_mask(hu, affine)
    if not body.any():
        raise InputError(f"{case.path}: no body found, expected a CT of a patient in HU")
    low, high = _bounds_mm(body, affine)
    centre = (low + high) / 2 if case.centre_mm is None else np.array(case.centre_mm)
    placed = grid.affine.copy()
    placed[:3, 3] += centre - grid.centre_mm
    half = grid.extent_mm[2] / 2
    height = min(high[2], centre[2] + half) - max(low[2], centre[2] - half)
    if height < COVERAGE * 2 * half:
        raise InputError(
            f"{case.path}: the body fills {max(height, 0):.0f} mm of the field's {2 * half:.0f} mm "
            f"from foot to head, expected at least {COVERAGE:.0%}"
        )
    place = Grid(grid.shape, placed)
    cut = resample(without_surroundings(hu, body), affine, place, HU_AIR, samples)
    return (
        np.rint(cut).clip(*LIMITS_HU).astype(np.int16),
        resample(body, affine, place, 0.0, samples) >= 0.5,
        placed,
    )


def _bounds_mm(
    body: Bool[np.ndarray, "x y z"], affine: Float64[np.ndarray, "4 4"]
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest world coordinates of the box of voxels around the body, [3] each."""
    ends = []
    for axis in range(3):
        inside = np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((inside[0] - 0.5, inside[-1] + 0.5))
    corners = box_corners_mm(ends, affine)
    return corners.min(0), corners.max(0)
