"""What may be wrong with a reconstruction, done on purpose: blur, noise, a shift, a nodule that is missed.

Each function changes one thing of a volume in HU. `PERTURBATIONS` applies them to a pair of truth and
reconstruction and keeps the pair as it was before beside it, so that the difference of any metric is due
to this one thing (`jxrecon.blind_spots` measures them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from jxrecon.metrics.bone import BONE_HU, Mask, Spacing
from jxrecon.types import InputError
from jxrecon.units import HU_AIR

BLUR_MM = 5.0
"""Standard deviation of the blur."""

NOISE_HU = 50.0
"""Standard deviation of the noise."""

SHIFT_MM = 5.0
"""How far the reconstruction is moved, to the patient's right."""

BONE_OFFSET_HU = -200.0
"""What bone is changed by: the sign is that of reconstructions, which smear bone."""

NODULE_MM = 14.0
"""Diameter of the nodule."""

NODULE_HU = 40.0
"""CT value of the nodule: soft tissue without contrast agent."""

LUNG_HU = -950.0
"""What lies below is taken for open air, of pharynx and windpipe: no nodule is put there."""

_POINTS = 7  # along each side of a voxel, to find how much of it a sphere covers

Volume = Float[np.ndarray, "x y z"]
Degrade = Callable[[Volume], Volume]


class Pair(NamedTuple):
    """What the metrics of one case compare: volumes of one grid, and the truth's filled body mask."""

    truth_hu: Volume
    recon_hu: Volume
    body: Mask


class Change(NamedTuple):
    """A pair before and after one perturbation.

    Attributes:
        before: without it.
        after: with it; the grid may be another, the voxels are as large.
        focus: voxel of `after` through which slices show it.
    """

    before: Pair
    after: Pair
    focus: tuple[int, ...]


class Perturbation(NamedTuple):
    """One thing that may be wrong.

    Attributes:
        name: a few words.
        what: a sentence that says what exactly is done.
        apply: (truth in HU, its body mask, voxel edges in mm, truth -> reconstruction) -> Change.
    """

    name: str
    what: str
    apply: Callable[[Volume, Mask, Spacing, Degrade], Change]


def gaussian_blur(hu: Volume, spacing_mm: Spacing, sigma_mm: float = BLUR_MM) -> Volume:
    """Convolution with a Gaussian of this standard deviation in mm; mirrored borders keep the mean."""
    sigma = sigma_mm / np.asarray(spacing_mm, np.float64)
    return ndimage.gaussian_filter(np.asarray(hu, np.float32), sigma, mode="reflect")


def noise(hu: Volume, sigma_hu: float = NOISE_HU, seed: int = 0) -> Volume:
    """Normal noise of this standard deviation, independent from voxel to voxel, the same at every call."""
    drawn = np.random.default_rng(seed).standard_normal(np.shape(hu), dtype=np.float32)
    return np.asarray(hu, np.float32) + np.float32(sigma_hu) * drawn


def shift(hu: Volume, spacing_mm: Spacing, offset_mm: Spacing = (-SHIFT_MM, 0.0, 0.0)) -> Volume:
    """The content moved by `offset_mm` along x, y, z: linear interpolation, the border values go on."""
    voxels = np.asarray(offset_mm, np.float64) / np.asarray(spacing_mm, np.float64)
    return ndimage.shift(np.asarray(hu, np.float32), voxels, order=1, mode="nearest")


def bone_offset(hu: Volume, offset_hu: float = BONE_OFFSET_HU) -> Volume:
    """`offset_hu` added to every voxel of bone."""
    hu = np.asarray(hu, np.float32)
    return np.where(hu >= BONE_HU, hu + np.float32(offset_hu), hu)


def flip(hu: Volume) -> Volume:
    """Left and right exchanged about the middle of the volume."""
    return np.asarray(hu)[::-1].copy()


