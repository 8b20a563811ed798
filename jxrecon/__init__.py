"""jxrecon: 3-D CT volumes and organ surfaces from one or two X-rays, in JAX.

What a notebook needs, each imported when it is first named:

    run = jxrecon.open_run("runs/x2vision_hn-small")
    cameras = jxrecon.biplanar(shape=(128, 128), pixel_mm=3.0)
    volume = jxrecon.reconstruct(run, images, cameras)
    volume.hu, volume.affine, volume.errors
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

# XLA's CPU compilation cache warns at every load of features that it invented itself; read before jax.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jxrecon import drr as drr
    from jxrecon.evaluation.compare import evaluate as evaluate
    from jxrecon.evaluation.setting import Terms as Terms
    from jxrecon.geometry import Camera as Camera
    from jxrecon.geometry import Grid as Grid
    from jxrecon.geometry import ParallelCamera as ParallelCamera
    from jxrecon.geometry import biplanar as biplanar
    from jxrecon.geometry import camera_at as camera_at
    from jxrecon.geometry import parallel_at as parallel_at
    from jxrecon.inference.patient import reconstruct as reconstruct
    from jxrecon.inference.volumes import untrained as untrained
    from jxrecon.io.ct import read_ct as read_ct
    from jxrecon.io.meshes import read_mesh as read_mesh
    from jxrecon.io.meshes import write_mesh as write_mesh
    from jxrecon.io.nifti import read_volume as read_volume
    from jxrecon.io.nifti import write_volume as write_volume
    from jxrecon.io.radiographs import read as read_xray
    from jxrecon.io.radiographs import write as write_xray
    from jxrecon.report.page import write_report as write_report
    from jxrecon.runs.run import open_run as open_run
    from jxrecon.types import InputError as InputError

_FACE = {
    "Camera": "geometry",
    "Grid": "geometry",
    "InputError": "types",
    "ParallelCamera": "geometry",
    "Terms": "evaluation.setting",
    "biplanar": "geometry",
    "camera_at": "geometry",
    "drr": "drr",
    "evaluate": "evaluation.compare",
    "open_run": "runs.run",
    "parallel_at": "geometry",
    "read_ct": "io.ct",
    "read_mesh": "io.meshes",
    "read_volume": "io.nifti",
    "read_xray": "io.radiographs:read",
    "reconstruct": "inference.patient",
    "untrained": "inference.volumes",
    "write_mesh": "io.meshes",
    "write_report": "report.page",
    "write_volume": "io.nifti",
    "write_xray": "io.radiographs:write",
}
"""Name -> the module that holds it, and its name there where that is another one."""

__all__ = ["__version__", *_FACE]


class _Face(ModuleType):
    """A package whose functions keep their names when a command of the same name is imported."""

    def __getattr__(self, name: str) -> Any:
        if name not in _FACE:
            raise AttributeError(f"module 'jxrecon' has no attribute {name!r}")
        place, _, inner = _FACE[name].partition(":")
        module = import_module(f"jxrecon.{place}")
        value = module if name == place else getattr(module, inner or name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FACE and isinstance(value, ModuleType) and name != _FACE[name]:
            return  # jxrecon.reconstruct is the function, `import jxrecon.reconstruct` the command
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_FACE})


sys.modules[__name__].__class__ = _Face
