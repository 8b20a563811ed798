"""X2CT-GAN's data set of LIDC-IDRI: its files read as they are and written, its X-rays made anew.

    FOLDER/CASE/ct_xray_data.h5     ct [D, H, W], HU + 1024; xray1 [D, W], frontal, and xray2 [D, H],
                                    lateral, 8 bit
    FOLDER/train.txt, test.txt      one case a line

D runs from head to foot, H from front to back, W from the patient's right to the left: the rows of both
X-rays run with D, the columns of the frontal one (xray1) with W, of the lateral one (xray2) with H. So it
is in files written here. That the authors' own files run from head to foot was not verified.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16, Shaped, UInt8
from scipy import ndimage

from jxrecon import drr
from jxrecon.data import volumes
from jxrecon.data.body import TISSUE_HU, body_mask, without_surroundings
from jxrecon.data.volumes import Dataset, VolumeSet, refuse_shared
from jxrecon.experiment import Experiment
from jxrecon.files import MAX_BYTES, component, write_file
from jxrecon.geometry import Camera, Grid, biplanar, centred_grid
from jxrecon.io.cache import fingerprint, stamp
from jxrecon.io.nifti import DEFLATE_RATIO, resample
from jxrecon.types import AnyArray, InputError

FILE = "ct_xray_data.h5"

OFFSET_HU = 1024
"""Added to HU in the files, so that nothing is negative."""

EDGE = 320
"""Voxels of 1 mm along each edge of a volume, and pixels of an X-ray."""

SOURCE_AXIS_MM, SOURCE_DETECTOR_MM, DETECTOR_MM = 541.0, 949.0, 500.0
"""[X2CT data] Of the DRRs: 285 mm are seen at the isocentre, less than the volume's 320."""

WATER_PER_MM, AIR_HU = 0.0022, -800.0
"""[X2CT data] Attenuation of water in the DRRs; at or below AIR_HU nothing attenuates."""

_CACHE_FORMAT = 2
_EXTENT_TOLERANCE = 0.02  # of the field's edges, which the files fix


class Case(NamedTuple):
    """What a file holds, as stored: see above."""

    ct: Shaped[np.ndarray, "d h w"]
    xray1: Shaped[np.ndarray, "d w"]
    xray2: Shaped[np.ndarray, "d h"]


def read_case(path: Path) -> Case:
    """A case as it is stored.

    Raises:
        InputError: there is no such file, it is damaged or too large, or an array is missing or of
            another number of axes.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a case with ct, xray1 and xray2")
    arrays = []
    try:
        with h5py.File(path, "r") as file:
            for name, axes in (("ct", 3), ("xray1", 2), ("xray2", 2)):
                if not isinstance(file.get(name, h5py.HardLink(), getlink=True), h5py.HardLink):
                    raise InputError(f"{path}: {name} is a link, expected the array itself")
                data = file.get(name)
                if not isinstance(data, h5py.Dataset) or data.ndim != axes or 0 in data.shape:
                    found = list(file) if data is None else getattr(data, "shape", "a group")
                    raise InputError(f"{path}: {name} is {found}, expected an array of {axes} axes")
                if 4 * data.size > MAX_BYTES or data.dtype.kind not in "iuf":
                    raise InputError(
                        f"{path}: {name} declares {data.shape} numbers of {data.dtype}, expected real "
                        f"numbers of at most {MAX_BYTES / 1024**3:g} GiB"
                    )
                _check_stored(path, data)
                arrays.append(data[()])
    except InputError:
        raise
    except Exception as error:  # HDF5 raises OSError, RuntimeError, KeyError, ...
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: damaged or no HDF5 file ({line})") from None
    case = Case(*arrays)
    if not all(np.isfinite(array).all() for array in case):
        raise InputError(f"{path}: holds numbers that are not finite, expected none")
    return case


def _check_stored(path: Path, data: h5py.Dataset) -> None:
    """Refuses numbers that lie in other files, and more of them than this file can hold.

    Raises:
        InputError: the data set is virtual or its bytes are elsewhere, or the file is too small for it.
    """
    if data.is_virtual or data.external:
        raise InputError(f"{path}: {data.name} lies in other files, expected it here")
    ratio = DEFLATE_RATIO if data.id.get_create_plist().get_nfilters() else 1
    if data.nbytes > ratio * min(path.stat().st_size, data.id.get_storage_size()):
        raise InputError(
            f"{path}: {data.name} declares {data.nbytes} bytes, which a file of "
            f"{path.stat().st_size} bytes cannot hold"
        )


def write_case(path: Path, case: Case) -> None:
    """Writes a case, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    stream = io.BytesIO()
    with h5py.File(stream, "w", track_order=True) as file:
        for name, array in case._asdict().items():
            file.create_dataset(name, data=array, compression="gzip", compression_opts=1)
    write_file(path, stream.getvalue())


