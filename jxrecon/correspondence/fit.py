"""One template's topology on every organ: a surface fitted to another by Laplacian-regularised descent.

A template of V vertices v goes to an organ's surface by minimising

    E(v) =   mean_s w_s [ (n_s . (x_s(v) - p_s))^2 + b |x_s(v) - p_s|^2 ]      organ -> template
           + mean_i w_i [ (n_i . (v_i - p_i))^2    + b |v_i - p_i|^2 ]         template -> organ
           + k mean_i |L(v - v_0)_i|^2                                         stiffness

p_s are points sampled on the organ, n_s its normals there, x_s the nearest point of the template's
surface; p_i is the sample nearest to vertex i. L is the uniform Laplacian and v_0 the template moved and
scaled along the axes onto the organ, so that the stiffness counts what bends and not what moves as a
whole. Pairs are found anew in every round, by position and normal together; they weigh less the farther
apart they are and the less their normals agree, and nothing next to a hole's rim (after Amberg et al.,
Optimal Step Nonrigid ICP, CVPR 2007). Stages go from stiff to soft.

For fixed pairs E is a quadratic form, descended by optax's L-BFGS in the variable g of v = v' + K g,
K = (I + a (D - A))^-1 (Nicolet et al., Large Steps in Inverse Rendering, 2021): steps are smooth, which
keeps faces from folding. What still folds or cuts through itself at the end is smoothed locally.

All sizes are fixed by the template and the settings, so that all organs share one compiled program.
How near 160 livers were met is in experiments/surfaces.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.correspondence.organ import Organ, organ
from jxrecon.correspondence.pairing import Pairs, pair
from jxrecon.correspondence.soundness import Report, measured, repaired
from jxrecon.mesh import Mesh, Template
from jxrecon.mesh.points import sampled
from jxrecon.mesh.topology import Vertices
from jxrecon.types import AnyArray, InputError

MOST_VERTICES = 4000
"""Most vertices of a template: its matrices are dense, eight of 64 MB then."""


class Stage(NamedTuple):
    """Some rounds of pairing and descent.

    Attributes:
        stiffness: k.
        smoothing: a, over how many edges, squared, a step spreads.
        towards_points: b, the share of the distance along the surface.
        rounds: how often the pairs are found.
    """

    stiffness: float
    smoothing: float
    towards_points: float
    rounds: int


class Settings(NamedTuple):
    """How a fit runs. Lengths are shares of the organ's size, the square root of its area.

    Attributes:
        stages: stiff to soft.
        steps: steps of L-BFGS in every round.
        points: sampled on the organ.
        normal: a distance in which normals at right angles are as far apart as sqrt(2) of it.
        scatter: at least so far apart pairs are before they weigh much less.
        rounds_of_repair: at the end, until no face folds or cuts another.
        seed: seed of the sampled points.
    """

    stages: tuple[Stage, ...] = (
        Stage(10.0, 50.0, 0.3, 5),
        Stage(3.0, 20.0, 0.1, 5),
        Stage(1.0, 10.0, 0.1, 5),
        Stage(0.3, 5.0, 0.05, 5),
        Stage(0.1, 3.0, 0.05, 5),
        Stage(0.03, 2.0, 0.02, 5),
    )
    steps: int = 8
    points: int = 6000
    normal: float = 0.05
    scatter: float = 0.03
    rounds_of_repair: int = 30
    seed: int = 0


class Fit(NamedTuple):
    """A template on an organ.

    Attributes:
        vertices: [V, 3] the organ's own world mm, float32.
        report: how well it lies.
    """

    vertices: Vertices
    report: Report


class Operators(NamedTuple):
    """What a template's topology gives every fit of it.

    Attributes:
        mean: [V, V] the mean over a vertex's neighbours.
        bending: [V, V] L^T L.
        smoothers: K of every stage, [V, V].
    """

    mean: Float[np.ndarray, "v v"]
    bending: Float[np.ndarray, "v v"]
    smoothers: tuple[Float[np.ndarray, "v v"], ...]


def operators_of(template: Template, settings: Settings) -> Operators:
    """The matrices of a template, to be shared by its fits.

    Raises:
        InputError: the template has more than `MOST_VERTICES`.
    """
    count = len(template.vertices)
    if count > MOST_VERTICES:
        raise InputError(f"a template of {count} vertices, expected at most {MOST_VERTICES}")
    adjacency = np.zeros((count, count))
    adjacency[template.edges[:, 0], template.edges[:, 1]] = 1
    adjacency += adjacency.T
    mean = adjacency / template.degree[:, None]
    laplacian = np.eye(count) - mean
    graph = np.diag(template.degree.astype(float)) - adjacency
    smoothers = tuple(
        np.linalg.inv(np.eye(count) + stage.smoothing * graph).astype(np.float32)
        for stage in settings.stages
    )
    return Operators(
        mean.astype(np.float32), (laplacian.T @ laplacian).astype(np.float32), smoothers
    )


def fit(
    template: Template,
    target: Mesh,
    settings: Settings | None = None,
    operators: Operators | None = None,
    shape_free: bool = False,
    origin: str = "mesh",
) -> Fit:
    """The template's vertices on an organ's surface.

    The organ lies in the world about as the template does, in RAS mm: it is moved and scaled along the
    axes, but never turned.

    Args:
        template: closed, or with the holes that every organ has.
        target: the organ; small holes, handles and single faces turned over are tolerated.
        settings: None: the defaults.
        operators: those of template and settings, where many organs are fitted.
        shape_free: the template's own shape does not count, v_0 = 0: to wrap a sphere.
        origin: file to name in an error.

    Raises:
        InputError: the target is no surface, see `organ`, or the template is too large.
    """
    settings = settings or Settings()
    operators = operators or operators_of(template, settings)
    found = organ(target, settings.points, settings.seed, origin)
    centre = found.points.mean(0)  # far from the world's origin float32 would be coarse
    found = found.moved(-centre)
    vertices = aligned(template, found)
    lever, least = settings.normal * found.size_mm, settings.scatter * found.size_mm
    rest = np.zeros_like(vertices) if shape_free else vertices
    for stage, smoother in zip(settings.stages, operators.smoothers):
        numbers = np.float32(stage.stiffness), np.float32(stage.towards_points)
        for _ in range(stage.rounds):
            pairs = pair(vertices, template.faces, found, lever, least)
            fixed = Fixed(rest, operators.bending, pairs, *numbers)
            vertices = np.asarray(_program()(vertices, smoother, fixed, settings.steps))
    vertices, smoothed = repaired(template, vertices, operators.mean, settings.rounds_of_repair)
    report = measured(template, vertices, found, smoothed)
    return Fit((vertices + centre).astype(np.float32), report)


def aligned(template: Template, found: Organ) -> Vertices:
    """The template moved and scaled along each axis so that its area lies as the organ's does."""
    points = sampled(template.vertices, template.faces, len(found.points)).points
    scale = found.points.std(0) / points.std(0)
    place = (template.vertices - points.mean(0)) * scale + found.points.mean(0)
    return place.astype(np.float32)


