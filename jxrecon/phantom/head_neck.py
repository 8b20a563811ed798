"""The SYNTHETIC blueprint of a head and neck: every organ of the average subject as a primitive.

World RAS in mm, the middle of the standard field at the origin: midway between the parotids, 10 mm to the
front and 50 mm down. The parotids lie at z = 50, the chin at z = 15, the shoulders below z = -50. Sizes of
organs are those of adults, rounded. Where things lie in the field was set by eye to the means of the 76
training patients of OpenKBP in the standard field (the course of the cord, the body's widths, the jaw's
extent): averages only, no single patient's anatomy and no validation patient.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from jxrecon.phantom.blueprint import (
    HEAD,
    JAW,
    NECK,
    SHOULDER,
    Blueprint,
    Builder,
    Parts,
    Stage,
    along,
    assemble,
)
from jxrecon.phantom.primitives import Primitives, Vector, box, cylinder, ellipsoid, turned

VERTEBRAE = ("C2", "C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3", "T4")
VERTEBRA_Z_MM = (46.0, 28.0, 11.0, -6.0, -23.0, -41.0, -60.0, -81.0, -103.0, -126.0)
"""Heights of the middles of the vertebral bodies; C1, a ring without body, lies at z = 63."""

_HALF_HEIGHT_MM = (6.4, 5.6, 5.6, 5.7, 5.9, 6.6, 7.6, 8.3, 8.8, 9.2)

_CORD_Z = (-150.0, -126.0, -99.0, -85.0, -70.0, -56.0, -41.0, -27.0, -13.0, 2.0, 16.0, 31.0, 70.0)
_CORD_Y = (-97, -87, -76, -70, -63, -56, -50, -45, -41, -38.5, -37, -36, -36)


def cord_y_mm(z: float | np.floating) -> float:
    """How far in front (y) the SYNTHETIC spinal cord lies at this height."""
    return float(np.interp(z, _CORD_Z, _CORD_Y))


def _outline(b: Builder) -> None:
    """The lean surface of the body; each value is the fat over it in mm."""
    b.add(ellipsoid((0, -18, 138), (75, 95, 76), 3), HEAD)
    b.add(ellipsoid((0, -62, 88), (61, 52, 42), 3), HEAD)
    b.add(ellipsoid((0, 26, 82), (63, 54, 48), 4), HEAD)
    b.add(ellipsoid((0, -20, 84), (67, 48, 40), 3), HEAD)
    b.add(ellipsoid((0, 18, 50), (59, 56, 42), 5), HEAD)
    b.add(ellipsoid((0, 39, 24), (46, 39, 25), 5), JAW)
    b.add(cylinder((0, -33, 4), (52, 47, 62), 6), NECK)
    b.add(ellipsoid((0, 18, -2), (36, 32, 18), 7), NECK)
    b.add(cylinder((0, -40, -30), (54, 52, 40), 6, turned(-12, "x")), NECK)
    b.add(ellipsoid((0, -58, -62), (72, 44, 34), 7), SHOULDER)
    b.pair(ellipsoid((64, -66, -60), (78, 28, 22), 6, turned(24, "y")), SHOULDER)
    b.pair(ellipsoid((122, -56, -100), (62, 46, 52), 8), SHOULDER)
    b.add(ellipsoid((0, -50, -160), (158, 86, 112), 9), SHOULDER)


def _large(b: Builder) -> None:
    """The organs that need the whole grid."""
    b.add(ellipsoid((0, -18, 136), (71, 91, 72), 1050), HEAD, bone=True)
    b.add(ellipsoid((0, -55, 98), (58, 50, 39), 900), HEAD, bone=True)
    b.add(ellipsoid((0, -18, 137), (65.5, 85, 68), 34), HEAD)
    b.add(ellipsoid((0, -55, 98), (53, 45, 34.5), 36), HEAD)
    b.pair(ellipsoid((46, -58, -134), (38, 50, 68), -60), SHOULDER)
    b.pair(ellipsoid((46, -58, -136), (35, 47, 66), -850), SHOULDER)


def _medium(b: Builder) -> None:
    """Muscles, large glands and the eyes, all within the lean body."""
    # Fat between the muscles of neck, cheeks and shoulders, then the muscles.
    b.pair(ellipsoid((38, -24, -6), (12, 20, 46), -85), NECK)
    b.add(ellipsoid((0, -76, 0), (38, 12, 48), -75), NECK)
    b.pair(ellipsoid((50, 34, 58), (9, 18, 22), -85), HEAD)
    b.pair(ellipsoid((88, -34, -96), (30, 22, 34), -90), SHOULDER)
    b.pair(ellipsoid((60, -44, -62), (34, 18, 12), -80, turned(20, "y")), SHOULDER)
    b.add(ellipsoid((0, 10, -84), (20, 8, 22), -70), SHOULDER)
    b.pair(ellipsoid((50, 16, -118), (44, 9, 40), 60, turned(-12, "x")), SHOULDER)
    b.pair(ellipsoid((104, -60, -90), (36, 13, 12), 58, turned(12, "y")), SHOULDER)
    neck = [(16, -66, 56), (20, -66, 20), (21, -70, -20),
            (22, -84, -60), (22, -102, -100), (22, -118, -140)]  # fmt: skip
    b.tubes(neck, [(15, 9), (15, 11), (15, 11), (17, 10), (18, 11), (18, 11)], 58, NECK, 6)
    trapezius = [(10, -88, 52), (24, -84, 10), (40, -86, -25),
                 (66, -84, -46), (110, -76, -62), (140, -62, -66)]  # fmt: skip
    b.tubes(trapezius, [(12, 4), (18, 4), (20, 6), (20, 8), (16, 9), (12, 8)], 55, SHOULDER, 7)
    sterno = [(58, -34, 66), (54, -18, 25), (44, -2, -20), (30, 8, -52), (16, 8, -82)]
    b.tubes(sterno, [(6, 12), (7, 13), (7, 12), (8, 8), (7, 6)], 60, NECK, 7)
    levator = [(30, -30, 55), (36, -44, 15), (38, -52, -25), (48, -72, -60)]
    b.tubes(levator, [(8, 9), (9, 11), (10, 13), (11, 12)], 57, NECK, 5)
    scalene = [(22, -22, 25), (28, -28, -15), (34, -32, -50), (44, -38, -70)]
    b.tubes(scalene, [(6, 8), (8, 9), (9, 10), (9, 9)], 56, NECK, 5)
    b.pair(ellipsoid((10, -8, 30), (9, 4, 46), 56), NECK)  # longus colli, in front of the spine
    b.pair(ellipsoid((58, 18, 47), (7, 17, 28), 62, turned(6, "y")), JAW)  # masseter
    b.pair(ellipsoid((35, 12, 62), (8, 15, 22), 60), HEAD)  # pterygoids
    b.pair(ellipsoid((62, 12, 110), (7, 26, 26), 58), HEAD)  # temporalis
    b.add(ellipsoid((0, 36, 36), (25, 30, 20), 55), JAW)  # tongue
    b.add(ellipsoid((0, 40, 10), (22, 26, 9), 50), JAW)  # floor of the mouth
    b.pair(ellipsoid((60, -12, 50), (8, 17, 23), -15), HEAD)  # parotid
    b.pair(ellipsoid((30, 22, 8), (9, 13, 12), 45), JAW)  # submandibular gland
    carotid = [(26, -10, 62), (24, -6, 10), (22, -4, -30), (20, -10, -70), (14, -20, -110)]
    b.tubes(carotid, [(3.5, 3.5)] * 5, 110, NECK, 9)
    jugular = [(31, -16, 62), (32, -10, 10), (30, -6, -30), (28, -8, -72), (18, -14, -110)]
    b.tubes(jugular, [(5, 5), (5, 6), (6, 6), (7, 6), (7, 7)], 95, NECK, 9)
    b.pair(ellipsoid((32, 56, 100), (22, 27, 20), 500), HEAD, bone=True)  # orbit, its fat, the eye
    b.pair(ellipsoid((32, 60, 100), (19.5, 27, 17.5), -70), HEAD)
    b.pair(ellipsoid((32, 67, 100), (12, 12, 12), 15), HEAD)
    b.pair(ellipsoid((24, 40, 100), (4, 18, 4), 45, turned(-15, "z")), HEAD)


def _skull_base(b: Builder) -> None:
    b.pair(ellipsoid((40, -18, 86), (30, 9, 9), 950, turned(-38, "z")), HEAD, bone=True)  # petrous
    b.pair(ellipsoid((57, -40, 76), (10, 13, 19), 620), HEAD, bone=True)  # mastoid and its cells
    b.pair(ellipsoid((57, -40, 78), (6.5, 9, 13), -250), HEAD)
    b.pair(ellipsoid((66, -16, 86), (13, 3, 3), -900), HEAD)  # ear canals
    b.add(box((0, -14, 84), (13, 4, 18), 650, turned(38, "x")), HEAD, bone=True)  # clivus
    b.pair(ellipsoid((18, -28, 72), (7, 12, 7), 650), HEAD, bone=True)  # occipital condyle
    b.pair(ellipsoid((28, 14, 92), (24, 14, 5), 550), HEAD, bone=True)  # floor of the middle fossa
    b.add(ellipsoid((0, 8, 96), (18, 15, 14), 650), HEAD, bone=True)  # sphenoid
    b.add(ellipsoid((0, 9, 96), (14, 11.5, 10.5), -960), HEAD)
    b.add(box((0, 9, 96), (0.9, 10, 10), 250), HEAD, bone=True)
    b.tube([(0, -30, 108), (0, -34, 82), (0, -36, 55)], [(14, 12), (12, 10), (9, 8)], 32, HEAD, 5)


def _face(b: Builder) -> None:
    b.pair(ellipsoid((31, 40, 80), (18.5, 21, 22), 620), HEAD, bone=True)  # maxilla, its sinus
    b.pair(ellipsoid((31, 37, 82), (15, 18, 17), -970), HEAD)
    b.pair(ellipsoid((9, 46, 100), (8, 22, 12), 260), HEAD, bone=True)  # ethmoid
    for y in (34, 45, 56):
        b.pair(ellipsoid((8.5, y, 100), (6, 4.5, 9.5), -850), HEAD)
    b.pair(ellipsoid((11, 66, 121), (10, 5, 11), -950), HEAD)  # frontal sinus
    b.pair(box((15, 44, 78), (1.2, 30, 18), 300), HEAD, bone=True)  # walls of the nose
    b.add(box((0, 42, 78), (13.5, 33, 17), -970), HEAD)
    b.pair(ellipsoid((8, 40, 72), (4, 26, 7.5), 45), HEAD)  # turbinates
    b.pair(ellipsoid((8, 38, 88), (3.5, 22, 6), 45), HEAD)
    b.add(box((0, 44, 78), (2, 33, 17), 160), HEAD, bone=True)  # septum
    b.add(ellipsoid((0, 77, 73), (16, 19, 14), 15), HEAD)  # nose, lips
    b.add(ellipsoid((0, 74, 88), (11, 14, 17), 15), HEAD)
    b.add(ellipsoid((0, 77, 51), (25, 9, 9), 25), HEAD)
    b.add(ellipsoid((0, 76, 36), (24, 10, 9), 25), JAW)
    b.pair(ellipsoid((6, 82, 68), (3.5, 10, 5), -900, turned(25, "x")), HEAD)
    b.pair(ellipsoid((4, 81, 94), (2, 4, 10), 800, turned(-25, "x")), HEAD, bone=True)
    zygoma = [(42, 62, 82), (58, 46, 82), (66, 22, 84), (67, -4, 86)]
    b.tubes(zygoma, [(8, 6), (6, 8), (3, 5), (3, 5)], 950, HEAD, 6, bone=True)
    path = [(44, 60, 84), (52, 58, 100), (46, 58, 116)]
    b.tubes(path, [(6, 5), (4, 5), (6, 6)], 900, HEAD, 3, bone=True)  # lateral rim of the orbit
    b.add(box((0, 46, 59), (21, 24, 2.2), 700), HEAD, bone=True)  # hard palate
    b.pair(ellipsoid((74, -22, 86), (6, 14, 27), -20, turned(12, "z")), HEAD)  # ears
    b.pair(box((22, 12, 74), (1.5, 5, 15), 700, turned(20, "z")), HEAD, bone=True)  # pterygoid


def _arch(angle_deg: float, half_width: float, depth: float, back: float) -> tuple[float, float]:
    """Point (x, y) of a dental arch: 0 degrees at its front."""
    a = np.deg2rad(angle_deg)
    return half_width * float(np.sin(a)), back + depth * float(np.cos(a))


def _jaws(b: Builder) -> None:
    body = [(0, 72, 16), (12, 70, 17), (26, 57, 19), (37, 38, 21), (44, 20, 24), (49, 2, 31)]
    radii = [(6, 12.5), (6, 12.5), (6, 13), (5.5, 13), (5, 13), (4, 12)]
    b.tubes(body, radii, 1250, JAW, 8, bone=True)
    b.tubes(body, [(2.8, 8)] * 5 + [(2, 6)], 350, JAW, 8, bone=True)
    ramus = [(50, 4, 26), (51, 1, 50), (51, -5, 72), (50, -8, 84)]
    b.tubes(ramus, [(3.6, 15), (3.2, 16), (3.6, 9), (6, 6)], 1200, JAW, 6, bone=True)
    path = [(50, 8, 52), (48, 14, 66), (48, 16, 78)]
    b.tubes(path, [(3, 11), (3, 7), (2.5, 4)], 1100, JAW, 3, bone=True)
    for angle in (9, 27, 45, 63, 81):
        # The alveolar processes, upper and lower; below, the teeth in them.
        b.pair(ellipsoid((*_arch(angle, 27, 34, 37), 54), (6.5, 6, 9), 600), HEAD, bone=True)
        b.pair(ellipsoid((*_arch(angle, 27, 34, 34), 30), (5.5, 5, 9), 650), JAW, bone=True)
    b.add(ellipsoid((0, 34, 43), (22, 26, 2.5), -300), JAW)  # a little air over the tongue
    for angle in (6, 18, 30, 43, 57, 71, 86):
        size = 2.5 + 0.02 * angle
        b.pair(ellipsoid((*_arch(angle, 26, 35, 37), 49), (size, size, 8), 2300), HEAD, bone=True)
        b.pair(ellipsoid((*_arch(angle, 25, 34, 35), 35), (size, size, 8), 2300), JAW, bone=True)


def _vertebral(level: float, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Middle of the body in front of the cord at height z, and the frame of the spine's slope."""
    slope = (cord_y_mm(z + 6) - cord_y_mm(z - 6)) / 12
    rotation = along((0.0, slope, 1.0))
    return np.array([0.0, cord_y_mm(z), z]) + rotation @ [0.0, 17.5 + 0.45 * level, 0.0], rotation


