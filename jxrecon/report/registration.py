"""A picture of a registration: each X-ray, what the CT looks like from there, and one over the other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from jxrecon.compile import jit
from jxrecon.drr import line_integrals
from jxrecon.geometry import AnyCamera, pixel_mm
from jxrecon.pose import Pose
from jxrecon.registration import Registration, cameras_at_rest, coarser_volume
from jxrecon.registration.cases import Case
from jxrecon.registration.similarity import averaged
from jxrecon.report.drawing import png

PICTURE_PIXELS = 256
"""X-rays are drawn with about so many rows or columns, the CT with voxels of about 2 mm."""


def registration_png(case: Case, found: Registration, first: Pose) -> bytes:
    """A PNG: of each view the X-ray, the projection found, and both in colour before and after."""
    mu, affine = coarser_volume(case.mu, case.grid.affine, 2.0)
    figure = Figure(figsize=(12, 3.2 * len(case.xrays)), layout="constrained")
    axes = figure.subplots(len(case.xrays), 4, squeeze=False)
    if case.true is not None:
        figure.suptitle("SYNTHETIC X-rays")

    @jit
    def project(camera: AnyCamera) -> Array:  # traced, so that both poses are one program
        return line_integrals(mu, affine, camera, "joseph")

    titles = ("X-ray", "projection, registered", "before", "after: X-ray green, projection magenta")
    for row, xray in zip(axes, case.xrays):
        block = max(1, min(xray.camera.shape) // PICTURE_PIXELS)
        image = averaged(xray.line_integrals, (block, block))
        camera = xray.camera.binned((block, block))
        before, after = (
            _toned(np.asarray(project(*cameras_at_rest([camera], pose, found.about_mm))), image)
            for pose in (first, found.pose)
        )
        low, high = np.percentile(image, [0.5, 99.5])
        image, before, after = (
            ((x - low) / max(high - low, 1e-6)).clip(0, 1) for x in (image, before, after)
        )
        overlays = (np.stack([drr, image, drr], -1) for drr in (before, after))
        row_mm, column_mm = pixel_mm(camera)
        for panel, picture, title in zip(row, (image, after, *overlays), titles):
            panel.imshow(picture, "gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
            panel.set_title(title, fontsize=9)
            panel.set_axis_off()
    return png(figure, dpi=100)


def _toned(projection: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The projection in the X-ray's brightness: a straight line through both images' spread."""
    spread = max(float(projection.std()), 1e-6)
    return (projection - projection.mean()) * (float(image.std()) / spread) + image.mean()