class Fixed(NamedTuple):
    """What E depends on beside the vertices.

    Attributes:
        rest: [V, 3] v_0.
        bending: [V, V] L^T L.
        pairs: points that attract each other.
        stiffness: k.
        towards_points: b.
    """

    rest: Float[AnyArray, "v 3"]
    bending: Float[AnyArray, "v v"]
    pairs: Pairs
    stiffness: Float[Array, ""] | np.float32
    towards_points: Float[Array, ""] | np.float32


def energy(vertices: Float[AnyArray, "v 3"], fixed: Fixed) -> Float[Array, ""]:
    """E of the module's head, mm^2."""
    rest, bending, pairs, stiffness, towards_points = fixed

    def mean(apart: AnyArray, normals: AnyArray, weights: AnyArray) -> Array:
        across = jnp.sum(apart * normals, axis=1) ** 2
        both = across + towards_points * jnp.sum(apart**2, axis=1)
        return jnp.sum(weights * both) / (jnp.sum(weights) + 1e-6)

    feet = jnp.sum(pairs.barycentric[:, :, None] * vertices[pairs.corners], axis=1)
    from_organ = mean(feet - pairs.points, pairs.normals, pairs.weights)
    to_organ = mean(vertices - pairs.vertex_points, pairs.vertex_normals, pairs.vertex_weights)
    change = vertices - rest
    bent = jnp.sum(change * jnp.matmul(bending, change, precision=lax.Precision.HIGHEST))
    return from_organ + to_organ + stiffness * bent / np.float32(len(vertices))


def _descend(vertices, smoother, fixed, steps):
    """Vertices [V, 3] after some steps of L-BFGS."""

    def placed(g: Array) -> Array:
        return vertices + jnp.matmul(smoother, g, precision=lax.Precision.HIGHEST)

    def loss(g: Array) -> Array:
        return energy(placed(g), fixed)

    optimiser = optax.lbfgs(
        memory_size=8, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=6)
    )

    def step(carry, _):
        g, state = carry
        value, gradient = optax.value_and_grad_from_state(loss)(g, state=state)
        updates, state = optimiser.update(
            gradient, state, g, value=value, grad=gradient, value_fn=loss
        )
        return (optax.apply_updates(g, updates), state), None

    # optax mixes dtypes and ranks, which the strict modes forbid.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        start = jnp.zeros_like(vertices)
        (g, _), _ = lax.scan(step, (start, optimiser.init(start)), None, steps)
    return placed(g)


@functools.cache
def _program() -> Callable:
    return jit(_descend, static_argnums=3)
