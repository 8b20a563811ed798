"""Folders of X-ray images without CT: read, brought to [-1, 1] and to one size, paired at random."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int32
from PIL import Image

from jxrecon.compile import jit
from jxrecon.data.acquisition import acquisition
from jxrecon.data.machine import FULL
from jxrecon.data.volumes import VolumeSet
from jxrecon.experiment import Experiment, Machine
from jxrecon.io.finding import Found, ends, find_files
from jxrecon.io.images import SUFFIXES, read_pixels, stem, suffix
from jxrecon.io.radiographs import read, sidecar_path
from jxrecon.terminal import progress
from jxrecon.types import ImagePairBatch, InputError


class Pictures(NamedTuple):
    """The images of a folder.

    Attributes:
        names: names of the files.
        unit: [n, rows, columns] float32 in [-1, 1].
        scale: "fixed", line integrals from 0 to `FULL`, or "own", see `to_unit`.
    """

    names: tuple[str, ...]
    unit: Float[np.ndarray, "n rows columns"]
    scale: str


class Unpaired:
    """n pairs of a real and a synthetic image; which stands beside which means nothing.

    n is the number of images in the larger folder; the other one is walked again and again.
    """

    def __init__(self, real: Pictures, synthetic: Pictures) -> None:
        """Mixes the synthetic ones, as files of both folders may be in the order of the same patients."""
        order = np.random.default_rng(0).permutation(len(synthetic.names))
        self._real, self._synthetic = real.unit, synthetic.unit[order]
        self._count = max(len(real.names), len(synthetic.names))
        self.names = tuple(
            f"{real.names[i % len(real.names)]} and {synthetic.names[order[i % len(order)]]}"
            for i in range(self._count)
        )

    def batch(self, index: Int32[np.ndarray, " b"]) -> ImagePairBatch:
        """These pairs."""
        real = self._real[index % len(self._real)]
        synthetic = self._synthetic[index % len(self._synthetic)]
        return ImagePairBatch(real, synthetic, index)  # type: ignore[arg-type]  # on the host still


class Styles(NamedTuple):
    """What training takes for a data set.

    Attributes:
        train: to learn from.
        validation: held out.
        rule: the sentence that says where the images come from.
        synthetic: whether they are made up; here the user's own are taken for real.
    """

    train: Unpaired
    validation: Unpaired
    rule: str
    synthetic: bool = False


def split(real: Pictures, synthetic: Pictures, rule: str) -> Styles:
    """A tenth of each folder, at least 1 and at most 8 images, evenly picked, is held out.

    Raises:
        InputError: a folder has fewer than two images.
    """
    kept: list[Pictures] = []
    out: list[Pictures] = []
    for pictures, what in ((real, "real"), (synthetic, "synthetic")):
        count = len(pictures.names)
        if count < 2:
            raise InputError(f"--{what}: {count} image, expected at least 2")
        held = np.linspace(0, count - 1, min(8, max(1, count // 10))).astype(int)
        rest = np.setdiff1d(np.arange(count), held)
        for part, places in ((out, held), (kept, rest)):
            names = tuple(pictures.names[i] for i in places)
            part.append(Pictures(names, pictures.unit[places], pictures.scale))
    return Styles(Unpaired(*kept), Unpaired(*out), rule)


def read_folder(folder: Path, shape: tuple[int, int]) -> Pictures:
    """All X-rays of a folder: PNG, NPZ and NIfTI, by name; what cannot be read is told and left out.

    Of one name in several formats the most exact is taken. Where every image has a sidecar (see
    `radiographs`), they are line integrals on the scale "fixed"; where none has, pixels as stored on the
    scale "own".

    Args:
        folder: not searched below.
        shape: (rows, columns) that every image is resized to.

    Raises:
        InputError: there is no such folder, it holds no image that can be read, or only some images have
            a sidecar.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one of X-ray images")
    paths = _paths(folder)
    told = [path for path in paths if sidecar_path(path).exists()]
    if told and len(told) < len(paths):
        bare = next(path for path in paths if path not in told)
        raise InputError(
            f"{bare}: no sidecar {sidecar_path(bare).name}, expected one for all of {folder} or for none"
        )
    scale, names, units = "fixed" if told else "own", [], []
    for path in progress(paths, f"reading {folder.name}", len(paths)):
        try:
            image = read(path).line_integrals if told else _finite(path)
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        names.append(path.name)
        units.append(resized(to_unit(image, scale), shape))
    if not names:
        raise InputError(f"{folder}: no image that can be read, expected {', '.join(SUFFIXES)}")
    return Pictures(tuple(names), np.stack(units), scale)


