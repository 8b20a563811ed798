"""Registration: the pose of a CT relative to its X-rays, and one template's topology on many organs.

`ascent` is the algorithm, `similarity` what it climbs, `truncation` which rays count where the CT was
cut off, `cases` how files and built-in data become its input. `python -m jxrecon.register` runs it.

Surfaces: `template` fits, `organ` is what it fits to, `pairing` who is drawn to whom, `soundness` how good
the fit is, `population` where the template comes from, `folder` what `python -m jxrecon.prepare meshes` does.
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
