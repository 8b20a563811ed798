"""Traced cameras take the fast path, whichever axis they look along."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jxrecon import drr
from jxrecon.drr import separable
from jxrecon.geometry import camera_at, centred_grid, parallel_at

SHAPE = (20, 24, 28)
GRID = centred_grid(SHAPE, (6.0, 5.0, 4.0))
DETECTOR = (26, 30)
WEIGHT = np.float32(gaussian_filter(np.random.default_rng(3).random(DETECTOR), 3))
INSIDE = camera_at(15.0, shape=DETECTOR, pixel_mm=7.0).replace(source=np.float32([0, 9, 0]))
VIEWS = {
    "along y": camera_at(20.0, 10.0, shape=DETECTOR, pixel_mm=7.0),
    "along x": camera_at(65.0, -8.0, shape=DETECTOR, pixel_mm=7.0),
    "along z": camera_at(10.0, 80.0, shape=DETECTOR, pixel_mm=7.0),
    "from within": INSIDE,
}


def smooth_volume():
    """SYNTHETIC: smooth noise that fades towards the volume's faces."""
    inside = gaussian_filter(np.pad(np.ones([n - 10 for n in SHAPE]), 5), 1.5)
    return np.float32(inside * gaussian_filter(np.random.default_rng(0).random(SHAPE), 1.5))


def relative(a, b):
    return np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def seen():
    """(volume, camera) -> (weighted sum, image), gradient by the camera; and how often it was traced."""
    traces = []

    def weighted(mu, camera):
        traces.append(1)
        image = drr.line_integrals(mu, GRID.affine, camera)
        return (WEIGHT * image).sum(), image

    return jax.jit(jax.value_and_grad(weighted, argnums=1, has_aux=True)), traces


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_a_traced_camera_gives_what_the_same_camera_gives_when_known(seen, view):
    camera, volume = VIEWS[view], smooth_volume()
    (_, image), by_camera = seen[0](volume, camera)
    known = np.float64(drr.line_integrals(volume, GRID.affine, camera))
    assert relative(image, known) < 1e-5
    assert (
        relative(image, np.float64(drr.line_integrals(volume, GRID.affine, camera, "joseph")))
        < 7e-3
    )
    rng = np.random.default_rng(1)
    along = jax.tree.map(lambda x: rng.standard_normal(3), camera)
    step = {"source": 0.15, "centre": 0.15, "u": 0.006, "v": 0.006}
    if view == "from within":
        step = {name: size / 3 for name, size in step.items()}
    slope, numeric = 0.0, 0.0
    for name, size in step.items():
        at, way = getattr(camera, name), size * getattr(along, name)
        ends = [
            seen[0](volume, camera.replace(**{name: np.float32(at + s * way)})) for s in (1, -1)
        ]
        numeric += (np.float64(ends[0][0][0]) - ends[1][0][0]) / 2
        slope += np.vdot(getattr(by_camera, name), way)
    np.testing.assert_allclose(slope, numeric, rtol=2e-2)


@pytest.mark.slow
def test_nothing_is_compiled_again_and_nothing_jumps_where_a_pose_crosses_an_axis(seen):
    volume, images = smooth_volume(), []
    angles = np.linspace(49.0, 51.0, 9)
    for angle in angles:
        camera = camera_at(angle, shape=DETECTOR, pixel_mm=7.0)
        (_, image), _ = seen[0](volume, camera)
        images.append(np.float64(image))
    axes = {
        drr.describe(GRID.affine, camera_at(a, shape=DETECTOR, pixel_mm=7.0), SHAPE) for a in angles
    }
    assert {line[:27] for line in axes} == {f"shear_warp: slices along {x}," for x in "xy"}
    assert len(seen[1]) == 1
    jumps = [relative(a, b) for a, b in itertools.pairwise(images)]
    # A quarter of a degree moves the image by this much itself.
    assert max(jumps) < np.median(jumps) + 7e-3


@pytest.mark.parametrize("view", VIEWS)
def test_what_auto_took_can_be_asked_for(view):
    lines = [
        drr.describe(GRID.affine, VIEWS[view], SHAPE, traced=traced) for traced in (False, True)
    ]
    expected = "joseph" if view == "from within" else f"shear_warp: slices {view}"
    assert all(line.startswith(expected) for line in lines)


def test_a_traced_camera_tells_all_it_may_take():
    told = []
    jax.eval_shape(lambda c: told.append(drr.describe(GRID.affine, c, SHAPE)), VIEWS["along x"])
    assert all(f"slices along {axis}" in told[0] for axis in "xyz")
    assert "joseph" in told[0]


def test_under_vmap_over_cameras_views_still_go_through_one_branch_each():
    cameras = drr.stacked([VIEWS["along x"], VIEWS["along z"]])
    image = jax.vmap(lambda camera: drr.line_integrals(smooth_volume(), GRID.affine, camera))
    program = str(jax.make_jaxpr(image)(cameras))
    assert "scan[" in program
    assert "cond[" in program  # a batched one would have become selects among all branches


@pytest.mark.parametrize("axis", [0, 1])
def test_the_gradient_by_slopes_is_the_moment_of_that_by_positions(axis):
    rng = np.random.default_rng(0)
    shape, pixels = (7, 9, 8), (11, 6)
    form = separable.Form(axis, shape, (4, 3), moves=True)
    start, step = -0.3 - rng.random(shape[axis]), 0.75 + 0.4 * rng.random(shape[axis])
    q, z = (jax.tree.map(jnp.float32, separable.comb(start, step, n)) for n in pixels)
    volume, image = jnp.float32(rng.random(shape)), jnp.float32(rng.random(pixels))
    from_middle = np.arange(shape[axis])[:, None] - (shape[axis] - 1) / 2
    by_position, *by_slope = jax.jit(
        lambda *arrays: [
            gradient(*arrays, form)
            for gradient in (
                separable.position_gradient_by_matrices,
                separable.slope_gradient_by_gathers,
                separable.slope_gradient_by_matrices,
            )
        ]
    )(volume, q, z, image)
    expected = [(from_middle * np.float64(each)).sum(0) for each in by_position]
    for found in by_slope:
        for mine, moment in zip(found, expected):
            np.testing.assert_allclose(mine, moment, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [False, True])
def test_gradients_by_a_traced_camera_equal_finite_differences(parallel):
    at = parallel_at if parallel else camera_at
    camera = jax.tree.map(np.float64, at(20.0, 10.0, shape=DETECTOR, pixel_mm=5.0))
    volume, weight, step = np.float64(smooth_volume()), np.float64(WEIGHT), 1e-6
    rng = np.random.default_rng(1)
    along = jax.tree.map(lambda x: rng.standard_normal(3), camera)

    @jax.jit
    def both(camera):
        def total(mu, camera):
            return (weight * drr.line_integrals(mu, GRID.affine, camera)).sum()

        return jax.value_and_grad(total, argnums=(0, 1))(volume, camera)

    with jax.enable_x64(True):
        total, (by_volume, slope) = both(camera)
        ends = [
            both(jax.tree.map(lambda x, w: x + sign * step * w, camera, along))[0]  # noqa: B023
            for sign in (1, -1)
        ]
    np.testing.assert_allclose(np.vdot(by_volume, volume), total, rtol=1e-9)  # it is linear
    exact = sum(jax.tree.leaves(jax.tree.map(np.vdot, slope, along)))
    np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * step), rtol=1e-4)
