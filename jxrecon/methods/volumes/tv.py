"""Least squares with total variation: the piecewise smooth, non-negative volume that explains the X-rays.

    F(x) = 1/2 mean_views int (A x - y)^2 dS + weight int |grad x| dV,    x >= 0

with x in 1/mm, dS in mm^2 of the plane through the grid's middle, dV in mm^3, so `weight` is in mm and
means the same on every grid, detector and number of views: a ball of radius r loses about 2 weight / r^2
of its attenuation (the derivatives of both terms by its contrast balance), and what is smaller than
sqrt(2 weight / contrast) disappears.

Total variation: Rudin, Osher & Fatemi, Physica D 60 (1992), isotropic in 3-D, forward differences in mm.
Minimised by monotone FISTA with the dual of the proximal problem solved inside: Beck & Teboulle, IEEE
Trans. Image Process. 18 (2009), sections 4 and 5, the step found by backtracking. A x is kept beside every
x, so that an iteration takes one A and one A', whether its step is taken or was too long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.operator import (
    Operator,
    Stacks,
    dot,
    field_of_view,
    masked_hu,
    minus,
    norm,
    operator,
    shadow_matrix,
)
from jxrecon.geometry import AnyCamera, Camera, Grid
from jxrecon.methods.base.method import Method, Problem, Progress, Reconstruction, tell, untrained
from jxrecon.types import InputError, Key, PyTree
from jxrecon.units import MU_WATER_PER_MM

LOSS_HU = 200.0
"""Of the default weight: the best of four at 7 mm and of two at 3.5 mm on a SYNTHETIC head, 8 to 60 views."""

CAUTION = 1.1
"""After a step that was too long the next is so much shorter than its curvature asks for."""

ROUNDING = 1e-8
"""Steps whose line integrals change by less (squared, relative) are not held to their curvature."""


@dataclass(frozen=True)
class Settings:
    """Options of the reconstruction with total variation.

    Attributes:
        weight_mm: of total variation: see the file's head; None takes `LOSS_HU` from a ball whose
            radius is one voxel, so that it goes with the square of the voxel.
        iterations: of FISTA.
        inner_iterations: of the proximal problem in each; it starts from the last one's dual.
        non_negative: no attenuation below vacuum.
        seen_by: which voxels are given: seen by "any" view or by "all"; the others are air.
    """

    weight_mm: float | None = None
    iterations: int = 60
    inner_iterations: int = 10
    non_negative: bool = True
    seen_by: str = "any"


def tv(problem: Problem, settings: Settings | None = None) -> Method:
    """The Method of this file; it learns nothing. Voxels that no view sees are air (-1000 HU).

    The trace holds `objective`, F in mm^2, which never rises, and `residual`, |A x - y| / |y|.

    Raises:
        InputError: an option is out of its range.
    """
    chosen = settings or Settings()
    voxel_mm3 = float(np.prod(problem.grid.spacing_mm))
    weight_mm = chosen.weight_mm
    if weight_mm is None:
        weight_mm = 0.5 * LOSS_HU / 1000 * MU_WATER_PER_MM * voxel_mm3 ** (2 / 3)
    if not weight_mm >= 0 or chosen.iterations < 1 or chosen.inner_iterations < 1:
        raise InputError(
            f"TV with {chosen}, expected a weight from 0 mm on and at least one iteration"
        )

    def reconstruct(
        state: PyTree,
        images: tuple[Float[Array, "rows columns"], ...],
        cameras: tuple[AnyCamera, ...],
        key: Key,
        progress: Progress | None = None,
    ) -> Reconstruction:
        a = operator(problem.grid, cameras)
        inside = field_of_view(problem.grid, cameras).astype(jnp.float32)
        areas = pixel_areas(a, cameras)
        y = a.stacked(images)
        tiny = jnp.finfo(jnp.float32).tiny
        scale = jnp.maximum(norm(y), tiny)
        spacing = tuple(float(s) for s in problem.grid.spacing_mm)

        def gradient(r: Stacks) -> Array:
            return inside * a.back(jax.tree.map(jnp.multiply, areas, r))

        def allowed(x: Array) -> Array:
            return inside * (jnp.maximum(x, 0.0) if chosen.non_negative else x)

        def weighted(r: Stacks) -> Array:
            return dot(r, jax.tree.map(jnp.multiply, areas, r))

        def objective(x: Array, ax: Stacks) -> Array:
            return 0.5 * weighted(minus(ax, y)) + weight_mm * voxel_mm3 * total_variation(
                x, spacing
            )

        def step(carry: Any, iteration: Array) -> tuple[Any, dict[str, Array]]:
            x, ax, ahead, a_ahead, dual, t, steepest, lowest = carry
            g = ahead - gradient(minus(a_ahead, y)) / steepest
            weight = weight_mm * voxel_mm3 / steepest
            z, new_dual = denoised(g, dual, weight, spacing, chosen.inner_iterations, allowed)
            az = a.project(z)
            # The step was short enough if the data term curves no more than `steepest` along it.
            moved, curved = dot(z - ahead, z - ahead), weighted(minus(az, a_ahead))
            short = (curved <= steepest * moved) | (curved <= ROUNDING * weighted(az))
            found = objective(z, az)
            better = short & (found <= lowest)
            new, a_new = jax.tree.map(lambda p, q: jnp.where(better, p, q), (z, az), (x, ax))
            after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2

            def extrapolated(new, z, x, ahead):
                further = new + t / after * (z - new) + (t - 1) / after * (new - x)
                return jnp.where(short, further, ahead)

            a_ahead = jax.tree.map(extrapolated, a_new, az, ax, a_ahead)
            ahead = extrapolated(new, z, x, ahead)
            dual = jax.tree.map(lambda p, q: jnp.where(short, p, q), new_dual, dual)
            lowest = jnp.where(better, found, lowest)
            t, steepest = (
                jnp.where(short, after, t),
                jnp.where(short, steepest, CAUTION * curved / jnp.maximum(moved, tiny)),
            )
            terms = {"objective": lowest, "residual": norm(minus(a_new, y)) / scale}
            tell(progress, iteration, lowest, chosen.iterations)
            return (new, a_new, ahead, a_ahead, dual, t, steepest, lowest), terms

        x, one = jnp.zeros(problem.grid.shape, jnp.float32), jnp.ones((), jnp.float32)
        ax = jax.tree.map(jnp.zeros_like, y)
        # Far too long a step to begin with: its failure tells how long it may be.
        start: Any = (x, ax, x, ax, (x, x, x), one, 1e-3 * voxel_mm3 * one, objective(x, ax))
        (x, *_), trace = jax.lax.scan(step, start, jnp.arange(chosen.iterations))
        given = field_of_view(problem.grid, cameras, chosen.seen_by)
        return Reconstruction(masked_hu(x, given), trace)

    return untrained(reconstruct)


def pixel_areas(
    a: Operator, cameras: tuple[AnyCamera, ...]
) -> tuple[Float[Array, "views 1 1"], ...]:
    """dS / number of views, mm^2: each view's pixel, shrunk to where its rays pass the grid's middle."""
    each = [_pixel_area(a.grid, camera) / len(cameras) for camera in cameras]
    return tuple(
        jnp.asarray([each[n] for n in group.members], jnp.float32)[:, None, None]
        for group in a.groups
    )


def _pixel_area(grid: Grid, camera: AnyCamera) -> float:
    u, v = np.asarray(camera.u, np.float64), np.asarray(camera.v, np.float64)
    across = np.cross(u, v)
    if not isinstance(camera, Camera):
        direction = np.asarray(camera.direction, np.float64)
        return float(abs(across @ direction) / np.linalg.norm(direction))
    middle = np.array([*(np.array(grid.shape) - 1) / 2, 1.0])
    depth = shadow_matrix(grid.affine, camera)[2] @ middle
    return float(np.linalg.norm(across) * depth**2)


def differences(x: Float[Array, "x y z"], spacing_mm: tuple[float, ...]) -> tuple[Array, ...]:
    """Forward differences along each axis a mm; 0 at the far faces."""
    return tuple(
        jnp.diff(x, axis=n, append=jax.lax.slice_in_dim(x, x.shape[n] - 1, x.shape[n], axis=n)) / h
        for n, h in enumerate(spacing_mm)
    )


def divergence(p: tuple[Array, ...], spacing_mm: tuple[float, ...]) -> Float[Array, "x y z"]:
    """Minus the transpose of `differences`."""
    total = jnp.zeros_like(p[0])
    for n, h in enumerate(spacing_mm):
        size = p[n].shape[n]
        inner = jax.lax.slice_in_dim(p[n], 0, size - 1, axis=n) / h
        edge = jnp.zeros_like(jax.lax.slice_in_dim(p[n], 0, 1, axis=n))
        total += jnp.diff(jnp.concatenate([edge, inner, edge], axis=n), axis=n)
    return total


def total_variation(x: Float[Array, "x y z"], spacing_mm: tuple[float, ...]) -> Float[Array, ""]:
    """Sum over voxels of |grad x|, in units of x a mm."""
    return jnp.sum(jnp.sqrt(sum(jnp.square(d) for d in differences(x, spacing_mm))))


def denoised(
    g: Float[Array, "x y z"],
    dual: tuple[Array, ...],
    weight: Float[Array, ""],
    spacing_mm: tuple[float, ...],
    iterations: int,
    allowed: Callable[[Array], Array],
) -> tuple[Float[Array, "x y z"], tuple[Array, ...]]:
    """argmin over allowed x of 1/2 |x - g|^2 + weight TV(x), and its dual |p| <= 1 to go on from.

    Fast gradient projection of the dual, x = allowed(g + weight div p): Beck & Teboulle, section 4.
    """
    steepest = 4.0 * sum(1.0 / h**2 for h in spacing_mm)
    step_length = 1.0 / (steepest * jnp.maximum(weight, jnp.finfo(jnp.float32).tiny))

    def step(carry, _):
        p, ahead, t = carry
        x = allowed(g + weight * divergence(ahead, spacing_mm))
        moved = [q + step_length * d for q, d in zip(ahead, differences(x, spacing_mm))]
        length = jnp.maximum(jnp.sqrt(sum(jnp.square(q) for q in moved)), 1.0)
        new = tuple(q / length for q in moved)
        after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        ahead = tuple(q + (t - 1) / after * (q - old) for q, old in zip(new, p))
        return (new, ahead, after), None

    (dual, _, _), _ = jax.lax.scan(step, (dual, dual, jnp.ones((), jnp.float32)), None, iterations)
    return allowed(g + weight * divergence(dual, spacing_mm)), dual
