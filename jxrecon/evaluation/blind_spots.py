"""What metrics miss: how far each moves when one known thing is wrong with a reconstruction.

Blur, noise, a shift, fainter bone, a nodule that is missing, a flip and a border of air
(`metrics.perturbations`) are applied, one at a time, to the truth itself and to a blurred copy of it that
is as far from the truth as a reconstruction from two X-rays.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jxrecon.compile import jit
from jxrecon.data.body import body_mask, without_surroundings
from jxrecon.files import cache_folder
from jxrecon.geometry import Grid
from jxrecon.io.ct import read_ct
from jxrecon.io.nifti import resample
from jxrecon.metrics import slices
from jxrecon.metrics.lpips import Lpips
from jxrecon.metrics.perturbations import PERTURBATIONS, Change, Pair, gaussian_blur
from jxrecon.metrics.volume import METRICS, case_metrics
from jxrecon.runs import config
from jxrecon.terminal import CaseBar
from jxrecon.types import InputError
from jxrecon.units import HU_AIR, NOTHING_STATED, Stated, Window

BLUR_MM = 10.0
"""Blur of the stand-in for a reconstruction: 26.1 dB and 138 HU in the body on the 17 validation patients of
openkbp_hn at 32^3, where the linear prior from two views has 26.8 dB and 128 HU."""

FILE_SPACING_MM = 4.0
"""Files with finer voxels are brought to voxels of about this size."""

MOST_VOXELS = 4_000_000
"""Of one volume; its air border makes 8 times as many of them."""

LEAST_VOXELS = 7
"""Along each axis: the window of SSIM."""

Row = dict[str, Any]
"""One case, kind of pair and perturbation, before or after: its metrics."""


class Case(NamedTuple):
    """A patient: the truth in HU, its filled body mask, and the edges of a voxel."""

    name: str
    hu: Float[np.ndarray, "x y z"]
    body: Bool[np.ndarray, "x y z"]
    spacing_mm: Float[np.ndarray, "3"]


class Cases(NamedTuple):
    """Who is measured.

    Attributes:
        cases: at least one.
        window: HU range of the metrics.
        rule: where they come from, in a sentence.
        synthetic: whether they are made up.
        private: whether their pictures have to be kept where the data is.
    """

    cases: list[Case]
    window: Window
    rule: str
    synthetic: bool
    private: bool


def pairs(blur_mm: float) -> dict[str, tuple[str, Callable[..., Any]]]:
    """Kind of pair -> (what it is, (truth, spacing) -> the reconstruction before the perturbation)."""
    return {
        "reconstruction": (
            f"the reconstruction is the truth blurred by a Gaussian of {blur_mm:g} mm standard deviation, "
            "a stand-in for what is found from few X-rays",
            partial(gaussian_blur, sigma_mm=blur_mm),
        ),
        "truth": (
            "the reconstruction is the truth itself, so that nothing else is wrong",
            lambda hu, spacing_mm: hu,
        ),
    }


def measure(data: Cases, blur_mm: float = BLUR_MM, perceptual: bool = True) -> list[Row]:
    """The metrics of every case before and after every perturbation, LPIPS only where it is `perceptual`.

    Raises:
        InputError: no place for a nodule in a case.
    """
    weights = slices.weights() if perceptual else None

    @jit
    def lpips(weights: Lpips, pair: Pair) -> Float[Array, ""]:
        truth, recon, body = map(jnp.asarray, pair)
        return slices.volume_lpips(weights, truth, recon, body, data.window)

    def metrics(pair: Pair, spacing_mm: Float[np.ndarray, "3"]) -> dict[str, float]:
        seen = math.nan if weights is None else float(lpips(weights, pair))
        return {**case_metrics(*pair, data.window, spacing_mm), "lpips_alex": seen}

    rows = []
    with CaseBar(len(data.cases)) as bar:
        bar.begin("perturbations", 0)
        for case in data.cases:
            for kind, (_, degrade) in pairs(blur_mm).items():
                recon = degrade(case.hu, spacing_mm=case.spacing_mm)
                plain = metrics(Pair(case.hu, recon, case.body), case.spacing_mm)
                for name, change in changes(case, kind, blur_mm):
                    same = change.before.truth_hu is case.hu
                    before = plain if same else metrics(change.before, case.spacing_mm)
                    after = metrics(change.after, case.spacing_mm)
                    where = {"case": case.name, "pair": kind, "perturbation": name}
                    rows.append({**where, "state": "before", **before})
                    rows.append({**where, "state": "after", **after})
            bar.advance()
    return rows


def changes(case: Case, kind: str, blur_mm: float) -> Iterator[tuple[str, Change]]:
    """(Name of the perturbation, what it does to this case) in the order of the page."""
    degrade = partial(pairs(blur_mm)[kind][1], spacing_mm=case.spacing_mm)
    for perturbation in PERTURBATIONS:
        try:
            change = perturbation.apply(case.hu, case.body, case.spacing_mm, degrade)
        except InputError as error:
            raise InputError(f"{case.name}: {error}") from None
        yield perturbation.name, change


def summarise(data: Cases, rows: list[Row], blur_mm: float = BLUR_MM) -> dict[str, Any]:
    """blind_spots.json: means over the cases, and how far each metric moves on its own scale.

    `amount` is how much worse a metric says it has become, mean over the cases: the difference, with the
    sign that makes worse positive; PSNR counts as the relative root mean square error that it stands for.
    `share` is that amount over the largest that any perturbation reaches in the same kind of pair.
    """
    names = [name for name in METRICS if name in rows[0]]
    found = {}
    for kind, (what, _) in pairs(blur_mm).items():
        table = {}
        for perturbation in PERTURBATIONS:
            mine = [r for r in rows if (r["pair"], r["perturbation"]) == (kind, perturbation.name)]
            before, after = ([r for r in mine if r["state"] == s] for s in ("before", "after"))
            table[perturbation.name] = {name: _moved(name, before, after) for name in names}
        for name in names:
            amounts = [moved[name]["amount"] for moved in table.values()]
            most = max((abs(a) for a in amounts if a is not None), default=0.0)
            for moved in table.values():
                amount = moved[name]["amount"]
                share = None if amount is None else amount / most if most else 0.0
                moved[name]["share"] = share
        found[kind] = {"what": what, "perturbations": table}
    return {
        "synthetic": data.synthetic,
        "data": data.rule,
        "cases": len(data.cases),
        "window_hu": list(data.window),
        "perturbations": {p.name: p.what for p in PERTURBATIONS},
        "conventions": {name: METRICS[name].says(data.window) for name in names},
        "pairs": found,
    }


def _moved(name: str, before: list[Row], after: list[Row]) -> dict[str, float | int | None]:
    """Means over the cases in which the metric is a number before and after; PSNR may be infinite."""
    pairs = np.array([[a[name], b[name]] for a, b in zip(before, after)], np.float64)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        return {"before": None, "after": None, "change": None, "amount": None, "n": 0}
    worse = 10 ** (-pairs / 20) if name.endswith("psnr_db") else pairs
    amount = np.diff(worse, axis=1).mean()
    if METRICS[name].better > 0 and not name.endswith("psnr_db"):
        amount = -amount
    old, new = pairs.mean(axis=0)
    finite = np.isfinite(pairs).all()
    return {
        "before": float(old) if math.isfinite(old) else None,
        "after": float(new) if math.isfinite(new) else None,
        "change": float(np.diff(pairs, axis=1).mean()) if finite else None,
        "amount": float(amount),
        "n": len(pairs),
    }


def from_files(
    paths: Sequence[Path], spacing_mm: float = FILE_SPACING_MM, stated: Stated = NOTHING_STATED
) -> list[Case]:
    """CTs that `io.ct` reads, air outside the body, finer voxels averaged to about `spacing_mm`.

    Raises:
        InputError: a file is not a CT of a body, or two have one name.
    """
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"--ct: files of one name, {max(names, key=names.count)}, expected others")
    cases = []
    for path in paths:
        hu, affine = read_ct(path, stated)
        body = body_mask(hu, affine)
        if not body.any():
            raise InputError(f"{path}: no body found, expected a CT of a patient in HU")
        factor = np.maximum(1.0, spacing_mm / np.linalg.norm(affine[:3, :3], axis=0))
        shape = tuple(int(n) for n in np.maximum(1, np.floor(body.shape / factor)))
        place = np.diag([*factor, 1.0])
        place[:3, 3] = (np.array(body.shape) - 1) / 2 - (np.array(shape) - 1) / 2 * factor
        grid = Grid((shape[0], shape[1], shape[2]), affine @ place)
        coarse = resample(without_surroundings(hu, body), affine, grid, HU_AIR)
        inside = resample(body, affine, grid, 0.0) >= 0.5
        cases.append(Case(path.name, coarse, inside, grid.spacing_mm))
    return cases


def from_experiment(
    name: str, size: str | None, folder: Path | None, split: str, stated: Stated = NOTHING_STATED
) -> Cases:
    """The cases of an experiment on its grid, or of its SYNTHETIC population where `folder` is None.

    Raises:
        InputError: there is no such experiment, it has no volumes, or the data lacks the split.
    """
    experiment = dataclasses.replace(config.find(name, size), ct=stated)
    if not hasattr(experiment.field, "grid") or experiment.kind.judge is None:
        raise InputError(f"--exp {name}: finds no CT volume, expected an experiment of volumes")
    if folder is not None and not folder.is_dir():
        raise InputError(f"--data {folder}: no such folder")
    dataset = experiment.load(experiment, folder, cache_folder("data"))
    volumes = getattr(dataset, split)
    if volumes is None or not volumes.names:
        raise InputError(f"--split {split}: no volumes in {folder or 'the built-in data'}")
    spacing = experiment.field.grid.spacing_mm
    whole = zip(volumes.names, volumes.hu.astype(np.float32), volumes.body)
    cases = [Case(name, hu, body, spacing) for name, hu, body in whole]
    real, rule = not dataset.synthetic, f"{dataset.rule} Measured on cases of {split}."
    return Cases(cases, experiment.field.window, rule, not real, real)


def check(data: Cases) -> None:
    """Raises InputError unless every volume has a size that can be measured."""
    for case in data.cases:
        shape = " x ".join(map(str, case.hu.shape))
        if min(case.hu.shape) < LEAST_VOXELS:
            raise InputError(
                f"{case.name}: {shape} voxels, expected at least {LEAST_VOXELS} on a side"
            )
        if case.hu.size > MOST_VOXELS:
            raise InputError(
                f"{case.name}: {shape} voxels, expected at most {MOST_VOXELS}: try --spacing-mm"
            )


def table(rows: list[Row]) -> str:
    """blind_spots.csv: the rows with 6 digits, nan where a metric has no value."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
    return stream.getvalue()
