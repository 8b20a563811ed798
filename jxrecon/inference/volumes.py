"""A CT volume from a patient's X-rays.

Methods know a grid about the world's origin, so the X-rays' cameras are moved until the point that
they turn about, the isocentre, lies there; the volume's affine takes it back to the X-rays' world.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.compile import jit
from jxrecon.data.acquisition import acquisition
from jxrecon.data.earlier_scans import read_earlier
from jxrecon.data.surround import SURROUND, Surround, read_surround
from jxrecon.files import cache_folder, write_file
from jxrecon.geometry import Grid, camera_at, same_cameras
from jxrecon.inference import geometry
from jxrecon.inference.patient import Request, facts, title
from jxrecon.io.nifti import write_volume
from jxrecon.io.radiographs import Radiograph
from jxrecon.io.views import View, centred_view, check_field, common_isocentre
from jxrecon.methods.base.method import Problem, Progress
from jxrecon.runs import config, shipped
from jxrecon.runs.run import Run, data_of, restore
from jxrecon.types import InputError

Image = Float[np.ndarray, "rows columns"]


EXPLAINED = 0.2
"""Largest re-projection error of a volume that explains its X-rays."""


class Volume(NamedTuple):
    """A CT volume that was found in X-rays.

    Attributes:
        hu: [x, y, z] in HU.
        affine: [4, 4], index -> mm of the X-rays' world, RAS.
        run: whose method found it.
        step: of the checkpoint.
        trace: objective terms per iteration under their paper names; may be empty.
        views: the X-rays as the method took them, about the isocentre.
        again: the volume's line integrals in every view.
        facts: what the result depends on.
        deviation: standard deviation of hu in every voxel, HU, where the method knows one.
    """

    hu: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    run: Run
    step: int
    trace: dict[str, Float[np.ndarray, " iterations"]]
    views: tuple[View, ...]
    again: tuple[Image, ...]
    facts: dict[str, Any]
    deviation: Float[np.ndarray, "x y z"] | None = None

    @property
    def errors(self) -> list[float]:
        """|A x - y| / |y| of every view: how well the volume explains the X-rays."""
        return [
            float(np.linalg.norm(a - view.image) / np.linalg.norm(view.image))
            for a, view in zip(self.again, self.views)
        ]

    @property
    def beyond(self) -> bool:
        """Whether the X-rays show more than the volume, so that it cannot explain all of them."""
        return str(self.facts["xrays_show"]).startswith("the patient")

    @property
    def unexplained(self) -> list[str]:
        """A line for each X-ray that the volume does not explain.

        Its re-projection error is over `EXPLAINED`; or, where the X-ray shows more than the volume, that of
        the part by which the volume's line integrals exceed it: what lies about the field can only add.
        """
        lines = []
        for again, view in zip(self.again, self.views):
            over = again - view.image
            over = np.maximum(over, 0) if self.beyond else over
            error = float(np.linalg.norm(over) / np.linalg.norm(view.image))
            if not error <= EXPLAINED:
                lines.append(
                    f"{view.origin}: re-projection error {error:.2f}, expected at most {EXPLAINED:g}: the "
                    "volume does not explain this X-ray (are its camera, scale and polarity right?)"
                )
        return lines

    def write(self, out: Path, name: str, **more: Any) -> list[Path]:
        """Writes NAME.nii.gz, NAME_facts.json and, if there are any, NAME_deviation.nii.gz, NAME_trace.csv.

        Returns:
            their paths.
        """
        paths = [out / f"{name}.nii.gz", out / f"{name}_facts.json"]
        write_volume(paths[0], self.hu, self.affine)
        if self.trace:
            paths.append(out / f"{name}_trace.csv")
            write_file(paths[-1], _csv(self.trace))
        if self.deviation is not None:
            paths.append(out / f"{name}_deviation.nii.gz")
            write_volume(paths[-1], self.deviation, self.affine)
        told = {**self.facts, "reprojection_error": self.errors, **more}
        write_file(paths[1], json.dumps(told, indent=1) + "\n")
        return paths


def reconstruct_volume(run: Run, xrays: Sequence[Radiograph], request: Request) -> Volume:
    """The volume in the field of the run about the X-rays' isocentre.

    Raises:
        InputError: nothing fixes the isocentre, a detector does not see it, the field reaches a source or a
            detector, there is no checkpoint, or the method cannot use these X-rays.
    """
    if request.mesh is not None:
        raise InputError(
            f"--mesh {request.mesh_origin}: {run.experiment.name} finds a volume, expected none"
        )
    isocentre = common_isocentre(list(xrays))
    views = [centred_view(xray, isocentre, run.problem.cameras[0]) for xray in xrays]
    for view in views:
        check_field(run.problem.grid, view)
    key = jax.random.key(request.seed)
    state, step = (run.method.init(key), 0) if run.untrained else restore(run, request.checkpoint)
    request.say(title(run, step))
    if run.weights is not None:
        request.say(shipped.expected_time(run.weights))
    request.say(_what_is_found(run.problem.grid, isocentre, views))
    whole, turned = _geometry(run, views, request)
    problem, progress = run.problem, _progress(run, request)
    shown, weights, told = as_taken(run, whole, request)
    more: dict[str, Any] = {} if weights is None else {"weights": weights}
    more |= _hints(run, xrays, whole, isocentre, request)
    seen = [view._replace(image=np.asarray(y)) for view, y in zip(whole, shown)]
    if turned is not None and run.method.any_camera:
        seen = turned.of_field(None if weights is None else shown)
    cameras = tuple(view.camera for view in seen)
    shown = tuple(jnp.asarray(view.image) for view in seen)

    # What ships compiles sooner so, and runs as fast; X2CT's networks compile longer.
    @partial(jit, once=run.weights is not None)
    def found(state: Any, images: Any, key: Any, more: dict[str, Any]) -> Any:
        return run.method.reconstruct(state, images, cameras, key, progress, **more)

    result = jax.block_until_ready(found(state, shown, key, more))
    hu = np.asarray(result.hu, np.float32)
    affine = problem.grid.affine.copy()
    affine[:3, 3] += isocentre
    return Volume(
        hu,
        affine,
        run,
        step,
        {name: np.asarray(values) for name, values in result.trace.items()},
        tuple(seen),
        tuple(reprojections(hu, problem.grid, seen)),
        {
            **facts(run, step, request),
            "isocentre_mm": isocentre.tolist(),
            "xrays_show": told,
            **({} if turned is None else {"refined_pose": geometry.facts_of(turned.found)}),
        },
        None if result.deviation is None else np.asarray(result.deviation),
    )


def _progress(run: Run, request: Request) -> Progress:
    """What tells of iterations; None for weights that ship: JAX keeps no program that calls back."""
    say = request.progress
    if say is None or run.weights is not None:
        return None
    return lambda iteration, objective: say(
        f"iteration {int(iteration)}  objective {float(objective):.5g}"
    )


def _geometry(
    run: Run, views: list[View], request: Request
) -> tuple[list[View], geometry.Turned | None]:
    """(X-rays where they are told to stand, where they were found to), the latter if it is asked for.

    Else a warning where the poses look wrong.
    """
    if not request.refine_pose:
        if line := geometry.warning(run, views, request):
            request.say(line)
        return views, None
    turned = geometry.refined(run, views, request)
    return turned.views, turned


def as_taken(
    run: Run, views: Sequence[View], request: Request
) -> tuple[tuple[Array, ...], tuple[Array, ...] | None, str]:
    """(X-rays as the method takes them, how much each pixel is to be trusted, what they show in words).

    Raises:
        InputError: what the patient adds to the field's X-rays cannot be learnt.
    """
    images = tuple(jnp.asarray(view.image) for view in views)
    if not run.method.field_model:
        of = run.experiment.xrays.of
        if request.xrays not in (None, of):
            raise InputError(
                f"--xrays {request.xrays}: {run.folder} learnt from X-rays of the {of}, expected such"
            )
        return images, None, f"the {of}, as those of the training"
    source = request.surround or run
    stored = source.folder / SURROUND
    learnt = not run.untrained and stored.exists()
    known = geometry.shipped_patients(source)
    nothing = source is run and not learnt and known is None
    if request.xrays == "field" or (request.xrays is None and nothing):
        asked = request.xrays == "field"
        other = "" if asked else "; if they show the whole patient, --surround RUN finds its share"
        request.say(f"X-rays are taken for those of the field alone{other}")
        return images, None, "the field alone, as given"
    cameras = tuple(view.camera for view in views)
    if learnt and source is run and same_cameras(cameras, run.problem.cameras, 0.1):
        surround: Surround | None = read_surround(stored)
    else:
        request.say(f"learning what the patient adds to these X-rays, from {source.rule}")
        grid = run.problem.grid
        surround = (
            known.modes.surround(grid, cameras) if known else _learnt_surround(run, source, cameras)
        )
    if surround is None:
        return images, None, "the field alone: the training cases hold no more"
    share, weights = jit(surround.share)(images)
    return share, weights, "the field's share of the patient, found by ridge regression"


def _learnt_surround(run: Run, source: Run, cameras: Sequence[Any]) -> Surround | None:
    """What a run's training cases teach of other X-rays, or of another field."""
    if source.untrained:
        raise InputError(
            f"{run.experiment.name} knows no training cases: give --surround RUN, whose cases teach what the "
            "patient adds to X-rays of the field, or say --xrays field"
        )
    xrays = dataclasses.replace(source.experiment.xrays, of="patient")
    experiment = dataclasses.replace(source.experiment, field=run.experiment.field, xrays=xrays)
    dataset = experiment.load(experiment, data_of(source), cache_folder("data"))
    return acquisition(dataset.train, run.problem.grid, cameras, xrays).surround()


