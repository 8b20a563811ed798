"""What `python -m jxrecon.register` registers: a CT and X-rays from files, or a synthetic case."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.data.sample import chest_ct_path
from jxrecon.drr import beam, hu_to_mu, line_integrals
from jxrecon.geometry import AnyCamera, Grid, ParallelCamera, camera_at
from jxrecon.io import images, radiographs
from jxrecon.io.nifti import read_volume
from jxrecon.io.radiographs import Given, Radiograph
from jxrecon.pose import Pose
from jxrecon.registration.ascent import cameras_at_rest, random_poses
from jxrecon.types import InputError

DEMO_DOSE = 1e4
"""Photons per pixel of the demo's X-rays."""

DEMO_PIXELS = 256


class Case(NamedTuple):
    """What is registered.

    Attributes:
        mu: CT, 1/mm.
        grid: of the CT.
        xrays: with their cameras as they are known.
        names: of the X-rays' copies.
        true: the hidden pose of a demo.
    """

    mu: Float[np.ndarray, "x y z"]
    grid: Grid
    xrays: list[Radiograph]
    names: list[str]
    true: Pose | None = None


def _volume(path: Path) -> tuple[np.ndarray, Grid]:
    hu, affine = read_volume(path)
    mu = np.asarray(hu_to_mu(np.asarray(hu, np.float32)))
    if not mu.max() > mu.min():
        raise InputError(f"{path}: every voxel attenuates {mu.max():g} per mm, expected a picture")
    return mu, Grid(mu.shape, affine)


def from_files(options: argparse.Namespace) -> Case:
    """The CT and X-rays that the flags of `python -m jxrecon.register` name.

    Raises:
        InputError: a file or flag is wrong, X-rays share a name, or copies would replace them.
    """
    names = [images.stem(path) for path in options.xray]
    if len(set(names)) < len(names):
        raise InputError(f"--xray {names[0]}: names occur twice, expected a different one for each")
    if {"registration", "pose"} & set(names):
        raise InputError("an X-ray is named pose or registration, expected another name")
    for path in options.xray:
        if options.out.resolve() == path.resolve().parent:
            raise InputError(
                f"--out {options.out}: is the folder of {path.name}, expected another one, as copies "
                "of the X-rays are written there"
            )
    views = options.view or [None] * len(names)
    if len(views) != len(names):
        raise InputError(
            f"{len(views)} --view for {len(names)} --xray: expected one for each, or none"
        )
    given = Given(
        source_axis_mm=options.sad,
        source_detector_mm=options.sid,
        intensity=options.intensity,
        i0=options.i0,
    )
    if options.pixel_mm is not None:
        pitch = radiographs.numbers(options.pixel_mm, (1, 2), "--pixel-mm")
        given = given._replace(pixel_mm=(pitch[0], pitch[-1]))
    if options.isocentre is not None:
        x, y, z = radiographs.numbers(options.isocentre, (3,), "--isocentre")
        given = given._replace(isocentre_mm=(x, y, z))
    xrays = [
        radiographs.read(path, given._replace(view=view)) for path, view in zip(options.xray, views)
    ]
    for xray in xrays:
        if np.ptp(xray.line_integrals) == 0:
            raise InputError(f"{xray.origin}: all pixels are equal, expected a picture")
    return Case(*_volume(options.ct), xrays, names)


def synthetic(options: argparse.Namespace) -> Case:
    """SYNTHETIC X-rays of a CT: exact, from its finest voxels, with photon noise; the seed draws the pose."""
    mu, grid = _volume(options.ct or chest_ct_path())
    hidden_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 1))
    true = random_poses(hidden_key, 1, options.range_deg, options.range_mm)
    true = jax.tree.map(lambda x: x[0], true)
    about, sad, sid = grid.centre_mm, options.sad or 1000.0, options.sid or 1500.0
    pitch = 0.85 * sid / sad * float(grid.extent_mm.max()) / DEMO_PIXELS
    exposure = beam.Settings(
        dose=DEMO_DOSE, floor=0.5 / DEMO_DOSE, response=beam.Response(saturation=1.1)
    )

    @jit
    def expose(mu: Array, camera: AnyCamera, key: Array) -> Array:
        through = line_integrals(mu, grid.affine, camera, "siddon")
        return beam.radiograph(through, key, exposure)

    names, xrays = [], []
    for n, view in enumerate(options.view or ["frontal", "lateral"]):
        camera = camera_at(
            *radiographs.view_angles(view),
            source_axis_mm=sad,
            source_detector_mm=sid,
            shape=(DEMO_PIXELS, DEMO_PIXELS),
            pixel_mm=pitch,
            isocentre_mm=tuple(about),
        )
        (rest,) = cameras_at_rest([camera], true, about)
        image = np.asarray(expose(mu, rest, jax.random.fold_in(noise_key, n)))
        facts = {
            **radiographs.describe(camera),
            "pixels are": f"SYNTHETIC, {DEMO_DOSE:g} photons",
        }
        resolved = tuple((name, text, "demo") for name, text in facts.items())
        names.append(f"synthetic_{view.replace(',', '_')}")
        xrays.append(Radiograph(image, camera, names[-1], about, resolved))
    if len(set(names)) < len(names):
        raise InputError(f"--view {' '.join(options.view)}: expected different views")
    return Case(mu, grid, xrays, names, true)


def check_in_view(grid: Grid, camera: AnyCamera, origin: str) -> None:
    """Refuses a CT whose box falls beside the detector, or lies behind the source."""
    ends = [(-0.5, n - 0.5) for n in grid.shape]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    corners = corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    centre, u, v = (np.asarray(part, np.float64) for part in (camera.centre, camera.u, camera.v))
    if isinstance(camera, ParallelCamera):
        rays, behind = (
            np.broadcast_to(np.asarray(camera.direction, np.float64), corners.shape),
            False,
        )
    else:
        source, normal = np.asarray(camera.source, np.float64), np.cross(u, v)
        rays = corners - source
        behind = bool((rays @ normal * (normal @ (centre - source)) <= 0).any())
    beside = False
    if not behind:  # corner = centre + column u + row v + t ray
        seen = np.array(
            [np.linalg.solve(np.stack([v, u, d], 1), c - centre)[:2] for c, d in zip(corners, rays)]
        )
        half = np.array(camera.shape) / 2
        beside = bool(((seen.min(0) > half) | (seen.max(0) < -half)).any())
    if behind or beside:
        middle = ", ".join(f"{x:.0f}" for x in grid.centre_mm)
        raise InputError(
            f"{origin}: the CT about ({middle}) mm is not in its view, expected one world for CT and "
            "X-rays (see --centre, --isocentre)"
        )
