"""A rigid pose of six parameters: rotation vector and translation, safe to differentiate at zero.

A pose moves the world about a fixed point: x -> R (x - about) + about + t, R = exp([rotation]x). To
move the volume by a pose, move the cameras by its inverse about the same point: the images are equal.
All functions take one pose; batches by `jax.vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jxrecon.geometry import Camera, ParallelCamera
from jxrecon.types import AnyArray

AnyKind = TypeVar("AnyKind", Camera, ParallelCamera)

_AXES = np.eye(3, dtype=int)
_GENERATORS = np.cross(_AXES[:, None], _AXES[None]).swapaxes(1, 2)
"""[x]x, [y]x and [z]x of the axes: [v]x is the sum of these times the numbers of v."""

_SINC = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(9))
_COSC = tuple((-1) ** n / math.factorial(2 * n + 2) for n in range(9))
_ATAN = tuple((-1) ** n / (2 * n + 1) for n in range(9))


class Pose(struct.PyTreeNode):
    """The rigid motion x -> R (x - about) + about + t of the world, R = exp([rotation]x).

    A pytree of two leaves, so that it can be differentiated, stacked and handed to an optimiser.
    Float32 suffices; float64 leaves (with JAX's x64 switched on) are computed with as such.
    `points` and `apply` turn about the point `about_mm`, [3] in the world, usually the isocentre.

    Attributes:
        rotation: axis times angle, [3] radians.
        translation_mm: how far the point that is turned about moves, [3] mm.
    """

    rotation: Float[Array, "*batch 3"]
    translation_mm: Float[Array, "*batch 3"]

    def matrix(self) -> Float[Array, "3 3"]:
        """The rotation R."""
        return rotation_matrix(self.rotation)

    def points(
        self,
        points_mm: Float[AnyArray, "*points 3"] | Sequence[float | Array],
        about_mm: Any = (0.0, 0.0, 0.0),
    ) -> Float[Array, "*points 3"]:
        """Where these points of the world come to lie, mm."""
        rotation = jnp.asarray(self.rotation)
        about = _like(about_mm, rotation)
        points = _like(points_mm, rotation)
        turned = _times(points.reshape(-1, 3) - about[None], self.matrix().T)
        shift = about + jnp.asarray(self.translation_mm)
        return (turned + shift[None]).reshape(points.shape)

    def apply(self, camera: AnyKind, about_mm: Any = (0.0, 0.0, 0.0)) -> AnyKind:
        """The camera after the motion, in the pose's precision."""
        rotation = jnp.asarray(self.rotation)
        about = _like(about_mm, rotation)
        matrix = rotation_matrix(rotation)
        shift = about + jnp.asarray(self.translation_mm) - _times(matrix, about)
        return jax.tree.map(lambda leaf: _like(leaf, rotation), camera).moved(matrix, shift)

    def inverse(self) -> Pose:
        """The pose that undoes this one, about the same point: -rotation, -R' t."""
        back = -jnp.asarray(self.rotation)
        return Pose(back, -_times(rotation_matrix(back), jnp.asarray(self.translation_mm)))

    def compose(self, first: Pose) -> Pose:
        """This pose after another about the same point: R R_first, R t_first + t."""
        matrix = self.matrix()
        shift = _times(matrix, jnp.asarray(first.translation_mm)) + jnp.asarray(self.translation_mm)
        return Pose(rotation_vector(_times(matrix, first.matrix())), shift)


class PoseError(NamedTuple):
    """How far two poses lie apart.

    Attributes:
        rotation_deg: angle of the rotation between them, 0 to 180.
        translation_mm: distance between the places to which they bring the isocentre.
    """

    rotation_deg: Float[Array, ""]
    translation_mm: Float[Array, ""]


def still() -> Pose:
    """The pose that moves nothing."""
    return Pose(jnp.zeros(3, jnp.float32), jnp.zeros(3, jnp.float32))


def pose_error(
    found: Pose, true: Pose, isocentre_mm: Any = (0.0, 0.0, 0.0), about_mm: Any | None = None
) -> PoseError:
    """The rotation between two poses and their distance at the isocentre.

    Args:
        found: one pose.
        true: the other, about the same point.
        isocentre_mm: where the translation is measured, [3].
        about_mm: the point that both turn about; None: the isocentre.
    """
    about_mm = isocentre_mm if about_mm is None else about_mm
    between = rotation_vector(_times(found.matrix().T, true.matrix()))
    apart = found.points(isocentre_mm, about_mm) - true.points(isocentre_mm, about_mm)
    return PoseError(jnp.rad2deg(_norm(between)), _norm(apart))


def rotation_matrix(vector: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """SO(3) exponential: exp([v]x) = cos(a) I + sin(a)/a [v]x + (1 - cos(a))/a^2 v v', a = |v|.

    v is axis times angle in radians. Below an angle of 1 both factors are polynomials in a^2 (exact
    to 1e-17), so that the value and all derivatives are right at 0 too.
    """
    vector = jnp.asarray(vector)
    square = (vector**2).sum()
    small = square < 1.0
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    near = jnp.where(small, square, 0.0)
    sinc = jnp.where(small, _polynomial(_SINC, near), jnp.sin(angle) / angle)
    cosc = jnp.where(small, _polynomial(_COSC, near), (1 - jnp.cos(angle)) / angle**2)
    cross = (jnp.asarray(_GENERATORS, vector.dtype) * vector[:, None, None]).sum(0)
    outer = vector[:, None] * vector[None, :]
    identity = jnp.eye(3, dtype=vector.dtype)
    return (1 - cosc * square) * identity + sinc * cross + cosc * outer


def rotation_vector(matrix: Float[Array, "3 3"]) -> Float[Array, "3"]:
    """SO(3) logarithm: axis times angle of a proper rotation, the angle between 0 and pi.

    By way of the unit quaternion q = (w, n): 4 q q' is linear in the matrix, and its row of the
    largest diagonal gives q without cancellation at any angle; then 2 atan2(|n|, w) n / |n|. At pi
    either direction of the axis is right; one of them is returned.
    """
    matrix = jnp.asarray(matrix)
    generators = jnp.asarray(_GENERATORS, matrix.dtype)
    skew = (generators * matrix[None]).sum((1, 2))  # 4 w n
    trace = jnp.trace(matrix)
    symmetric = (1 - trace) * jnp.eye(3, dtype=matrix.dtype) + matrix + matrix.T  # 4 n n'
    outer = jnp.block([[1 + trace, skew[None]], [skew[:, None], symmetric]])
    largest = jnp.argmax(jnp.diagonal(outer))  # at least 1
    quaternion = outer[largest]
    quaternion = quaternion * jnp.where(quaternion[0] < 0, -1.0, 1.0).astype(quaternion.dtype)
    w, n = quaternion[0], quaternion[1:]  # of any length: only their ratio counts below
    square = (n**2).sum()
    small = square < 0.02 * w**2
    length = jnp.sqrt(jnp.where(small, 1.0, square))
    safe_w = jnp.where(small, w, 1.0)
    near = jnp.where(small, square, 0.0) / safe_w**2
    factor = jnp.where(small, _polynomial(_ATAN, near) / safe_w, jnp.arctan2(length, w) / length)
    return 2 * factor * n


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """sum_n coefficients[n] x^n by Horner's rule."""
    value = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _like(value: Any, other: Array) -> Array:
    return jnp.asarray(value, other.dtype)


def _norm(vector: Array) -> Array:
    """Length of a vector, with gradient 0 at 0."""
    square = (vector**2).sum()
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
