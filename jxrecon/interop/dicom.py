"""The C-arm of DICOM's positioner angles, which place the detector about the patient."""

from __future__ import annotations

from typing import Any

import numpy as np

from jxrecon.geometry import AnyCamera, Camera, finite, vectors
from jxrecon.interop.checks import ORIGIN, Three, cone, detector_of, pitches, pixels, positive
from jxrecon.types import InputError


def from_dicom(
    angles_deg: tuple[float, float],
    *,
    source_patient_mm: float,
    source_detector_mm: float,
    pixel_mm: float | tuple[float, float],
    shape: tuple[int, int],
    flipped: bool = False,
    isocentre_mm: Three = ORIGIN,
) -> Camera:
    """The C-arm of DICOM's positioner angles (PS3.3 C.8.7.5.1.2), in this project's RAS world.

    The angles place the DETECTOR about the patient: primary 0 in front of the chest, +90 at the
    patient's left (LAO positive), -90 at the right (RAO negative); secondary +90 at the head (CRA
    positive, CAU negative). With p, s: the detector lies from the isocentre i along
    d = (-sin p cos s, cos p cos s, sin s); source = i - SPD d, centre = i + (SDD - SPD) d.

    `camera_at` and the flag --view place the SOURCE, with the same two angles, and see the image
    from there: this camera has the place and depth of `camera_at(p + 180, -s)`. Rows run to the feet:
    v = (-sin p sin s, cos p sin s, -cos s) dr. Left and right of the picture are told by Patient
    Orientation (0020,0020): L\\F at p = 0, as one facing the patient sees it and XA images are
    customarily stored, means columns to the patient's left, u = -(cos p, sin p, 0) dc; R\\F, the
    sight from the source and `camera_at`'s, is `flipped`. Read in the standard; no file of a
    machine was tried.

    Args:
        angles_deg: Positioner Primary Angle (0018,1510) and Secondary Angle (0018,1511).
        source_patient_mm: Distance Source to Patient (0018,1111): to the isocentre.
        source_detector_mm: Distance Source to Detector (0018,1110).
        pixel_mm: Imager Pixel Spacing (0018,1164), at the detector: (between rows, between
            columns) or one number.
        shape: Rows, Columns.
        flipped: the columns run to the patient's right at primary 0, as seen from the source.
        isocentre_mm: isocentre in the world. DICOM XA assumes that it falls on the image's middle.

    Raises:
        InputError: an angle out of DICOM's range, or a distance or size that cannot be.
    """
    for name, angle, most in zip(("primary", "secondary"), angles_deg, (180, 90)):
        if np.ndim(angle) or not -most <= float(angle) <= most:
            raise InputError(f"{name} angle is {angle}, expected -{most} to {most} degrees")
    isocentre = finite(isocentre_mm, 3, "isocentre_mm")
    to_patient = positive(source_patient_mm, "source_patient_mm")
    beyond = positive(source_detector_mm, "source_detector_mm") - to_patient
    if not beyond > 0:
        raise InputError(
            f"source_detector_mm is {source_detector_mm}, expected more than source_patient_mm "
            f"{source_patient_mm}"
        )
    row_mm, column_mm = pitches(pixel_mm, "pixel_mm")
    left, feet, outward = _c_arm(*angles_deg)
    return cone(
        source=isocentre - to_patient * outward,
        centre=isocentre + beyond * outward,
        u=left * (-column_mm if flipped else column_mm),
        v=feet * row_mm,
        shape=pixels(shape),
    )


def to_dicom(camera: AnyCamera, *, isocentre_mm: Three = ORIGIN) -> dict[str, Any]:
    """The keyword arguments of `from_dicom` that give this camera.

    Raises:
        InputError: two angles and two distances do not reach it: parallel rays, an isocentre off
            the line from source to detector centre, a detector askew, turned in its plane or seen
            feet up.
    """
    source, centre, u, v, normal = detector_of(camera, "DICOM positioner angles")
    isocentre = finite(isocentre_mm, 3, "isocentre_mm")
    # The level direction below the detector, from its normal and, near the head, from its rows.
    across = np.hypot(normal[0], normal[1])
    level = across * normal[:2] + normal[2] * v[:2] / np.linalg.norm(v)
    primary, secondary = np.arctan2(-level[0], level[1]), np.arctan2(normal[2], across)
    angles = float(np.rad2deg(primary)), float(np.rad2deg(secondary))
    left, _, outward = _c_arm(*angles)
    numbers: dict[str, Any] = {
        "angles_deg": angles,
        "source_patient_mm": float((isocentre - source) @ outward),
        "source_detector_mm": float((centre - source) @ outward),
        "pixel_mm": (float(np.linalg.norm(v)), float(np.linalg.norm(u))),
        "shape": camera.shape,
        "flipped": bool(u @ left < 0),
        "isocentre_mm": tuple(isocentre_mm),
    }
    again = from_dicom(**numbers)
    rows, columns = camera.shape
    apart = np.subtract(vectors(camera), vectors(again)) * [[1], [1], [columns], [rows]]
    if np.linalg.norm(apart, axis=1).max() > 1e-5 * np.linalg.norm(centre - source):
        raise InputError(
            "the camera is off the isocentre, askew or turned in its plane, which DICOM's two "
            "positioner angles cannot tell; expected the isocentre on its central ray and rows level"
        )
    return numbers


def _c_arm(primary_deg: float, secondary_deg: float) -> np.ndarray:
    """Directions (columns to the patient's left, rows to the feet, isocentre to detector), [3, 3]."""
    p, s = np.deg2rad(primary_deg), np.deg2rad(secondary_deg)
    return np.array(
        [
            [-np.cos(p), -np.sin(p), 0.0],
            [-np.sin(p) * np.sin(s), np.cos(p) * np.sin(s), -np.cos(s)],
            [-np.sin(p) * np.cos(s), np.cos(p) * np.cos(s), np.sin(s)],
        ]
    )
