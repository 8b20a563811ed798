"""Volumes judged: every method gets the same X-rays of a case, with the same noise, and is measured alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.data.acquisition import Acquisition, acquisition
from jxrecon.data.machine import recorded
from jxrecon.data.scene_xrays import Images
from jxrecon.drr import beam, project
from jxrecon.evaluation.bench import Bench, Found, Judge, Knowledge, Timed
from jxrecon.evaluation.setting import Setting
from jxrecon.experiment import Machine, Xrays
from jxrecon.geometry import Camera, Grid, same_cameras
from jxrecon.io.nifti import write_volume
from jxrecon.likelihood.patients import patients_of
from jxrecon.likelihood.pose import Search, search_of
from jxrecon.metrics import slices
from jxrecon.metrics.lpips import Lpips
from jxrecon.metrics.volume import METRICS, case_metrics, coverage, reprojection_error
from jxrecon.runs import config
from jxrecon.runs.run import Run
from jxrecon.types import InputError, Key

BAR = "linear prior"
"""The rival that a method has to pass."""

PHOTONS = 2e4
"""A pixel of the unattenuated beam, unless others are asked for."""

NOISE = 1 << 30
"""Folded into the key for noise; the places of cases, folded in for random starts, lie below."""

SAME_PROJECTOR = (
    "by the same projector and on the same grid that the methods use: an easier problem than real "
    "radiographs (an inverse crime)"
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
        photons=PHOTONS,
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
    hu: Float[Array, "x y z"], grid: Grid, cameras: Sequence[Camera]
) -> tuple[Float[Array, "rows columns"], ...]:
    """Line integrals of a volume in HU by the projector that methods use."""
    return tuple(project(beam.hu_to_mu(hu), grid.affine, tuple(cameras)))


def _bench(weights: Lpips | None, setting: Setting, count: int) -> Bench:
    """The bench of one number of views: what is compiled here serves every method."""
    problem, unseen, photons = setting.problem(count), setting.unseen, setting.terms.photons
    grid, cameras, window, _ = problem
    learnt, machine = (Xrays(noisy=0.0, machine=m) for m in setting.machines)
    train = acquisition(setting.dataset.train, grid, cameras, learnt)
    taken = acquisition(setting.cases, grid, cameras, machine)
    share = Share(setting, cameras, train)

    @jit
    def given(batch: Any, noise: Key) -> tuple[Images, Images, Images]:
        """X-rays as methods get them, what those of the field would be, and ones that no method gets."""
        ideal = taken.projected(jax.tree.map(lambda leaf: leaf[0], batch))
        keys = jax.random.split(noise, count)
        seen = tuple(recorded(y, taken.xrays.machine, photons, k) for y, k in zip(ideal, keys))
        own = xrays(batch.hu[0], grid, cameras) if setting.patient else seen
        return seen, own, xrays(batch.hu[0], grid, unseen)

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
        cases, find = setting.cases, Finder(knowledge, cameras, share)
        for place in places:
            noise, start = keys_of(setting, place)
            images, own, others = given(cases.batch(np.array([place], np.int32)), noise)
            found, costs = find(place, images, start)
            truth, body = np.asarray(cases.hu[place], np.float32), cases.body[place]
            recon = np.rint(np.asarray(found.hu, np.float32))  # as in the file: metrics are of that
            measured = measure(weights, truth, recon, body, others, own)
            deviation = None if found.deviation is None else np.asarray(found.deviation)
            metrics = {
                **case_metrics(truth, recon, body, window, grid.spacing_mm),
                **coverage(truth, recon, deviation, body, window),
                **{name: float(value) for name, value in measured.items()},
            }
            yield Found(place, recon, metrics, costs)

    @cache
    def search() -> Search:
        return search_of(patients_of(setting.dataset.train, grid), cameras)

    return Bench(count, problem, cache(train.everything), run_cases, search)


def keys_of(setting: Setting, place: int) -> tuple[Key, Key]:
    """(of the noise of a case's X-rays, of random starts): the same whatever the method."""
    key = jax.random.key(setting.terms.seed)
    return jax.random.fold_in(jax.random.fold_in(key, NOISE), place), jax.random.fold_in(key, place)


class Share:
    """The field's share of X-rays and the weights of its pixels, by a regression fitted when asked."""

    def __init__(self, setting: Setting, cameras: Sequence[Camera], train: Acquisition) -> None:
        """Of `train`, whose cameras these are; other cameras mean another regression."""
        self._learns = setting.patient and setting.terms.surround
        self._cameras, self._train = tuple(cameras), train
        self._own = cache(train.surround)
        self._of = jit(lambda surround, images: surround.share(images))

    def __call__(self, images: Images, cameras: Sequence[Camera]) -> tuple[Images, Images | None]:
        """(the share, weights); the images as they are where X-rays show no more."""
        if not self._learns:
            return images, None
        own = same_cameras(cameras, self._cameras)
        train = self._train
        fit = self._own if own else acquisition(*train[:2], cameras, train.xrays).surround
        surround = fit()
        return (images, None) if surround is None else self._of(surround, images)


class Finder:
    """A method at a bench: what it finds in X-rays, and its costs; compiled for the cameras it is told."""

    def __init__(self, knowledge: Knowledge, cameras: Sequence[Camera], share: Share) -> None:
        self._knowledge, self._cameras, self._share = knowledge, tuple(cameras), share
        self._own = Timed(jit(partial(self._find, self._cameras)))
        self._any = Timed(jit(self._find))
        self._before = Finder(knowledge.start, cameras, share) if knowledge.start else None

    def _find(
        self, cameras: Any, state: Any, images: Images, how: dict[str, Any], start: Key
    ) -> Any:
        return self._knowledge.method.reconstruct(state, images, cameras, start, **how)

    def _for(self, cameras: Sequence[Camera]) -> Any:
        """The program for these cameras: (state, images, how, start) -> (Reconstruction, costs)."""
        if same_cameras(cameras, self._cameras):
            return self._own
        if self._knowledge.method.any_camera:
            return partial(self._any, tuple(cameras))
        return Timed(jit(partial(self._find, tuple(cameras))))  # with values: methods plan by them

    def __call__(self, place: int, images: Images, start: Key) -> tuple[Any, dict[str, float]]:
        """(Reconstruction, costs) of the X-rays of a case, once its remedy has put them right.

        The costs are those of the volume that it starts from, too.
        """
        knowledge, taken = self._knowledge, images
        method, cameras, turned = knowledge.method, self._cameras, None
        if knowledge.remedy is not None:
            images, cameras, turned = knowledge.remedy(images, cameras)
        shown, trusted = self._share(images, cameras) if method.field_model else (images, None)
        if method.any_camera and turned is not None:
            shown, cameras = turned(None if trusted is None else shown)
        program = self._for(cameras)
        how: dict[str, Any] = {} if trusted is None else {"weights": trusted}
        if "whole" in method.hints:
            how["whole"] = images
        if knowledge.earlier is not None:
            how["earlier"] = knowledge.earlier(place)
        if self._before is None:
            return program(knowledge.state(place), shown, how, start)
        other, before = self._before(place, taken, start)
        found, costs = program(knowledge.state(place), shown, {**how, "start": other.hu}, start)
        seconds = costs["seconds"] + before["seconds"]
        return found, {
            "seconds": seconds,
            "memory_mb": max(costs["memory_mb"], before["memory_mb"]),
        }


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
    machine = "" if setting.machines[1] == Machine() else f" {_told(setting.machines)}"
    noise = "noise-free" if photons is None else f"with the noise of {photons:g} photons a pixel"
    return {
        "field": f"{' x '.join(map(str, field.shape))} voxels of "
        f"{' x '.join(f'{mm:.3g}' for mm in field.spacing_mm)} mm",
        "window_hu": list(field.window_hu),
        "xrays": f"X-rays are line integrals of {_shown(setting)}, {noise}.{machine}",
    }


def _told(machines: tuple[Machine, Machine]) -> str:
    """What took the X-rays, and whether methods learnt from such, in a sentence."""
    numbers = ", ".join(f"{name} {value:g}" for name, value in asdict(machines[1]).items())
    learnt = "from such X-rays, too" if machines[0] == machines[1] else "from another machine's"
    return f"They are taken by a simulated machine ({numbers}); methods learnt {learnt}."


def _shown(setting: Setting) -> str:
    """What the X-rays show and who projected it, in words."""
    if setting.cases.scenes is None:
        return f"the field's voxels alone, {SAME_PROJECTOR}"
    exact = "by Siddon's exact projector on the file's own voxels"
    if not setting.patient:
        return f"the whole CT, none of which lies outside of the field, {exact}"
    told = (
        "the field's share of them, found by ridge regression on the training cases"
        if setting.terms.surround
        else "them as they are, with all that lies about the field"
    )
    return f"the whole patient, {exact} (methods with a forward model of the field get {told})"
