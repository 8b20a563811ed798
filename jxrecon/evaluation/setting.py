"""What is equal for all who are compared: field, cameras for every number of views, noise, cases."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.data.earlier_scans import find_earlier
from jxrecon.drr import beam, project
from jxrecon.experiment import Experiment
from jxrecon.geometry import Camera, Grid, camera_at
from jxrecon.methods.base.method import Problem
from jxrecon.runs import config
from jxrecon.types import InputError, Key

SPLITS = ("train", "validation")


class Setting(NamedTuple):
    """The terms of a comparison.

    Attributes:
        experiment: whose field, window and X-rays; its number of views is not looked at.
        dataset: training and validation volumes.
        split: whose cases are reconstructed.
        names: of these cases, in order.
        counts: numbers of views, evenly spaced over a half circle.
        photons: per pixel of the unattenuated beam; None is no noise.
        seed: of noise and of random starts.
        earlier: case -> file of an earlier CT of the same patient; empty where they are SIMULATED.
    """

    experiment: Experiment
    dataset: Any
    split: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    photons: float | None = None
    seed: int = 0
    earlier: Mapping[str, Path] = MappingProxyType({})

    @property
    def grid(self) -> Grid:
        """Of all volumes."""
        return self.experiment.field.grid

    def problem(self, count: int) -> Problem:
        """What is to be found from so many X-rays."""
        views = dataclasses.replace(self.experiment.views, count=count)
        cases = len(self.dataset.train.names)
        return Problem(self.grid, views.cameras, self.experiment.field.window, cases)

    @property
    def unseen(self) -> tuple[Camera, ...]:
        """Views that no method is given: half-way between those of the largest number of views."""
        views, most = self.experiment.views, max(self.counts)
        return tuple(
            camera_at(
                180.0 * (i + 0.5) / most,
                source_axis_mm=views.source_axis_mm,
                source_detector_mm=views.source_detector_mm,
                shape=(views.pixels, views.pixels),
                pixel_mm=views.detector_mm / views.pixels,
            )
            for i in range(most)
        )

    @property
    def digest(self) -> int:
        """A number of all that every reconstruction depends on: field, X-rays, noise, volumes."""
        views = dataclasses.replace(self.experiment.views, count=1)
        plain = (config.to_dict(self.experiment.field), config.to_dict(views))
        found = zlib.crc32(repr((plain, max(self.counts), self.photons, self.seed)).encode())
        for path in self.earlier.values():
            found = zlib.crc32(repr((path.name, path.stat().st_mtime_ns)).encode(), found)
        for volumes in (self.dataset.train, self.dataset.validation):
            found = zlib.crc32(repr(volumes.names).encode(), found)
            for array in (volumes.hu, volumes.body, volumes.affines):
                found = zlib.crc32(np.ascontiguousarray(array).tobytes(), found)
        return found


def make_setting(
    experiment: Experiment,
    dataset: Any,
    split: str,
    counts: Sequence[int],
    limit: int | None = None,
    photons: float | None = None,
    seed: int = 0,
    earlier: Path | None = None,
) -> Setting:
    """The setting, checked; `earlier` is the folder of earlier scans, None simulates them.

    Raises:
        InputError: there is no such split or it is empty, a number is out of its range, or a case has no
            earlier scan in the folder.
    """
    if split not in SPLITS:
        raise InputError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1 case")
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        told = ",".join(str(count) for count in counts)
        raise InputError(f"--views {told}: expected different numbers from 1 on, such as 1,2,4,8")
    if photons is not None and not 0 < photons < 1e8:
        raise InputError(f"--photons {photons:g}: expected more than 0 and less than 1e8 a pixel")
    names = getattr(dataset, split).names[:limit]
    if not names:
        raise InputError(f"--split {split}: no volumes in {dataset.rule}")
    scans = {} if earlier is None else find_earlier(earlier, names)
    return Setting(experiment, dataset, split, names, tuple(counts), photons, seed, scans)


def xrays(
    hu: Float[Array, "x y z"],
    grid: Grid,
    cameras: Sequence[Camera],
    key: Key | None = None,
    photons: float | None = None,
) -> tuple[Float[Array, "rows columns"], ...]:
    """Line integrals of a volume in HU; with `photons` as every method is given them, with photon noise."""
    ideal = project(beam.hu_to_mu(hu), grid.affine, tuple(cameras))
    if key is None or photons is None:
        return tuple(ideal)
    keys = jax.random.split(key, len(ideal))
    return tuple(
        beam.line_integrals_of(beam.poisson_noise(k, beam.transmission(y), photons))
        for k, y in zip(keys, ideal)
    )
