"""Plans for cameras that move, parallel rays, whole lines, and derivatives to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jxrecon import drr
from jxrecon.drr import separable
from jxrecon.geometry import Camera, ParallelCamera, camera_at, centred_grid, parallel_at
from jxrecon.phantom.primitives import ellipsoid, rasterise
from jxrecon.phantom.primitives import line_integrals as closed_form
from jxrecon.types import InputError

SHAPE = (20, 24, 28)
GRID = centred_grid(SHAPE, (6.0, 5.0, 4.0))
DETECTOR = (26, 30)
CAMERA = camera_at(20.0, 10.0, shape=DETECTOR, pixel_mm=7.0)
WEIGHT = gaussian_filter(np.random.default_rng(3).random(DETECTOR), 3)


def smooth_volume():
    """SYNTHETIC: smooth noise that fades towards the volume's faces."""
    inside = gaussian_filter(np.pad(np.ones([n - 10 for n in SHAPE]), 5), 1.5)
    return inside * gaussian_filter(np.random.default_rng(0).random(SHAPE), 1.5)


def relative(a, b):
    return np.linalg.norm(np.float64(a) - b) / np.linalg.norm(b)


def in_float64(camera):
    return jax.tree.map(np.float64, camera)


VIEWS = {
    "cone": CAMERA,
    "cone along z": camera_at(10.0, 80.0, shape=DETECTOR, pixel_mm=7.0),
    "parallel": parallel_at(65.0, -12.0, shape=DETECTOR, pixel_mm=5.0),
}


@pytest.mark.parametrize("view", VIEWS)
def test_gradients_by_the_camera_and_the_affine_equal_finite_differences(view):
    camera = in_float64(VIEWS[view])
    volume, weight, step = smooth_volume(), WEIGHT, 1e-6
    plan = drr.plan(GRID.affine, camera, SHAPE, "shear_warp")

    @jax.jit
    def weighted(camera, affine):
        return (weight * drr.line_integrals(volume, affine, camera, plan)).sum()

    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        at = camera, np.float64(GRID.affine)
        gradient = jax.jit(jax.grad(weighted, argnums=(0, 1)))(*at)
        leaves, tree = jax.tree.flatten(at)
        for leaf, slope in enumerate(jax.tree.leaves(gradient)):
            along = rng.standard_normal(slope.shape)
            if slope.shape == (4, 4):
                along[:3, :3] *= 0.1
                along[3] = 0.0
            ends = []
            for sign in (1, -1):
                moved = list(leaves)
                moved[leaf] = leaves[leaf] + sign * step * along
                ends.append(weighted(*jax.tree.unflatten(tree, moved)))
            numeric = (ends[0] - ends[1]) / (2 * step)
            assert abs(numeric) > 0
            np.testing.assert_allclose((slope * along).sum(), numeric, rtol=1e-4, atol=1e-6)


def test_a_plan_serves_moved_cameras_without_compiling_again():
    plan = drr.plan(GRID.affine, CAMERA, SHAPE)
    volume = np.float32(smooth_volume())
    traces = []

    @jax.jit
    def image(camera):
        traces.append(1)
        return drr.line_integrals(volume, GRID.affine, camera, plan)

    for angle, elevation, shift in ((20, 10, 0), (28, 4, 15), (12, 17, -20)):
        camera = camera_at(angle, elevation, shape=DETECTOR, pixel_mm=7.0)
        camera = camera.moved(np.eye(3, dtype=np.float32), np.float32([shift, 0, -shift]))
        slow = drr.line_integrals(volume, GRID.affine, camera, "joseph")
        assert relative(image(camera), np.float64(slow)) < 7e-3
    assert len(traces) == 1


def test_a_camera_moved_out_of_its_plan_gives_nan_not_a_wrong_image():
    plan = drr.plan(GRID.affine, CAMERA, SHAPE)
    inside = CAMERA.replace(source=jnp.zeros(3))
    image = jax.jit(lambda c: drr.line_integrals(smooth_volume(), GRID.affine, c, plan))(inside)
    assert np.isnan(image).all()