def splits(folder: Path) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The cases of "train" and "test", and those that are in both.

    Raises:
        InputError: a list is missing, empty or no text, or names something outside the folder.
    """
    lists = {}
    for split in ("train", "test"):
        path = folder / f"{split}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: cannot be read ({error}), expected one case a line"
            ) from None
        names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if not names:
            raise InputError(f"{path}: holds nothing, expected names of folders beside it")
        lists[split] = tuple(component(name, str(path)) for name in names)
    return lists, tuple(name for name in lists["train"] if name in set(lists["test"]))


def resized(array: Shaped[np.ndarray, "*n"], size: int) -> Shaped[np.ndarray, "*m"]:
    """Corner-aligned linear interpolation without anti-aliasing to `size` along every axis.

    Whole numbers stay whole, rounded half away from zero, as in the authors' transforms.
    """
    return ndimage.zoom(array, [size / n for n in array.shape], order=1, prefilter=False)


def to_hu(ct: Shaped[np.ndarray, "d h w"]) -> Int16[np.ndarray, "x y z"]:
    """Stored values -> HU in the project's frame, [x, y, z] (RAS)."""
    hu = np.rint(np.clip(ct, 0, None)).astype(np.int32) - OFFSET_HU
    return np.ascontiguousarray(hu.clip(*volumes.LIMITS_HU).astype(np.int16).T[::-1, ::-1, ::-1])


def to_stored(hu: Shaped[np.ndarray, "x y z"]) -> Int16[np.ndarray, "d h w"]:
    """The inverse of `to_hu`."""
    stored = np.rint(hu).astype(np.int32).clip(*volumes.LIMITS_HU) + OFFSET_HU
    return np.ascontiguousarray(stored.astype(np.int16)[::-1, ::-1, ::-1].T)


def load(experiment: Experiment, folder: Path | None, cache: Path | None = None) -> Dataset:
    """The volumes of an experiment: of the authors' files, or as `volumes.load` finds them.

    The test list is what methods are judged on: validation. A case of both lists is left out of training,
    as that of the authors' own. X-rays are projected from the volumes by the experiment's cameras.

    Args:
        experiment: its field must be a cube of about 320 mm, which the files are resized to.
        folder: with train.txt, test.txt and CASE/ct_xray_data.h5; or train/ and validation/ of NIfTI
            files; None is the synthetic population.
        cache: where to keep what was read.

    Raises:
        InputError: the field is another one, a list is wrong, no file of a list can be used, or both have
            one CT under two names.
    """
    if folder is None or not (Path(folder) / "train.txt").is_file():
        return volumes.load(experiment, folder, cache)
    folder, grid = Path(folder), experiment.field.grid
    size = grid.shape[0]
    if grid.shape != (size,) * 3 or np.abs(grid.extent_mm / EDGE - 1).max() > _EXTENT_TOLERANCE:
        extent = " x ".join(f"{n:.0f}" for n in grid.extent_mm)
        raise InputError(
            f"{folder}: the field of {experiment.name} is {grid.shape} voxels, {extent} mm, expected "
            f"as many voxels each way over {EDGE} mm, as these files hold"
        )
    lists, both = splits(folder)
    lists["train"] = tuple(name for name in lists["train"] if name not in both)
    sets, rejected = {}, []
    for split, names in lists.items():
        sets[split], bad = _read_split(folder, names, split, grid, cache)
        rejected += bad
    for line in rejected:
        print(f"left out: {line}", file=sys.stderr)
    refuse_shared(sets, folder)
    leak = ""
    if both:
        leak = f" {', '.join(both)} in both lists: left out of train."
        print(f"warning: {folder}:{leak}", file=sys.stderr)
    counts = f"{len(sets['train'].names)} train, {len(sets['test'].names)} validation (test.txt)"
    rule = (
        f"CT of {folder.resolve().name}/ in X2CT-GAN's layout: {EDGE} mm, corner-aligned linear resize "
        f"to {size}^3; {counts}, {len(rejected)} left out.{leak}"
    )
    return Dataset(sets["train"], sets["test"], rule, False, None, tuple(rejected))


