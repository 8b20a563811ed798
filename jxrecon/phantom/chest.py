"""The SYNTHETIC blueprint of chest and arms: what an X-ray goes through beside and below the field.

Head, shoulders and the trunk's outline go on beyond the field in `head_neck` already. What is added here lies
outside of the standard field in the average subject and all but outside in others: of 60, one had as many as
0.05 % of its field's voxels changed. So the field is painted without.
"""

from __future__ import annotations

from jxrecon.phantom.blueprint import NECK, SHOULDER, Blueprint, Builder, Stage, assemble
from jxrecon.phantom.head_neck import PARTS, VERTEBRAE, cord_y_mm, vertebra
from jxrecon.phantom.primitives import ellipsoid, turned

BOX_MM = ((-240.0, 240.0), (-190.0, 130.0), (-190.0, 230.0))
"""What a CT of head, neck and upper chest holds about the field, x, y, z in the world: 480 x 320 x 420 mm."""

THORACIC_Z_MM = {"T5": -149.0, "T6": -173.0, "T7": -197.0, "T8": -222.0}
"""Heights of the middles of the vertebral bodies below those of `head_neck`."""

_ARM = turned(-6, "y")


def _outline(b: Builder) -> None:
    b.pair(ellipsoid((176, -54, -190), (44, 48, 130), 8, _ARM), SHOULDER)


def _large(b: Builder) -> None:
    b.pair(ellipsoid((176, -54, -190), (37, 41, 122), 55, _ARM), SHOULDER)  # muscles of the arm
    b.pair(ellipsoid((70, -56, -214), (56, 68, 78), -850), SHOULDER)  # lung
    b.add(ellipsoid((0, -36, -165), (20, 42, 42), 30), SHOULDER)  # mediastinum
    b.add(ellipsoid((-14, -26, -206), (52, 44, 48), 45, turned(-20, "y")), SHOULDER)  # heart
    b.pair(ellipsoid((24, -124, -200), (20, 13, 66), 55), SHOULDER)  # muscles of the back


def _bones(b: Builder) -> None:
    for level, (name, z) in enumerate(THORACIC_Z_MM.items(), len(VERTEBRAE)):
        vertebra(b, name, level, z, 9.6)
    canal = [(0.0, cord_y_mm(z), z) for z in (-148, -240)]
    b.tube(canal, [(10.5, 7.2)] * 2, 5, NECK, 5)
    b.tube(canal, [(6, 4.2)] * 2, 42, NECK, 5)
    for n, z in enumerate((-126.0, *THORACIC_Z_MM.values())):
        wide, front = 92.0 + 10 * min(n, 3), 16.0 + 4 * min(n, 3)
        rib = [(26, -104 - 2 * n, z), (0.75 * wide, -108 - 2 * n, z - 3), (wide, -60, z - 18),
               (0.85 * wide, -4, z - 40), (48, front, z - 56)]  # fmt: skip
        b.tubes(rib, [(4.5, 3.5)] * 5, 700, SHOULDER, 13, bone=True)
    b.add(ellipsoid((0, 21, -172), (17, 6, 35), 350, turned(-8, "x")), SHOULDER, bone=True)
    b.pair(ellipsoid((84, -110, -164), (20, 3.5, 34), 500, turned(-28, "z")), SHOULDER, bone=True)
    b.tubes([(166, -53, -168), (180, -55, -270)], [(11, 11)] * 2, 900, SHOULDER, 4, bone=True)


def _vessels(b: Builder) -> None:
    aorta = [(14, -8, -175), (4, -6, -150), (-20, -34, -146), (-20, -64, -165), (-18, -64, -240)]
    b.tube(aorta, [(13, 13)] * 5, 48, SHOULDER, 8)
    b.tubes([(0, -33, -142), (26, -42, -172)], [(6.5, 6.5)] * 2, -985, NECK, 3)  # main bronchi


def blueprint() -> tuple[Blueprint, dict[str, Stage]]:
    """`head_neck.blueprint` with chest and arms: the SYNTHETIC subject as the whole CT shows it."""
    more = {"outline": (_outline,), "large": (_large,), "small": (_bones, _vessels)}
    return assemble(
        {name: ((*adders, *more.get(name, ())), mm) for name, (adders, mm) in PARTS.items()}
    )
