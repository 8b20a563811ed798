"""Adjoints, pose gradients, jit and vmap of the projector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jxrecon import drr
from jxrecon.geometry import Camera, camera_at, centred_grid
from jxrecon.types import InputError

SHAPE = (13, 12, 14)
DETECTOR = (10, 11)
GRID = centred_grid(SHAPE, (2.0, 3.0, 2.5))


def random_volume(seed=0):
    return np.random.default_rng(seed).random(SHAPE).astype(np.float32)


@pytest.mark.parametrize(
    ("method", "angle", "elevation"),
    [
        ("siddon", 40, 12),
        ("joseph", -25, 20),
        ("aligned", 0, 0),
        ("aligned", 270, 0),
        ("shear_warp", -25, 20),
        ("shear_warp", 10, 85),
    ],
)
def test_projection_and_backprojection_are_adjoint(method, angle, elevation):
    camera = camera_at(angle, elevation, shape=DETECTOR, pixel_mm=5.0)
    x = random_volume() - 0.5
    y = np.random.default_rng(1).standard_normal(DETECTOR).astype(np.float32)

    @jax.jit
    def there_and_back(x, y):
        project = lambda mu: drr.line_integrals(mu, GRID.affine, camera, method)  # noqa: E731
        image, backproject = jax.vjp(project, x)
        return image, *backproject(y)

    image, volume = there_and_back(x, y)
    left, right = np.vdot(np.float64(image), y), np.vdot(x, np.float64(volume))
    assert abs(left - right) < 1e-5 * np.linalg.norm(image) * np.linalg.norm(y)
    assert np.abs(volume).max() > 0


@pytest.mark.parametrize("pixel", [0.9, 5.0, 25.0])
def test_aligned_adjoint_equals_that_of_joseph_for_fine_and_coarse_pixels(pixel):
    camera = camera_at(90.0, shape=DETECTOR, pixel_mm=pixel)
    y = np.random.default_rng(1).standard_normal(DETECTOR).astype(np.float32)

    def backprojection(method):
        weighted = lambda mu: (y * drr.line_integrals(mu, GRID.affine, camera, method)).sum()  # noqa: E731
        return jax.jit(jax.grad(weighted))(jnp.zeros(SHAPE, jnp.float32))

    fast, slow = backprojection("aligned"), backprojection("joseph")
    np.testing.assert_allclose(fast, slow, atol=1e-4 * np.abs(slow).max())


def test_a_volume_of_one_slice_projects_and_backprojects():
    camera = camera_at(0.0, shape=DETECTOR, pixel_mm=5.0)
    volume = jnp.asarray(random_volume()[:, :1])
    affine = centred_grid(volume.shape, (2.0, 3.0, 2.5)).affine

    def energy(mu, method):
        return (drr.line_integrals(mu, affine, camera, method) ** 2).sum()

    gradient = jax.jit(jax.value_and_grad(energy), static_argnames="method")
    fast, slow = (gradient(volume, method=method) for method in ("aligned", "joseph"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), fast, slow)


def cameras():
    """Narrow along each axis, and one from within the volume whose rays run along all three."""
    around = [
        camera_at(angle, elevation, shape=DETECTOR, pixel_mm=4.0)
        for angle, elevation in ((0, 0), (80, 10), (30, 80))
    ]
    turn = Rotation.from_euler("zx", [30, 30], degrees=True).as_matrix()
    vectors = ([0.1, -1.0, 0.3], [0.0, 1.0, 0.0], turn @ [2.0, 0, 0], turn @ [0, 0, 1.8])
    return [*around, Camera(*(jnp.asarray(x, jnp.float32) for x in vectors), DETECTOR)]


@pytest.mark.slow
def test_vmap_over_cameras_gives_what_each_gives():
    volume = random_volume()
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *cameras())
    images = jax.jit(jax.vmap(lambda c: drr.line_integrals(volume, GRID.affine, c)))(stacked)
    for camera, image in zip(cameras(), images):
        warped = drr.choose(GRID.affine, camera, SHAPE) != "joseph"
        alone = drr.line_integrals(
            volume, GRID.affine, camera, "shear_warp" if warped else "joseph"
        )
        np.testing.assert_allclose(image, alone, atol=2e-4 * float(alone.max()))


WEIGHT = np.random.default_rng(2).random(DETECTOR).astype(np.float32)


@pytest.fixture(scope="module")
def traced_joseph():
    """(camera) -> gradient by the camera of a weighted sum of its image, and the image; jitted."""

    def weighted_sum(camera):
        image = drr.line_integrals(random_volume(), GRID.affine, camera, "joseph")
        return (WEIGHT * image).sum(), image

    return jax.jit(jax.grad(weighted_sum, has_aux=True))


@pytest.mark.parametrize("method", ["joseph", "siddon"])
def test_traced_cameras_give_what_concrete_ones_give(traced_joseph, method):
    def traced_siddon(camera):
        return None, drr.line_integrals(random_volume(), GRID.affine, camera, "siddon")

    traced, concrete = {
        "joseph": (traced_joseph, "joseph"),
        "siddon": (jax.jit(traced_siddon), "siddon"),
    }[method]
    for camera in cameras():
        image = drr.line_integrals(random_volume(), GRID.affine, camera, concrete)
        np.testing.assert_allclose(traced(camera)[1], image, atol=2e-4 * float(image.max()))


def test_pose_gradients_equal_finite_differences(traced_joseph):
    volume, step = random_volume().astype(np.float64), 1e-5
    camera = camera_at(20.0, 10.0, shape=DETECTOR, pixel_mm=4.0)
    gradient, _ = traced_joseph(camera)

    def joseph(moved):
        return (weight * drr.line_integrals(volume, GRID.affine, moved, "joseph")).sum()

    weight = WEIGHT.astype(np.float64)
    with jax.enable_x64(True):
        for name in ("source", "centre", "u", "v"):
            place = np.float64(getattr(camera, name))
            ends = [
                [joseph(camera.replace(**{name: place + sign * e})) for e in step * np.eye(3)]
                for sign in (-1, 1)
            ]
            numeric = (np.array(ends[1]) - np.array(ends[0])) / (2 * step)
            scale = np.abs(numeric).max()
            assert scale > 0
            np.testing.assert_allclose(getattr(gradient, name), numeric, atol=1e-3 * scale)


def test_gradients_by_the_camera_are_finite_even_in_the_widest_cone(traced_joseph):
    gradient, _ = traced_joseph(cameras()[3])
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(gradient))


def test_fast_methods_refuse_traced_cameras():
    camera = cameras()[0]
    with pytest.raises(InputError, match=r"not traced by jit"):
        jax.jit(lambda c: drr.line_integrals(random_volume(), GRID.affine, c, "aligned"))(camera)


@pytest.mark.parametrize(
    ("method", "angles"),
    [("siddon", [30.0]), ("joseph", [30.0]), ("shear_warp", [30.0]), ("auto", [0.0, 90.0])],
)
def test_jit_and_vmap_over_volumes_change_nothing(method, angles):
    batch = np.stack([random_volume(seed) for seed in range(2)])
    views = [camera_at(angle, shape=DETECTOR, pixel_mm=4.0) for angle in angles]
    project = jax.vmap(lambda mu: drr.project(mu, GRID.affine, views, method))
    for camera, images in zip(views, jax.jit(project)(batch), strict=True):
        assert images.shape == (2, *DETECTOR)
        for mu, image in zip(batch, images):
            single = drr.line_integrals(mu, GRID.affine, camera, method)
            np.testing.assert_allclose(image, single, rtol=2e-5, atol=1e-4)


def test_gradients_of_a_batch_are_those_of_its_members():
    batch = jnp.stack([random_volume(seed) for seed in range(2)])
    camera = camera_at(0.0, shape=DETECTOR, pixel_mm=4.0)

    def energy(mu):
        return (drr.line_integrals(mu, GRID.affine, camera) ** 2).sum()

    single = jax.jit(jax.grad(energy))
    together = jax.jit(jax.vmap(jax.grad(energy)))(batch)
    for mu, gradient in zip(batch, together):
        alone = single(mu)
        np.testing.assert_allclose(gradient, alone, rtol=1e-4, atol=1e-4 * float(alone.max()))


def test_reconstruction_loops_run_in_one_compiled_scan():
    camera = camera_at(20.0, shape=DETECTOR, pixel_mm=4.0)
    target = drr.line_integrals(random_volume(), GRID.affine, camera)

    def error(mu):
        return ((drr.line_integrals(mu, GRID.affine, camera) - target) ** 2).mean()

    def step(mu, _):
        value, gradient = jax.value_and_grad(error)(mu)
        return mu - 0.2 * gradient, value

    start = jnp.zeros((2, *SHAPE), jnp.float32)
    descend = jax.jit(jax.vmap(lambda mu: jax.lax.scan(step, mu, length=20)[1]))
    first, *_, last = descend(start)[1]
    assert last < 0.2 * first