def _read_split(
    folder: Path, names: Sequence[str], split: str, grid: Grid, cache: Path | None
) -> tuple[VolumeSet, list[str]]:
    paths = [folder / name / FILE for name in names]
    facts = [stamp(path) for path in paths]
    key = fingerprint(_CACHE_FORMAT, "lidc", grid.shape, names, facts, grid.affine.tolist())
    kept = None if cache is None else Path(cache) / f"lidc_{split}_{key[:16]}.npz"

    def read(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        hu = to_hu(resized(read_case(paths[number]).ct, grid.shape[0]))
        body = body_mask(hu, grid.affine)
        if not body.any():
            raise InputError(f"{paths[number]}: no body found, expected HU + {OFFSET_HU} in ct")
        return hu, body, grid.affine

    return volumes.read_split(names, read, f"{split}.txt", kept, key)


# The paper's geometry, for CTs of one's own.


def standard_volume(
    hu: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], edge: int = EDGE
) -> Int16[np.ndarray, "d h w"]:
    """A CT as the authors' files hold it: 1 mm, `edge`^3, without the table, HU + 1024.

    The field lies in the middle of the scan; of one that is higher, its upper end is kept. All that
    is not the body's, as `data.body` finds it, is 0.

    Raises:
        InputError: there is no air or no body.
    """
    if (lowest := hu.min()) > TISSUE_HU:
        raise InputError(f"its lowest value is {lowest:g}, expected air at -1000 HU")
    body = body_mask(hu, affine)
    if not body.any():
        raise InputError("no body found, expected a CT of a patient in HU")
    clean = without_surroundings(hu.clip(*volumes.LIMITS_HU), body, -OFFSET_HU)
    return to_stored(resample(clean, affine, standard_grid(hu.shape, affine, edge), -OFFSET_HU))


def standard_grid(
    shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"], edge: int = EDGE
) -> Grid:
    """The field of `standard_volume` in a CT of this shape: in its middle, at the upper end of a high one."""
    x, y, z = shape
    corners = Grid((x, y, z), affine).corners_mm
    low, high = corners.min(0), corners.max(0)
    centre = (low + high) / 2
    centre[2] = max(centre[2], high[2] - edge / 2)
    return centred_grid((edge,) * 3, (1.0, 1.0, 1.0), tuple(centre))


def cameras(pixels: int = EDGE) -> tuple[Camera, Camera]:
    """[X2CT data] Frontal and lateral, about the origin."""
    return biplanar(
        source_axis_mm=SOURCE_AXIS_MM,
        source_detector_mm=SOURCE_DETECTOR_MM,
        shape=(pixels, pixels),
        pixel_mm=DETECTOR_MM / pixels,
    )


def attenuation(hu: Float[AnyArray, "*place"]) -> Float[Array, "*place"]:
    """[X2CT data] 0.0022 (HU + 1000) / 1000 in 1/mm, 0 at or below -800 HU."""
    return jnp.where(hu > AIR_HU, WATER_PER_MM * (hu + 1000.0) / 1000.0, 0.0)


def make_xrays(
    ct: Int16[np.ndarray, "d h w"], spacing_mm: float = 1.0, pixels: int = EDGE
) -> tuple[UInt8[np.ndarray, "p p"], UInt8[np.ndarray, "p p"]]:
    """[X2CT data] The DRRs of a stored volume, in 255 steps up to each image's own maximum."""
    images = [np.asarray(image) for image in _project(to_hu(ct), spacing_mm, pixels)]
    frontal, lateral = ((i / max(i.max(), 1e-6) * 255.0).astype(np.uint8) for i in images)
    return frontal, lateral


@functools.partial(jax.jit, static_argnums=(1, 2))
def _project(hu: Array, spacing_mm: float, pixels: int) -> tuple[Array, ...]:
    x, y, z = hu.shape
    grid = centred_grid((x, y, z), (spacing_mm,) * 3)
    mu = attenuation(hu.astype(jnp.float32))
    with jax.ensure_compile_time_eval():  # known cameras go aligned: never negative
        views = cameras(pixels)
    return drr.project(mu, grid.affine, views)
