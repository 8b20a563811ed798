"""What differs between experiments that find volumes, surfaces and styles, and nowhere else.

Judging, pictures and reconstruction are imported when they are called: statistics and drawing take seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jxrecon.experiment import Experiment, Kind
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import Problem, StyleProblem, SurfaceProblem

TEMPLATE = "template.ply"
"""In the folder of a run that finds surfaces: the mean reference shape of the training cases, world mm."""


def _volume_problem(experiment: Experiment, cases: int, folder: Path) -> Problem:
    field = experiment.field
    return Problem(field.grid, experiment.views.cameras, field.window, cases)


def _judge_volumes() -> Any:
    from jxrecon.evaluation.volumes import volume_judge

    return volume_judge()


def _volume_sections(results: Any) -> list[Any]:
    from jxrecon.report.volumes import sections

    return sections(results)


def _reconstruct_volume(*arguments: Any) -> Any:
    from jxrecon.inference.volumes import reconstruct_volume

    return reconstruct_volume(*arguments)


def _surface_problem(experiment: Experiment, cases: int, folder: Path) -> SurfaceProblem:
    path = folder / TEMPLATE
    return SurfaceProblem(template(read_mesh(path), str(path)), experiment.views.cameras[0], cases)


def _keep_template(dataset: Any, folder: Path) -> None:
    write_mesh(folder / TEMPLATE, Mesh(dataset.template.vertices, dataset.template.faces))


def _judge_surfaces() -> Any:
    from jxrecon.evaluation.surfaces import surface_judge

    return surface_judge()


def _surface_sections(results: Any) -> list[Any]:
    from jxrecon.report.surfaces import sections

    return sections(results)


def _reconstruct_surface(*arguments: Any) -> Any:
    from jxrecon.inference.surfaces import reconstruct_surface

    return reconstruct_surface(*arguments)


def _style_problem(experiment: Experiment, cases: int, folder: Path) -> StyleProblem:
    rows, columns, _ = experiment.field.shape
    return StyleProblem((rows, columns), cases)


VOLUMES = Kind(
    "CT volumes",
    _volume_problem,
    lambda dataset, folder: None,
    _judge_volumes,
    _volume_sections,
    _reconstruct_volume,
)
"""Methods are `methods.base.method.Method`: a CT volume from X-rays."""

SURFACES = Kind(
    "organs' surfaces",
    _surface_problem,
    _keep_template,
    _judge_surfaces,
    _surface_sections,
    _reconstruct_surface,
)
"""Methods are `methods.base.method.SurfaceMethod`: an organ that has moved, from one X-ray."""

STYLES = Kind("styles of X-rays", _style_problem, lambda dataset, folder: None)
"""Methods are `methods.base.method.Translator`: an X-ray in another style. There is no truth to judge by."""
