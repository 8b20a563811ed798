"""Volumes judged: every method gets the same X-rays of a case, with the same noise, and is measured alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.drr import beam, project
from jxrecon.evaluation.bench import Bench, Found, Judge, Knowledge, Timed
from jxrecon.evaluation.setting import Setting
from jxrecon.geometry import Camera, Grid
from jxrecon.io.nifti import write_volume
from jxrecon.metrics import slices
from jxrecon.metrics.lpips import Lpips
from jxrecon.metrics.volume import METRICS, case_metrics, reprojection_error
from jxrecon.runs import config
from jxrecon.runs.run import Run
from jxrecon.types import InputError, Key

BAR = "linear prior"
"""The rival that a method has to pass."""

NOISE = 1 << 30
"""Folded into the key for noise; the places of cases, folded in for random starts, lie below."""

SAME_PROJECTOR = (
    "made by the same projector and on the same grid that the methods use: an easier problem than real "
    "radiographs (an inverse crime)."
)


def volume_judge() -> Judge:
    """The judge of CT volumes; LPIPS takes part where its weights are installed."""
    weights = slices.weights()

    def complete(row: dict[str, Any]) -> bool:
        return weights is None or not np.isnan(row["lpips_alex_xray"])

    def save(path: Path, hu: np.ndarray, setting: Setting, place: int) -> None:
        write_volume(path, hu, setting.cases.affines[place])

    return Judge(
        metrics=METRICS,
        judged="psnr_db",
        main=("psnr_db", "ssim_3d", "mae_hu_body", "bone_dice", "bone_assd_mm", "lpips_alex"),
        counts=(1, 2, 4, 8),
        bar=BAR,
        unit="patients",
        unit_of=lambda cases, place: cases.names[place],
        bench=partial(_bench, weights),
        complete=complete,
        check=_check,
        ending=".nii.gz",
        light=False,
        save=save,
        terms=_terms,
    )


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


def _bench(weights: Lpips | None, setting: Setting, count: int) -> Bench:
    """The bench of one number of views: what is compiled here serves every method."""
    problem, unseen, photons = setting.problem(count), setting.unseen, setting.terms.photons
    grid, cameras, window = problem.grid, problem.cameras, problem.window

    @jit
    def given(truth: Float[Array, "x y z"], noise: Key) -> tuple[Any, Any]:
        """X-rays as methods get them, and noise-free ones in views that no method gets."""
        return xrays(truth, grid, cameras, noise, photons), xrays(truth, grid, unseen)

    @jit
    def measure(
        weights: Lpips | None, truth: Any, recon: Any, body: Any, others: Any, images: Any
    ) -> dict[str, Array]:
        """The metrics that need JAX."""
        ideal, again = (xrays(hu, grid, cameras) for hu in (truth, recon))
        return {
            **slices.case_metrics(weights, truth, recon, body, window, ideal, again),
            "reprojection_error": reprojection_error(recon, images, cameras, grid),
            "reprojection_unseen": reprojection_error(recon, others, unseen, grid),
        }

    def run_cases(knowledge: Knowledge, places: Sequence[int]) -> Iterator[Found]:
        """Random starts and noise of a case are the same whatever the method."""
        key, cases = jax.random.key(setting.terms.seed), setting.cases
        reconstruct = Timed(
            jit(
                lambda state, images, start: (
                    knowledge.method.reconstruct(state, images, cameras, start).hu
                )
            )
        )
        for place in places:
            truth, body = np.asarray(cases.hu[place], np.float32), cases.body[place]
            noise = jax.random.fold_in(jax.random.fold_in(key, NOISE), place)
            images, others = given(truth, noise)
            start = jax.random.fold_in(key, place)
            hu, costs = reconstruct(knowledge.state(place), images, start)
            recon = np.rint(np.asarray(hu, np.float32))  # as in the file: the metrics are of that
            measured = measure(weights, truth, recon, body, others, images)
            metrics = {
                **case_metrics(truth, recon, body, window, grid.spacing_mm),
                **{name: float(value) for name, value in measured.items()},
            }
            yield Found(place, recon, metrics, costs)

    return Bench(count, problem, run_cases)


def _check(setting: Setting, run: Run) -> None:
    """Raises InputError unless the run has the setting's field and X-rays, but for their number."""
    mine, its = (
        {"field": e.field, "X-rays": e.views} for e in (setting.experiment, run.experiment)
    )
    for what in mine:
        expected, found = (config.to_dict(of[what]) for of in (mine, its))
        lines = config.differences({**expected, "count": 1}, {**found, "count": 1})
        if lines:
            raise InputError(
                f"{run.folder}: other {what} than those compared ({'; '.join(lines)}), expected runs of "
                "one field and the same X-rays"
            )


def _terms(setting: Setting) -> dict[str, Any]:
    field, photons = setting.experiment.field, setting.terms.photons
    noise = "noise-free" if photons is None else f"with the noise of {photons:g} photons a pixel"
    return {
        "field": f"{' x '.join(map(str, field.shape))} voxels of "
        f"{' x '.join(f'{mm:.3g}' for mm in field.spacing_mm)} mm",
        "window_hu": list(field.window_hu),
        "xrays": f"X-rays are {noise} line integrals of the field's voxels alone, {SAME_PROJECTOR}",
    }
