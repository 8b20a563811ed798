"""How far the dome of the liver moves in a respiratory 4D-CT, by correlating its edge with the lung."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage, optimize

from jxrecon.deformation.breathing import lujan
from jxrecon.types import InputError

EDGE_HU = (-1000.0, 200.0)
"""Window of the correlation: lung against soft tissue; bone and contrast agent say no more."""

REACH_MM = (12.0, 36.0)
"""Farthest motions that are looked for: forwards or backwards, upwards or downwards."""


class Breath(NamedTuple):
    """Lujan's model of a measured motion.

    Attributes:
        amplitude_mm: A.
        power: n.
        inhaled_at: phase of full inhalation.
        misfit_mm: root mean square of what the model leaves.
    """

    amplitude_mm: float
    power: float
    inhaled_at: float
    misfit_mm: float


def moved_mm(
    before: Float[np.ndarray, "x y z"],
    after: Float[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, "3"],
    region: tuple[slice, slice, slice],
) -> Float[np.ndarray, "2"]:
    """(forwards, upwards) mm that a region's content has moved from one volume to the other.

    The translation whose undoing correlates best with `before` (Pearson, after windowing to
    `EDGE_HU`): first on a lattice of a voxel, then by the simplex method, linear interpolation.

    Args:
        before: HU, axes [x, y, z] (RAS).
        after: HU on the same grid.
        spacing_mm: of the grid.
        region: voxels about the dome: soft tissue below, lung above. Rows that would come from
            outside the volume do not count.
    """
    low, high = EDGE_HU
    fixed, moving = (np.clip(v, low, high).astype(np.float32)[region[0]] for v in (before, after))
    step = np.asarray(spacing_mm, np.float64)[1:]

    def unlike(shift_mm: Float[np.ndarray, "2"]) -> float:
        # the content has moved by shift: look for it there
        pulled = ndimage.shift(
            moving, (0.0, *(-np.asarray(shift_mm) / step)), order=1, mode="constant", cval=np.nan
        )[:, region[1], region[2]]
        known = np.isfinite(pulled)
        if known.sum() < known.size / 2:
            return 1.0
        return -float(np.corrcoef(pulled[known], fixed[:, region[1], region[2]][known])[0, 1])

    steps = [np.arange(-(r // s), r // s + 1) * s for r, s in zip(REACH_MM, step)]
    start = min((unlike(np.array(shift)), shift) for shift in product(*steps))[1]
    simplex = np.array(start) + np.array([[0.0, 0.0], [step[0] / 2, 0.0], [0.0, step[1] / 2]])
    options = {"xatol": 0.02, "fatol": 1e-5, "initial_simplex": simplex}
    return optimize.minimize(unlike, start, method="Nelder-Mead", options=options).x


def motion_of(
    phases: Sequence[Shaped[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    region: tuple[slice, slice, slice],
) -> Float[np.ndarray, "p 2"]:
    """(forwards, upwards) mm of the dome in every phase, from the phase in which it stands highest.

    Args:
        phases: HU on one grid, RAS.
        affine: index -> world mm, its axes those of the world.
        region: see `moved_mm`.

    Raises:
        InputError: there are fewer than two phases, or their shapes differ.
    """
    shapes = {np.shape(phase) for phase in phases}
    if len(phases) < 2 or len(shapes) != 1:
        raise InputError(
            f"4D-CT: {len(phases)} phases of shapes {sorted(shapes)}, expected two or more of one"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    heights = [moved_mm(phases[0], phase, spacing, region)[1] for phase in phases]
    exhaled = phases[int(np.argmax(heights))]
    return np.stack([moved_mm(exhaled, phase, spacing, region) for phase in phases])


def fit_lujan(down_mm: Float[np.ndarray, " p"]) -> Breath:
    """Lujan's model of the descent at evenly spaced phases of one cycle, least squares."""
    phase = np.arange(len(down_mm)) / len(down_mm)

    def misfit(values: Float[np.ndarray, "3"]) -> Float[np.ndarray, " p"]:
        amplitude, power, inhaled_at = values
        return amplitude * lujan(phase, power, inhaled_at) - down_mm

    start = [np.max(down_mm), 1.0, phase[np.argmax(down_mm)]]
    bounds = ([0.0, 0.3, start[2] - 0.5], [np.inf, 6.0, start[2] + 0.5])
    found = optimize.least_squares(misfit, start, bounds=bounds)
    amplitude, power, inhaled_at = found.x.tolist()
    return Breath(amplitude, power, inhaled_at, float(np.sqrt(np.mean(found.fun**2))))
