"""An earlier CT of the patient, deformed until it explains the X-rays, within reach of the generator.

    min_{d, g, w}  lambda_2 sum_i |A_i v - I_i| + guide mean (S v - G(w))^2 + lambda_w K L_w(w)
                   + bending sum |second differences of d|^2

with v(p) = (1 + g) x(p + d(p)), x the earlier CT, d on a lattice, trilinear between its nodes (a rigid
motion is one of its values), g a change of calibration, S the average to the level of the generator that is
asked, w from E(x). After GuidedRec (Cafaro et al., arXiv 2405.11977), which could not be read here: weights
and schedule are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.deformation.warp import at_voxels, lattice
from jxrecon.geometry import Grid
from jxrecon.methods.base.method import Progress, Reconstruction, tell
from jxrecon.methods.volumes.x2vision import prior as manifold
from jxrecon.methods.volumes.x2vision.codes import averaged
from jxrecon.methods.volumes.x2vision.latent import (
    LatentSettings,
    WStatistics,
    image_distance,
    style_likelihood,
)
from jxrecon.methods.volumes.x2vision.prior import Prior, State
from jxrecon.methods.volumes.x2vision.stages import Level, coarser
from jxrecon.nn.optimise import improve
from jxrecon.types import PyTree, Terms
from jxrecon.units import HU_AIR


@dataclass(frozen=True)
class GuidedSettings:
    """Weights and schedule of the deformation.

    Attributes:
        iterations: of Adam, with a cosine decay.
        learning_rate: of displacements, mm.
        lattice_mm: spacing of the nodes.
        guide: weight of the squared distance from the generator, in network units.
        bending: weight of the squared second differences of d, mm^2, of all nodes.
        levels: of the generator that is asked.
    """

    iterations: int = 100
    learning_rate: float = 0.5
    lattice_mm: float = 32.0
    guide: float = 3e3
    bending: float = 0.02
    levels: int = 3


class Deformation(NamedTuple):
    """What is optimised.

    Attributes:
        displacement: d at the nodes, mm.
        gain: g, in tenths.
        w: style vector of the generator, in deviations from mu along its principal directions.
    """

    displacement: Float[Array, "3 a b c"]
    gain: Float[Array, ""]
    w: Float[Array, "1 d"]


def deformed(scan: Float[Array, "x y z"], grid: Grid, change: Deformation) -> Float[Array, "x y z"]:
    """The scan in HU after a displacement and a gain; beyond its edge its nearest value."""
    nodes = change.displacement / jnp.asarray(grid.spacing_mm, jnp.float32).reshape(3, 1, 1, 1)
    fine = at_voxels(nodes, grid.shape)
    here = np.indices(scan.shape, np.float32)
    moved = map_coordinates(scan, list(here + fine), 1, "nearest")
    return moved + 0.1 * change.gain * (moved - HU_AIR)


def bending(displacement: Float[Array, "3 a b c"]) -> Float[Array, ""]:
    """Sum of squared second differences along each axis of the lattice, mm^2."""
    return reduce(add, [jnp.sum(jnp.square(jnp.diff(displacement, 2, axis))) for axis in (1, 2, 3)])


class Task(NamedTuple):
    """What stays the same while the scan follows the X-rays; arguments of `follow`."""

    prior: Prior
    latent: LatentSettings
    settings: GuidedSettings
    generator: PyTree
    scan: Float[Array, "x y z"]
    statistics: WStatistics
    seen: Level


def objective(task: Task, change: Deformation) -> tuple[Float[Array, ""], Terms]:
    """The file's head: the total, and its terms without their weights."""
    prior, latent, settings = task.prior, task.latent, task.settings
    grid, window, statistics = prior.problem.grid, prior.problem.window, task.statistics
    hu = deformed(task.scan, grid, change)
    shown = drr.project(drr.hu_to_mu(hu), grid.affine, task.seen.cameras)
    images = tuple(p[None] for p in shown)
    frame = statistics.axes * statistics.scales[None]
    w = statistics.mean[None] + jnp.matmul(change.w, frame.T, precision="highest")
    level = coarser(prior, min(settings.levels, len(prior.settings.channels)))
    likely = manifold.synthesise(level, task.generator, manifold.alike(level, w), None)[..., 0]
    coarse = averaged(window.to_unit(hu)[None], level.problem.grid.shape)
    terms = {
        "L_2": jnp.sum(image_distance(images, task.seen.images, task.seen.weights)),
        "L_guide": jnp.mean(jnp.square(coarse - likely)),
        "L_w": jnp.sum(style_likelihood(w[:, None], statistics, latent.sigma)),
        "bending": bending(change.displacement),
    }
    factors = (
        latent.lambda_2,
        settings.guide,
        latent.lambda_w * prior.synthesis.num_ws,
        settings.bending,
    )
    total = reduce(add, [factor * term for factor, term in zip(factors, terms.values())])
    return total, {"total": total, **terms}


def follow(
    model: tuple[Prior, LatentSettings, GuidedSettings],
    state: State,
    scan: Float[Array, "x y z"],
    statistics: WStatistics,
    seen: Level,
    progress: Progress = None,
) -> Reconstruction:
    """The earlier scan as the X-rays show it now.

    Args:
        model: prior, weights of the latent objective, weights of the deformation.
        state: a trained state of principal codes.
        scan: earlier CT in HU on the problem's grid, rigidly registered.
        statistics: of w.
        seen: the full grid, with the patient's X-rays.
        progress: told the objective.
    """
    prior, latent, settings = model
    grid, window = prior.problem.grid, prior.problem.window
    scan = jnp.clip(scan, window.low, window.high)
    task = Task(prior, latent, settings, state.ema, scan, statistics, seen)
    w = manifold.encoded(prior, state, window.to_unit(scan)[None, ..., None])
    away = jnp.matmul(w - statistics.mean[None], statistics.axes, precision="highest")
    nodes = lattice(grid, settings.lattice_mm).shape
    first = Deformation(jnp.zeros((3, *nodes)), jnp.zeros(()), away / statistics.scales[None])
    adam = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.iterations))
    # w and g are of order 1 where d is millimetres: a tenth of its rate.
    slower = optax.partition(
        {"d": adam, "w": optax.chain(adam, optax.scale(0.1))},
        Deformation("d", "w", "w"),  # type: ignore[arg-type]  # labels in the places of arrays
    )

    def step(carry: Any, iteration: Array) -> tuple[Any, Terms]:
        before, optimiser, best, lowest = carry
        change, optimiser, terms = improve(slower, partial(objective, task), before, optimiser)
        better = terms["total"] < lowest
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), before, best)
        lowest = jnp.where(better, terms["total"], lowest)
        tell(progress, iteration, lowest, settings.iterations)
        return (change, optimiser, best, lowest), terms

    carry = (first, slower.init(first), first, jnp.full((), jnp.inf))
    (_, _, best, _), trace = jax.lax.scan(step, carry, jnp.arange(settings.iterations))
    hu = jnp.clip(deformed(scan, grid, best), window.low, window.high)
    return Reconstruction(hu, trace)