_Shape: TypeAlias = Callable[[np.ndarray, Vector, float, np.ndarray], Primitives]
_UPRIGHT = np.eye(3)


def vertebra(b: Builder, name: str, level: int, z: float, height: float) -> None:
    """A SYNTHETIC vertebra in its own frame: body, pedicles, pillars, laminae, processes, canal.

    Args:
        b: takes the bodies.
        name: C2 to C7, T1 and on.
        level: 0 for C2.
        z: height of the middle of its body, mm.
        height: half of the body's, mm.
    """
    wide, deep = 8.6 + 0.75 * level, 8.0 + 0.45 * level
    middle, rotation = _vertebral(level, z)

    def part(make: _Shape, q: Vector, axes: Vector, hu: float, turn: np.ndarray = _UPRIGHT) -> None:
        body = make(middle + rotation @ np.asarray(q, float), axes, hu, rotation @ turn)
        (b.add if q[0] == 0 else b.pair)(body, NECK, bone=True, vertebra=middle)

    back = -deep - 9.5  # the cord's y in this frame
    part(cylinder, (0, 0, 0), (wide, deep, height), 720)
    part(cylinder, (0, 0, 0), (wide - 2, deep - 2, height - 1.6), 290)
    part(ellipsoid, (wide + 3, back + 8, 1), (6, 6, 3.8), 600)
    if name.startswith("T"):
        part(ellipsoid, (wide + 10, back - 4, 3), (11, 4, 4.5), 560, turned(-25, "z"))
        part(ellipsoid, (wide + 3, back - 2, 0), (5, 5, 9), 560)
    else:
        part(ellipsoid, (20, back + 1, -1), (6.5, 6.5, 8), 620, turned(20, "x"))
        part(ellipsoid, (wide + 9, back + 13, -1), (6, 4, 3.5), 520, turned(20, "z"))
    part(box, (8.5, back - 8.5, -1), (9.5, 2.4, 5), 640, turned(-33, "z"))
    long = {"C2": 9, "C3": 5.5, "C4": 5.5, "C5": 6, "C6": 8}.get(name, 14)
    part(box, (0, back - 12 - long, -3 - 0.25 * long), (2.4, long, 3.4), 620, turned(18, "x"))
    part(ellipsoid, (0, back - 12 - 2 * long, -4 - 0.5 * long), (4, 4, 5), 600)
    if name == "C2":
        part(ellipsoid, (0, 0, 15), (5.2, 5.5, 13), 900)