def _hints(
    run: Run,
    xrays: Sequence[Radiograph],
    views: Sequence[View],
    isocentre_mm: Float[np.ndarray, "3"],
    request: Request,
) -> dict[str, Any]:
    """What else the method is told, by the names of its `hints`.

    Raises:
        InputError: it takes no start or no earlier scan, or the scan does not show the field.
    """
    hints, grid = run.method.hints, run.problem.grid
    start = None if request.start is None else request.start.folder
    for name, told in {"start": start, "earlier": request.earlier}.items():
        if told is not None and name not in hints:
            raise InputError(
                f"--{name} {told}: {run.experiment.name} takes none, expected a run of x2vision_hn whose "
                "settings.prior.codes is principal"
            )
    more: dict[str, Any] = {}
    if "whole" in hints and request.xrays != "field" and run.experiment.xrays.of == "patient":
        more["whole"] = tuple(jnp.asarray(view.image) for view in views)
    if request.start is not None:
        if not _alike(request.start.problem.grid, grid):
            raise InputError(
                f"--start {request.start.folder}: a volume of {request.start.problem.grid.shape} voxels, "
                f"expected the field of {run.folder}, {grid.shape}"
            )
        own = request._replace(start=None, earlier=None, surround=None, checkpoint="latest")
        more["start"] = jnp.asarray(reconstruct_volume(request.start, xrays, own).hu)
    if request.earlier is not None:
        affine = grid.affine.copy()
        affine[:3, 3] += isocentre_mm
        more["earlier"] = jnp.asarray(read_earlier(request.earlier, grid.shape, affine))
    return more


