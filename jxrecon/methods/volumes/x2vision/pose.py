"""Poses and exposures of the views, found with the latents: X-rays need not come from where they are said to.

    A_i G(w, n)  becomes  exp(g_i) A(T_i) G(w, n) + o_i        T_i: the camera of view i after a rigid motion

The first view says how the patient lies: a motion of all views together is one of the patient, which the
prior hardly tells. So the motion is that of the other views against the first, about the isocentre; gain
and offset are every view's. All are counted in standard deviations, and L_v is the negative logarithm of
their normal density: ours, as is all of this file.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.geometry import AnyCamera, Grid
from jxrecon.methods.base.method import Cameras
from jxrecon.pose import Pose

ROTATION_DEG, TRANSLATION_MM, LOG_GAIN, OFFSET = 4.0, 8.0, 0.05, 0.05
"""Standard deviations: about each axis, along each axis, of gain and offset of line integrals."""


class Views(NamedTuple):
    """What is found of every view, in standard deviations.

    Attributes:
        rotation: about the world's axes.
        translation: along them.
        gain: logarithm of the factor on the view's line integrals.
        offset: added to them.
    """

    rotation: Float[Array, "b views 3"]
    translation: Float[Array, "b views 3"]
    gain: Float[Array, "b views"]
    offset: Float[Array, "b views"]


def as_told(count: int, views: int) -> Views:
    """Views of `count` batch members that stand where they are said to."""
    motion, exposure = jnp.zeros((count, views, 3)), jnp.zeros((count, views))
    return Views(motion, motion, exposure, exposure)


def likelihood(views: Views) -> Float[Array, " b"]:
    """L_v = -sum log N(.; 0, I), without its constant."""
    return sum(
        (0.5 * jnp.sum(part**2, axis=tuple(range(1, part.ndim))) for part in views),
        jnp.zeros(views.gain.shape[0]),
    )


def facts(views: Views) -> dict[str, Float[Array, " b"]]:
    """How far every view but the first has turned and moved: deg, mm."""
    told = {}
    for n in range(1, views.gain.shape[1]):
        turned, moved = (jnp.linalg.norm(part[:, n], axis=1) for part in views[:2])
        told[f"view_{n + 1}_deg"] = ROTATION_DEG * turned
        told[f"view_{n + 1}_mm"] = TRANSLATION_MM * moved
    return told


def moved(
    camera: AnyCamera, rotation: Float[Array, "3"], translation: Float[Array, "3"]
) -> AnyCamera:
    """The camera where a view stands."""
    pose = Pose(jnp.deg2rad(ROTATION_DEG) * rotation, TRANSLATION_MM * translation)
    return pose.apply(camera)  # type: ignore[type-var]


def project(
    mu: Float[Array, "b x y z"], grid: Grid, cameras: Cameras, views: Views
) -> tuple[Float[Array, "b rows columns"], ...]:
    """Line integrals of each member's volume as its views show it, differentiable in them."""
    plans = [drr.plan(grid.affine, camera, grid.shape) for camera in cameras]

    def one(volume: Float[Array, "x y z"], mine: Views) -> tuple[Array, ...]:
        images = []
        for n, (camera, plan) in enumerate(zip(cameras, plans)):
            if n == 0:
                image = drr.line_integrals(volume, grid.affine, camera)
            else:
                there = moved(camera, mine.rotation[n], mine.translation[n])
                image = drr.line_integrals(volume, grid.affine, there, plan)
            images.append(jnp.exp(LOG_GAIN * mine.gain[n]) * image + OFFSET * mine.offset[n])
        return tuple(images)

    return jax.vmap(one)(mu, views)