@pytest.mark.slow
def test_eager_gradients_by_a_camera_take_the_fast_path_by_themselves():
    chosen = []

    def total(camera):
        chosen.append(drr.choose(GRID.affine, camera, SHAPE))
        return drr.line_integrals(np.float32(smooth_volume()), GRID.affine, camera).sum()

    gradient = jax.grad(total)(CAMERA)
    assert chosen == ["shear_warp"]
    assert all(np.any(x) and np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_vmap_over_cameras_with_a_plan_gives_what_each_gives():
    plan = drr.plan(GRID.affine, CAMERA, SHAPE)
    volume = np.float32(smooth_volume())
    cameras = [camera_at(a, e, shape=DETECTOR, pixel_mm=7.0) for a, e in ((20, 10), (25, 5))]

    def image(camera):
        return drr.line_integrals(volume, GRID.affine, camera, plan)

    def energy(camera):
        return (WEIGHT.astype(np.float32) * image(camera)).sum()

    together = jax.jit(jax.vmap(lambda c: (image(c), jax.grad(energy)(c))))(drr.stacked(cameras))
    alone = jax.jit(lambda c: (image(c), jax.grad(energy)(c)))
    for n, camera in enumerate(cameras):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[n], b, rtol=1e-3, atol=1e-3),  # noqa: B023
            together,
            alone(camera),
        )


@pytest.mark.parametrize("method", ["siddon", "joseph", "aligned"])
def test_parallel_rays_along_an_axis_are_sums(method):
    volume = np.random.default_rng(0).random(SHAPE)
    camera = parallel_at(0.0, shape=(SHAPE[2], SHAPE[0]), pixel_mm=(4.0, 6.0))
    image = drr.line_integrals(volume, GRID.affine, camera, method)
    np.testing.assert_allclose(image, 5.0 * volume.sum(1)[::-1, ::-1].T, rtol=2e-6)


@pytest.mark.parametrize("method", ["siddon", "joseph", "shear_warp"])
def test_parallel_views_of_an_ellipsoid_match_its_closed_form(method):
    axes, value = np.array([40.0, 30.0, 35.0]), 0.02
    grid = centred_grid((60, 72, 84), (2.0, 5 / 3, 4 / 3))
    body = ellipsoid((3.0, -4.0, 5.0), axes, value)
    camera = parallel_at(35.0, 20.0, shape=(64, 60), pixel_mm=1.7)
    d = np.float64(camera.direction) / axes
    o = (np.float64(camera.pixels()) - [3.0, -4.0, 5.0]) / axes
    a, b, c = d @ d, o @ d, (o**2).sum(-1) - 1
    expected = value * 2 * np.sqrt(np.maximum(b**2 - a * c, 0)) / a
    volume = np.asarray(rasterise(body, grid, supersample=3))
    # Voxels make 1.6e-2 of it, in any method.
    assert relative(drr.line_integrals(volume, grid.affine, camera, method), expected) < 2e-2


def test_a_far_source_projects_like_parallel_rays():
    volume = np.float32(smooth_volume())
    parallel = parallel_at(25.0, 12.0, shape=DETECTOR, pixel_mm=5.0)
    far = camera_at(
        25.0, 12.0, shape=DETECTOR, pixel_mm=5.0, source_axis_mm=1e6, source_detector_mm=1e6 + 500
    )
    images = [drr.line_integrals(volume, GRID.affine, c, "siddon") for c in (parallel, far)]
    assert relative(images[0], np.float64(images[1])) < 1e-3


def test_the_depth_of_a_parallel_detector_and_the_length_of_its_direction_do_not_matter():
    volume = np.float32(smooth_volume())
    camera = parallel_at(25.0, 12.0, shape=DETECTOR, pixel_mm=5.0)
    moved = camera.replace(
        centre=camera.centre + 70 * camera.direction, direction=3 * camera.direction
    )
    for method in ("siddon", "joseph", "shear_warp"):
        images = [drr.line_integrals(volume, GRID.affine, c, method) for c in (camera, moved)]
        assert relative(images[0], np.float64(images[1])) < 1e-5


