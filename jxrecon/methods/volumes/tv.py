"""Least squares with total variation: the piecewise smooth, non-negative volume that explains the X-rays.

    F(x) = 1/2 mean_views int w (A x - y)^2 dS + weight int |grad x| dV,    x >= 0

with x in 1/mm, w the weight of a pixel (1 unless given), dS in mm^2 of the plane through the grid's middle,
dV in mm^3, so `weight` is in mm and means the same on every grid, detector and number of views: a ball of
radius r loses about 2 weight / r^2 of its attenuation (the derivatives of both terms by its contrast
balance), and what is smaller than sqrt(2 weight / contrast) disappears.

Total variation: Rudin, Osher & Fatemi, Physica D 60 (1992), isotropic in 3-D, forward differences in mm.
Minimised by monotone FISTA with the dual of the proximal problem solved inside: Beck & Teboulle, IEEE
Trans. Image Process. 18 (2009), sections 4 and 5, the step found by backtracking. A x is kept beside every
x, so that an iteration takes one A and one A', whether its step is taken or was too long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.drr.operator import Operator, Stacks, dot, minus, norm
from jxrecon.geometry import AnyCamera, Camera, Grid, depth_of, vectors
from jxrecon.methods.base.linear_system import Solution, System, solver
from jxrecon.methods.base.method import Cameras, Method, Problem, Progress, Trace, tell
from jxrecon.types import InputError
from jxrecon.units import MU_WATER_PER_MM

LOSS_HU = 200.0
"""By the default weight: the best of four at 7 mm and of two at 3.5 mm on a SYNTHETIC head, 8 to 60 views."""

CAUTION = 1.1
"""After a step that was too long the next is so much shorter than its curvature asks for."""

ROUNDING = 1e-8
"""Steps whose line integrals change by less (squared, relative) are not held to their curvature."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Settings:
    """Options of the reconstruction with total variation.

    Attributes:
        weight_mm: factor of total variation, see the file's head; None takes `LOSS_HU` from a ball whose
            radius is one voxel, so that it goes with the square of the voxel.
        iterations: steps of FISTA.
        inner_iterations: steps of the proximal problem in each; it starts from the last one's dual.
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
    weight_mm = weight_of(chosen, problem.grid)
    if not weight_mm >= 0 or chosen.iterations < 1 or chosen.inner_iterations < 1:
        raise InputError(
            f"TV with {chosen}, expected a weight from 0 mm on and at least one iteration"
        )
    return solver(solve, problem, chosen)


def weight_of(settings: Settings, grid: Grid) -> float:
    """The weight in mm, the default's too."""
    if settings.weight_mm is not None:
        return settings.weight_mm
    return 0.5 * LOSS_HU / 1000 * MU_WATER_PER_MM * float(np.prod(grid.spacing_mm)) ** (2 / 3)