def air_border(pair: Pair) -> Pair:
    """The same pair in the middle of a volume of twice the voxels along each axis, 8 times as many: air."""
    widths = [(n // 2, n - n // 2) for n in pair.truth_hu.shape]
    return Pair(
        np.pad(pair.truth_hu, widths, constant_values=HU_AIR),
        np.pad(pair.recon_hu, widths, constant_values=HU_AIR),
        np.pad(pair.body, widths),
    )


def sphere(
    shape: Sequence[int], spacing_mm: Spacing, centre: Sequence[int], diameter_mm: float = NODULE_MM
) -> Volume:
    """Share of each voxel that a sphere about the middle of the voxel `centre` covers, 0 to 1."""
    spacing = np.asarray(spacing_mm, np.float64)
    inner = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    reach = np.ceil(diameter_mm / 2 / spacing + 0.5).astype(int)
    box = tuple(slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(centre, reach, shape))
    squares = [  # of the distances of points along one axis, [voxel, point]
        ((np.arange(side.start, side.stop)[:, None] + inner - c) * mm) ** 2
        for side, c, mm in zip(box, centre, spacing)
    ]
    x, y, z = np.ix_(*(square.ravel() for square in squares))
    within = x + y + z <= (diameter_mm / 2) ** 2
    a, b, c = (len(square) for square in squares)
    share = np.zeros(shape, np.float32)
    share[box] = within.reshape(a, _POINTS, b, _POINTS, c, _POINTS).mean(axis=(1, 3, 5))
    return share


def nodule_place(hu: Volume, body: Mask, spacing_mm: Spacing) -> tuple[int, ...]:
    """Where a nodule of soft tissue would be seen best: in lung, else in fat, else in muscle.

    Of the places where the sphere lies in the body and touches no bone and no open air, the one around
    which the mean CT value is lowest; where there is no such place, the middle of the widest one.

    Args:
        hu: the volume without the nodule, HU.
        body: the filled body mask.
        spacing_mm: edges of a voxel along x, y, z.

    Raises:
        InputError: no voxel of the body is anything but bone and air.
    """
    radius = NODULE_MM / 2
    around = gaussian_blur(hu, spacing_mm, radius / 2)
    room = np.asarray(body, bool) & (np.asarray(hu) > LUNG_HU) & (np.asarray(hu) < BONE_HU)
    if not room.any():
        raise InputError("nodule: the body has no tissue but bone and air, expected a patient's CT")
    reach = np.ceil(radius / np.asarray(spacing_mm, np.float64)).astype(int)
    touched = sphere((2 * reach + 1).tolist(), spacing_mm, reach.tolist()) > 0
    fits = ndimage.binary_erosion(room, touched)
    if not fits.any():
        depth = ndimage.distance_transform_edt(np.pad(room, 1), sampling=spacing_mm)
        depth = depth[1:-1, 1:-1, 1:-1]
        fits = depth == depth.max()
    best = np.argmin(np.where(fits, around, np.inf))
    return tuple(int(i) for i in np.unravel_index(best, room.shape))


def add_nodule(hu: Volume, spacing_mm: Spacing, centre: Sequence[int]) -> Volume:
    """The volume with the nodule in it; voxels at its rim are mixed by their share."""
    share = sphere(np.shape(hu), spacing_mm, centre)
    hu = np.asarray(hu, np.float32)
    return hu + share * (np.float32(NODULE_HU) - hu)


def _of_recon(name: str, what: str, change: Callable[[Volume, Spacing], Volume]) -> Perturbation:
    """A perturbation that changes the reconstruction alone."""

    def apply(truth: Volume, body: Mask, spacing_mm: Spacing, degrade: Degrade) -> Change:
        before = Pair(truth, degrade(truth), body)
        after = before._replace(recon_hu=change(before.recon_hu, spacing_mm))
        return Change(before, after, tuple(n // 2 for n in truth.shape))

    return Perturbation(name, what, apply)


def _miss_nodule(truth: Volume, body: Mask, spacing_mm: Spacing, degrade: Degrade) -> Change:
    centre = nodule_place(truth, body, spacing_mm)
    ill, missed = add_nodule(truth, spacing_mm, centre), degrade(truth)
    seen = add_nodule(missed, spacing_mm, centre)
    return Change(Pair(ill, seen, body), Pair(ill, missed, body), centre)


def _add_border(truth: Volume, body: Mask, spacing_mm: Spacing, degrade: Degrade) -> Change:
    before = Pair(truth, degrade(truth), body)
    return Change(before, air_border(before), truth.shape)  # twice the voxels: their middle


PERTURBATIONS = (
    _of_recon(
        "blur",
        f"the reconstruction convolved with a Gaussian of {BLUR_MM:g} mm standard deviation",
        gaussian_blur,
    ),
    _of_recon(
        "noise",
        f"normal noise of {NOISE_HU:g} HU standard deviation added to every voxel of the reconstruction",
        lambda hu, spacing_mm: noise(hu),
    ),
    _of_recon(
        "5 mm shift",
        f"the reconstruction moved by {SHIFT_MM:g} mm to the patient's right, linear interpolation",
        shift,
    ),
    _of_recon(
        "fainter bone",
        f"{BONE_OFFSET_HU:g} HU added to the voxels of {BONE_HU:g} HU or more of the reconstruction",
        lambda hu, spacing_mm: bone_offset(hu),
    ),
    Perturbation(
        "removed nodule",
        f"a sphere of {NODULE_MM:g} mm and {NODULE_HU:g} HU is in the truth where it would be seen best "
        "(lung or beside an airway, else fat, else soft tissue) and not in the reconstruction; before, it is "
        "in both, as sharp and as dense",
        _miss_nodule,
    ),
    _of_recon(
        "left-right flip",
        "left and right of the reconstruction exchanged",
        lambda hu, spacing_mm: flip(hu),
    ),
    Perturbation(
        "8x air border",
        f"truth and reconstruction alike, voxel by voxel the same, in a volume of 8 times the voxels: "
        f"{HU_AIR:g} HU around",
        _add_border,
    ),
)
"""The rows of the page, in its order; each is applied alone."""