def _spine(b: Builder) -> None:
    b.pair(ellipsoid((21, -22, 63), (8, 10, 7), 750), NECK, bone=True)  # C1: masses, arches
    b.pair(ellipsoid((35, -24, 62), (9, 4.5, 4), 600), NECK, bone=True)
    b.tubes([(20, -16, 63), (10, -9, 63), (0, -7, 63)], [(4.5, 3)] * 3, 850, NECK, 3, bone=True)
    b.tubes([(22, -30, 62), (16, -44, 61), (0, -52, 60)], [(4, 3)] * 3, 800, NECK, 4, bone=True)
    for level, (upper, lower) in enumerate(pairwise(VERTEBRA_Z_MM)):
        middle, rotation = _vertebral(level + 0.5, (upper + lower) / 2)
        axes = (8.6 + 0.75 * level, 7.9 + 0.45 * level, 5.0)
        b.add(cylinder(middle, axes, 95, rotation), NECK)
    for level, (name, z) in enumerate(zip(VERTEBRAE, VERTEBRA_Z_MM)):
        vertebra(b, name, level, z, _HALF_HEIGHT_MM[level])
    canal = [(0.0, cord_y_mm(z), z) for z in (64, 31, 2, -27, -56, -85, -110, -148)]
    b.tube(canal, [(10.5, 7.2)] * 8, 5, NECK, 14)
    b.tube(canal, [(6, 4.2)] * 8, 42, NECK, 14)


