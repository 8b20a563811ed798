"""The X-rays of one patient as a linear system A x = y, and the Method of an algorithm that solves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.drr.operator import Operator, Stacks, field_of_view, masked_hu, operator
from jxrecon.geometry import Grid
from jxrecon.methods.base.method import (
    Cameras,
    Images,
    Method,
    Problem,
    Progress,
    Reconstruction,
    Trace,
    untrained,
)
from jxrecon.types import Key, PyTree

Solution: TypeAlias = tuple[Float[Array, "x y z"], Trace]
"""Attenuation in 1/mm and the course of the iteration."""


class System(NamedTuple):
    """A x = y for the attenuation x in 1/mm of the voxels that some view sees."""

    grid: Grid  # voxels of x
    cameras: Cameras
    images: Images
    a: Operator  # each view along the volume's axes with a program of its own
    y: Stacks  # the images
    inside: Float[Array, "x y z"]  # 1 in voxels that some view sees, else 0
    weights: Images | None = (
        None  # how much each pixel is to be trusted, of mean 1; None: all alike
    )

    def weighted(self, r: Stacks) -> Stacks:
        """W r."""
        if self.weights is None:
            return r
        return jax.tree.map(jnp.multiply, self.a.stacked(self.weights), r)

    def reconstruction(self, solution: Solution, seen_by: str) -> Reconstruction:
        """A solution in HU, air (-1000 HU) in voxels that are not seen; by which views: `field_of_view`."""
        (mu, trace), seen = solution, field_of_view(self.grid, self.cameras, seen_by)
        return Reconstruction(masked_hu(mu, seen), trace)


def linear_system(
    grid: Grid, images: Images, cameras: Cameras, weights: Images | None = None
) -> System:
    """The system of these X-rays, and of how much their pixels are to be trusted."""
    a = operator(grid, cameras)
    inside = field_of_view(grid, cameras).astype(jnp.float32)
    return System(grid, cameras, images, a, a.stacked(images), inside, weights)


def solver(solve: Callable[..., Solution], problem: Problem, settings: Any) -> Method:
    """The Method of an algorithm that explains the X-rays without training.

    Args:
        solve: (system, settings, progress or None) -> its solution.
        problem: its grid is the volume's.
        settings: those of `solve`; `seen_by` says which voxels are given.
    """

    def reconstruct(
        state: PyTree,
        images: Images,
        cameras: Cameras,
        key: Key,
        progress: Progress = None,
        weights: Images | None = None,
    ) -> Reconstruction:
        system = linear_system(problem.grid, images, cameras, weights)
        return system.reconstruction(solve(system, settings, progress), settings.seen_by)

    return untrained(reconstruct)
