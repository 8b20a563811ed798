"""Surfaces judged: the organ that has moved, found by every method from the same X-ray.

What is independent is the organ, not the case: cases of one organ are averaged before a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.compile import jit
from jxrecon.evaluation.bench import Bench, Found, Judge, Knowledge, Timed
from jxrecon.evaluation.setting import Setting
from jxrecon.io.meshes import write_mesh
from jxrecon.mesh import Mesh
from jxrecon.methods.base.method import SurfaceProblem
from jxrecon.metrics.surface import METRICS, surface_metrics
from jxrecon.runs.run import Run
from jxrecon.types import InputError

XRAYS = (
    "X-rays are noise-free line integrals of a chest CT that holds the moved organ, by the projector of this "
    "project: an easier problem than real radiographs."
)


def surface_judge() -> Judge:
    """The judge of organs' surfaces."""
    return Judge(
        metrics=METRICS,
        judged="md_vertex_mm",
        main=("md_vertex_mm", "rmse_vertex_mm", "assd_mm", "hd95_mm", "dsc"),
        counts=(1,),
        photons=None,
        bar=None,
        unit="organs",
        unit_of=lambda cases, place: int(cases.subject[place]),
        bench=_bench,
        complete=lambda row: True,
        check=_check,
        ending=".ply",
        light=True,
        save=_save,
        terms=lambda setting: {
            "field": f"surfaces of {len(setting.dataset.template.vertices)} vertices and "
            f"{len(setting.dataset.template.faces)} faces",
            "xrays": XRAYS,
        },
    )


def _bench(setting: Setting, count: int) -> Bench:
    """The bench of the one X-ray that there is."""
    if count != 1:
        raise InputError(f"--views {count}: surfaces are found from one X-ray, expected 1")
    template, cases = setting.dataset.template, setting.cases
    camera = setting.experiment.views.cameras[0]
    problem = SurfaceProblem(template, camera, len(setting.dataset.train.names))

    def run_cases(knowledge: Knowledge, places: Sequence[int]) -> Iterator[Found]:
        find = Timed(jit(knowledge.method.reconstruct))
        for place in places:
            batch = cases.batch(np.array([place], np.int32))
            image, reference = jnp.asarray(batch.image[0]), jnp.asarray(batch.reference[0])
            found, costs = find(knowledge.state(place), image, reference)
            vertices = np.asarray(found, np.float32)
            metrics = surface_metrics(batch.target[0], vertices, template)
            yield Found(place, vertices, metrics, costs)

    training = setting.experiment.kind.acquire(setting.experiment, setting.dataset.train).everything
    return Bench(count, problem, training, run_cases)


def _save(path: Path, vertices: np.ndarray, setting: Setting, place: int) -> None:
    write_mesh(path, Mesh(vertices, setting.dataset.template.faces))


def _check(setting: Setting, run: Run) -> None:
    """Raises InputError unless the run has the data's template and the setting's camera."""
    mine, its = setting.dataset.template, run.problem.template
    cameras = setting.experiment.views.cameras[0], run.problem.camera
    leaves: list[list[Any]] = [jax.tree.leaves(camera) for camera in cameras]
    same = (
        cameras[0].shape == cameras[1].shape
        and np.array_equal(mine.faces, its.faces)
        and all(np.allclose(a, b, atol=1e-3) for a, b in zip(*leaves))
    )
    if not same:
        raise InputError(
            f"{run.folder}: its template or camera is another than that of the data, expected runs on the "
            "same data"
        )
