"""A run applied to a patient: what is asked of it, from X-rays in memory or in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon.geometry import AnyCamera
from jxrecon.io.radiographs import Radiograph
from jxrecon.mesh import Mesh
from jxrecon.runs.run import Run
from jxrecon.types import InputError


class Request(NamedTuple):
    """What is asked of a run, beside the X-rays.

    Attributes:
        checkpoint: "latest", "best" or a step.
        seed: of the method's random starts.
        mesh: the organ's known shape in the X-rays' world, mm; for runs that find surfaces alone.
        mesh_origin: the file it comes from, to name in errors.
        say: called with a line of what is done, before it takes its time.
        progress: called with a line that tells how far the work is; None: a program that calls nobody is kept
            compiled, so that it starts sooner another time. With weights that ship it is not called.
        xrays: what the X-rays show: the whole "patient", as a machine takes them, or the "field" alone; None:
            the patient where the run learnt from X-rays of patients.
        surround: a run whose training cases teach what the patient adds to X-rays of the field; None: the
            run itself.
        refine_pose: whether the poses of all X-rays but the first are found by their likelihood first.
        start: a run whose volume of the same X-rays X2Vision starts from.
        earlier: an earlier CT of the patient, in the X-rays' world, which X2Vision deforms.
    """

    checkpoint: int | Literal["latest", "best"] = "latest"
    seed: int = 0
    mesh: Mesh | None = None
    mesh_origin: str = "mesh"
    say: Callable[[str], None] = lambda line: None
    progress: Callable[[str], None] | None = None
    xrays: Literal["patient", "field"] | None = None
    surround: Run | None = None
    refine_pose: bool = False
    start: Run | None = None
    earlier: Path | None = None


def reconstruct(
    run: Run,
    images: Sequence[Float[np.ndarray, "rows columns"] | Radiograph],
    cameras: Sequence[AnyCamera] = (),
    isocentre_mm: Sequence[float] = (0.0, 0.0, 0.0),
    checkpoint: int | Literal["latest", "best"] = "latest",
    seed: int = 0,
    mesh: Mesh | None = None,
    xrays: Literal["patient", "field"] | None = None,
    surround: Run | None = None,
    refine_pose: bool = False,
) -> Any:
    """A CT volume or an organ's surface from X-rays in memory.

    Args:
        run: of `open_run` or `untrained`.
        images: line integrals, dimensionless, one [rows, columns] a camera; or what `read_xray` gave.
        cameras: of the images, mm, RAS; none where `read_xray` gave them.
        isocentre_mm: the point of the cameras' world that the run's field lies about.
        checkpoint: "latest", "best" or a step.
        seed: of the method's random starts.
        mesh: the organ's known shape in the cameras' world, mm, for a run that finds surfaces.
        xrays: what the X-rays show, the whole "patient" or the "field" alone; None: the patient where the
            run learnt from X-rays of patients.
        surround: for `untrained`: a run whose cases teach what the patient adds to X-rays of the field.
        refine_pose: whether the poses of all X-rays but the first are found by their likelihood first.

    Returns:
        `inference.volumes.Volume` (hu, affine, errors, ...) or `inference.surfaces.Surface`.

    Raises:
        InputError: images and cameras do not belong together, or the run cannot use them.
    """
    if cameras and len(cameras) != len(images):
        raise InputError(f"{len(images)} images and {len(cameras)} cameras, expected one for each")
    radiographs = []
    for n, image in enumerate(images, start=1):
        if isinstance(image, Radiograph):
            radiographs.append(image)
            continue
        if not cameras:
            raise InputError(f"image {n} has no camera: give cameras, or what read_xray gave")
        pixels, camera = np.asarray(image, np.float32), cameras[n - 1]
        if pixels.shape != tuple(camera.shape) or not np.isfinite(pixels).all():
            raise InputError(
                f"image {n} has the shape {pixels.shape}, expected finite line integrals on the "
                f"{camera.shape[0]} x {camera.shape[1]} pixels of its camera"
            )
        centre = np.asarray(isocentre_mm, np.float64)
        radiographs.append(Radiograph(pixels, camera, f"image {n}", centre))
    request = Request(
        checkpoint, seed, mesh, xrays=xrays, surround=surround, refine_pose=refine_pose
    )
    return find_in_xrays(run, radiographs, request)


def find_in_xrays(run: Run, xrays: Sequence[Radiograph], request: Request) -> Any:
    """What a run finds in X-rays; errors and result as of `reconstruct`."""
    if not xrays:
        raise InputError("no X-ray was given, expected at least one")
    if run.experiment.kind.reconstruct is None:
        raise InputError(
            f"{run.experiment.name} finds {run.experiment.kind.finds}, expected a run that reconstructs"
        )
    return run.experiment.kind.reconstruct(run, xrays, request)


def title(run: Run, step: int) -> str:
    """A run, its checkpoint and what it learnt from, in a line."""
    what = f"{run.experiment.name} {run.experiment.size}".strip()
    return (
        f"{what}; {run.rule}"
        if run.untrained
        else f"{what}, step {step}, of {run.folder}; {run.rule}"
    )


def facts(run: Run, step: int, request: Request) -> dict[str, Any]:
    """What a result depends on, for the JSON file beside it."""
    return {
        "run": None if run.untrained else str(run.folder),
        "experiment": f"{run.experiment.name} {run.experiment.size}".strip(),
        "step": step,
        "seed": request.seed,
        "synthetic_training_data": run.synthetic,
    }
