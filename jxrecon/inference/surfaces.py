"""An organ's surface when an X-ray was taken, from that X-ray and the organ's known shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.compile import jit
from jxrecon.correspondence.likeness import check_like
from jxrecon.files import write_file
from jxrecon.geometry import Camera
from jxrecon.inference.patient import Request, facts, title
from jxrecon.io.meshes import write_mesh
from jxrecon.io.radiographs import Radiograph
from jxrecon.io.views import centred_view, common_isocentre
from jxrecon.mesh import Mesh, Template
from jxrecon.methods.base.trained_views import on_trained_pixels
from jxrecon.runs.run import Run, restore
from jxrecon.types import InputError

SEEN = 0.5
"""Share of the organ's vertices that must fall on the detector."""

FORMATS = ("ply", "stl", "vtk")


class Surface(NamedTuple):
    """An organ's surface that was found in an X-ray.

    Attributes:
        vertices: [v, 3] mm about the isocentre, when the X-ray was taken.
        reference: [v, 3] mm about the isocentre, the known shape in the template's topology.
        isocentre_mm: [3] in the X-ray's world.
        run: whose method found it.
        step: of the checkpoint.
        image: line integrals on the pixels that the run was trained on.
        facts: what the result depends on.
    """

    vertices: Float[np.ndarray, "v 3"]
    reference: Float[np.ndarray, "v 3"]
    isocentre_mm: Float[np.ndarray, "3"]
    run: Run
    step: int
    image: Float[np.ndarray, "rows columns"]
    facts: dict[str, Any]

    @property
    def mesh(self) -> Mesh:
        """The surface in the X-ray's world, mm."""
        return Mesh(self.vertices + self.isocentre_mm, self.run.problem.template.faces)

    @property
    def moved_mm(self) -> Float[np.ndarray, " v"]:
        """How far every vertex has moved."""
        return np.linalg.norm(self.vertices - self.reference, axis=1)

    def write(
        self, out: Path, name: str, formats: Sequence[str] = ("ply",), **more: Any
    ) -> list[Path]:
        """Writes NAME.ply or other formats and NAME_facts.json; returns the paths of the surfaces."""
        paths = [out / f"{name}.{ending}" for ending in formats]
        for path in paths:
            write_mesh(path, self.mesh)
        displacement = {"mean": float(self.moved_mm.mean()), "largest": float(self.moved_mm.max())}
        told = {**self.facts, "displacement_mm": displacement, **more}
        write_file(out / f"{name}_facts.json", json.dumps(told, indent=1) + "\n")
        return paths


def reconstruct_surface(run: Run, xrays: Sequence[Radiograph], request: Request) -> Surface:
    """The organ at the time of the X-ray.

    A mesh of another topology than the run's template is fitted by the template first.

    Raises:
        InputError: there is more than one X-ray or no mesh, it cannot be used, or the organ lies off the
            detector.
    """
    if request.mesh is None:
        raise InputError(
            f"{run.experiment.name} finds a surface: expected --mesh FILE, the organ's known shape"
        )
    if len(xrays) != 1:
        raise InputError(f"{run.experiment.name} was given {len(xrays)} X-rays, expected one")
    isocentre = common_isocentre(list(xrays))
    template, camera = run.problem.template, run.problem.camera
    view = centred_view(xrays[0], isocentre, camera)
    centred = Mesh(request.mesh.vertices - isocentre, request.mesh.faces)
    origin = request.mesh_origin
    check_seen(centred.vertices, view.camera, f"{origin}: the organ", view.origin)
    check_like(centred, template, origin)
    reference, fitted_mm = correspondent(centred, template, origin)
    image = on_trained_pixels(
        [jnp.asarray(view.image)], [view.camera], [camera], run.experiment.name
    )[0]
    state, step = restore(run, request.checkpoint)
    request.say(title(run, step))
    find: Any = jit(run.method.reconstruct)
    found = np.asarray(find(state, jnp.asarray(image), jnp.asarray(reference, jnp.float32)))
    told = {
        **facts(run, step, request),
        "isocentre_mm": isocentre.tolist(),
        "mesh": origin,
        "template_fitted_mm": fitted_mm,
    }
    return Surface(found, reference, isocentre, run, step, np.asarray(image), told)


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
