"""SIRT: every voxel corrected by the mean error of its rays, all at once or subset by subset (SART).

    x <- x + relaxation C A' W R (y - A x)      R = 1 / row sums of A (mm), C = 1 / column sums of W A (mm)

with W = 1, or the pixels' weights.

Gilbert, J. Theor. Biol. 36 (1972); Andersen & Kak, Ultrasonic Imaging 6 (1984). It converges to the
least squares solution in the norm of R nearest to where it starts; coarse structures come first, so
the number of iterations is its regularisation. With subsets each sweep makes as many corrections,
each from its own views: several times faster, but for inconsistent data it ends in a cycle, not a point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jxrecon.drr.operator import dot, inverse_sums, operator
from jxrecon.methods.base.linear_system import Solution, System, solver
from jxrecon.methods.base.method import Method, Problem, Progress, tell
from jxrecon.types import InputError


@dataclass(frozen=True)
class Settings:
    """Options of SIRT.

    Attributes:
        iterations: sweeps through all views.
        relaxation: length of a correction, in (0, 2).
        subsets: 1 is SIRT; the number of views is SART; views are dealt out in turn. Each subset keeps
            a volume of its column sums.
        non_negative: clip at 0, vacuum, after every correction.
        seen_by: which voxels are given: seen by "any" view or by "all"; the others are air.
    """

    iterations: int = 100
    relaxation: float = 1.0
    subsets: int = 1
    non_negative: bool = True
    seen_by: str = "any"


def sirt(problem: Problem, settings: Settings | None = None) -> Method:
    """The Method of this file; it learns nothing. Voxels that no view sees are air (-1000 HU).

    The trace holds `residual`, |A x - y| / |y| before each sweep (with subsets: as the sweep meets them).

    Raises:
        InputError: an option is out of its range.
    """
    chosen = settings or Settings()
    if not 0 < chosen.relaxation < 2 or chosen.iterations < 1 or chosen.subsets < 1:
        raise InputError(
            f"SIRT with {chosen}, expected a relaxation in (0, 2) and at least one iteration and subset"
        )
    return solver(solve, problem, chosen)


def solve(system: System, settings: Settings, progress: Progress = None) -> Solution:
    """The last sweep, and the trace."""
    count = min(settings.subsets, len(system.cameras))
    settings = replace(settings, subsets=count)
    if count > 1:
        system = system._replace(a=operator(system.grid, system.cameras, separately=False))
    dealt = system.a.subsets(count)
    places = [jnp.asarray(place) for place, _ in dealt]
    real = [jnp.asarray(r, jnp.float32)[:, :, None, None] for _, r in dealt]
    if system.weights is not None:
        trusted = zip(real, system.a.stacked(system.weights), places)
        real = [r * weights[place] for r, weights, place in trusted]
    stacks = system.a.stacked(system.images)
    y = [stack[place] for stack, place in zip(stacks, places)]
    scale = sum(jnp.sum(jnp.square(stack)) for stack in stacks)

    def sweep(carry: Any, iteration: Array) -> tuple[Any, Array]:
        x, rows, columns = carry
        visit = partial(correct, system, settings, iteration < 0)
        subsets = (places, real, y, rows, columns)
        x, (rows, columns, squares) = jax.lax.scan(visit, x, subsets)
        residual = jnp.sqrt(jnp.sum(squares) / scale)
        tell(progress, iteration, residual, settings.iterations)
        return (x, rows, columns), residual

    x = jnp.zeros(system.grid.shape, jnp.float32)
    start = (x, jax.tree.map(jnp.zeros_like, y), jnp.zeros((count, *x.shape), jnp.float32))
    (x, _, _), residual = jax.lax.scan(sweep, start, jnp.arange(-1, settings.iterations))
    return x, {"residual": residual[1:]}


def correct(
    system: System, settings: Settings, first: Array, x: Array, subset: Any
) -> tuple[Array, Any]:
    """One correction; on the first sweep the sums of A instead, so that A is compiled once.

    Args:
        system: A of all views.
        settings: options.
        first: whether x stays and R and C are computed.
        x: attenuation.
        subset: places of its views in the operator's groups, 0 for those that only fill it up, y, R and C.

    Returns:
        x and (R, C, squared error).
    """
    places, real, y, rows, columns = subset
    a = system.a if settings.subsets == 1 else system.a.only(places)
    shortest = 0.5 * float(system.grid.spacing_mm.min())
    ax = a.project(jnp.where(first, system.inside, x))
    rows = [jnp.where(first, w * inverse_sums(s, shortest), r) for s, r, w in zip(ax, rows, real)]
    error = [jnp.where(r > 0, m - p, 0.0) for m, p, r in zip(y, ax, rows)]
    ones = [w * (r > 0).astype(jnp.float32) for w, r in zip(real, rows)]
    weighted = [jnp.where(first, w, r * e) for w, r, e in zip(ones, rows, error)]
    spread = a.back(tuple(weighted))
    sums = inverse_sums(spread, 1e-3 * jnp.max(spread))
    columns = jnp.where(first, system.inside * sums, columns)
    moved = x + settings.relaxation * columns * spread
    moved = jnp.maximum(moved, 0.0) if settings.non_negative else moved
    return jnp.where(first, x, moved), (rows, columns, dot(error, error))