def simulated(
    cases: VolumeSet, experiment: Experiment, machine: Machine, shape: tuple[int, int]
) -> tuple[Pictures, Pictures]:
    """X-rays of every other case by a machine, taken for real ones, and of the others as the experiment's.

    All views of a case are images of their own; the patients of the two styles are different ones.

    Args:
        cases: of the experiment, with or without scenes.
        experiment: whose cameras and X-rays.
        machine: what takes those of the first style, with the experiment's noise.
        shape: (rows, columns) that every image is resized to.
    """
    styles = []
    for first, taker in enumerate((machine, experiment.xrays.machine)):
        xrays = dataclasses.replace(experiment.xrays, machine=taker, noisy=1.0)
        taken = acquisition(cases, experiment.field.grid, experiment.views.cameras, xrays)
        take, names, units = jit(taken.observe_still), [], []
        for place in range(first, len(cases.names), 2):
            key = jax.random.fold_in(jax.random.key(experiment.schedule.seed), place)
            batch = take(cases.batch(np.array([place], np.int32)), key)
            for view, image in enumerate(batch.images, start=1):
                names.append(f"{cases.names[place]}, view {view}")
                units.append(resized(to_unit(np.asarray(image[0]), "fixed"), shape))
        styles.append(Pictures(tuple(names), np.stack(units), "fixed"))
    return styles[0], styles[1]


def to_unit(image: Float[np.ndarray, "r s"], scale: str) -> Float[np.ndarray, "r s"]:
    """-> [-1, 1]: line integrals from 0 to 8 ("fixed"), or from the image's least value to its largest."""
    low, high = _ends(image, scale)
    return np.clip(2.0 * (image - low) / (high - low) - 1.0, -1.0, 1.0).astype(np.float32)


def from_unit(
    unit: Float[np.ndarray, "r s"], scale: str, image: Float[np.ndarray, "r s"]
) -> Float[np.ndarray, "r s"]:
    """[-1, 1] -> line integrals: from 0 to 8 ("fixed"), or between the ends of the given image."""
    low, high = _ends(image, scale)
    return (low + (unit + 1.0) * ((high - low) / 2.0)).astype(np.float32)


def resized(image: Float[np.ndarray, "r s"], shape: tuple[int, int]) -> Float[np.ndarray, "t u"]:
    """The image at (rows, columns), linear, averaging where that is coarser."""
    if image.shape == shape:
        return image
    picture = Image.fromarray(np.asarray(image, np.float32))
    return np.array(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _paths(folder: Path) -> list[Path]:
    """One file a name: NIfTI before NPZ before PNG."""
    all_files = find_files(folder, lambda path: ends(path, SUFFIXES) is not None, deep=False)
    found: dict[str, Path] = {}
    for ending in reversed(SUFFIXES):
        found |= {stem(path): path for path in all_files.files if suffix(path) == ending}
    paths = [found[name] for name in sorted(found)]
    others = set(all_files.files) - set(paths)
    passed = [(path, "of a name in several formats") for path in sorted(others)]
    sidecars = {sidecar_path(path) for path in paths}
    passed += [one for one in all_files.passed if one[0] not in sidecars]
    Found(tuple(paths), tuple(passed)).told(folder)
    return paths


def _ends(image: np.ndarray, scale: str) -> tuple[float, float]:
    if scale == "fixed":
        return 0.0, FULL
    low, high = float(image.min()), float(image.max())
    return low, high if high > low else low + 1.0


def _finite(path: Path) -> np.ndarray:
    image = read_pixels(path)[0].astype(np.float64)
    if not np.isfinite(image).all():
        raise InputError(f"{path}: pixels that are not finite, expected a number in each")
    return image
