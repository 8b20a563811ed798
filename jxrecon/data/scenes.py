"""Scenes: the whole CT about each field, as its file has it, from which X-rays are projected.

An X-ray goes through all of the patient: shoulders beside the field, head and chest above and below
it. A case is therefore its scene, and the field is what is cut from it to be reconstructed. SYNTHETIC
subjects are painted twice: finely in the field, coarsely from head to chest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int16, Shaped

from jxrecon import phantom
from jxrecon.data import volumes
from jxrecon.data.body import TISSUE_HU, body_mask, fill_cavities, without_surroundings
from jxrecon.data.volumes import CT_ENDINGS, LIMITS_HU, Dataset, Scenes, VolumeSet
from jxrecon.experiment import Experiment
from jxrecon.files import whole
from jxrecon.geometry import Grid
from jxrecon.io.cache import fingerprint, stamp
from jxrecon.io.ct import holds_ct, read_ct
from jxrecon.io.finding import of_cases
from jxrecon.terminal import progress
from jxrecon.types import InputError
from jxrecon.units import HU_AIR, NOTHING_STATED, Stated

FINEST_MM = 2.0
"""Voxels finer than half of this are merged: an X-ray's pixel is about 2 mm wide at the patient."""

MOST_MERGED = 256
"""And voxels of any size along an axis that has more of them than this."""

PAINTED_MM = (4.0, 6.0)
"""The finest and the coarsest voxels of a SYNTHETIC scene: 2 MB and 0.3 s a subject, 0.6 MB and 0.1 s."""

INVERSE_CRIME = "X-rays of the field alone, an inverse crime: no X-ray of a patient looks like that"
"""What `--xrays field` is called wherever it stands."""

_CACHE_FORMAT = 2  # raised when a change of the code changes what is read
_THREADS = 2


def load(experiment: Experiment, folder: Path | None, cache: Path | None = None) -> Dataset:
    """`volumes.load`, with the scenes of its cases; without them where X-rays show the field alone.

    Arguments, and errors, as there.

    Raises:
        InputError: `xrays.of` of the experiment is neither "patient" nor "field".
    """
    of = experiment.xrays.of
    if of not in ("patient", "field"):
        raise InputError(f"xrays.of is {of!r}, expected patient or field")
    data = volumes.load(experiment, folder, cache)
    if of == "field":
        return data._replace(rule=f"{data.rule} {INVERSE_CRIME[0].upper()}{INVERSE_CRIME[1:]}.")
    splits = {s: cases for s in ("train", "validation", "test") if (cases := getattr(data, s))}
    for split, cases in splits.items():
        if folder is None:
            first = 0 if split == "train" else experiment.population.train
            numbers = range(first, first + len(cases.names))
            scenes = painted(numbers, experiment.population.seed, experiment.field.grid)
        else:
            at = Path(folder) / split
            grid, table = experiment.field.grid, experiment.xrays.table
            scenes = scenes_of(cases, at, grid, cache, table, experiment.ct)
        splits[split] = cases._replace(scenes=scenes)
    return data._replace(**splits, rule=f"{data.rule} {rule_of(splits['train'].scenes)}")


def rule_of(scenes: Scenes) -> str:
    """What the X-rays show, in a sentence to be printed."""
    if scenes.beyond <= 0.0:
        return "X-rays of the field, which holds all of every CT: there is no surround."
    return f"X-rays of the whole CT: {scenes.beyond:.0%} of the patients' voxels lie outside the field."


def scenes_of(
    cases: VolumeSet,
    folder: Path,
    grid: Grid,
    cache: Path | None = None,
    table: bool = False,
    stated: Stated = NOTHING_STATED,
) -> Scenes:
    """The scenes of cases that `volumes.load` has read.

    Args:
        cases: a split.
        folder: the files of the split.
        grid: of the experiment.
        cache: where to keep what was read, as a memory map; None keeps nothing.
        table: keep the table, masks and tubes instead of air outside the body.
        stated: what the user says about the numbers in the files.

    Raises:
        InputError: a file is gone or damaged.
    """
    paths = list(of_cases(folder, CT_ENDINGS, cases.names, "CT", holds_ct).values())
    facts = [stamp(path) for path in paths]
    places = cases.affines.tolist(), grid.affine.tolist()
    key = fingerprint(_CACHE_FORMAT, FINEST_MM, MOST_MERGED, table, facts, astuple(stated), *places)
    stem = None if cache is None else Path(cache) / f"scenes_{folder.name}_{key[:32]}"
    if stem is None or (found := _cached(stem)) is None:
        found = _read(paths, cases, grid, table, stated)
        if stem is not None:
            found = _kept(stem, found)
    hu, affines, beyond = found
    return Scenes(hu, affines, float(beyond))


