"""X-rays as methods take them: about their common isocentre, with pixels of about a wanted pitch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.geometry import (
    Camera,
    Grid,
    depth_of,
    pitch_at,
    places_of,
    source_detector_mm,
    vectors,
)
from jxrecon.io.radiographs import Radiograph
from jxrecon.types import InputError

SAME_POINT_MM = 1.0
"""How far apart the isocentres that two X-rays tell may lie."""


class View(NamedTuple):
    """An X-ray as a method takes it.

    Attributes:
        image: line integrals, [rows, columns].
        camera: in the world whose origin is the isocentre.
        origin: the file.
    """

    image: Float[np.ndarray, "rows columns"]
    camera: Camera
    origin: str


def nearest_to_lines(
    points_mm: Float[np.ndarray, "lines 3"], directions: Float[np.ndarray, "lines 3"]
) -> Float[np.ndarray, "3"] | None:
    """The point nearest to all lines: sum_i (1 - d_i d_i') (x - p_i) = 0, directions d_i of length 1.

    None where the lines do not fix a point: all within about 8 degrees of each other.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    normal = across.sum(0)
    if np.linalg.eigvalsh(normal)[0] < 1e-2:
        return None
    return np.linalg.solve(normal, np.einsum("nij,nj->i", across, points_mm))


def common_isocentre(xrays: Sequence[Radiograph]) -> Float[np.ndarray, "3"]:
    """The point that all views turn about, in the X-rays' world, mm.

    What sidecars or flags tell; else the point nearest to all lines from source to detector centre.

    Raises:
        InputError: the X-rays tell different points, or tell none and their lines do not fix one.
    """
    told = [(x.isocentre_mm, x.origin) for x in xrays if x.isocentre_mm is not None]
    for isocentre, origin in told:
        apart = np.linalg.norm(isocentre - told[0][0])
        if apart > SAME_POINT_MM:
            raise InputError(
                f"{origin}: its isocentre lies {apart:.1f} mm from that of {told[0][1]}, "
                "expected X-rays of one world (see --isocentre)"
            )
    if told:
        return told[0][0]
    sources, centres = np.swapaxes([vectors(_from_source(xray))[:2] for xray in xrays], 0, 1)
    lines = centres - sources
    found = nearest_to_lines(sources, lines / np.linalg.norm(lines, axis=1, keepdims=True))
    if found is None:
        raise InputError(
            f"{xrays[0].origin}: nothing tells the isocentre, expected isocentre_mm in its sidecar "
            "or --isocentre X,Y,Z"
        )
    return found


def centred_view(xray: Radiograph, isocentre_mm: Float[np.ndarray, "3"], like: Camera) -> View:
    """The X-ray about the origin, averaged in blocks of pixels down to about the pitch of a camera.

    Along each axis a block is the whole number of pixels that fits into one pixel of that camera, both
    measured where they cross the isocentre; coarser X-rays stay as they are. What fills no block is left
    out at the image's end.

    Raises:
        InputError: the detector does not see the isocentre, or the rays are parallel.
    """
    origin = np.zeros(3)
    move = jnp.asarray(-isocentre_mm, jnp.float32)
    camera = _from_source(xray).moved(jnp.eye(3, dtype=jnp.float32), move)
    rows, columns = camera.shape
    row, column = places_of(camera, origin) if depth_of(camera, origin) > 0 else (np.nan, np.nan)
    if not (-0.5 <= row <= rows - 0.5 and -0.5 <= column <= columns - 0.5):
        raise InputError(
            f"{xray.origin}: the isocentre falls on row {row:.0f}, column {column:.0f}, expected it "
            f"on the {rows} x {columns} pixels (see --isocentre, --sid, --pixel-mm)"
        )
    wanted, found = pitch_at(like, origin), pitch_at(camera, origin)
    blocks = np.minimum(np.maximum(1, np.floor(wanted / found + 1e-3)), camera.shape).astype(int)
    camera = camera.binned(blocks)
    (r, c), (m, n) = camera.shape, blocks
    image = xray.line_integrals[: r * m, : c * n].reshape(r, m, c, n).mean((1, 3))
    return View(image, camera, xray.origin)


def check_field(grid: Grid, view: View) -> None:
    """Refuses a field that reaches the source or the detector: rays would not pass all of it.

    Raises:
        InputError: a corner lies behind the source or the detector.
    """
    depth = depth_of(view.camera, grid.corners_mm)
    if not (depth.min() > 0 and depth.max() <= 1):
        detector_mm = source_detector_mm(view.camera)
        low, high = depth.min() * detector_mm, depth.max() * detector_mm
        raise InputError(
            f"{view.origin}: the field about the isocentre lies {low:.0f} to {high:.0f} mm from the source, "
            f"expected it before the detector at {detector_mm:.0f} mm (lengths in centimetres or metres? see "
            "--sad, --sid, --isocentre, --grid)"
        )


def _from_source(xray: Radiograph) -> Camera:
    if not isinstance(xray.camera, Camera):
        raise InputError(f"{xray.origin}: parallel rays, expected an X-ray from a point source")
    return xray.camera
