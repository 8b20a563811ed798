"""X-rays for networks of fixed views: in [0, 1], on the pixels of the training."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.geometry import AnyCamera, Camera, places_of, vectors
from jxrecon.methods.base.method import Cameras, Images
from jxrecon.types import InputError

FULL = 8.0
"""The line integral that becomes 1: 417 mm of water. The 76 heads of x2ct_hn reach 5.7."""

WITHIN_DEG = 5.0
"""How far the direction of an X-ray may lie from the trained one."""

COVERED = 0.5
"""Share of the trained detector that an X-ray must show; the rest counts as air."""


def fixed_range(integrals: Float[Array, "*b rows columns"]) -> Float[Array, "*b rows columns"]:
    """Line integrals / 8, clipped to [0, 1]: thicker patients stay brighter."""
    return jnp.clip(integrals / FULL, 0.0, 1.0)


def on_trained_pixels(
    images: Images, cameras: Cameras, trained: Sequence[Camera], name: str
) -> list[Float[Array, "r s"]]:
    """The X-rays in the order and on the pixels of the trained cameras.

    Each trained view takes the X-ray of the nearest direction; X-rays that no view takes are left out. One
    with another detector or other distances is resampled so that what lies in the plane through the
    isocentre, across the view, keeps its place: exact there, and off by the difference of magnification
    before and behind it.

    Args:
        images: line integrals, in any order.
        cameras: about the origin, one an image; with values, not traced.
        trained: the cameras of the network's training.
        name: the method's, for errors.

    Raises:
        InputError: an X-ray is of parallel rays, none looks in a trained direction, or one shows less than
            half of the trained detector.
    """
    axes = [_axis(camera, name) for camera in cameras]
    found = []
    for view, camera in enumerate(trained):
        cosines = [float(axis @ _axis(camera, name)) for axis in axes]
        nearest = int(np.argmax(cosines))
        apart = float(np.degrees(np.arccos(np.clip(cosines[nearest], -1.0, 1.0))))
        if apart > WITHIN_DEG:
            raise InputError(
                f"{name}'s view {view + 1} is {apart:.0f} degrees from the nearest X-ray, expected at"
                f" most {WITHIN_DEG:.0f}: it reconstructs from the views of its training alone"
            )
        image, covered = _resampled(images[nearest], cameras[nearest], camera)  # type: ignore[arg-type]
        if covered < COVERED:
            raise InputError(
                f"X-ray {nearest + 1} shows {covered:.0%} of the detector that {name} was trained with,"
                f" expected at least {COVERED:.0%}"
            )
        found.append(image)
    return found


def _axis(camera: AnyCamera, name: str) -> Float[np.ndarray, "3"]:
    """From the isocentre, which is the origin, towards the source."""
    if not isinstance(camera, Camera):
        raise InputError(f"{name} was given parallel rays, expected X-rays from a point source")
    source, _, _, _ = vectors(camera)
    return source / np.linalg.norm(source)


def _resampled(
    image: Float[Array, "rows columns"], camera: Camera, trained: Camera
) -> tuple[Float[Array, "r s"], float]:
    """The image on the trained pixels, air around it, and the share of them that it covers."""
    if camera.shape == trained.shape and all(
        np.allclose(a, b, rtol=1e-4, atol=1e-2)
        for a, b in zip(jax.tree.leaves(camera), jax.tree.leaves(trained))
    ):
        return image, 1.0
    source, _, _, _ = vectors(trained)
    normal = source / np.linalg.norm(source)
    with jax.ensure_compile_time_eval():  # cameras have values under jit too
        rays = np.asarray(trained.pixels(), np.float64) - source
    points = source - rays * ((normal @ source) / (rays @ normal))[..., None]
    places = np.moveaxis(places_of(camera, points), -1, 0)
    limits = np.array(camera.shape).reshape(2, 1, 1) - 0.5
    covered = float(np.mean(((places > -0.5) & (places < limits)).all(0)))
    coordinates = list(jnp.asarray(places, jnp.float32))
    return jax.scipy.ndimage.map_coordinates(image, coordinates, 1, "constant"), covered
