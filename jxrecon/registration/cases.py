"""What `jxrecon register` registers, and from where: a CT and X-rays from files, or SYNTHETIC ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.data.simulated import Scene
from jxrecon.drr import hu_to_mu, line_integrals
from jxrecon.drr.exposure import Exposure
from jxrecon.geometry import AnyCamera, Grid, depth_of, places_of
from jxrecon.io import images, radiographs
from jxrecon.io.ct import read_ct
from jxrecon.io.radiographs import Given, Radiograph
from jxrecon.io.views import common_isocentre
from jxrecon.pose import Pose, still
from jxrecon.registration.ascent import cameras_at_rest, random_poses
from jxrecon.types import InputError
from jxrecon.units import NOTHING_STATED, Stated

DEMO_DOSE = 1e4
"""Photons per pixel of the demo's X-rays."""


class Case(NamedTuple):
    """What is registered.

    Attributes:
        mu: CT, 1/mm.
        grid: grid of the CT.
        xrays: X-rays with their cameras as they are known.
        files: names of the X-rays' copies.
        true: hidden pose of a demo.
    """

    mu: Float[np.ndarray, "x y z"]
    grid: Grid
    xrays: list[Radiograph]
    files: list[str]
    true: Pose | None = None


class Search(NamedTuple):
    """Where the search for a pose begins, and how it goes on.

    Attributes:
        starts: how many poses to begin with.
        range_deg: largest rotation of a start.
        range_mm: largest shift of a start along each axis.
        seed: seed of the starts, and of the demo.
        steps: steps of each scale.
        pitch_mm: voxels of the scales, coarse to fine.
        centre: begin with the CT's middle at the X-rays' isocentre; else with both worlds as one.
    """

    starts: int = 8
    range_deg: float = 10.0
    range_mm: float = 20.0
    seed: int = 0
    steps: int = 80
    pitch_mm: tuple[float, ...] = (10.0, 3.5)
    centre: bool = False

    def first(self, case: Case) -> Pose:
        """The pose that the search begins about.

        Raises:
            InputError: with it an X-ray does not see the CT.
        """
        first = still()
        if self.centre:
            shift = common_isocentre(case.xrays) - case.grid.centre_mm
            first = first.replace(translation_mm=jnp.asarray(shift, jnp.float32))
        for xray in case.xrays:
            (camera,) = cameras_at_rest([xray.camera], first, case.grid.centre_mm)
            check_in_view(case.grid, camera, xray.origin)
        return first

    def poses(self, first: Pose) -> Pose:
        """All poses to begin with, [starts, 3]."""
        key, count = jax.random.key(self.seed), self.starts - 1
        others = random_poses(key, count, self.range_deg, self.range_mm)
        shifts = jnp.concatenate([jnp.zeros((1, 3)), others.translation_mm])
        rotations = jnp.concatenate([first.rotation[None], others.rotation])
        return Pose(rotations, shifts + first.translation_mm[None])


def _volume(path: Path, stated: Stated) -> tuple[np.ndarray, Grid]:
    """(attenuation in 1/mm, grid) of the CT in a file."""
    hu, affine = read_ct(path, stated)
    mu = np.asarray(hu_to_mu(np.asarray(hu, np.float32)))
    if not mu.max() > mu.min():
        raise InputError(f"{path}: every voxel attenuates {mu.max():g} per mm, expected a picture")
    return mu, Grid(mu.shape, affine)


def from_files(
    ct: Path, xrays: Sequence[tuple[Path, Given]], stated: Stated = NOTHING_STATED
) -> Case:
    """The CT and X-rays in files.

    Raises:
        InputError: a file or flag is wrong, or two X-rays share a name.
    """
    names = [images.stem(path) for path, _ in xrays]
    if len(set(names)) < len(names):
        raise InputError(f"--xray {names[0]}: names occur twice, expected a different one for each")
    if {"registration", "pose"} & set(names):
        raise InputError("an X-ray is named pose or registration, expected another name")
    read = [radiographs.read(path, given) for path, given in xrays]
    for xray in read:
        if np.ptp(xray.line_integrals) == 0:
            raise InputError(f"{xray.origin}: all pixels are equal, expected a picture")
    endings = [images.suffix(path) for path, _ in xrays]
    files = [
        f"{name}{ending if ending in images.WRITTEN else images.WRITTEN[0]}"
        for name, ending in zip(names, endings)
    ]
    return Case(*_volume(ct, stated), read, files)


def synthetic(ct: Path, scene: Scene, search: Search, stated: Stated = NOTHING_STATED) -> Case:
    """SYNTHETIC X-rays of a CT: exact, from its finest voxels, with photon noise; the seed draws the pose.

    Args:
        ct: what `io.ct` reads.
        scene: where the X-rays are taken from; its pixel pitch and isocentre follow the CT.
        search: its ranges and seed draw the hidden pose.
        stated: what the user says about the CT's numbers.

    Raises:
        InputError: the file cannot be read, or two views are one.
    """
    if len(set(scene.views)) < len(scene.views):
        raise InputError(f"--view {' '.join(scene.views)}: expected different views")
    mu, grid = _volume(ct, stated)
    hidden_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(search.seed), 1))
    true = random_poses(hidden_key, 1, search.range_deg, search.range_mm)
    true = jax.tree.map(lambda x: x[0], true)
    magnification = scene.source_detector_mm / scene.source_axis_mm
    pitch = 0.85 * magnification * float(grid.extent_mm.max()) / scene.shape[0]
    scene = scene._replace(pixel_mm=(pitch, pitch)).placed(grid, str(ct))
    cameras, exposure = scene.cameras(), Exposure(dose=DEMO_DOSE)
    rest = cameras_at_rest(cameras, true, grid.centre_mm)

    @jit
    def expose(mu: Array, camera: AnyCamera, key: Array) -> Array:
        through = line_integrals(mu, grid.affine, camera, "siddon")
        return exposure.expose(through[None], key, (pitch, pitch))

    xrays, files = [], []
    for n, (view, camera) in enumerate(zip(scene.views, cameras)):
        image = np.asarray(expose(mu, rest[n], jax.random.fold_in(noise_key, n)))
        facts = radiographs.describe(camera) | {"pixels are": f"SYNTHETIC, {DEMO_DOSE:g} photons"}
        resolved = tuple((name, text, "demo") for name, text in facts.items())
        name = f"synthetic_{view.replace(',', '_')}"
        xrays.append(Radiograph(image, camera, name, grid.centre_mm, resolved))
        files.append(f"{name}.nii.gz")
    return Case(mu, grid, xrays, files, true)


def check_in_view(grid: Grid, camera: AnyCamera, origin: str) -> None:
    """Refuses a CT whose box falls beside the detector, or lies behind the source.

    Raises:
        InputError: it does.
    """
    corners, half = grid.corners_mm, np.array(camera.shape) / 2
    seen = bool((depth_of(camera, corners) > 0).all())
    if seen:
        places = places_of(camera, corners) - (half - 0.5)
        seen = not ((places.min(0) > half) | (places.max(0) < -half)).any()
    if not seen:
        middle = ", ".join(f"{x:.0f}" for x in grid.centre_mm)
        raise InputError(
            f"{origin}: the CT about ({middle}) mm is not in its view, expected one world for CT and "
            "X-rays (see --centre, --isocentre)"
        )