def _alike(a: Grid, b: Grid) -> bool:
    return a.shape == b.shape and np.allclose(a.affine, b.affine)


def _what_is_found(grid: Grid, isocentre_mm: Float[np.ndarray, "3"], views: Sequence[View]) -> str:
    field = " x ".join(f"{x:.0f}" for x in grid.extent_mm)
    middle = ", ".join(f"{x:.1f}" for x in isocentre_mm)
    pixels = ", ".join("{} x {}".format(*view.camera.shape) for view in views)
    return (
        f"{' x '.join(map(str, grid.shape))} voxels, a field of {field} mm about the isocentre ({middle}) "
        f"mm; X-rays taken at {pixels} pixels"
    )


def reprojections(
    hu: Float[np.ndarray, "x y z"], grid: Grid, views: Sequence[View]
) -> list[Float[np.ndarray, "rows columns"]]:
    """The line integrals of the volume in every view."""

    @partial(jit, once=True)
    def project(hu: Float[Array, "x y z"]) -> list[Float[Array, "rows columns"]]:
        return list(drr.project(drr.hu_to_mu(hu), grid.affine, [view.camera for view in views]))

    return [np.asarray(image) for image in project(hu)]


def untrained(
    method: str,
    shape: tuple[int, int, int] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    exp: str = "x2vision_hn",
) -> Run:
    """What stands in for a run where a method needs no training: FDK, SIRT, CGLS, TV, NeRP.

    Args:
        method: name of an untrained rival of the experiment.
        shape: voxels along x, y, z about the isocentre; None: the experiment's.
        spacing_mm: their spacing; None: the experiment's.
        exp: the experiment that lists the method.

    Raises:
        InputError: there is no such method.
    """
    experiment = config.find(exp)
    known = [name for name, rival in experiment.rivals.items() if rival.untrained]
    if method not in known:
        raise InputError(
            f"--method {method}: {exp} has no such untrained method, expected {', '.join(known) or 'none'}"
        )
    field = dataclasses.replace(
        experiment.field,
        shape=shape or experiment.field.shape,
        spacing_mm=spacing_mm or experiment.field.spacing_mm,
    )
    # a pixel is as wide as a voxel where the rays pass the isocentre
    pitch = camera_at(0.0, pixel_mm=1.5 * min(field.spacing_mm))
    problem = Problem(field.grid, (pitch,), field.window, 0)
    built = experiment.rivals[method].build(problem)
    experiment = dataclasses.replace(experiment, name=method, size="", field=field)
    return Run(Path(), experiment, None, problem, built, False, "no training data", untrained=True)


def _csv(trace: dict[str, Float[np.ndarray, " iterations"]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["iteration", *trace])
    for iteration, row in enumerate(zip(*trace.values())):
        writer.writerow([iteration, *(f"{value:.6g}" for value in row)])
    return stream.getvalue()
