"""How a liver breathes: the diaphragm pushes it down, a little forward, and bends it smoothly.

    s(p) = cos^{2n}(pi (p - p0))                       [Lujan 1999] z(t) = z0 - A cos^{2n}(pi t/tau - phi):
                                                       0 at the end of exhalation, 1 at full inhalation
    u(x) = A s [h(z) (0, a, -1) + sum_m c_m cos(k_m . x + o_m)]
    h(z) = tip + (1 - tip) S((z - bottom)/(top - bottom))   S: smoothstep, clipped to [0, 1]

x is a place at the end of exhalation, the reference; A mm the descent of the dome; a the forward share;
`tip` the share of the dome's motion that reaches the lower tip; the waves are a patient's own bending.

Measured on one patient only, the ten phases of a respiratory 4D-CT (tools/diaphragm.py on the right dome,
voxels 5 x 5 x 6 mm): 11.0 mm downwards, 2.0 mm forwards (a = 0.18); Lujan's model of it has
A = 11.4 mm and n = 0.90 (root mean square misfit 0.5 mm). The default range of A, 5 to 25 mm, spans the
group means of quiet breathing in the table of AAPM TG-76 (Keall 2006): literature, unverified here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon.mesh.topology import Vertices

AMPLITUDE_MM = (5.0, 25.0)
"""Range of the dome's descent from exhalation to inhalation."""

FORWARD = 0.18
"""Forward share of the motion: measured on one patient."""

POWER = 0.9
"""n of Lujan's model: measured on one patient."""

_WAVES = 3
_WAVE_MM = (140.0, 280.0)  # wavelengths: bending, no wrinkles
_SHARE = 0.05  # of the amplitude, standard deviation of a wave along each axis


class Motion(NamedTuple):
    """How one patient breathes.

    Attributes:
        amplitude_mm: descent of the dome at full inhalation (A).
        forward: forward share (a).
        tip: share of the motion at the lower tip.
        bottom_mm: height z of the lower tip at exhalation.
        top_mm: height z of the dome at exhalation.
        waves: [M, 3] wave vectors k_m, rad/mm.
        shares: [M, 3] c_m, shares of the amplitude.
        offsets: [M] o_m, rad.
    """

    amplitude_mm: float
    forward: float
    tip: float
    bottom_mm: float
    top_mm: float
    waves: Float[np.ndarray, "m 3"]
    shares: Float[np.ndarray, "m 3"]
    offsets: Float[np.ndarray, " m"]


def lujan(
    phase: float | Float[np.ndarray, "*t"], power: float = POWER, inhaled_at: float = 0.0
) -> float | Float[np.ndarray, "*t"]:
    """The share of the amplitude at a phase of the cycle.

    Args:
        phase: t / tau; whole numbers are one breath apart.
        power: n; the larger, the longer the rest at exhalation.
        inhaled_at: phase of full inhalation (phi / pi).

    Returns:
        0 at the end of exhalation, half a cycle from `inhaled_at`, to 1 there.
    """
    return np.abs(np.cos(np.pi * (np.asarray(phase) - inhaled_at))) ** (2 * power)


def displacement(
    points_mm: Float[np.ndarray, "*n 3"], motion: Motion, inhaled: float
) -> Float[np.ndarray, "*n 3"]:
    """u(x): how far places of the exhaled body have moved, in mm.

    It is a function of the whole space, which fades out nowhere: what does not breathe, the wall of
    the chest and the spine, is the caller's to hold (`warp.pulled_back`).

    Args:
        points_mm: world places at the end of exhalation.
        motion: how the patient breathes.
        inhaled: s, from 0 to 1.
    """
    points = np.asarray(points_mm, np.float32)
    height = (points[..., 2] - motion.bottom_mm) / (motion.top_mm - motion.bottom_mm)
    height = np.clip(height, 0.0, 1.0)
    share = motion.tip + (1 - motion.tip) * height * height * (3 - 2 * height)
    moved = share[..., None] * np.array([0.0, motion.forward, -1.0], np.float32)
    angle = points @ motion.waves.T.astype(np.float32) + motion.offsets.astype(np.float32)
    moved += np.cos(angle) @ motion.shares.astype(np.float32)
    return np.float32(motion.amplitude_mm * inhaled) * moved


def draw_motion(
    random: np.random.Generator,
    vertices: Vertices,
    amplitude_mm: tuple[float, float] = AMPLITUDE_MM,
) -> Motion:
    """A patient's way of breathing.

    Args:
        random: where it is drawn from.
        vertices: the liver at the end of exhalation, world mm: its lowest and highest point count.
        amplitude_mm: between which the dome's descent is drawn, evenly.
    """
    direction = random.normal(size=(_WAVES, 3))
    length = random.uniform(*_WAVE_MM, (_WAVES, 1))
    waves = direction / np.linalg.norm(direction, axis=1, keepdims=True) * (2 * np.pi / length)
    return Motion(
        amplitude_mm=float(random.uniform(*amplitude_mm)),
        forward=float(np.clip(random.normal(FORWARD, 0.08), 0.0, 0.5)),
        tip=float(random.uniform(0.6, 0.9)),
        bottom_mm=float(vertices[:, 2].min()),
        top_mm=float(vertices[:, 2].max()),
        waves=waves,
        shares=random.normal(scale=_SHARE, size=(_WAVES, 3)),
        offsets=random.uniform(0.0, 2 * np.pi, _WAVES),
    )
