"""The body in a CT: which voxels are patient, without table, tubes and mask shells."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from jxrecon.units import HU_AIR

TISSUE_HU = -300.0
"""Above air, lung and foam, below fat (-100 HU)."""

OPENING_MM = 5.0
"""What is thinner than twice this is no trunk, neck or head: couch shells, headrests, tubes, masks."""

REACH_MM = 22.0
"""Tissue connected to the opened body and this near to it belongs to it: nose, ears, lips, septum."""

WORKING_MM = 2.5
"""Voxels are merged up to about this size for the opening; the outline keeps the full resolution."""


def body_mask(
    hu: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> Bool[np.ndarray, "x y z"]:
    """The patient's voxels, cavities included.

    Tissue is what exceeds `TISSUE_HU`. Its erosion by `OPENING_MM` falls apart into the body and
    the rest. The largest piece, grown by `REACH_MM`, cuts the body out of the tissue; of that the
    largest piece stays, and its holes are filled, also slice by slice, so that airways and lungs
    that leave the volume lie inside.

    Args:
        hu: CT values in HU, axes [x, y, z], z along the body.
        affine: 4x4, index -> world mm.

    Returns:
        The mask; all False where there is no piece of tissue thick enough.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    tissue = np.asarray(hu) > TISSUE_HU
    factor = tuple(int(n) for n in np.maximum(1, np.rint(WORKING_MM / spacing)))
    working_mm = spacing * factor
    coarse = ndimage.binary_fill_holes(_merged(tissue, factor))
    # Beyond the border the body is taken to go on: a field that cuts the shoulders erodes nothing.
    core = ndimage.binary_erosion(coarse, _ball(OPENING_MM, working_mm), border_value=1)
    near = _dilated(_largest(core), REACH_MM, working_mm)
    for axis, n in enumerate(factor):
        near = near.repeat(n, axis)
    return fill_cavities(_largest(tissue & near[tuple(slice(n) for n in tissue.shape)]))


def fill_cavities(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The mask with what it encloses, in the volume or within an axial slice."""
    filled = ndimage.binary_fill_holes(mask)
    in_plane = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)
    outside, _ = ndimage.label(~filled, in_plane)  # pieces of single slices
    open_air = np.zeros(outside.max() + 1, bool)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        open_air[edge] = True
    return filled | ~open_air[outside]


def without_surroundings(
    hu: Shaped[np.ndarray, "x y z"], body: Bool[np.ndarray, "x y z"], air_hu: float = HU_AIR
) -> Shaped[np.ndarray, "x y z"]:
    """The volume with air outside the body; the skin's half-filled voxels, next to it, stay."""
    rim = ndimage.binary_dilation(body, ndimage.generate_binary_structure(3, 1))
    return np.where(rim, hu, hu.dtype.type(air_hu))


def _merged(mask: np.ndarray, factor: tuple[int, ...]) -> np.ndarray:
    """Blocks of `factor` voxels by majority; the last block of an axis may be smaller."""
    for axis, n in enumerate(factor):
        padding = [(0, -mask.shape[a] % n if a == axis else 0) for a in range(3)]
        shape = list(mask.shape)
        shape[axis : axis + 1] = [-1, n]
        mask = np.pad(mask, padding, mode="edge").reshape(shape).mean(axis + 1) >= 0.5
    return mask


def _ball(radius_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """An ellipsoid of this radius, which reaches at least the next voxel along each axis."""
    radii = np.maximum(radius_mm / spacing_mm, 1.0)
    reach = np.floor(radii).astype(int)
    offsets = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    return sum((o / r) ** 2 for o, r in zip(offsets, radii)) <= 1.0


def _dilated(mask: np.ndarray, radius_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    if not mask.any():
        return mask
    margin = np.ceil(radius_mm / spacing_mm).astype(int)
    box = tuple(  # no farther than the dilation reaches: distances are the slow part
        slice(max(0, side.start - m), side.stop + m)
        for side, m in zip(ndimage.find_objects(mask.astype(np.uint8))[0], margin)
    )
    grown = np.zeros_like(mask)
    grown[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm) <= radius_mm
    return grown


def _largest(mask: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