@pytest.mark.parametrize("method", ["siddon", "joseph"])
def test_whole_lines_from_within_are_two_segments(method):
    """From a source inside, the line is the segment to the pixel and the one to its mirror image."""
    volume = np.random.default_rng(0).random(SHAPE)
    source, centre = np.array([5.0, -8.0, 3.0]), np.array([8.0, 300.0, -20.0])
    u, v = np.array([9.0, 0.0, 1.0]), np.array([0.0, 0.5, -8.0])
    ahead = Camera(source, centre, u, v, (6, 7))
    behind = Camera(source, 2 * source - centre, -u, -v, (6, 7))
    line = drr.line_integrals(volume, GRID.affine, ahead, method, extent="line")
    both = [drr.line_integrals(volume, GRID.affine, c, method) for c in (ahead, behind)]
    np.testing.assert_allclose(line, both[0] + both[1], rtol=1e-4)
    assert np.all(both[0] < 0.95 * line)


def test_whole_lines_pass_a_detector_inside_the_volume_by_the_fast_path():
    camera = CAMERA.replace(centre=jnp.zeros(3), u=CAMERA.u * 0.6, v=CAMERA.v * 0.6)
    volume = np.float32(smooth_volume())
    assert drr.choose(GRID.affine, camera, SHAPE) == "joseph"
    assert drr.choose(GRID.affine, camera, SHAPE, extent="line") == "shear_warp"
    fast = drr.line_integrals(volume, GRID.affine, camera, extent="line")
    slow = drr.line_integrals(volume, GRID.affine, camera, "joseph", extent="line")
    half = drr.line_integrals(volume, GRID.affine, camera)
    assert relative(fast, np.float64(slow)) < 7e-3
    assert half.max() < 0.8 * slow.max()


def test_the_image_jumps_little_where_the_dominant_axis_changes():
    volume = np.float32(smooth_volume())
    images = [
        drr.line_integrals(volume, GRID.affine, camera_at(angle, shape=DETECTOR, pixel_mm=7.0))
        for angle in (49.8, 50.2)
    ]
    axes = [
        drr.plan(GRID.affine, camera_at(a, shape=DETECTOR, pixel_mm=7.0), SHAPE).axis
        for a in (30.0, 70.0)
    ]
    assert axes == [1, 0]
    assert relative(images[0], np.float64(images[1])) < 1.5e-2


@pytest.mark.parametrize("method", ["shear_warp", "aligned"])
def test_second_derivatives_by_the_volume_equal_finite_differences(method):
    camera = CAMERA if method == "shear_warp" else camera_at(0.0, shape=DETECTOR, pixel_mm=7.0)
    volume, along = smooth_volume(), np.random.default_rng(5).standard_normal(SHAPE)

    def penalty(mu):
        """Of R1's kind: the squared gradient of something that is not linear in the image."""

        def score(mu):
            return (WEIGHT * jnp.sin(drr.line_integrals(mu, GRID.affine, camera, method))).sum()

        return (jax.grad(score)(mu) ** 2).sum()

    with jax.enable_x64(True):
        exact = (jax.grad(penalty)(volume) * along).sum()
        step = 1e-5
        numeric = (penalty(volume + step * along) - penalty(volume - step * along)) / (2 * step)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6)


@pytest.mark.slow
def test_second_derivatives_by_the_camera_equal_finite_differences():
    camera, volume, step = in_float64(CAMERA), smooth_volume(), 1e-6
    plan = drr.plan(GRID.affine, camera, SHAPE, "shear_warp")
    along = np.random.default_rng(1).standard_normal(3)

    def slope(source):
        def energy(source):
            image = drr.line_integrals(volume, GRID.affine, camera.replace(source=source), plan)
            return (WEIGHT * image**2).sum()

        return jax.grad(energy)(source) @ along

    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(slope))
        exact = np.asarray(both(camera.source)[1]) @ along
        ends = [float(both(camera.source + sign * step * along)[0]) for sign in (1, -1)]
    np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("taps", [(4, 3), (1, 2)], ids=["as many", "fewer"])
