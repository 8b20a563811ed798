"""Rigid 2D/3D registration: the pose of a CT relative to its X-rays.

`ascent` is the algorithm, `similarity` what it climbs, `truncation` which rays count where the CT was
cut off, `cases` how files and built-in data become its input. `python -m jxrecon.register` runs it.
"""

from __future__ import annotations

from jxrecon.registration.ascent import (
    MOST_STARTS,
    Registration,
    Scale,
    Settings,
    cameras_at_rest,
    coarser_image,
    coarser_volume,
    random_poses,
    register,
    settings_of,
)

__all__ = [
    "MOST_STARTS",
    "Registration",
    "Scale",
    "Settings",
    "cameras_at_rest",
    "coarser_image",
    "coarser_volume",
    "random_poses",
    "register",
    "settings_of",
]
