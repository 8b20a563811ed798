"""The projector as the operator A of classical reconstruction: A, A', its sums, and what its views see.

    y = A x      x: attenuation in 1/mm, [x, y, z];  y: line integrals, stacks of [views, rows, columns]

Views that one compiled program serves lie in one stack, and a scan runs through them, so that 180 views
compile like a few and memory is that of one view. A' is the transpose of that very program.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jxrecon.drr.beam.attenuation import Scalar, mu_to_hu
from jxrecon.drr.many_views import MOST_UNROLLED, by_detector, grouped, stacked
from jxrecon.drr.projection import choose, line_integrals, plan
from jxrecon.drr.shear_warp import Plan
from jxrecon.geometry import AnyCamera, Camera, Grid, vectors
from jxrecon.types import InputError
from jxrecon.units import HU_AIR

Stacks = tuple[Float[Array, "views rows columns"], ...]
"""Images, one array a group of views of the operator they belong to."""


class Group(NamedTuple):
    """Views that share a program.

    Attributes:
        members: their places among the operator's cameras.
        plan: plan of the projector.
        cameras: one camera whose vectors are [views, 3].
    """

    members: tuple[int, ...]
    plan: Plan
    cameras: AnyCamera

    @property
    def single(self) -> AnyCamera | None:
        """The only camera, where it has values."""
        if len(self.members) > 1 or not isinstance(self.cameras.centre, np.ndarray):
            return None
        return jax.tree.map(lambda vectors: vectors[0], self.cameras)


class Operator(NamedTuple):
    """A and A' for the views of one reconstruction; made by `operator`.

    Attributes:
        grid: voxels of x.
        groups: groups of views.
    """

    grid: Grid
    groups: tuple[Group, ...]

    def stacked(self, images: Sequence[Float[Array, "rows columns"]]) -> Stacks:
        """One image a camera, in the cameras' order -> y."""
        return tuple(jnp.stack([images[n] for n in group.members]) for group in self.groups)

    def project(self, x: Float[Array, "x y z"]) -> Stacks:
        """A x, dimensionless."""

        def images(group):
            one = partial(line_integrals, x, self.grid.affine, method=group.plan)
            return one(group.single)[None] if group.single else lax.map(one, group.cameras)

        return tuple(map(images, self.groups))

    def back(self, y: Stacks) -> Float[Array, "x y z"]:
        """A' y in mm: every voxel's sum over the rays through it, weighted by their lengths in it."""
        total, affine = jnp.zeros(self.grid.shape, jnp.float32), self.grid.affine
        for group, images in zip(self.groups, y, strict=True):

            def add(total, view, way=group.plan):
                camera, image = view
                _, transposed = jax.vjp(lambda x: line_integrals(x, affine, camera, way), total)
                return total + transposed(image)[0], None

            if group.single:
                total, _ = add(total, (group.single, images[0]))
            else:
                total, _ = lax.scan(add, total, (group.cameras, images))
        return total

    def subsets(self, count: int) -> list[tuple[Int[np.ndarray, "s m"], Bool[np.ndarray, "s m"]]]:
        """The views dealt out to `count` subsets in turn: per group their places, and which are real.

        Subsets of a group are filled up to equal size with views that do not count.
        """
        dealt = []
        for group in self.groups:
            size = -(-len(group.members) // count)
            place = np.arange(count)[:, None] + count * np.arange(size)[None]
            real = place < len(group.members)
            dealt.append((np.where(real, place, 0), real))
        return dealt

    def only(self, places: Sequence[Int[Array, " m"]]) -> Operator:
        """The operator of some views: their places in each group, which may be traced."""

        def some(group, i):
            return group._replace(cameras=jax.tree.map(lambda v: jnp.asarray(v)[i], group.cameras))

        pairs = zip(self.groups, places, strict=True)
        return self._replace(groups=tuple(some(group, i) for group, i in pairs))


def operator(
    grid: Grid, cameras: Sequence[AnyCamera], method: str = "auto", separately: bool = True
) -> Operator:
    """The operator of these views.

    Args:
        grid: voxels of x.
        cameras: cone or parallel, mixed at will; with values, not traced.
        method: method of `line_integrals`.
        separately: up to `MOST_UNROLLED` views along the volume's axes get a program each, the fastest;
            not for `only`.

    Raises:
        InputError: there are no cameras, or the method does not fit them.
    """
    if not cameras:
        raise InputError("no X-rays, expected at least one to reconstruct from")
    few = separately and method == "auto" and len(cameras) <= MOST_UNROLLED
    alone = [few and choose(grid.affine, camera, grid.shape) == "aligned" for camera in cameras]
    methods = ["aligned" if lone else method for lone in alone]
    plans = [plan(grid.affine, c, grid.shape, way) for c, way in zip(cameras, methods)]
    groups = (
        Group(tuple(members), way, stacked([cameras[n] for n in members]))
        for members, way in grouped(cameras, plans, alone)
    )
    return Operator(grid, tuple(groups))


def dot(a: Any, b: Any) -> Float[Array, ""]:
    """<a, b> of stacks or volumes."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda p, q: jnp.sum(p * q), a, b))


def norm(a: Any) -> Float[Array, ""]:
    """|a| of stacks or volumes."""
    return jnp.sqrt(dot(a, a))


def minus(a: Any, b: Any) -> Any:
    """a - b of stacks or volumes."""
    return jax.tree.map(jnp.subtract, a, b)


def inverse_sums(sums: Float[Array, "*shape"], least: Scalar) -> Float[Array, "*shape"]:
    """1 / sums, and 0 where a sum is below `least`: rays or voxels that hardly meet the others."""
    used = sums > least
    return jnp.where(used, 1.0 / jnp.where(used, sums, 1.0), 0.0)


def shadow_matrix(
    affine: Float[np.ndarray, "4 4"], camera: AnyCamera
) -> Float[np.ndarray, "*views 3 4"]:
    """Where voxels fall on the detector: matrix @ (i, j, k, 1) = depth (column, row, 1), in float64.

    A ray through a point x of the world meets the detector at centre + c u + r v, so that

        x - source = depth ((centre - source) + c u + r v)        depth 0 at the source, 1 at the detector
        x - centre = c u + r v + t direction                      parallel rays: depth 1 everywhere

    Args:
        affine: index -> world mm.
        camera: one view, or [views, 3] vectors.
    """
    first, centre, u, v = vectors(camera)
    rows, columns = camera.shape
    cone = isinstance(camera, Camera)
    corner = centre - (columns - 1) / 2 * u - (rows - 1) / 2 * v
    start, along = (first, corner - first) if cone else (corner, first)
    inverse = np.linalg.inv(np.stack([u, v, along], -1))
    offset = np.asarray(affine, np.float64)[:3, 3] - start
    matrix = np.concatenate([inverse @ affine[:3, :3], inverse @ offset[..., None]], -1)
    if not cone:
        matrix[..., 2, :] = [0.0, 0.0, 0.0, 1.0]
    return matrix


def shadow(
    matrix: Float[Array, "3 4"], shape: tuple[int, int, int]
) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"], Float[Array, "x y z"]]:
    """(column, row, depth) of every voxel's centre on the detector of a `shadow_matrix`."""
    i, j, k = (jnp.arange(n, dtype=jnp.float32) for n in shape)

    def affine(m: Float[Array, "4"]) -> Float[Array, "x y z"]:
        return (m[0] * i + m[3])[:, None, None] + (m[1] * j)[None, :, None] + (m[2] * k)[None, None]

    column, row, depth = map(affine, matrix)
    safe = jnp.where(depth > 0, depth, 1.0)
    return column / safe, row / safe, depth


def field_of_view(
    grid: Grid, cameras: Sequence[AnyCamera], seen_by: str = "any"
) -> Bool[Array, "x y z"]:
    """The voxels whose centres fall on the detectors, between source and detector.

    Args:
        grid: voxels.
        cameras: the views, with values.
        seen_by: "any": by one view at least, what can be reconstructed at all; "all": by every view,
            where truncated detectors take nothing away.

    Raises:
        InputError: seen_by is neither.
    """
    if seen_by not in ("any", "all"):
        raise InputError(f"field of view is {seen_by!r}, expected 'any' or 'all'")
    count = jnp.zeros(grid.shape, jnp.int32)
    for members in by_detector(cameras):
        rows, columns = cameras[members[0]].shape
        matrices = shadow_matrix(grid.affine, stacked([cameras[n] for n in members]))

        def add(count, matrix, rows=rows, columns=columns):
            column, row, depth = shadow(matrix, grid.shape)
            on = (column >= -0.5) & (column <= columns - 0.5) & (row >= -0.5) & (row <= rows - 0.5)
            seen = on & (depth > 0) & (depth <= 1)
            return count + seen.astype(jnp.int32), None

        count, _ = lax.scan(add, count, jnp.asarray(matrices, jnp.float32))
    return count >= (1 if seen_by == "any" else len(cameras))


def masked_hu(mu: Float[Array, "x y z"], mask: Bool[Array, "x y z"]) -> Float[Array, "x y z"]:
    """HU of an attenuation in 1/mm; air outside the mask."""
    return jnp.where(mask, mu_to_hu(mu), HU_AIR)
