"""The organ where it was: the reference shape, whatever the X-ray shows."""

from __future__ import annotations

from jxrecon.methods.base.method import SurfaceMethod, SurfaceProblem, no_step
from jxrecon.methods.base.surface_regression import vertex_errors


def zero_motion(problem: SurfaceProblem) -> SurfaceMethod:
    """v^ = v; nothing to fit."""
    return SurfaceMethod(
        init=lambda key: (),
        train_step=no_step,
        eval_step=lambda state, batch, key: vertex_errors(batch.reference, batch.target),
        reconstruct=lambda state, image, reference: reference,
    )
