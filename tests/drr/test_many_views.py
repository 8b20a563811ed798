"""Many views: scanned, in order, differentiated, and spread over devices."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import drr
from jxrecon.geometry import camera_at, centred_grid, evenly_spaced, parallel_at
from jxrecon.types import InputError

SHAPE = (12, 14, 16)
GRID = centred_grid(SHAPE, (6.0, 5.0, 4.0))


def mixed_cameras():
    """Cone and parallel, along every axis, two detectors, one source inside the volume."""
    cone = [camera_at(a, e, shape=(12, 10), pixel_mm=12.0) for a, e in ((0, 0), (60, 9), (5, 80))]
    parallel = [parallel_at(a, shape=(12, 10), pixel_mm=8.0) for a in (10, 100)]
    inside = camera_at(15, shape=(8, 9), pixel_mm=12.0).replace(source=jnp.float32([0, 9, 0]))
    return [*cone, *parallel, inside, *evenly_spaced(5, shape=(12, 10), pixel_mm=12.0)]


def random_volume():
    return np.random.default_rng(0).random(SHAPE).astype(np.float32)


def smooth_volume():
    """SYNTHETIC: a blob that fades before the volume's faces."""
    x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.exp(-6 * sum(a**2 for a in x) + x[0]).astype(np.float32)


@pytest.mark.parametrize("method", ["auto", "siddon"])
def test_views_come_in_order_each_as_if_alone(method):
    cameras, volume = mixed_cameras(), smooth_volume()
    images = jax.jit(lambda mu: drr.project(mu, GRID.affine, cameras, method))(volume)
    assert len(images) == len(cameras)
    for camera, image in zip(cameras, images):
        alone = np.float64(drr.line_integrals(volume, GRID.affine, camera, method))
        # In a scan virtual pixels are those of the finest view.
        near = 1e-5 if method == "siddon" else 1e-2
        assert np.linalg.norm(image - alone) < near * np.linalg.norm(alone)


def test_scanned_projection_and_backprojection_are_adjoint():
    cameras, volume = evenly_spaced(6, shape=(12, 10), pixel_mm=12.0), random_volume() - 0.5
    images, backproject = jax.vjp(lambda mu: drr.project(mu, GRID.affine, cameras), volume)
    rng = np.random.default_rng(1)
    others = tuple(rng.standard_normal(x.shape).astype(np.float32) for x in images)
    (back,) = backproject(others)
    left = sum(np.vdot(np.float64(a), b) for a, b in zip(images, others))
    scale = sum(np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(images, others))
    assert abs(left - np.vdot(np.float64(back), volume)) < 1e-5 * scale


def test_a_hundred_views_make_a_program_of_a_few():
    def size(count):
        cameras = evenly_spaced(count, shape=(12, 10), pixel_mm=12.0)
        return len(
            str(jax.make_jaxpr(lambda mu: drr.project(mu, GRID.affine, cameras))(random_volume()))
        )

    assert size(120) < 2 * size(12)


SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType
from jxrecon import drr
from jxrecon.geometry import camera_at, centred_grid, parallel_at

assert len(jax.devices()) == 4
grid = centred_grid((12, 14, 16), (6.0, 5.0, 4.0))
mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
cameras = [camera_at(a, 5, shape=(16, 10), pixel_mm=10.0) for a in (10, 30)]
cameras.append(parallel_at(70, shape=(8, 10), pixel_mm=9.0))
volume = np.random.default_rng(0).random(grid.shape).astype(np.float32)
rng = np.random.default_rng(1)
targets = [rng.random(camera.shape).astype(np.float32) for camera in cameras]

def loss(project):
    def of(mu):
        images = project(mu)
        return sum(((x - y) ** 2).sum() for x, y in zip(images, targets)), images
    return jax.jit(jax.value_and_grad(of, has_aux=True))(volume)

for method in ("siddon", "auto"):
    (one, images), gradient = loss(lambda mu: drr.project(mu, grid.affine, cameras, method))
    (many, shards), spread = loss(
        lambda mu: drr.project_sharded(mu, grid.affine, cameras, mesh, method))
    assert all(len(x.sharding.device_set) == 4 for x in shards)
    for a, b in zip([*shards, spread], [*images, gradient]):
        a, b = np.float64(a), np.float64(b)
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b), method
print("equal")
"""


@pytest.mark.slow
def test_rays_spread_over_devices_give_what_one_device_gives():
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_detectors_that_cannot_be_shared_out_are_refused():
    mesh = jax.make_mesh((1,), ("a",))
    camera = camera_at(0.0, shape=(9, 10))
    assert drr.project_sharded(random_volume(), GRID.affine, [camera], mesh)[0].shape == (9, 10)
    with pytest.raises(InputError, match="9 rows cannot be cut into 4"):
        camera.strips(4)


@pytest.mark.parametrize("method", ["siddon", "joseph", "aligned", "shear_warp"])
def test_twenty_random_cameras_backproject_as_they_project(method):
    rng = np.random.default_rng(4)
    cameras = []
    for _ in range(20):
        angle, elevation = rng.uniform(0, 360), rng.uniform(-35, 35)
        if method == "aligned":
            angle, elevation = 0.0, 0.0
        camera = camera_at(
            angle,
            elevation,
            source_axis_mm=rng.uniform(400, 900),
            source_detector_mm=rng.uniform(1000, 1500),
            shape=(12, 10),
            pixel_mm=(rng.uniform(5, 15), rng.uniform(5, 15)),
            isocentre_mm=tuple(rng.uniform(-15, 15, 3)),
        )
        cameras.append(camera)
    volume = random_volume() - 0.5
    plans = [drr.plan(GRID.affine, camera, SHAPE, method) for camera in cameras]
    others = rng.standard_normal((20, 12, 10)).astype(np.float32)

    @functools.partial(jax.jit, static_argnames="way")
    def products(cameras, others, way):
        def one(view):
            camera, other = view
            image, back = jax.vjp(
                lambda mu: drr.line_integrals(mu, GRID.affine, camera, way), volume
            )
            size = jnp.linalg.norm(image) * jnp.linalg.norm(other)
            return jnp.vdot(image, other), jnp.vdot(back(other)[0], volume), size

        return jax.lax.map(one, (cameras, others))

    for axis in {way.axis for way in plans}:
        mine = [n for n, way in enumerate(plans) if way.axis == axis]
        way = functools.reduce(drr.Plan.including, [plans[n] for n in mine])
        together = drr.stacked([cameras[n] for n in mine])
        left, right, size = products(together, others[np.array(mine)], way)
        assert np.all(left != 0)
        assert np.all(np.abs(left - right) < 1e-5 * size)
