"""What differs between experiments that find volumes, surfaces and styles, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jxrecon.data.acquisition import Acquisition, AsStored, acquisition
from jxrecon.data.surround import SURROUND, write_surround
from jxrecon.evaluation.surfaces import surface_judge
from jxrecon.evaluation.volumes import volume_judge
from jxrecon.experiment import Experiment, Kind
from jxrecon.inference.surfaces import reconstruct_surface
from jxrecon.inference.volumes import reconstruct_volume
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.likelihood.check import CHECK, shadows_of, write_shadows
from jxrecon.likelihood.model import FEWEST_PATIENTS
from jxrecon.likelihood.patients import patients_of
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import Problem, StyleProblem, SurfaceProblem
from jxrecon.report import surfaces, volumes

TEMPLATE = "template.ply"
"""In the folder of a run that finds surfaces: the mean reference shape of the training cases, world mm."""


def _volume_problem(experiment: Experiment, cases: int, folder: Path) -> Problem:
    field = experiment.field
    return Problem(field.grid, experiment.views.cameras, field.window, cases)


def _volumes_acquired(experiment: Experiment, cases: Any) -> Acquisition:
    return acquisition(cases, experiment.field.grid, experiment.views.cameras, experiment.xrays)


def _keep_of_volumes(experiment: Experiment, dataset: Any, folder: Path) -> None:
    """The surround for methods that take X-rays for those of the field alone; the check of real patients.

    SYNTHETIC training cases are made again wherever a check is asked for.
    """
    if not dataset.synthetic and len(dataset.train.names) >= FEWEST_PATIENTS:
        patients = patients_of(dataset.train, experiment.field.grid)
        write_shadows(folder / CHECK, shadows_of(patients, experiment.views.cameras))
    problem = _volume_problem(experiment, len(dataset.train.names), folder)
    if experiment.build(experiment.settings, problem).field_model:
        surround = _volumes_acquired(experiment, dataset.train).surround()
        if surround is not None:
            write_surround(folder / SURROUND, surround)


def _keep_template(experiment: Experiment, dataset: Any, folder: Path) -> None:
    write_mesh(folder / TEMPLATE, Mesh(dataset.template.vertices, dataset.template.faces))


def _surface_problem(experiment: Experiment, cases: int, folder: Path) -> SurfaceProblem:
    path = folder / TEMPLATE
    return SurfaceProblem(template(read_mesh(path), str(path)), experiment.views.cameras[0], cases)


VOLUMES = Kind(
    finds="CT volumes",
    problem=_volume_problem,
    acquire=_volumes_acquired,
    keep=_keep_of_volumes,
    judge=volume_judge,
    sections=volumes.sections,
    reconstruct=reconstruct_volume,
)
"""Methods are `methods.base.method.Method`: a CT volume from X-rays."""

SURFACES = Kind(
    finds="organs' surfaces",
    problem=_surface_problem,
    acquire=lambda e, cases: AsStored(cases),
    keep=_keep_template,
    judge=surface_judge,
    sections=surfaces.sections,
    reconstruct=reconstruct_surface,
)
"""Methods are `methods.base.method.SurfaceMethod`: an organ that has moved, from one X-ray."""

STYLES = Kind(
    finds="styles of X-rays",
    problem=lambda e, cases, _: StyleProblem((e.field.shape[0], e.field.shape[1]), cases),
    acquire=lambda e, cases: AsStored(cases),
)
"""Methods are `methods.base.method.Translator`: an X-ray in another style. There is no truth to judge by."""
