"""What differs between methods that find volumes, surfaces and styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jxrecon.experiment import Experiment, Kind
from jxrecon.inference.surfaces import reconstruct
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import SurfaceProblem

TEMPLATE = "template.ply"
"""In the run folder: the mean reference shape of the training cases, in world mm."""


def keep(dataset: Any, folder: Path) -> None:
    """Writes the template of the data set into the run folder."""
    write_mesh(folder / TEMPLATE, Mesh(dataset.template.vertices, dataset.template.faces))


def problem(experiment: Experiment, cases: int, folder: Path) -> SurfaceProblem:
    """The problem of a run.

    Raises:
        InputError: the run folder has no template, or it cannot be read.
    """
    path = folder / TEMPLATE
    return SurfaceProblem(template(read_mesh(path), str(path)), experiment.views.cameras[0], cases)


def evaluate(*arguments: Any) -> None:
    """See `evaluation.surfaces`; imported when called, for its statistics take half a second."""
    from jxrecon.evaluation import surfaces as evaluation

    evaluation.evaluate(*arguments)


SURFACES = Kind(keep, problem, evaluate, reconstruct)
"""The kind of an experiment whose methods are `methods.base.method.SurfaceMethod`."""
