"""SIRT: every voxel corrected by the mean error of its rays, all at once or subset by subset (SART).

    x <- x + relaxation C A' R (y - A x)        R = 1 / row sums of A (mm), C = 1 / column sums of A (mm)

Gilbert, J. Theor. Biol. 36 (1972); Andersen & Kak, Ultrasonic Imaging 6 (1984). It converges to the
least squares solution in the norm of R nearest to where it starts; coarse structures come first, so
the number of iterations is its regularisation. With subsets each sweep makes as many corrections,
each from its own views: several times faster, but for inconsistent data it ends in a cycle, not a point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.drr.operator import dot, field_of_view, inverse_sums, masked_hu, operator
from jxrecon.geometry import AnyCamera
from jxrecon.methods.base.method import Method, Problem, Progress, Reconstruction, tell, untrained
from jxrecon.types import InputError, Key, PyTree


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

    def reconstruct(
        state: PyTree,
        images: tuple[Float[Array, "rows columns"], ...],
        cameras: tuple[AnyCamera, ...],
        key: Key,
        progress: Progress | None = None,
    ) -> Reconstruction:
        count = min(chosen.subsets, len(cameras))
        whole = operator(problem.grid, cameras, separately=count == 1)
        inside = field_of_view(problem.grid, cameras).astype(jnp.float32)
        shortest = 0.5 * float(problem.grid.spacing_mm.min())
        dealt = whole.subsets(count)
        places = [jnp.asarray(place) for place, _ in dealt]
        real = [jnp.asarray(r, jnp.float32)[:, :, None, None] for _, r in dealt]
        y = [stack[place] for stack, place in zip(whole.stacked(images), places)]
        scale = sum(jnp.sum(jnp.square(stack)) for stack in whole.stacked(images))

        def visit(x: Array, subset: Any, first: Array) -> tuple[Array, Any]:
            """One correction; on the first sweep the sums of A instead, so that A is compiled once."""
            places, real, y, rows, columns = subset
            a = whole if count == 1 else whole.only(places)
            ax = a.project(jnp.where(first, inside, x))
            rows = [
                jnp.where(first, w * inverse_sums(s, shortest), r)
                for s, r, w in zip(ax, rows, real)
            ]
            error = [jnp.where(r > 0, m - p, 0.0) for m, p, r in zip(y, ax, rows)]
            weighted = [
                jnp.where(first, (r > 0).astype(jnp.float32), r * e) for r, e in zip(rows, error)
            ]
            spread = a.back(tuple(weighted))
            least = 1e-3 * jnp.max(spread)
            columns = jnp.where(first, inside * inverse_sums(spread, least), columns)
            moved = x + chosen.relaxation * columns * spread
            moved = jnp.maximum(moved, 0.0) if chosen.non_negative else moved
            return jnp.where(first, x, moved), (rows, columns, dot(error, error))

        def sweep(carry: Any, iteration: Array) -> tuple[Any, Array]:
            x, rows, columns = carry
            first = iteration < 0
            x, (rows, columns, squares) = jax.lax.scan(
                lambda x, subset: visit(x, subset, first), x, (places, real, y, rows, columns)
            )
            residual = jnp.sqrt(jnp.sum(squares) / scale)
            tell(progress, iteration, residual, chosen.iterations)
            return (x, rows, columns), residual

        x = jnp.zeros(problem.grid.shape, jnp.float32)
        start = (x, jax.tree.map(jnp.zeros_like, y), jnp.zeros((count, *x.shape), jnp.float32))
        (x, _, _), residual = jax.lax.scan(sweep, start, jnp.arange(-1, chosen.iterations))
        given = field_of_view(problem.grid, cameras, chosen.seen_by)
        return Reconstruction(masked_hu(x, given), {"residual": residual[1:]})

    return untrained(reconstruct)