class Objective(NamedTuple):
    """F of one patient's X-rays."""

    system: System
    areas: Stacks  # w dS / number of views, mm^2
    spacing_mm: tuple[float, ...]
    weight: float  # factor of the sum of |grad x| over voxels, mm^4
    non_negative: bool

    def weighted(self, r: Stacks) -> Float[Array, ""]:
        """mean_views int r^2 dS."""
        return dot(r, jax.tree.map(jnp.multiply, self.areas, r))

    def value(self, x: Float[Array, "x y z"], ax: Stacks) -> Float[Array, ""]:
        """F(x), where A x is known."""
        data = 0.5 * self.weighted(minus(ax, self.system.y))
        return data + self.weight * total_variation(x, self.spacing_mm)

    def gradient(self, ax: Stacks) -> Float[Array, "x y z"]:
        """The data term's gradient."""
        r = minus(ax, self.system.y)
        return self.system.inside * self.system.a.back(jax.tree.map(jnp.multiply, self.areas, r))

    def allowed(self, x: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """The nearest volume that may be."""
        return self.system.inside * (jnp.maximum(x, 0.0) if self.non_negative else x)


class Iterate(NamedTuple):
    """Where FISTA stands."""

    x: Float[Array, "x y z"]  # the volume of the lowest F so far
    ax: Stacks
    ahead: Float[Array, "x y z"]  # x, extrapolated along its last step
    a_ahead: Stacks
    dual: tuple[Float[Array, "x y z"], ...]  # the proximal problem's
    t: Float[Array, ""]  # how far the extrapolation goes
    steepest: Float[Array, ""]  # 1 / length of a step
    lowest: Float[Array, ""]  # F(x)


def solve(system: System, settings: Settings, progress: Progress = None) -> Solution:
    """The volume of the lowest F, and the trace."""
    spacing_mm = tuple(float(s) for s in system.grid.spacing_mm)
    voxel_mm3 = float(np.prod(system.grid.spacing_mm))
    weight = weight_of(settings, system.grid) * voxel_mm3
    areas = system.weighted(pixel_areas(system.a, system.cameras))
    f = Objective(system, areas, spacing_mm, weight, settings.non_negative)
    scale = jnp.maximum(norm(system.y), _TINY)

    def iterate(now: Iterate, iteration: Array) -> tuple[Iterate, Trace]:
        now = step(f, settings.inner_iterations, now)
        tell(progress, iteration, now.lowest, settings.iterations)
        residual = norm(minus(now.ax, system.y)) / scale
        return now, {"objective": now.lowest, "residual": residual}

    x, one = jnp.zeros(system.grid.shape, jnp.float32), jnp.ones((), jnp.float32)
    ax = jax.tree.map(jnp.zeros_like, system.y)
    # Far too long a step to begin with: its failure tells how long it may be.
    start = Iterate(x, ax, x, ax, (x, x, x), one, 1e-3 * voxel_mm3 * one, f.value(x, ax))
    end, trace = jax.lax.scan(iterate, start, jnp.arange(settings.iterations))
    return end.x, trace


def step(f: Objective, inner_iterations: int, now: Iterate) -> Iterate:
    """One iteration: a step from `ahead`, kept if it was short enough, taken if it lowers F."""
    g = now.ahead - f.gradient(now.a_ahead) / now.steepest
    weight = f.weight / now.steepest
    z, dual = denoised(g, now.dual, weight, f.spacing_mm, inner_iterations, f.allowed)
    az = f.system.a.project(z)
    # The step was short enough if the data term curves no more than `steepest` along it.
    moved, curved = dot(z - now.ahead, z - now.ahead), f.weighted(minus(az, now.a_ahead))
    short = (curved <= now.steepest * moved) | (curved <= ROUNDING * f.weighted(az))
    found = f.value(z, az)
    better = short & (found <= now.lowest)
    x, ax = _where(better, (z, az), (now.x, now.ax))
    after = (1 + jnp.sqrt(1 + 4 * now.t**2)) / 2

    def extrapolated(new: Array, z: Array, x: Array, ahead: Array) -> Array:
        further = new + now.t / after * (z - new) + (now.t - 1) / after * (new - x)
        return jnp.where(short, further, ahead)

    return Iterate(
        x=x,
        ax=ax,
        ahead=extrapolated(x, z, now.x, now.ahead),
        a_ahead=jax.tree.map(extrapolated, ax, az, now.ax, now.a_ahead),
        dual=_where(short, dual, now.dual),
        t=jnp.where(short, after, now.t),
        steepest=jnp.where(short, now.steepest, CAUTION * curved / jnp.maximum(moved, _TINY)),
        lowest=jnp.where(better, found, now.lowest),
    )


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda p, q: jnp.where(condition, p, q), new, old)


def pixel_areas(a: Operator, cameras: Cameras) -> tuple[Float[Array, "views 1 1"], ...]:
    """dS / number of views, mm^2: each view's pixel, shrunk to where its rays pass the grid's middle."""
    each = [_pixel_area(a.grid, camera) / len(cameras) for camera in cameras]
    return tuple(
        jnp.asarray([each[n] for n in group.members], jnp.float32)[:, None, None]
        for group in a.groups
    )


def _pixel_area(grid: Grid, camera: AnyCamera) -> float:
    first, _, u, v = vectors(camera)
    across = np.cross(u, v)
    if not isinstance(camera, Camera):
        return float(abs(across @ first) / np.linalg.norm(first))
    return float(np.linalg.norm(across) * depth_of(camera, grid.centre_mm) ** 2)


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
    step_length = 1.0 / (steepest * jnp.maximum(weight, _TINY))

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