def painted(numbers: Sequence[int], seed: int, grid: Grid) -> Scenes:
    """The scenes of these SYNTHETIC subjects, with voxels of about the field's size but within `PAINTED_MM`.

    Args:
        numbers: of the subjects.
        seed: of the population.
        grid: of the experiment.
    """
    voxel_mm = float(np.clip(np.prod(grid.spacing_mm) ** (1 / 3), *PAINTED_MM))
    shown = progress(numbers, "painting what lies about the field", len(numbers))
    hu, affines = map(np.stack, zip(*(phantom.scene(seed, n, voxel_mm) for n in shown)))
    to_field = np.linalg.inv(affines[0]) @ grid.affine
    bodies = [fill_cavities(scene > TISSUE_HU) for scene in hu]
    inside = sum(_within(body, to_field, grid.shape) for body in bodies)
    return Scenes(hu, affines, 1.0 - inside / float(np.sum(bodies)))


_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _read(paths: list[Path], cases: VolumeSet, grid: Grid, table: bool, stated: Stated) -> _Arrays:
    """hu, affines and share beyond the field of all cases."""

    def one(item: tuple[Path, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path, placed = item
        hu, affine = read_ct(path, stated)
        body = body_mask(hu, affine)
        hu = np.clip(hu if table else without_surroundings(hu, body), *LIMITS_HU)
        field_to_file = np.linalg.inv(affine) @ placed
        counts = body.sum(), body.sum() - _within(body, field_to_file, grid.shape)
        affine = affine.copy()
        affine[:3, 3] -= placed[:3, 3] - grid.affine[:3, 3]
        return *merged(hu, affine), np.array(counts, np.float64)

    with ThreadPoolExecutor(_THREADS) as pool:
        items = list(zip(paths, cases.affines))
        parts = list(progress(pool.map(one, items), "reading scenes", len(items)))
    shape = tuple(np.max([hu.shape for hu, _, _ in parts], 0).tolist())
    stack = np.full((len(parts), *shape), round(HU_AIR), np.int16)
    for place, (hu, _, _) in zip(stack, parts):
        place[tuple(slice(n) for n in hu.shape)] = hu
    total, beyond = np.sum([counts for _, _, counts in parts], 0)
    return stack, np.stack([affine for _, affine, _ in parts]), np.array(beyond / total)


def _within(body: np.ndarray, field_to_file: np.ndarray, shape: tuple[int, ...]) -> int:
    """How many of the body's voxels lie in the box of the field."""
    index = np.argwhere(body)
    to_field = np.linalg.inv(field_to_file)
    place = index @ to_field[:3, :3].T + to_field[:3, 3]
    return int(((place > -0.5) & (place < np.array(shape) - 0.5)).all(1).sum())


def merged(
    hu: Shaped[np.ndarray, "x y z"], affine: Float64[np.ndarray, "4 4"]
) -> tuple[Int16[np.ndarray, "i j k"], Float64[np.ndarray, "4 4"]]:
    """Blocks of voxels averaged where they are finer than an X-ray sees; most files stay as they are.

    Line integrals through whole blocks do not change; what is left over at an end is air.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    by_size = np.ceil(np.array(hu.shape) / MOST_MERGED)
    factor = np.maximum(np.floor(FINEST_MM / spacing), by_size).astype(int)
    if (factor == 1).all():
        return np.rint(hu).astype(np.int16), affine
    padding = [(0, -n % f) for n, f in zip(hu.shape, factor)]
    hu = np.pad(np.asarray(hu, np.float32), padding, constant_values=HU_AIR)
    hu = np.maximum(hu, HU_AIR)  # as attenuation has it, so that means are those of attenuation
    (a, b, c), (x, y, z) = factor, hu.shape
    blocks = hu.reshape(x // a, a, y // b, b, z // c, c).mean((1, 3, 5))
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((factor - 1) / 2)
    affine[:3, :3] *= factor
    return np.rint(blocks).astype(np.int16), affine


def _cached(stem: Path) -> _Arrays | None:
    """What `_kept` wrote; None where it is absent or damaged."""
    try:
        hu = np.load(stem.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        with np.load(stem.with_suffix(".npz"), allow_pickle=False) as rest:
            return hu, rest["affines"], rest["beyond"]
    except Exception:  # whatever a damaged file makes NumPy raise
        return None


def _kept(stem: Path, arrays: _Arrays) -> _Arrays:
    """Writes them and gives the voxels back as a memory map; as they are where the disk refuses."""
    hu, affines, beyond = arrays
    writers: dict[str, Callable[..., None]] = {
        ".npy": lambda stream: np.save(stream, hu),
        ".npz": lambda stream: np.savez(stream, affines=affines, beyond=beyond),
    }
    try:
        for ending, write in writers.items():
            with whole(stem.with_suffix(ending)) as part, part.open("wb") as stream:
                write(stream)
    except InputError as error:
        print(f"{error}; not cached", file=sys.stderr)
        return arrays
    return _cached(stem) or arrays


def mirrored(affine: Float64[np.ndarray, "*b 4 4"]) -> Float64[np.ndarray, "*b 4 4"]:
    """The affine of the scene's mirror image, left for right about the field's middle plane x = 0."""
    return np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine
