"""Scenes: the whole CT about each field, as its file has it, from which X-rays are projected.

An X-ray goes through all of the patient: shoulders beside the field, head and chest above and below
it. A case is therefore its scene, and the field is what is cut from it to be reconstructed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int16, Shaped

from jxrecon.data.body import body_mask, without_surroundings
from jxrecon.data.volumes import LIMITS_HU, Dataset, VolumeSet
from jxrecon.files import whole
from jxrecon.geometry import Grid
from jxrecon.io.cache import fingerprint
from jxrecon.io.nifti import read_volume
from jxrecon.terminal import progress
from jxrecon.types import InputError
from jxrecon.units import HU_AIR

FINEST_MM = 2.0
"""Voxels finer than half of this are merged: an X-ray's pixel is about 2 mm wide at the patient."""

MOST_MERGED = 256
"""And voxels of any size along an axis that has more of them than this."""

INVERSE_CRIME = "X-rays of the field alone, an inverse crime: no X-ray of a patient looks like that"
"""What `--xrays field` is called wherever it stands."""

_CACHE_FORMAT = 1  # raised when a change of the code changes what is read
_ENDINGS = ("_ct.nii.gz", "_ct.nii")
_THREADS = 2


class SceneSet(NamedTuple):
    """The scenes of a split, all of one shape: smaller ones have air around them.

    Attributes:
        volumes: the fields cut from them, in the same order.
        hu: CT values in HU, axes [case, x, y, z] (RAS); a memory map where they were cached.
        affines: index -> mm in the frame of the experiment's grid: the cameras' world.
        beyond: share of the patient's voxels that lie outside of the field; 0: no surround.
    """

    volumes: VolumeSet
    hu: Int16[np.ndarray, "n i j k"]
    affines: Float64[np.ndarray, "n 4 4"]
    beyond: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the cases."""
        return self.volumes.names

    @property
    def rule(self) -> str:
        """What the X-rays show, in a sentence to be printed."""
        if self.beyond <= 0.0:
            return "X-rays of the field, which holds all of every CT: there is no surround."
        return f"X-rays of the whole CT: {self.beyond:.0%} of the patients' voxels lie outside the field."


def scenes_of(
    data: Dataset,
    split: str,
    folder: Path | None,
    grid: Grid,
    cache: Path | None = None,
    table: bool = False,
) -> SceneSet:
    """The scenes of a split that `volumes.load` has read.

    Args:
        data: of `volumes.load`.
        split: train, validation or test.
        folder: the folder that the data came from; None: built-in data, which has no surround.
        grid: of the experiment.
        cache: where to keep what was read, as a memory map; None keeps nothing.
        table: keep the table, masks and tubes instead of air outside the body.

    Raises:
        InputError: a file is gone or damaged.
    """
    volumes = getattr(data, split)
    if folder is None:
        affines = np.tile(grid.affine, (len(volumes.names), 1, 1))
        return SceneSet(volumes, volumes.hu, affines, 0.0)
    paths = [_path(Path(folder) / split, name) for name in volumes.names]
    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    key = fingerprint(
        _CACHE_FORMAT,
        FINEST_MM,
        MOST_MERGED,
        table,
        facts,
        volumes.affines.tolist(),
        grid.affine.tolist(),
    )
    stem = None if cache is None else Path(cache) / f"scenes_{split}_{key[:32]}"
    if stem is None or (found := _cached(stem)) is None:
        found = _read(paths, volumes, grid, table)
        if stem is not None:
            found = _kept(stem, found)
    hu, affines, beyond = found
    return SceneSet(volumes, hu, affines, float(beyond))


_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _path(folder: Path, name: str) -> Path:
    for ending in _ENDINGS:
        if (path := folder / f"{name}{ending}").is_file():
            return path
    raise InputError(f"{folder / name}{_ENDINGS[0]}: no such file, expected the CT of case {name}")


def _read(paths: list[Path], volumes: VolumeSet, grid: Grid, table: bool) -> _Arrays:
    """hu, affines and share beyond the field of all cases."""

    def one(item: tuple[Path, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path, placed = item
        hu, affine = read_volume(path)
        body = body_mask(hu, affine)
        hu = np.clip(hu if table else without_surroundings(hu, body), *LIMITS_HU)
        field_to_file = np.linalg.inv(affine) @ placed
        counts = body.sum(), body.sum() - _within(body, field_to_file, grid.shape)
        affine = affine.copy()
        affine[:3, 3] -= placed[:3, 3] - grid.affine[:3, 3]
        return *merged(hu, affine), np.array(counts, np.float64)

    with ThreadPoolExecutor(_THREADS) as pool:
        items = list(zip(paths, volumes.affines))
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
    except (OSError, ValueError, KeyError, EOFError):
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
            with whole(stem.with_suffix(ending)) as part, part.open("xb") as stream:
                write(stream)
    except InputError as error:
        print(f"{error}; not cached", file=sys.stderr)
        return arrays
    return _cached(stem) or arrays


def mirrored(affine: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """The affine of the scene's mirror image, left for right about the field's middle plane x = 0."""
    return np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine


def in_turn(
    scenes: SceneSet,
) -> Iterator[tuple[Int16[np.ndarray, "i j k"], Float64[np.ndarray, "4 4"]]]:
    """(hu, affine) of every case and then of every mirror image."""
    for hu, affine in zip(scenes.hu, scenes.affines):
        yield np.asarray(hu), affine
    for hu, affine in zip(scenes.hu, scenes.affines):
        yield np.asarray(hu), mirrored(affine)
