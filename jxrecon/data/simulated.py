"""X-rays of a CT, SIMULATED, as radiographs with their cameras: what `jxrecon project` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon import drr, geometry
from jxrecon.drr.exposure import Exposure
from jxrecon.geometry import AnyCamera, Grid
from jxrecon.io import radiographs, xray_views
from jxrecon.io.ct import ct_stem, read_ct
from jxrecon.io.radiographs import Radiograph
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated


class Scene(NamedTuple):
    """Where the X-rays of a CT are taken from.

    Attributes:
        views: each one of `xray_views.VIEWS`.
        shape: (rows, columns) of the detector.
        pixel_mm: pixel pitch (between rows, between columns); None: all of the CT is in each view.
        source_axis_mm: distance from source to isocentre.
        source_detector_mm: distance from source to detector.
        parallel: parallel rays, the detector at the isocentre.
        isocentre_mm: the point of the CT's world that the views turn about; None: the CT's middle.
    """

    views: tuple[str, ...] = ("frontal", "lateral")
    shape: tuple[int, int] = (256, 256)
    pixel_mm: tuple[float, float] | None = None
    source_axis_mm: float = 1000.0
    source_detector_mm: float = 1500.0
    parallel: bool = False
    isocentre_mm: tuple[float, float, float] | None = None

    def placed(self, grid: Grid, origin: str = "CT") -> Scene:
        """The scene with the isocentre and the pixel pitch that a CT gives it.

        Raises:
            InputError: a distance is impossible, or the CT does not fit between source and detector.
        """
        isocentre, pitch = self.isocentre_mm or tuple(grid.centre_mm), self.pixel_mm or (1.0, 1.0)
        scene = self._replace(isocentre_mm=isocentre, pixel_mm=pitch)
        reach = np.max([_reach(grid, camera, origin) for camera in scene.cameras()], axis=0)
        fit = float(np.max(2 * reach / np.maximum(np.array(self.shape) - 1, 1)))
        return scene._replace(pixel_mm=self.pixel_mm or (fit, fit))

    def cameras(self) -> list[AnyCamera]:
        """One camera a view; for a scene that is `placed`."""
        given = self._asdict()
        names = ["shape", "pixel_mm", "isocentre_mm"]
        names += [] if self.parallel else ["source_axis_mm", "source_detector_mm"]
        make: Any = geometry.parallel_at if self.parallel else geometry.camera_at
        numbers = {name: given[name] for name in names}
        return [
            xray_views.as_displayed(make(*xray_views.view_angles(view), **numbers), view)
            for view in self.views
        ]


def simulated_xrays(
    ct: Path,
    scene: Scene,
    exposure: Exposure | None = None,
    method: str = "auto",
    stated: Stated = NOTHING_STATED,
) -> list[Radiograph]:
    """X-rays of the CT in a file, one a view of the scene.

    Args:
        ct: what `io.ct` reads.
        scene: where the X-rays are taken from.
        exposure: what they show beside ideal line integrals; None is nothing.
        method: projector, one of `drr.METHODS`.
        stated: what the user says about the CT's numbers.

    Raises:
        InputError: the file cannot be read, does not fit into the scene, or the method not the camera.
    """
    hu, affine = read_ct(ct, stated)
    grid, exposure = Grid(hu.shape, affine), exposure or Exposure()
    placed = scene.placed(grid, str(ct))
    cameras, isocentre = placed.cameras(), np.array(placed.isocentre_mm)
    images = exposure.images(hu, affine, cameras, placed.pixel_mm, method)  # type: ignore[arg-type]
    origins = {
        "pixel pitch": "--pixel-mm" if scene.pixel_mm else "fits the CT",
        "isocentre": "--isocentre" if scene.isocentre_mm else "middle of the CT",
    }
    xrays = []
    for view, camera, image in zip(scene.views, cameras, images):
        facts = radiographs.describe(camera)
        if not scene.parallel:
            facts["source to axis"] = f"{scene.source_axis_mm:.1f} mm"
        facts["isocentre"] = "({:.1f}, {:.1f}, {:.1f}) mm".format(*isocentre)
        facts["projector"] = drr.choose(affine, camera, grid.shape) if method == "auto" else method
        resolved = [(name, text, origins.get(name, view)) for name, text in facts.items()]
        resolved += [(name, str(x), "simulated") for name, x in exposure.simulated.items()]
        xrays.append(Radiograph(image, camera, xray_name(ct, view), isocentre, tuple(resolved)))
    return xrays


def xray_name(ct: Path, view: str) -> str:
    """What the X-ray of a CT is called: ct.nii.gz from -30,10 is ct_-30_10."""
    return f"{ct_stem(ct)}_{view.replace(',', '_')}"


def _reach(grid: Grid, camera: AnyCamera, origin: str) -> Float[np.ndarray, "2"]:
    """How far from the detector's centre the volume's box is seen, along rows and columns in mm."""
    corners = grid.corners_mm
    depth = geometry.depth_of(camera, corners)
    if not (depth.min() > 0 and depth.max() <= 1):
        detector_mm = geometry.source_detector_mm(camera)  # type: ignore[arg-type]  # parallel: depth 1
        low, high = depth.min() * detector_mm, depth.max() * detector_mm
        raise InputError(
            f"{origin}: lies {low:.0f} to {high:.0f} mm from the source, expected it "
            f"before the detector at {detector_mm:.0f} mm (see --sad, --sid, --isocentre)"
        )
    places = geometry.places_of(camera, corners) - (np.array(camera.shape) - 1) / 2
    return np.abs(places).max(0) * geometry.pixel_mm(camera)
