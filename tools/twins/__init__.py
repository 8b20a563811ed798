"""Every network of a run and its PyTorch twin: names and layouts of the tensors, and how both are tried.

One function a method says which networks its state holds, by `interop.layouts` read off their layers, which
arguments `torch_modules.build` needs, and what both are given to compare their outputs.
"""

from __future__ import annotations

from collections.abc import Callable

from jxrecon.interop import tensorflow
from jxrecon.methods.styles.cyclegan.method import Settings as CycleGAN
from jxrecon.methods.surfaces.displacement_field import Settings as DisplacementField
from jxrecon.methods.surfaces.igcn.method import Settings as Igcn
from jxrecon.methods.surfaces.igcn.plus import Settings as IgcnPlus
from jxrecon.methods.surfaces.pixel2mesh.method import Settings as Pixel2Mesh
from jxrecon.methods.surfaces.xray2shape import Settings as Xray2Shape
from jxrecon.methods.volumes.cnn2d import Settings as Cnn2d
from jxrecon.methods.volumes.henzler import Settings as Henzler
from jxrecon.methods.volumes.lift.method import Settings as Lift
from jxrecon.methods.volumes.x2ct.method import Settings as X2CT
from jxrecon.methods.volumes.x2vision.method import Settings as X2Vision
from jxrecon.runs.run import Run
from jxrecon.types import InputError, PyTree

from . import published, volumes
from .base import Trial, Twin, tensors_of, with_tensors
from .surfaces import surface

__all__ = ["Trial", "Twin", "tensors_of", "twin_of", "with_tensors"]

_TWINS: dict[type, Callable[[Run, PyTree], Twin]] = {
    X2Vision: volumes.x2vision,
    X2CT: published.x2ct,
    Lift: volumes.lift,
    Cnn2d: volumes.cnn2d,
    Henzler: volumes.henzler,
    Igcn: surface("igcn", ("width", "stages", "hidden", "pairs", "silhouette")),
    IgcnPlus: surface(
        "igcn_plus",
        ("channels", "hidden", "pairs", "faults"),
        sees=True,
        tensorflow=lambda s: tensorflow.igcn_plus(len(s.channels), s.pairs),
    ),
    Pixel2Mesh: surface(
        "pixel2mesh",
        ("width", "hidden", "pairs"),
        self_loop=False,
        tensorflow=lambda s: tensorflow.pixel2mesh(s.pairs),
    ),
    Xray2Shape: surface("xray2shape", ("width", "stages", "hidden", "pairs")),
    DisplacementField: surface(
        "displacement_field",
        ("width", "stages", "nodes", "extent_mm", "hidden", "layers"),
        sees=True,
        self_loop=None,
    ),
    CycleGAN: published.cyclegan,
}
"""Settings of a method -> its twin."""


def twin_of(run: Run, state: PyTree) -> Twin:
    """The twin of a run with this state.

    Raises:
        InputError: its method has none.
    """
    make = _TWINS.get(type(run.experiment.settings))
    if make is None:
        raise InputError(f"{run.folder}: {run.experiment.name} has no network that PyTorch knows")
    return make(run, state)
