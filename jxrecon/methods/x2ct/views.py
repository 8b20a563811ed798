"""The X-rays as X2CT-GAN's networks take them: normalised to [0, 1], on the pixels of the training.

| rule | attenuation | line integrals -> [0, 1] | for |
|---|---|---|---|
| fixed | `drr.hu_to_mu` | `fixed_range`: one factor for all images | measured line integrals |
| maximum | `soft_attenuation` | `eight_bit`: each image by its own maximum | the authors' data |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon import drr
from jxrecon.geometry import AnyCamera, Camera
from jxrecon.types import InputError

FULL = 8.0
"""The line integral that becomes 1: 417 mm of water. Few heads reach it, none of their views needs more."""

SOFT_PER_MM = 0.0022
"""Attenuation of water in the authors' DRRs, 1/mm; the normalisation by the maximum undoes the factor."""

SOFT_FLOOR_HU = -800.0
"""At or below this nothing attenuates in the authors' DRRs."""

WITHIN_DEG = 5.0
"""How far the direction of an X-ray may lie from the trained one."""

COVERED = 0.5
"""Share of the trained detector that an X-ray must show; the rest counts as air."""


def fixed_range(integrals: Float[Array, "*b rows columns"]) -> Float[Array, "*b rows columns"]:
    """Line integrals / 8, clipped to [0, 1]: thicker patients stay brighter."""
    return jnp.clip(integrals / FULL, 0.0, 1.0)


def eight_bit(integrals: Float[Array, "*b rows columns"]) -> Float[Array, "*b rows columns"]:
    """[X2CT data] raw / max of each image in 255 steps, as the authors' PNG files hold it."""
    top = jnp.max(integrals, (-2, -1), keepdims=True)
    return jnp.floor(255.0 * integrals / jnp.maximum(top, 1e-6)) / 255.0


def soft_attenuation(hu: Float[Array, "*b x y z"]) -> Float[Array, "*b x y z"]:
    """[X2CT data] 0.0022 (1 + HU / 1000) in 1/mm, and nothing at or below -800 HU."""
    return jnp.where(hu > SOFT_FLOOR_HU, SOFT_PER_MM * (1.0 + hu / 1000.0), 0.0)


class Rule(NamedTuple):
    """How X-rays are made of a CT and shown to the networks.

    Attributes:
        attenuation: HU -> 1/mm.
        normalise: line integrals -> [0, 1].
    """

    attenuation: Callable[[Array], Array]
    normalise: Callable[[Array], Array]


RULES = {
    "fixed": Rule(drr.hu_to_mu, fixed_range),
    "maximum": Rule(soft_attenuation, eight_bit),
}


def on_trained_pixels(
    images: Sequence[Float[Array, "rows columns"]],
    cameras: Sequence[AnyCamera],
    trained: Sequence[Camera],
) -> list[Float[Array, "s s"]]:
    """The X-rays in the order and on the pixels of the trained cameras.

    Each trained view takes the X-ray of the nearest direction. One with another detector or other
    distances is resampled so that what lies in the plane through the isocentre, across the view, keeps its
    place: exact there, and off by the difference of magnification before and behind it.

    Args:
        images: line integrals, in any order.
        cameras: concrete, about the origin, one an image.
        trained: of the networks.

    Raises:
        InputError: there are more or fewer X-rays than trained views, one is of parallel rays, none looks
            in a trained direction, or one shows less than half of the trained detector.
    """
    if len(images) != len(trained):
        raise InputError(
            f"x2ct was given {len(images)} X-rays, expected the {len(trained)} that it was trained with"
        )
    axes = [_axis(camera) for camera in cameras]
    found = []
    for view, camera in enumerate(trained):
        cosines = [float(axis @ _axis(camera)) for axis in axes]
        nearest = int(np.argmax(cosines))
        apart = float(np.degrees(np.arccos(np.clip(cosines[nearest], -1.0, 1.0))))
        if apart > WITHIN_DEG:
            raise InputError(
                f"x2ct's view {view + 1} is {apart:.0f} degrees from the nearest X-ray, expected at most"
                f" {WITHIN_DEG:.0f}: it reconstructs from the views of its training alone"
            )
        found.append(_resampled(images[nearest], cameras[nearest], camera, nearest))
    return found


def _axis(camera: AnyCamera) -> Float[np.ndarray, "3"]:
    """From the isocentre, which is the origin, towards the source."""
    if not isinstance(camera, Camera):
        raise InputError("x2ct was given parallel rays, expected X-rays from a point source")
    source = np.asarray(camera.source, np.float64)
    return source / np.linalg.norm(source)


def _resampled(
    image: Float[Array, "rows columns"], camera: Camera, trained: Camera, number: int
) -> Float[Array, "s s"]:
    same = camera.shape == trained.shape and all(
        np.allclose(a, b, rtol=1e-4, atol=1e-2)
        for a, b in zip(jax.tree.leaves(camera), jax.tree.leaves(trained))
    )
    if same:
        return image
    normal, source = _axis(trained), np.asarray(trained.source, np.float64)
    rays = np.asarray(trained.pixels(), np.float64) - source
    points = source - rays * ((normal @ source) / (rays @ normal))[..., None]
    source, centre, u, v = (
        np.asarray(part, np.float64) for part in (camera.source, camera.centre, camera.u, camera.v)
    )
    across = np.cross(u, v)
    rays = points - source
    there = source + rays * ((across @ (centre - source)) / (rays @ across))[..., None] - centre
    places = there @ np.linalg.pinv(np.stack([v, u], 1)).T
    places = np.moveaxis(places + (np.array(camera.shape) - 1) / 2, -1, 0)
    limits = np.array(camera.shape).reshape(2, 1, 1) - 0.5
    covered = float(np.mean(((places > -0.5) & (places < limits)).all(0)))
    if covered < COVERED:
        raise InputError(
            f"X-ray {number + 1} shows {covered:.0%} of the detector that x2ct was trained with,"
            f" expected at least {COVERED:.0%}"
        )
    coordinates = list(jnp.asarray(places, jnp.float32))
    return jax.scipy.ndimage.map_coordinates(image, coordinates, 1, "constant")
