"""What a registration found: numbers for a file, lines for the terminal, X-rays in the CT's world."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.io.radiographs import Radiograph
from jxrecon.pose import pose_error, still
from jxrecon.registration.ascent import Registration, cameras_at_rest
from jxrecon.registration.cases import Case, Search

NEAR_DEG, NEAR_MM = 2.0, 5.0
"""A start that ended so near to the pose found has found the same."""


def moved_xrays(case: Case, found: Registration) -> list[Radiograph]:
    """The X-rays with their cameras and isocentres in the CT's world."""
    back, cameras = found.pose.inverse(), [xray.camera for xray in case.xrays]
    moved = []
    for xray, camera in zip(case.xrays, cameras_at_rest(cameras, found.pose, found.about_mm)):
        isocentre = xray.isocentre_mm
        if isocentre is not None:
            isocentre = np.asarray(back.points(jnp.asarray(isocentre), found.about_mm), np.float64)
        moved.append(xray._replace(camera=camera, isocentre_mm=isocentre))
    return moved


def facts_of(case: Case, search: Search, found: Registration, ct: str) -> dict[str, Any]:
    """The pose of the CT of this name and how it was found, for a JSON file."""
    matrix = np.asarray(found.pose.matrix(), np.float64)
    translation = np.asarray(found.pose.translation_mm, np.float64)
    world = np.eye(4)
    world[:3, :3] = matrix
    world[:3, 3] = found.about_mm + translation - matrix @ found.about_mm
    facts: dict[str, Any] = {
        "meaning": "CT's world -> X-rays' world: x -> R (x - about) + about + t, mm, RAS",
        "rotation_vector_rad": np.asarray(found.pose.rotation, np.float64).tolist(),
        "rotation_matrix": matrix.tolist(),
        "translation_mm": translation.tolist(),
        "about_mm": found.about_mm.tolist(),
        "world": world.tolist(),
        "similarity": found.objective,
        "similarity_by_scale": [values.tolist() for _, values in found.starts],
        "starts_agreeing": _agreeing(found),
        "settings": search._asdict() | {"pitch_mm": ",".join(f"{x:g}" for x in search.pitch_mm)},
        "ct": ct,
        "xrays": [xray.origin for xray in case.xrays],
        "synthetic": case.true is not None,
    }
    if case.true is not None:
        error = pose_error(found.pose, case.true, found.about_mm)
        facts["demo"] = {
            "true_rotation_vector_rad": np.asarray(case.true.rotation, np.float64).tolist(),
            "true_translation_mm": np.asarray(case.true.translation_mm, np.float64).tolist(),
            "error_deg": float(error.rotation_deg),
            "error_mm": float(error.translation_mm),
        }
    return facts


def summary(case: Case, search: Search, found: Registration, seconds: float) -> str:
    """What was found, as lines to print."""
    angle = float(np.rad2deg(np.linalg.norm(found.pose.rotation)))
    turns = ", ".join(f"{x:.2f}" for x in np.rad2deg(np.asarray(found.pose.rotation)))
    shifts = ", ".join(f"{x:.2f}" for x in np.asarray(found.pose.translation_mm))
    middle = ", ".join(f"{x:.1f}" for x in found.about_mm)
    near = f"{NEAR_DEG:g} degrees, {NEAR_MM:g} mm after the scale of {search.pitch_mm[0]:g} mm"
    rows = [
        ("rotation vector", f"({turns}) degrees"),
        ("translation", f"({shifts}) mm"),
        ("similarity", f"{found.trace[0]:.4f} at its start, {found.objective:.4f} now (at most 1)"),
        ("starts that agree", f"{_agreeing(found)} of {search.starts} within {near}"),
        ("time", f"{seconds:.1f} s with compilation"),
    ]
    if case.true is not None:
        away, error = (pose_error(p, case.true, found.about_mm) for p in (still(), found.pose))
        hidden = f"{away.rotation_deg:.2f} degrees, {away.translation_mm:.2f} mm away"
        missed = f"{error.rotation_deg:.3f} degrees, {error.translation_mm:.3f} mm (SYNTHETIC)"
        rows += [("hidden pose", hidden), ("error", missed)]
    lines = [f"the CT turns by {angle:.2f} degrees about its middle ({middle}) mm and shifts"]
    lines += [f"  {name:<20}{text}" for name, text in rows]
    if len(case.xrays) == 1:
        lines.append("one X-ray: the shift along its rays is the least certain number")
    return "\n".join(lines)


def _agreeing(found: Registration) -> int:
    """How many starts ended the first scale near to the pose found."""
    poses, _ = found.starts[0]
    errors = jax.vmap(lambda pose: pose_error(pose, found.pose, found.about_mm))(poses)
    return int(((errors.rotation_deg < NEAR_DEG) & (errors.translation_mm < NEAR_MM)).sum())