def _airway(b: Builder) -> None:
    path = [(0, 12, 82), (0, 4, 66), (0, 1, 45), (0, -2, 20), (0, 0, 2), (0, 4, -12), (0, 6, -24)]
    radii = [(13, 11), (13, 8), (12, 6.5), (11, 6), (12, 6), (9, 6), (3.5, 9)]
    b.tube(path, radii, -985, NECK, 12, airway=True)
    trachea = [(0, 6, -24), (0, 5, -34), (0, 2, -52), (0, -8, -78), (0, -18, -102), (0, -32, -140)]
    b.tube(trachea, [(6, 10)] + [(10.5, 10.5)] * 5, 75, NECK, 11, airway=True)
    b.tube(trachea, [(3.5, 8)] + [(8.5, 8.5)] * 5, -985, NECK, 11, airway=True)
    b.pair(box((9, 15, -20), (1.5, 11, 11), 190, turned(38, "z")), NECK)  # thyroid cartilage
    b.add(ellipsoid((0, -9, -36), (9, 2.5, 8), 170), NECK)  # cricoid
    hyoid = [(0, 26, -2), (12, 22, -2), (20, 4, 2)]
    b.tubes(hyoid, [(3, 3.5), (2.5, 3), (2, 2.5)], 600, NECK, 4, bone=True)
    b.pair(ellipsoid((17, 0, -54), (7, 9, 19), 105), NECK)  # thyroid
    b.add(ellipsoid((0, 13, -52), (10, 3, 6), 105), NECK)
    path = [(0, -14, -40), (0, -24, -75), (0, -36, -105), (0, -48, -140)]
    b.tube(path, [(7, 4.5)] * 4, 38, NECK, 8)  # oesophagus