@pytest.mark.parametrize("axis", [0, 1])
def test_matrices_compute_what_gathers_compute_also_with_more_taps_than_planned(axis, taps):
    rng = np.random.default_rng(0)
    shape, pixels = (7, 9, 8), (11, 6)
    form = separable.Form(axis, shape, taps)
    start, step = -0.3 - rng.random(shape[axis]), 0.75 + 0.4 * rng.random(shape[axis])
    q, z = (jax.tree.map(jnp.float32, separable.comb(start, step, n)) for n in pixels)
    volume, image = jnp.float32(rng.random(shape)), jnp.float32(rng.random(pixels))

    @jax.jit
    def both(volume, image):
        return tuple(
            (
                project(volume, q.at, z.at, axis),
                backproject(image, q, z, form),
                *slopes(volume, q.at, z.at, axis),
            )
            for project, backproject, slopes in (
                (
                    separable.project_by_gathers,
                    separable.backproject_by_gathers,
                    separable.slopes_by_gathers,
                ),
                (
                    separable.project_by_matrices,
                    separable.backproject_by_matrices,
                    separable.slopes_by_matrices,
                ),
            )
        )

    for pair in zip(*both(volume, image)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    "angles",
    [pytest.param(a, marks=pytest.mark.slow) for a in ((30, 15), (65, -12), (20, 10))],
)
def test_pose_gradients_follow_the_anatomy_not_the_voxels(angles):
    """Against central differences of the closed form, smooth weights: at most 0.12 (projector.md)."""
    size = 96
    grid = centred_grid((size,) * 3, (240 / size,) * 3)
    bodies = [
        ellipsoid((0.0, 0.0, 0.0), (95.0, 75.0, 100.0), 0.02),
        ellipsoid((-35.0, 5.0, 10.0), (30.0, 45.0, 60.0), -0.014),
        ellipsoid((30.0, -20.0, -15.0), (20.0, 17.0, 40.0), 0.025),
    ]
    volume = sum(np.asarray(rasterise(body, grid, supersample=3)) for body in bodies)
    camera = camera_at(*angles, shape=(64, 64), pixel_mm=360 / 64)
    r, c = np.mgrid[:64, :64] / 63 - 0.5
    weight = np.cos(3 * r + 1) * np.cos(4 * c - 0.5)
    plan = drr.plan(grid.affine, camera, grid.shape, "shear_warp")

    def moved(pose, camera=camera):
        x, y, z = pose[:3]
        turn = jnp.array([[1.0, -z, y], [z, 1.0, -x], [-y, x, 1.0]])
        return camera.moved(turn, pose[3:])

    @jax.jit
    def of_volume(pose):
        image = drr.line_integrals(volume, grid.affine, moved(pose), plan)
        return (jnp.float32(weight) * image).sum()

    def of_bodies(pose):
        camera = in_float64(moved(pose))
        images = [np.float64(closed_form(body, camera)) for body in bodies]
        return (weight * sum(images)).sum()

    steps = np.array([0.02] * 3 + [2.0] * 3)
    numeric = np.array(
        [
            (of_bodies(np.float32(step * e)) - of_bodies(np.float32(-step * e))) / (2 * step)
            for step, e in zip(steps, np.eye(6))
        ]
    )
    exact = np.array(jax.grad(of_volume)(jnp.zeros(6)))
    scale = np.array(
        [0.01] * 3 + [1.0] * 3
    )  # a turn by 0.01 moves the body's outline by a millimetre
    assert relative(scale * exact, scale * numeric) < 0.12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": 0.0}, "sampling is 0.0"),
        ({"extent": "ray"}, "extent is 'ray'"),
        ({"method": "aligned"}, "does not fit this camera"),
        ({"method": "fast"}, "projection method is 'fast'"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as refusal:
        drr.plan(GRID.affine, CAMERA, SHAPE, **change)
    assert "\n" not in str(refusal.value)


def test_an_aligned_plan_refuses_to_be_differentiated_by_the_camera():
    camera = camera_at(0.0, shape=DETECTOR)
    plan = drr.plan(GRID.affine, camera, SHAPE, "aligned")

    def total(camera):
        return drr.line_integrals(smooth_volume(), GRID.affine, camera, plan).sum()

    with pytest.raises(InputError, match="no gradient by the camera"):
        jax.eval_shape(jax.grad(total), camera)


def test_a_plan_needs_a_camera_with_values():
    with pytest.raises(InputError, match="outside of jit"):
        jax.jit(lambda c: drr.plan(GRID.affine, c, SHAPE) and c.u)(CAMERA)


def test_parallel_cameras_are_aligned_or_warped_never_walked_slowly():
    for angle, expected in ((0.0, "aligned"), (90.0, "aligned"), (33.0, "shear_warp")):
        camera = parallel_at(angle, shape=DETECTOR)
        assert isinstance(camera, ParallelCamera)
        assert drr.choose(GRID.affine, camera, SHAPE) == expected
