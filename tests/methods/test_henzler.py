"""Single-image tomography: it learns, skips carry the X-ray, any grid's shape comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import drr
from jxrecon.geometry import camera_at, centred_grid
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.henzler import Network, Settings, build
from jxrecon.nn.blocks import init_variables
from jxrecon.types import InputError, VolumeBatch
from jxrecon.units import Window

GRID = centred_grid((6, 7, 8), (30.0, 30.0, 24.0))
FRONTAL = camera_at(0.0, shape=(8, 8), pixel_mm=40.0)
PROBLEM = Problem(GRID, (FRONTAL,), Window(), 2)


def jit(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def trained():
    """(method, state after 40 steps on two volumes, the losses, their batch)."""
    method = build(Settings(channels=(4, 8), learning_rate=1e-2), PROBLEM)
    hu = np.random.default_rng(0).uniform(-1000, 1000, (2, *GRID.shape))
    hu = jnp.asarray(hu, jnp.float32)
    images = jax.vmap(lambda mu: drr.line_integrals(mu, GRID.affine, FRONTAL))(drr.hu_to_mu(hu))
    batch = VolumeBatch(hu, jnp.arange(2), (images,))
    state, losses, step = jit(method.init)(jax.random.key(0)), [], jit(method.train_step)
    for _ in range(40):
        state, terms = step(state, batch, jax.random.key(1))
        losses.append(float(terms["L_2"]))
    return method, state, losses, batch


def test_training_on_two_volumes_lowers_the_squared_error(trained):
    _, state, losses, _ = trained
    assert losses[-1] < 0.8 * losses[0]
    means = [leaf for leaf in jax.tree.leaves(state.statistics) if np.abs(leaf).max() > 0]
    assert means  # the running statistics have moved


def test_a_volume_of_the_grid_in_hu_comes_out_of_one_x_ray(trained):
    method, state, _, _ = trained
    image = jnp.full((8, 8), 2.0)
    hu = jit(lambda s, y: method.reconstruct(s, [y], (FRONTAL,), jax.random.key(0)).hu)(
        state, image
    )
    assert hu.shape == GRID.shape
    assert -1024.0 <= float(hu.min()) < float(hu.max()) <= 2000.0
    with pytest.raises(InputError, match="henzler's view 1 is 90 degrees from the nearest"):
        method.reconstruct(state, [image], (camera_at(90.0, shape=(8, 8)),), jax.random.key(0))


def test_an_x_ray_on_another_detector_gives_the_same_volume_under_jit(trained, ramp):
    method, state, _, _ = trained
    found, expected = (
        jit(lambda s, y, c=camera: method.reconstruct(s, [y], (c,), jax.random.key(0)).hu)(
            state, ramp(camera)
        )
        for camera in (camera_at(0.0, shape=(41, 32), pixel_mm=(8.0, 10.0)), FRONTAL)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.0)


def test_the_papers_size_maps_128_pixels_to_128_cubed():
    network = Network((128, 128, 128), Settings())
    image = jax.ShapeDtypeStruct((1, 128, 128), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: init_variables(network, key, x, train=False), image)
    out = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, image)
    assert out.shape == (1, 128, 128, 128)
    assert {"skip_0", "skip_1", "skip_2", "skip_3"} <= set(variables["params"])


def test_x_rays_that_cannot_be_halved_often_enough_are_refused():
    with pytest.raises(InputError, match=r"\(8, 8\) pixels, .*a multiple of 16 for its 5 levels"):
        build(Settings(), PROBLEM)
    oblong = PROBLEM._replace(cameras=(camera_at(0.0, shape=(16, 32)),))
    with pytest.raises(InputError, match=r"\(16, 32\) pixels, expected as many rows as columns"):
        build(Settings(), oblong)
