"""The projector: X-ray line integrals of a volume, differentiable in the volume and in the pose.

`line_integrals` is the operator; `choose` tells which of its methods "auto" takes; `beam` turns HU
into attenuation and line integrals into what a detector reads.

| method | voxel | cameras | volume gradient | pose gradient |
|---|---|---|---|---|
| siddon | constant in its box: exact | any | yes | poor: boundaries do not move it |
| joseph | linear within slices | any, traced too | yes | yes |
| aligned | the same | detector along the index axes | gathers only | no |
| shear_warp | the same, one warp | any that looks through the volume | gathers and a warp | no |

Interpolating methods differ from exact ones by about 1e-2 (relative L2): another model of a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.beam import absorption, hu_to_mu, line_integrals_of, mu_to_hu, transmission
from jxrecon.drr.joseph import joseph
from jxrecon.drr.rays import is_concrete, rays_of
from jxrecon.drr.separable import aligned, plan_aligned, plan_shear_warp, shear_warp
from jxrecon.drr.siddon import siddon
from jxrecon.geometry import Camera
from jxrecon.types import InputError

__all__ = [
    "METHODS",
    "absorption",
    "choose",
    "hu_to_mu",
    "line_integrals",
    "line_integrals_of",
    "mu_to_hu",
    "project",
    "transmission",
]

METHODS = ("auto", "siddon", "joseph", "aligned", "shear_warp")

_PLANNED: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "aligned": (plan_aligned, aligned, "a detector along the volume's axes that looks through it"),
    "shear_warp": (plan_shear_warp, shear_warp, "source and detector on either side of the volume"),
}


def choose(
    affine: Float[Array | np.ndarray, "4 4"], camera: Camera, shape: tuple[int, int, int]
) -> str:
    """The method that "auto" takes.

    "aligned" if the detector's u and v run along index axes of the volume and source and detector
    lie outside of it, on either side; "shear_warp" if, for any other pose, source and detector lie
    outside the volume's slab along its dominant axis, no ray is steeper than 1.5 voxels a slice and
    the source is not so near that its magnification varies wildly; "joseph" otherwise, and whenever
    affine or camera is traced by jit, vmap or grad.

    Args:
        affine: index -> world mm.
        camera: the view.
        shape: voxels along x, y, z.
    """
    if is_concrete(affine, camera):
        rays = rays_of(affine, camera)
        for method, (plan, _, _) in _PLANNED.items():
            if plan(rays, shape) is not None:
                return method
    return "joseph"


def line_integrals(
    mu: Float[Array | np.ndarray, "x y z"],
    affine: Float[Array | np.ndarray, "4 4"],
    camera: Camera,
    method: str = "auto",
) -> Float[Array, "rows columns"]:
    """Integral of mu dl along the segment from the source to every pixel centre.

    Linear in `mu`, with matched adjoint; jit and vmap as usual. The fast methods need affine and
    camera concrete (closed over, not passed through jit); traced cameras are differentiated by
    "joseph". Computed in float32, in float64 if `mu` is float64. Nothing outside the volume absorbs.

    Args:
        mu: attenuation in 1/mm.
        affine: index -> world mm, voxel centres at integers; may be oblique, anisotropic, flipped.
        camera: the view, world mm.
        method: one of `METHODS`; "auto" is what `choose` says.

    Returns:
        Dimensionless line integrals.

    Raises:
        InputError: the method is unknown or does not fit the camera, or an array has a wrong shape.
    """
    mu = jnp.asarray(mu)
    if mu.dtype != jnp.float64:
        mu = mu.astype(jnp.float32)
    if mu.ndim != 3 or 0 in mu.shape:
        raise InputError(
            f"volume has shape {mu.shape}, expected three axes [x, y, z] (vmap over more)"
        )
    if np.shape(affine) != (4, 4):
        raise InputError(f"affine has shape {np.shape(affine)}, expected (4, 4)")
    if method not in METHODS:
        raise InputError(f"projection method is {method!r}, expected one of {', '.join(METHODS)}")
    rays = rays_of(affine, camera, mu.dtype)
    if method == "siddon":
        return siddon(mu, rays)
    if method == "joseph":
        return joseph(mu, rays)
    for name, (plan_for, project_with, cameras) in _PLANNED.items():
        if method in ("auto", name):
            plan = plan_for(rays, mu.shape) if rays.concrete else None
            if plan is not None:
                return project_with(mu, rays, plan)
            if method == name:
                raise InputError(
                    f"projection method {name!r} does not fit this camera, expected {cameras}, "
                    f"not traced by jit, vmap or grad; 'joseph' takes any"
                )
    return joseph(mu, rays)


def project(
    mu: Float[Array | np.ndarray, "b x y z"],
    affine: Float[Array | np.ndarray, "4 4"],
    cameras: Sequence[Camera],
    method: str = "auto",
) -> Float[Array, "b views rows columns"]:
    """`line_integrals` of every volume of a batch in every view; the detectors share one shape."""

    def views(volume):
        return jnp.stack([line_integrals(volume, affine, camera, method) for camera in cameras])

    return jax.vmap(views)(mu)
