"""Whether an X-ray's pixels, its sidecar and its camera can belong together: what cannot is refused.

An image that was converted, cropped or inverted beside its old sidecar, lengths in metres, a NIfTI that
another program turned: all of them read well and reconstruct to something else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jxrecon import geometry
from jxrecon.geometry import AnyCamera, Camera, finite
from jxrecon.types import InputError

LEAST_LINE_INTEGRAL = -0.1
"""Noise lifts air up to 10 % above the unattenuated beam; below this it is no line integral."""

MOST_LINE_INTEGRAL = 50.0
"""Half a metre of dense bone is 25; above this it is no line integral."""

THINNEST, THICKEST = 0.05, 10.0
"""The largest line integral of an image passes that of 2.5 mm of water, its least is not that of 0.5 m."""

SOURCE_DETECTOR_MM = (100.0, 20_000.0)
"""Between which a source lies from its detector; a metre told as 1 lies outside."""

DETECTOR_MM = (5.0, 20_000.0)
"""Between which the longer edge of a detector lies."""

PITCH_SHARE, TURN, PLACE_MM = 0.01, 0.01, 1.0
"""How far a NIfTI's affine may be from its camera: share of a pixel's size, sine of an angle, distance."""

FRAME, EDGE_SHARE = 0.03, 0.25
"""Width of the image's frame, and by how much more of it is within a tenth of the largest value than of the
least where bright and dark are exchanged: the frame of an X-ray shows air, or nothing but the body."""

CLIPPED = 0.25
"""A larger share of 8-bit pixels than this at the largest value was cut off there."""


def check_sizes(camera: AnyCamera, origin: str) -> None:
    """Refuses a camera whose lengths are no millimetres.

    Raises:
        InputError: source and detector are too near or too far, or the detector is too small or too large.
    """
    edge = float(max(n * mm for n, mm in zip(camera.shape, geometry.pixel_mm(camera))))
    told = [("the detector measures", edge, DETECTOR_MM)]
    if isinstance(camera, Camera):
        apart = geometry.source_detector_mm(camera)
        told.insert(0, ("source and detector lie apart by", apart, SOURCE_DETECTOR_MM))
    for what, length, (low, high) in told:
        if not low <= length <= high:
            raise InputError(
                f"{origin}: {what} {length:.4g} mm, expected {low:g} to {high:g} mm (lengths in metres? "
                "see --sid, --pixel-mm)"
            )


def check_affine(
    affine: Float[np.ndarray, "4 4"],
    wanted: Float[np.ndarray, "4 4"],
    origin: str,
    placed: bool,
) -> None:
    """Refuses a NIfTI whose affine contradicts its camera.

    An affine that only scales its axes tells the size of a pixel, one of unit steps nothing at all.

    Args:
        affine: of the file, index -> mm.
        wanted: what the camera gives its pixels, see `radiographs.write`.
        origin: to be named.
        placed: the camera was told as a whole, so that the place of the detector is known, too.

    Raises:
        InputError: pixels have another size, axes another direction, or the detector another place.
    """
    step, expected = (np.linalg.norm(matrix[:3, :2], axis=0) for matrix in (affine, wanted))
    if np.allclose(np.abs(affine[:3, :3]), np.eye(3), atol=1e-6):
        return
    if (np.abs(step / expected - 1) > PITCH_SHARE).any():
        raise InputError(
            f"{origin}: its affine has pixels of {step[1]:.4g} x {step[0]:.4g} mm, its camera of "
            f"{expected[1]:.4g} x {expected[0]:.4g} mm, expected the same (resampled? see --pixel-mm)"
        )
    axes = affine[:3, :2] / step
    if np.allclose(np.abs(axes), np.eye(3)[:, :2], atol=1e-6):
        return  # in the picture's own plane, not in the world
    cosines = (axes * wanted[:3, :2] / expected).sum(0)
    if (cosines < np.sqrt(1 - TURN**2)).any():
        raise InputError(
            f"{origin}: along its rows and columns its affine and its camera agree by {cosines[0]:.2f} and "
            f"{cosines[1]:.2f} (cosines), expected 1: turned or flipped by another program?"
        )
    apart = float(np.linalg.norm(affine[:3, 3] - wanted[:3, 3]))
    if placed and apart > PLACE_MM:
        raise InputError(
            f"{origin}: its affine puts the first pixel {apart:.1f} mm from where its camera does, "
            "expected the same place (cropped or moved?)"
        )


def check_bits(image: Shaped[np.ndarray, "rows columns"], told: Any, where: str) -> None:
    """Refuses pixels of another depth than the sidecar's `bits`, which its scale is for.

    Raises:
        InputError: they differ.
    """
    bits = 8 * image.dtype.itemsize if image.dtype.kind in "iu" else 0
    if told is not None and bits and float(finite(told, 1, f"{where}: bits")[0]) != bits:
        raise InputError(
            f"{where}: tells of {told} bits a pixel but the image has {bits}, expected the image that the "
            "sidecar was written for (scale and offset would be wrong)"
        )


def check_clipping(
    values: Float[np.ndarray, "rows columns"], stored: np.dtype, origin: str
) -> None:
    """Refuses line integrals stored in 8 bits that were cut off at the largest value.

    Raises:
        InputError: more than `CLIPPED` of the pixels have it.
    """
    share = float((values == values.max()).mean())
    if stored.kind in "iu" and stored.itemsize == 1 and share > CLIPPED:
        raise InputError(
            f"{origin}: {share:.0%} of the pixels have the largest value {values.max():.4g}, expected "
            "no clipping (converted from 16 bits?)"
        )


def check_line_integrals(
    values: Float[np.ndarray, "rows columns"], told: Any, step: float, origin: str
) -> tuple[float, float]:
    """(least, largest) of an image of line integrals; refuses what cannot be such.

    Args:
        values: dimensionless.
        told: the least, mean and largest value that the sidecar tells, or None.
        step: of line integrals from one stored value to the next.
        origin: of the image, with what its pixels are said to be.

    Raises:
        InputError: values out of range, another range than the sidecar's, or dark and bright exchanged.
    """
    low, high = float(values.min()), float(values.max())
    found = f"{origin}: line integrals from {low:.4g} to {high:.4g}"
    if low < LEAST_LINE_INTEGRAL or high > MOST_LINE_INTEGRAL:
        raise InputError(
            f"{found}, expected them between {LEAST_LINE_INTEGRAL:g} and {MOST_LINE_INTEGRAL:g} (see "
            "--intensity, --i0)"
        )
    if high < THINNEST or low > THICKEST:
        raise InputError(
            f"{found}, expected the largest above {THINNEST:g} and the least below {THICKEST:g}: no "
            "patient is so thin or thick (another bit depth than scale's? see --intensity, --i0)"
        )
    if is_inverted(values):
        raise InputError(
            f"{found}, the largest where the image has its frame: air seems bright, as in MONOCHROME1; "
            "expected --inverted to turn it round (or an image without collimated edges)"
        )
    if told is not None:
        least, mean, most = (float(x) for x in finite(told, 3, f"{origin}: range"))
        off = max(abs(low - least), abs(high - most), abs(values.mean() - mean) / 10)
        if off > 1e-3 * (most - least) + step:
            raise InputError(
                f"{found} (mean {values.mean():.4g}), its sidecar tells of {least:.4g} to {most:.4g} (mean "
                f"{mean:.4g}), expected the image that the sidecar was written for (or one without range)"
            )
    return low, high


def is_inverted(values: Float[np.ndarray, "rows columns"]) -> bool:
    """Whether the frame of an image is as bright as a body behind air is dark."""
    low, high = values.min(), values.max()
    width = [max(1, round(FRAME * n)) for n in values.shape]
    inner = np.zeros(values.shape, bool)
    inner[width[0] : -width[0], width[1] : -width[1]] = True
    if low > high / 2 or inner.mean() < 0.5:  # no air, however dense the frame
        return False
    frame = (values[~inner] - low) / (high - low)
    return bool((frame > 0.9).mean() - (frame < 0.1).mean() > EDGE_SHARE)


def turned_round(image: Shaped[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Dark for bright: the largest value that the pixels can have (of real numbers: that they have) is 0."""
    kind = image.dtype
    most = np.iinfo(kind).max if kind.kind in "iu" else image.max()
    return float(most) - image.astype(np.float64)
