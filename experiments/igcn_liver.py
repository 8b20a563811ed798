"""IGCN on livers that breathe: the moved surface from one frontal X-ray and the patient's reference shape.

    jxrecon train --exp igcn_liver                     # built-in SYNTHETIC livers
    jxrecon prepare meshes SRC OUT                     # real ones: PLY, OBJ, STL, VTK or labels
    jxrecon train --exp igcn_liver --data OUT

A cone-beam camera in front of the patient, a detector of 300 mm at the isocentre; the liver lies in a chest
CT, moved with it by 5 to 25 mm at the dome. The CT, the breathing and the noise-free X-rays are a model
around the livers: see `jxrecon/data/surfaces.py`. Beside it, on the same cases: igcn_plus_liver,
p2m_liver, xray2shape_liver, field_liver.

Measured, size small, 160 real livers in that model (128 train, 32 validation, 4 states each), seed 0, one
shared CPU core: MD 1.30 +- 0.86 mm, DSC 0.981 over 128 cases; zero motion 5.67, field 1.25, igcn_plus 1.54,
p2m 1.88, X-ray2Shape 10.63. SYNTHETIC livers (32 and 8): 1.95 +- 1.30 mm, zero motion 6.01. About 0.3 CPU
seconds a step. The paper's own numbers could not be read.
"""

from __future__ import annotations

from pathlib import Path

import jax

from jxrecon.data import surfaces
from jxrecon.data.surfaces import SurfaceDataset, SurfacePopulation
from jxrecon.experiment import Experiment, Schedule, Views
from jxrecon.kinds import SURFACES
from jxrecon.methods.surfaces.igcn.method import Settings, build
from jxrecon.rivals import SURFACE_RIVALS
from jxrecon.types import InputError

_DETECTOR_MM = 450.0


def _schedule(steps: int, batch_size: int, every: int) -> Schedule:
    return Schedule(
        steps=steps,
        batch_size=batch_size,
        evaluate_every=every,
        evaluate_cases=16,
        save_every=every,
        best="-md_vertex_mm",
    )


_SIZES = {
    # Minutes on two CPU cores.
    "small": {
        "views": Views(pixels=96, count=1, detector_mm=_DETECTOR_MM),
        "schedule": _schedule(steps=1200, batch_size=8, every=200),
        "population": SurfacePopulation(states=4),
        "settings": Settings(width=8, silhouette=True, decay_steps=1200),
    },
    # VGG-16's widths on an accelerator. Not measured.
    "paper": {
        "views": Views(pixels=256, count=1, detector_mm=_DETECTOR_MM),
        "schedule": _schedule(steps=20_000, batch_size=16, every=1000),
        "population": SurfacePopulation(states=32, augment=256),
        "settings": Settings(width=64, hidden=256, silhouette=True, decay_steps=20_000),
    },
}


def _load(experiment: Experiment, folder: Path | None, cache: Path | None) -> SurfaceDataset:
    camera = experiment.views.cameras[0]
    return surfaces.load(camera, experiment.population, folder, cache)


def get_config(size: str | None = None) -> Experiment:
    """The experiment at `size`; None picks small on CPU, paper on an accelerator."""
    if size is None:
        size = "small" if jax.default_backend() == "cpu" else "paper"
    if size not in _SIZES:
        raise InputError(f"--size {size}: no such size, expected one of {', '.join(_SIZES)}")
    return Experiment(
        name="igcn_liver",
        size=size,
        build=build,
        load=_load,
        kind=SURFACES,
        rivals=SURFACE_RIVALS,
        **_SIZES[size],
    )