def _shoulders(b: Builder) -> None:
    clavicle = [(14, 4, -88), (40, 8, -82), (75, -8, -72), (108, -34, -64), (138, -50, -60)]
    radii = [(6, 6), (5, 5), (4.8, 4.8), (5.5, 5), (7, 4.5)]
    b.tubes(clavicle, radii, 850, SHOULDER, 10, bone=True)
    b.tubes(clavicle, [(2.5, 2.5)] * 5, 300, SHOULDER, 10, bone=True)
    b.add(ellipsoid((0, 4, -112), (26, 7, 26), 480, turned(-15, "x")), SHOULDER, bone=True)
    ribs = [
        [(24, -70, -62), (48, -66, -64), (58, -38, -74), (46, -8, -90), (24, 4, -102)],
        [(26, -86, -82), (60, -88, -82), (78, -52, -94), (66, -8, -112), (40, 8, -126)],
        [(26, -98, -104), (66, -102, -104), (86, -60, -116), (78, -8, -136), (50, 14, -150)],
    ]
    for rib in ribs:
        b.tubes(rib, [(4.5, 3.5)] * 5, 700, SHOULDER, 11, bone=True)
    scapula = turned(-32, "z") @ turned(-8, "x")
    b.pair(ellipsoid((92, -98, -116), (30, 3, 35), 550, scapula), SHOULDER, bone=True)
    path = [(76, -108, -92), (110, -100, -74), (144, -72, -60)]
    b.tubes(path, [(5, 4), (5, 5), (8, 7)], 700, SHOULDER, 5, bone=True)
    b.pair(ellipsoid((122, -40, -84), (7, 14, 7), 600), SHOULDER, bone=True)  # coracoid
    b.pair(ellipsoid((128, -58, -92), (9, 13, 18), 550), SHOULDER, bone=True)  # glenoid
    b.pair(ellipsoid((152, -54, -88), (21, 21, 21), 480), SHOULDER, bone=True)  # humerus
    path = [(156, -54, -96), (162, -54, -130), (166, -52, -170)]
    b.tubes(path, [(17, 17), (12, 12), (11, 11)], 900, SHOULDER, 4, bone=True)


PARTS: Parts = {
    "outline": ((_outline,), None),
    "large": ((_large,), None),
    "medium": ((_medium,), (110.0, 82.0, 110.0)),
    "small": ((_skull_base, _face, _jaws, _spine, _airway, _shoulders), (66.0, 82.0, 76.0)),
}
"""The body's surface; skull, brain, lungs; what stays under the skin; bones, sinuses, teeth, spine, airway,
nose and ears."""


def blueprint() -> tuple[Blueprint, dict[str, Stage]]:
    """The SYNTHETIC blueprint of what the field shows, and its stages."""
    return assemble(PARTS)
