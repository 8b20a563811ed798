"""2DCNN: channels are depth in the right order, training learns, other cameras are told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import drr
from jxrecon.geometry import camera_at, centred_grid
from jxrecon.methods.base.frontal_regression import to_paper, to_world
from jxrecon.methods.base.method import Problem
from jxrecon.methods.base.trained_views import on_trained_pixels
from jxrecon.methods.volumes.cnn2d import Network, Settings, build
from jxrecon.nn.blocks import init_variables
from jxrecon.types import InputError, VolumeBatch
from jxrecon.units import Window

GRID = centred_grid((6, 7, 8), (30.0, 30.0, 24.0))
FRONTAL, LATERAL = (camera_at(angle, shape=(16, 16), pixel_mm=20.0) for angle in (0.0, 90.0))
PROBLEM = Problem(GRID, (FRONTAL,), Window(), 2)


def batch(seed=0, count=2):
    hu = np.random.default_rng(seed).uniform(-1000, 1000, (count, *GRID.shape))
    hu = jnp.asarray(hu, jnp.float32)
    return VolumeBatch(hu, jnp.arange(count), (frontal(hu),))


def frontal(hu):
    """The line integrals of volumes that the frontal camera sees."""
    return jax.vmap(lambda mu: drr.line_integrals(mu, GRID.affine, FRONTAL))(drr.hu_to_mu(hu))


def jit(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def method():
    return build(Settings(width=4, blocks=1, learning_rate=1e-2), PROBLEM)


@pytest.fixture(scope="module")
def trained(method):
    """(state after 40 steps on two volumes, the losses)."""
    state, losses = jit(method.init)(jax.random.key(0)), []
    step = jit(method.train_step)
    for _ in range(40):
        state, terms = step(state, batch(), jax.random.key(1))
        losses.append(float(terms["L_mse"]))
    return state, losses


@pytest.fixture(scope="module")
def frontal_hu(method):
    """(state, line integrals of the frontal camera) -> HU."""
    run = jit(lambda state, y: method.reconstruct(state, [y], (FRONTAL,), jax.random.key(0)).hu)
    return lambda state, y: np.asarray(run(state, y))


@pytest.fixture(scope="module")
def image():
    """Line integrals of the first volume."""
    return batch().images[0][0]


def test_training_on_two_volumes_lowers_the_squared_error(trained):
    _, losses = trained
    assert losses[-1] < 0.5 * losses[0]


def test_the_reported_psnr_is_that_of_the_reconstruction(method, trained, frontal_hu, image):
    state, _ = trained
    terms = jit(method.eval_step)(state, batch(count=1), jax.random.key(0))
    error = (frontal_hu(state, image) - np.asarray(batch().hu[0])) / PROBLEM.window.range
    assert float(terms["psnr_db"]) == pytest.approx(-10 * np.log10(np.mean(error**2)), abs=0.01)


def test_the_frontal_x_ray_is_found_among_others_and_others_are_refused(
    method, trained, frontal_hu, image
):
    state, _ = trained
    both = jit(
        lambda s, a, b: method.reconstruct(s, [a, b], (LATERAL, FRONTAL), jax.random.key(0)).hu
    )(state, 0.0 * image, image)
    np.testing.assert_allclose(frontal_hu(state, image), both, rtol=0, atol=0.1)
    with pytest.raises(InputError, match="cnn2d's view 1 is 90 degrees from the nearest X-ray"):
        method.reconstruct(state, [image], (LATERAL,), jax.random.key(0))


def test_an_x_ray_of_other_pixels_is_put_on_the_trained_ones():
    ramp, fine = (jnp.broadcast_to(jnp.linspace(0.0, 4.0, n)[:, None], (n, n)) for n in (16, 61))
    camera = camera_at(0.0, shape=(61, 61), pixel_mm=5.0)
    seen = on_trained_pixels([fine], [camera], [FRONTAL], "cnn2d")[0]
    np.testing.assert_allclose(seen, ramp, rtol=0, atol=1e-4)
    small = camera_at(0.0, shape=(16, 16), pixel_mm=5.0)
    with pytest.raises(InputError, match="X-ray 1 shows 6% of the detector"):
        on_trained_pixels([ramp], [small], [FRONTAL], "cnn2d")


def test_an_x_ray_on_another_detector_gives_the_same_volume_under_jit(
    method, trained, frontal_hu, ramp
):
    state, _ = trained
    other = camera_at(0.0, shape=(61, 80), pixel_mm=(5.0, 4.0))
    found = jit(lambda s, y: method.reconstruct(s, [y], (other,), jax.random.key(0)).hu)(
        state, ramp(other)
    )
    np.testing.assert_allclose(found, frontal_hu(state, ramp(FRONTAL)), rtol=0, atol=1.0)


def test_rows_are_z_columns_x_and_depth_y_as_the_frontal_x_ray_has_them():
    hu = np.full((1, *GRID.shape), -1000.0, np.float32)
    hu[0, 1, 5, 6] = 3000.0
    view = np.asarray(to_paper(jnp.asarray(hu)))
    assert np.argwhere(view[0] > 0).tolist() == [[1, 4, 1]]
    np.testing.assert_array_equal(to_world(jnp.asarray(view)), hu)
    image = np.asarray(frontal(jnp.asarray(hu))[0])
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (row < 8, column > 8) == (True, True)  # high z is up; low x, of columns 4 of 6, right


def test_the_papers_size_maps_256_pixels_to_128_cubed():
    network = Network((128, 128, 128), Settings())
    image = jax.ShapeDtypeStruct((1, 256, 256), jnp.float32)
    variables = jax.eval_shape(
        lambda x: init_variables(network, jax.random.key(0), x, train=False), image
    )
    out = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, image)
    assert out.shape == (1, 128, 128, 128)


def test_x_rays_of_odd_sizes_are_refused():
    problem = PROBLEM._replace(cameras=(camera_at(0.0, shape=(18, 16)),))
    with pytest.raises(InputError, match=r"\(18, 16\) pixels, expected multiples of 4"):
        build(Settings(), problem)
