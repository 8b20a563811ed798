"""LPIPS of volumes, slice by slice, and of X-rays: how alike they look, not how near their values are.

Functions here take the weights of `metrics.lpips.load` as an argument and are pure: jit them outside.
Which net, window and size is in `METRICS`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jxrecon.metrics.lpips import Lpips, load, lpips
from jxrecon.metrics.lpips_weights import installed
from jxrecon.metrics.metric import Metric, named
from jxrecon.types import InputError
from jxrecon.units import Window

SMALLEST = 64
"""Pixels below which an image's shorter side is enlarged: those of the patches LPIPS was calibrated on."""

CHUNK = 8
"""Pairs of slices that are in memory at once."""

METRICS = named(
    Metric(
        "lpips_alex",
        "LPIPS",
        "LPIPS version 0.1 with AlexNet: mean over the axial, the coronal and the sagittal slices that "
        "meet the body mask, mean of the three; [{low:g}, {high:g}] HU to [-1, 1], clipped, voxels as "
        "pixels, enlarged bilinearly to 64 along the shorter side where it has less (LPIPS was "
        "calibrated on 64 x 64 patches of photographs, not on CT); n/a where its weights are not installed",
        digits=3,
    ),
    Metric(
        "lpips_alex_xray",
        "LPIPS X-ray",
        "LPIPS version 0.1 with AlexNet of the line integrals of reconstruction and truth, mean over the "
        "views given to the method; the range of the truth's image to [-1, 1], nothing clipped; enlarged "
        "alike; n/a where its weights are not installed",
        digits=3,
    ),
)


def weights() -> Lpips | None:
    """AlexNet's, or None after one line on stderr that says how to install them.

    Raises:
        InputError: they are installed, but are not the published ones.
    """
    try:
        installed("alex")
    except InputError as error:
        print(f"{error}; its columns are n/a", file=sys.stderr)
        return None
    return load("alex")


def case_metrics(
    params: Lpips | None,
    truth_hu: Float[Array, "x y z"],
    recon_hu: Float[Array, "x y z"],
    body: Bool[Array, "x y z"],
    window: Window,
    truth_images: Sequence[Float[Array, "rows columns"]],
    recon_images: Sequence[Float[Array, "rows columns"]],
) -> dict[str, Float[Array, ""]]:
    """The metrics under the keys of `METRICS` of one case; NaN without weights.

    Args:
        params: of AlexNet, or None (`weights`).
        truth_hu, recon_hu, body, window: as `volume_lpips` takes them.
        truth_images: line integrals of the truth in the views given to the method.
        recon_images: those of the reconstruction.
    """
    if params is None:
        return dict.fromkeys(METRICS, jnp.full((), jnp.nan, jnp.float32))
    return {
        "lpips_alex": volume_lpips(params, truth_hu, recon_hu, body, window),
        "lpips_alex_xray": xray_lpips(params, truth_images, recon_images),
    }


def volume_lpips(
    params: Lpips,
    truth_hu: Float[Array, "x y z"],
    recon_hu: Float[Array, "x y z"],
    body: Bool[Array, "x y z"],
    window: Window,
) -> Float[Array, ""]:
    """Mean LPIPS of the slices through the body: of each direction, then of the three; NaN without a body.

    Args:
        params: of any net.
        truth_hu: HU.
        recon_hu: HU on the same grid.
        body: the filled body mask of the truth; a slice without any of it does not count.
        window: HU range that becomes [-1, 1].
    """
    pair = jnp.stack([jnp.asarray(volume, jnp.float32) for volume in (truth_hu, recon_hu)])
    directions = []
    for axis in range(3):
        slices = jnp.moveaxis(pair, axis + 1, 0)  # [n, 2, rows, columns]
        counts = jnp.any(body, axis=tuple({0, 1, 2} - {axis}))
        distances = _distances(params, slices, window)
        total = jnp.sum(jnp.where(counts, distances, 0.0))
        directions.append(total / jnp.sum(counts, dtype=jnp.float32))
    return jnp.mean(jnp.stack(directions))


def xray_lpips(
    params: Lpips,
    truth_images: Sequence[Float[Array, "rows columns"]],
    recon_images: Sequence[Float[Array, "rows columns"]],
) -> Float[Array, ""]:
    """Mean over views of `image_lpips`."""
    views = zip(recon_images, truth_images, strict=True)
    return jnp.mean(jnp.concatenate([image_lpips(params, a[None], b[None]) for a, b in views]))


def image_lpips(
    params: Lpips, a: Float[Array, "b rows columns"], b: Float[Array, "b rows columns"]
) -> Float[Array, " b"]:
    """LPIPS of images of any unit, in which the range of each target b is [-1, 1]; a flat one is -1.

    Nothing is clipped: what of `a` is brighter than all of b counts, and a loss has its gradient there.
    """
    low = jnp.min(b, axis=(1, 2), keepdims=True)
    span = jnp.maximum(jnp.max(b, axis=(1, 2), keepdims=True) - low, 1e-6)
    a, b = (2.0 * (image - low) / span - 1.0 for image in (a, b))
    return lpips(params, rgb(a), rgb(b))


def _distances(
    params: Lpips, pairs: Float[Array, "n 2 rows columns"], window: Window
) -> Float[Array, " n"]:
    """LPIPS of n pairs, a chunk at a time, so that memory does not grow with n."""
    n = len(pairs)
    pairs = jnp.pad(pairs, ((0, -n % CHUNK), (0, 0), (0, 0), (0, 0)))
    chunks = pairs.reshape(-1, CHUNK, *pairs.shape[1:])

    def chunk(images: Float[Array, "c 2 rows columns"]) -> Float[Array, " c"]:
        images = window.to_unit(images)
        return lpips(params, rgb(images[:, 0]), rgb(images[:, 1]))

    return lax.map(chunk, chunks).reshape(-1)[:n]


def rgb(images: Float[Array, "b rows columns"]) -> Float[Array, "b r c 3"]:
    """R = G = B, enlarged bilinearly to `SMALLEST` along the shorter side where it has less."""
    grow = SMALLEST / min(images.shape[1:])
    if grow > 1:
        shape = tuple(round(grow * n) for n in images.shape[1:])
        images = jax.image.resize(images, (len(images), *shape), "linear")
    return jnp.stack([images] * 3, axis=-1)
