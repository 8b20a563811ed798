"""Whether an organ is as large as the others and lies as they do: units and frames that files do not tell."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jxrecon.io.meshes import MM_PER_UNIT
from jxrecon.mesh import Mesh, Template, face_areas
from jxrecon.types import InputError

FACTOR = 3.0
"""One organ of many people differs by less than this in size, the square root of its area."""

EXTENT_MM = (5.0, 2000.0)
"""Between which the longest edge of an organ's box lies."""

BETTER, APART = 0.7, 0.02
"""LPS for RAS turns an organ half round: turned back it lies nearer to the others by this factor, as told it
lies farther than this share of its size."""

_POINTS = 1000


def check_like(mesh: Mesh, like: Mesh | Template, origin: str) -> None:
    """Refuses an organ that is far from another one in size, or lies half turned round.

    Args:
        mesh: the organ, mm.
        like: a typical one, mm.
        origin: file to name.

    Raises:
        InputError: its units or its frame seem to be others.
    """
    check_extent(mesh, origin)
    sizes = [float(np.sqrt(face_areas(m.vertices, m.faces).sum())) for m in (mesh, like)]
    ratio = sizes[1] / sizes[0]
    if not 1 / FACTOR < ratio < FACTOR:
        raise InputError(
            f"{origin}: measures {sizes[0]:.4g} mm (square root of its area), the others about "
            f"{sizes[1]:.4g} mm, expected alike{_unit(ratio)}"
        )
    told, turned = _distances(mesh, like)
    if told > APART * sizes[1] and turned < BETTER * told:
        raise InputError(
            f"{origin}: lies {told:.1f} mm from the others (mean, centred) as it is, {turned:.1f} mm with x "
            "and y reversed, expected RAS as theirs: state --lps for files in LPS"
        )


def check_extent(mesh: Mesh, origin: str) -> None:
    """Refuses what no organ measures.

    Raises:
        InputError: the longest edge of its box is no organ's.
    """
    extent = float(np.ptp(np.asarray(mesh.vertices), axis=0).max())
    if not EXTENT_MM[0] <= extent <= EXTENT_MM[1]:
        raise InputError(
            f"{origin}: is {extent:.4g} mm long, expected {EXTENT_MM[0]:g} to {EXTENT_MM[1]:g} mm: state the "
            f"file's unit with --units ({', '.join(MM_PER_UNIT)})"
        )


def _unit(ratio: float) -> str:
    """The unit that would make it right, as a flag."""
    unit, mm = min(MM_PER_UNIT.items(), key=lambda one: abs(np.log(one[1] / ratio)))
    fits = unit != "mm" and 1 / FACTOR < mm / ratio < FACTOR
    return f": state --units {unit} for files in {unit}" if fits else " (see --units)"


def _distances(mesh: Mesh, like: Mesh | Template) -> tuple[float, float]:
    """Mean distance of the vertices of both, centred: as they are, and with x and y of one reversed."""
    points, others = (_thinned(m) for m in (mesh, like))
    tree = cKDTree(others)
    found = []
    for signs in ([1, 1, 1], [-1, -1, 1]):
        moved = points * signs
        there, back = tree.query(moved)[0], cKDTree(moved).query(others)[0]
        found.append(float(there.mean() + back.mean()) / 2)
    return found[0], found[1]


def _thinned(mesh: Mesh | Template) -> Float[np.ndarray, "p 3"]:
    vertices = np.asarray(mesh.vertices, np.float64)
    vertices = vertices[:: max(1, len(vertices) // _POINTS)]
    return vertices - (vertices.min(0) + vertices.max(0)) / 2
