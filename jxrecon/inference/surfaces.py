"""An organ's surface from one X-ray file and its known shape: what `jxrecon.reconstruct --mesh` does."""

from __future__ import annotations

import argparse
import json
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.compile import jit
from jxrecon.files import write_file
from jxrecon.geometry import Camera
from jxrecon.io import images
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.io.radiographs import Radiograph
from jxrecon.mesh import Mesh, Template
from jxrecon.methods.base.trained_views import on_trained_pixels
from jxrecon.reconstruct import prepare
from jxrecon.report.outlines import overlay_png
from jxrecon.runs.run import Run, restore
from jxrecon.terminal import Spinner
from jxrecon.types import InputError

SEEN = 0.5
"""Share of the organ's vertices that must fall on the detector."""

FORMATS = ("ply", "stl", "vtk")


def reconstruct(
    options: argparse.Namespace,
    run: Run,
    xrays: list[Radiograph],
    isocentre_mm: Float[np.ndarray, "3"],
    which: int | Literal["latest", "best"],
) -> int:
    """Writes the organ's surface at the time of the X-ray, in the X-ray's world, and an overlay.

    A mesh of another topology than the run's template is fitted by the template first.

    Raises:
        InputError: there is more than one X-ray or no mesh, it cannot be used, or the organ lies off the
            detector.
    """
    if options.mesh is None:
        raise InputError(
            f"{run.experiment.name} finds a surface: expected --mesh FILE, the organ's known shape"
        )
    if len(xrays) != 1:
        raise InputError(f"{run.experiment.name} was given {len(xrays)} X-rays, expected one")
    formats = options.format.split(",")
    if not set(formats) <= set(FORMATS):
        raise InputError(f"--format {options.format}: expected some of {', '.join(FORMATS)}")
    template, camera = run.problem.template, run.problem.camera
    mesh = read_mesh(options.mesh)
    view = prepare(xrays[0], isocentre_mm, camera)
    centred = Mesh(mesh.vertices - isocentre_mm, mesh.faces)
    check_seen(centred.vertices, view.camera, f"{options.mesh}: the organ", view.origin)
    reference, fitted_mm = correspondent(centred, template, str(options.mesh))
    image = on_trained_pixels(
        [jnp.asarray(view.image)], [view.camera], [camera], run.experiment.name
    )[0]
    state, step = restore(run, which)
    print(f"{run.experiment.name} {run.experiment.size}, step {step}, of {options.run}; {run.rule}")
    with Spinner("compiling"):
        find: Any = jit(run.method.reconstruct)
        found = np.asarray(find(state, jnp.asarray(image), jnp.asarray(reference, jnp.float32)))
    moved = np.linalg.norm(found - reference, axis=1)
    name = images.stem(options.xray[0])
    for ending in formats:
        write_mesh(options.out / f"{name}.{ending}", Mesh(found + isocentre_mm, template.faces))
    overlay = overlay_png(
        np.asarray(image), camera, template, {"reference": reference, "found": found}
    )
    write_file(options.out / f"{name}_overlay.png", overlay)
    facts = {
        "run": str(options.run),
        "experiment": f"{run.experiment.name} {run.experiment.size}",
        "step": step,
        "synthetic_training_data": run.synthetic,
        "isocentre_mm": isocentre_mm.tolist(),
        "xray": str(options.xray[0]),
        "mesh": str(options.mesh),
        "template_fitted_mm": fitted_mm,
        "displacement_mm": {"mean": float(moved.mean()), "largest": float(moved.max())},
    }
    write_file(options.out / f"{name}_facts.json", (json.dumps(facts, indent=1) + "\n").encode())
    print(f"displacement: mean {moved.mean():.1f} mm, largest {moved.max():.1f} mm")
    for ending in formats:
        print(options.out / f"{name}.{ending}")
    return 0


def check_seen(vertices: Float[np.ndarray, "v 3"], camera: Camera, what: str, where: str) -> None:
    """Refuses a camera that misses the organ.

    Raises:
        InputError: less than half of the vertices fall on the detector.
    """
    places = np.asarray(camera.place_of(jnp.asarray(vertices, jnp.float32)))
    seen = ((places > -0.5) & (places < np.array(camera.shape) - 0.5)).all(1).mean()
    if seen < SEEN:
        centre = vertices.mean(0)
        raise InputError(
            f"{what} about ({', '.join(f'{x:.0f}' for x in centre)}) mm from the isocentre falls on the "
            f"detector of {where} by {seen:.0%}, expected at least {SEEN:.0%} (one world for both? see "
            "--isocentre)"
        )


def correspondent(
    mesh: Mesh, template: Template, origin: str = "mesh"
) -> tuple[Float[np.ndarray, "v 3"], float | None]:
    """The mesh in the template's topology: as it is, or fitted by the template.

    Returns:
        vertices [V, 3] mm, and the mean surface distance of the fit in mm where there was one.
    """
    if mesh.faces.shape == template.faces.shape and np.array_equal(mesh.faces, template.faces):
        return np.asarray(mesh.vertices), None
    from jxrecon.correspondence.fit import fit  # takes half a second, and is seldom needed

    fitted = fit(template, mesh, origin=origin)
    return fitted.vertices, float(fitted.report.assd_mm)
