"""Traced cameras take the fast path, whichever axis they look along, and never a coarser one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jxrecon import drr
from jxrecon.drr.any_pose import choice_of, plan_any_pose, switched
from jxrecon.drr.rays import rays_of
from jxrecon.geometry import camera_at, centred_grid

SHAPE = (20, 24, 28)
GRID = centred_grid(SHAPE, (6.0, 5.0, 4.0))
DETECTOR = (26, 30)
WEIGHT = np.float32(gaussian_filter(np.random.default_rng(3).random(DETECTOR), 3))


def at(angle, elevation=0.0, **more):
    return camera_at(angle, elevation, **{"shape": DETECTOR, "pixel_mm": 7.0, **more})


def rolled(camera, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return camera.replace(u=c * camera.u + s * camera.v, v=c * camera.v - s * camera.u)


NEAR = {"source_axis_mm": 130.0, "source_detector_mm": 260.0}
VIEWS = {
    "along y": at(20.0, 10.0),
    "along x": at(65.0, -8.0),
    "along z": at(10.0, 80.0),
    "from within": at(15.0).replace(source=np.float32([0, 9, 0])),
}
"""A camera for every axis, and one for Joseph."""

HARD = {
    "wide cone": at(6.0, 4.0, **NEAR),
    "wide cone, fine pixels": at(6.0, 4.0, **NEAR, pixel_mm=2.0),
    "narrow cone": at(20.0, 10.0, source_axis_mm=4000.0, source_detector_mm=4500.0, pixel_mm=5.0),
    "steep": at(38.0, 20.0),
    "along a diagonal": at(45.0, 35.0),
    "detector off centre": at(20.0).replace(centre=at(20.0).centre + 40 * at(20.0).u / 7.0),
    "rolled": rolled(at(20.0, 5.0), 30.0),
    "rolled by a right angle": rolled(at(70.0, 5.0), 90.0),
    "coarse pixels": at(20.0, 10.0, pixel_mm=14.0),
    "large pixels": at(20.0, 10.0, pixel_mm=25.0),
    "fine pixels": at(20.0, 10.0, pixel_mm=1.5),
    "nearly face to face": at(1.0, 1.0),
}


def smooth_volume():
    """SYNTHETIC: smooth noise that fades towards the volume's faces."""
    inside = gaussian_filter(np.pad(np.ones([n - 10 for n in SHAPE]), 5), 1.5)
    return np.float32(inside * gaussian_filter(np.random.default_rng(0).random(SHAPE), 1.5))


def relative(a, b):
    return np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def image():
    """(camera) -> its image, by one program; and how often that was traced."""
    traces, volume = [], smooth_volume()

    def traced(camera):
        traces.append(1)
        return drr.line_integrals(volume, GRID.affine, camera)

    return jax.jit(traced), traces


@pytest.fixture(scope="module")
def slopes():
    """(volume, camera) -> (weighted sum, image), gradients by the volume and the camera."""

    def weighted(mu, camera):
        image = drr.line_integrals(mu, GRID.affine, camera)
        return (WEIGHT * image).sum(), image

    return jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS | HARD)
def test_a_traced_camera_gives_what_the_same_camera_gives_when_known(image, view):
    camera, volume = (VIEWS | HARD)[view], smooth_volume()
    known = np.float64(drr.line_integrals(volume, GRID.affine, camera))
    joseph = np.float64(drr.line_integrals(volume, GRID.affine, camera, "joseph"))
    same = known if drr.describe(GRID.affine, camera, SHAPE, traced=True) != "joseph" else joseph
    assert relative(image[0](camera), same) < 1e-5
    assert relative(image[0](camera), joseph) < 7e-3
    assert len(image[1]) == 1


@pytest.mark.parametrize("view", VIEWS | HARD)
def test_virtual_pixels_of_a_traced_camera_are_as_fine_as_those_of_a_known_one(view):
    camera = (VIEWS | HARD)[view]
    branches = plan_any_pose(SHAPE, DETECTOR).branches
    choice = choice_of(rays_of(np.float64(GRID.affine), camera), SHAPE, branches)
    if choice.branch == len(branches):
        return
    known, taken = drr.plan(GRID.affine, camera, SHAPE, "shear_warp"), branches[choice.branch]
    assert taken.axis == known.axis
    assert tuple(float(each.pitch) for each in choice.needed) == known.pitch
    assert all(mine >= n - 3 for mine, n in zip(taken.pixels, known.pixels))  # less its rounding up


def test_only_cameras_that_fit_no_branch_are_left_to_joseph():
    left = {
        view
        for view, camera in (VIEWS | HARD).items()
        if drr.describe(GRID.affine, camera, SHAPE, traced=True) == "joseph"
    }
    assert left == {"from within"}


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_gradients_by_a_traced_camera_equal_finite_differences(slopes, view):
    camera, volume = VIEWS[view], smooth_volume()
    (total, _), (by_volume, by_camera) = slopes(volume, camera)
    np.testing.assert_allclose(np.vdot(by_volume, volume), total, rtol=1e-5)  # it is linear
    rng = np.random.default_rng(1)
    along = jax.tree.map(lambda x: rng.standard_normal(3), camera)
    step = {"source": 0.15, "centre": 0.15, "u": 0.006, "v": 0.006}
    if view == "from within":
        step = {name: size / 3 for name, size in step.items()}
    slope, numeric = 0.0, 0.0
    for name, size in step.items():
        place, way = getattr(camera, name), size * getattr(along, name)
        ends = [
            slopes(volume, camera.replace(**{name: np.float32(place + s * way)}))[0][1]
            for s in (1, -1)
        ]
        numeric += (np.vdot(WEIGHT, np.float64(ends[0])) - np.vdot(WEIGHT, np.float64(ends[1]))) / 2
        slope += np.vdot(getattr(by_camera, name), way)
    np.testing.assert_allclose(slope, numeric, rtol=2e-2)


@pytest.mark.slow
def test_nothing_is_compiled_again_and_nothing_jumps_where_a_pose_crosses_an_axis(image):
    angles = np.linspace(49.0, 51.0, 9)
    cameras = [at(angle) for angle in angles]
    images = [np.float64(image[0](camera)) for camera in cameras]
    axes = {drr.describe(GRID.affine, camera, SHAPE, traced=True)[:27] for camera in cameras}
    assert axes == {f"shear_warp: slices along {x}," for x in "xy"}
    assert len(image[1]) == 1
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


def test_what_is_switched_has_derivatives_of_any_order_also_under_vmap():
    ways = [lambda x, y: x**3 * y, lambda x, y: jnp.sin(x * y)]

    def second(index, x, y):
        of = lambda x, y: switched(ways)(index, x, y)  # noqa: E731
        return jax.grad(lambda x, y: jax.grad(of)(x, y), argnums=(0, 1))(x, y)

    index, x, y = jnp.arange(2), jnp.float32([0.5, 0.7]), jnp.float32([2.0, 1.5])
    by_x, by_y = jax.jit(jax.vmap(second))(index, x, y)
    p = 0.7 * 1.5
    np.testing.assert_allclose(by_x, [6 * 0.5 * 2.0, -(1.5**2) * np.sin(p)], rtol=1e-5)
    np.testing.assert_allclose(by_y, [3 * 0.5**2, np.cos(p) - p * np.sin(p)], rtol=1e-5)
