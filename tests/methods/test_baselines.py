"""The three baselines on a toy population that varies in three directions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.drr import beam, line_integrals
from jxrecon.geometry import biplanar, camera_at, centred_grid
from jxrecon.methods.base import linear_posterior
from jxrecon.methods.base.linear_posterior import gram
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.methods.volumes.mean_volume import mean_volume
from jxrecon.methods.volumes.nearest import nearest
from jxrecon.types import InputError, TrainingVolumes
from jxrecon.units import Window

CASES = 8  # unlike any axis of the grid
PROBLEM = Problem(
    grid=centred_grid((7, 9, 10), (20.0, 20.0, 20.0)),
    cameras=biplanar(shape=(12, 12), pixel_mm=30.0),
    window=Window(),
    cases=CASES,
)
KEY = jax.random.key(0)
METHODS = {
    "mean": mean_volume(PROBLEM),
    "nearest": nearest(PROBLEM),
    "linear": linear_prior(PROBLEM),
}
FITS = {name: jax.jit(method.fit) for name, method in METHODS.items()}
RUNS = {
    name: jax.jit(lambda s, y, m=method: m.reconstruct(s, y, PROBLEM.cameras, KEY).hu)
    for name, method in METHODS.items()
}


def population(count, seed, noise=0.0):
    """Volumes in HU on three fixed directions, the same for every seed; whole numbers as in files."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    mean = fixed.uniform(-200, 200, PROBLEM.grid.shape)
    directions = fixed.normal(size=(3, *PROBLEM.grid.shape))
    codes = rng.normal(size=(count, 3)) * [60, 40, 20]
    hu = mean + np.einsum("nk,kxyz->nxyz", codes, directions)
    return np.round(hu + noise * rng.normal(size=hu.shape)).astype(np.float32)


@jax.jit
def xrays(hu):
    mu = beam.hu_to_mu(hu)
    return tuple(line_integrals(mu, PROBLEM.grid.affine, camera) for camera in PROBLEM.cameras)


def everything(hu):
    """All that a fit is given: whole HU, X-rays of the volumes and of their mirror images."""
    whole = jnp.asarray(hu, jnp.int16)
    taken = [xrays(jnp.asarray(v)) for v in (*hu, *np.asarray(hu)[:, ::-1])]
    return TrainingVolumes(whole, tuple(jnp.stack(view) for view in zip(*taken)))


def fitted(name, hu):
    return FITS[name](METHODS[name].init(KEY), everything(hu))


def reconstruction(name, state, images):
    return np.asarray(RUNS[name](state, images))


@pytest.fixture(scope="module")
def train():
    return population(CASES, seed=0)


@pytest.fixture(scope="module")
def fits(train):
    return {name: fitted(name, train) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_init_has_the_shapes_and_types_of_a_fitted_state(name, fits):
    state = fits[name]
    empty = METHODS[name].init(KEY)
    described = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (empty, state)]
    assert described[0] == described[1]


def test_mean_volume_is_the_mean_whatever_the_xrays_show(train, fits):
    state = fits["mean"]
    found = reconstruction("mean", state, xrays(jnp.asarray(train[0])))
    np.testing.assert_allclose(found, train.mean(axis=0), atol=1e-3)


def test_nearest_finds_each_training_volume_by_its_xrays(train, fits):
    state = fits["nearest"]
    for volume in train[:3]:
        np.testing.assert_array_equal(
            reconstruction("nearest", state, xrays(jnp.asarray(volume))), volume
        )


def test_nearest_picks_the_one_of_least_projection_distance(train, fits):
    state = fits["nearest"]
    case = jnp.asarray(population(1, seed=5)[0])
    distances = [
        sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(xrays(jnp.asarray(v)), xrays(case)))
        for v in train
    ]
    found = reconstruction("nearest", state, xrays(case))
    np.testing.assert_array_equal(found, train[np.argmin(distances)])


def test_linear_prior_recovers_a_volume_in_the_span_of_its_training_set(train, fits):
    state = fits["linear"]
    case = population(1, seed=5)[0]
    found = reconstruction("linear", state, xrays(jnp.asarray(case)))
    deviation = np.abs(case - train.mean(axis=0)).mean()
    assert deviation > 40  # what the mean is wrong by
    assert np.abs(found - case).mean() < 1.0  # stored HU are whole numbers


def test_linear_prior_beats_mean_and_nearest_where_the_population_is_noisy_too():
    train, cases = population(CASES, 0, noise=30.0), population(3, 5, noise=30.0)
    errors = {}
    for name in METHODS:
        state = fitted(name, train)
        found = [reconstruction(name, state, xrays(jnp.asarray(case))) for case in cases]
        errors[name] = np.mean((np.stack(found) - cases) ** 2)
    assert errors["linear"] < 0.8 * min(errors["mean"], errors["nearest"])


def test_linear_prior_is_the_map_of_explicit_pca_in_double_precision():
    train, case = population(CASES, 0, noise=30.0), population(1, 5, noise=30.0)[0]
    state = fitted("linear", train)
    sigma = float(state.basis.sigma)

    both = np.concatenate([train, train[:, ::-1]]).astype(np.float64)
    mu = 0.0192 * (1 + both / 1000)
    m = mu.mean(axis=0)
    _, s, v = np.linalg.svd((mu - m).reshape(2 * CASES, -1), full_matrices=False)
    s, v = s[:-1] / np.sqrt(2 * CASES), v[:-1].reshape(-1, *PROBLEM.grid.shape)

    @jax.jit
    def images_of(volumes):
        views = [
            jax.lax.map(lambda x, c=camera: line_integrals(x, PROBLEM.grid.affine, c), volumes)
            for camera in PROBLEM.cameras
        ]
        return jnp.concatenate([y.reshape(len(volumes), -1) for y in views], axis=1)

    *v_images, m_image = np.asarray(images_of(jnp.asarray([*v, m], jnp.float32)), np.float64)
    v_images = np.stack(v_images)
    y = np.concatenate([np.ravel(image) for image in xrays(jnp.asarray(case))])
    residual = y - m_image
    precision = v_images @ v_images.T / sigma**2 + np.diag(1 / s**2)
    c = np.linalg.solve(precision, v_images @ residual / sigma**2)
    expected = 1000 * ((m + np.einsum("k,kxyz->xyz", c, v)) / 0.0192 - 1)
    found = reconstruction("linear", state, xrays(jnp.asarray(case)))
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_a_left_out_patient_is_reconstructed_by_the_others_alone(train):
    few = train[:4]
    images = everything(few).images
    columns = jnp.concatenate([view.reshape(8, -1) for view in images], axis=1).T
    sigma, left = 0.3, 1
    basis = linear_posterior.basis_of(columns, sigma)
    weights = linear_posterior.weights_of(basis, linear_posterior.without(left, 4))
    found = linear_posterior.volume_of(jnp.asarray(few, jnp.int16), weights.of(basis.r[:, left]))

    x = 0.0192 * (1 + np.concatenate([few, few[:, ::-1]]).reshape(8, -1) / 1000)
    others = [j for j in range(8) if j % 4 != left]
    t = np.asarray(columns, np.float64)
    p = (t[:, others] - t[:, others].mean(axis=1, keepdims=True)) / np.sqrt(6)
    d = (x[others] - x[others].mean(axis=0)) / np.sqrt(6)
    residual = t[:, left] - t[:, others].mean(axis=1)
    z = np.linalg.solve(p.T @ p + sigma**2 * np.eye(6), p.T @ residual)
    slow = 1000 * ((x[others].mean(axis=0) + z @ d) / 0.0192 - 1)
    np.testing.assert_allclose(found.reshape(-1), slow, atol=0.5)


def test_the_gram_matrix_is_that_of_centred_attenuation(train):
    few = train[:4]
    k = np.asarray(jax.jit(gram)(jnp.asarray(few, jnp.int16)))
    x = 0.0192 * (1 + np.concatenate([few, few[:, ::-1]]).reshape(8, -1) / 1000)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(k, centred @ centred.T, rtol=1e-3, atol=1e-4 * k.max())


def test_deviations_of_the_linear_prior_cover_patients_it_does_not_know():
    state = fitted("linear", population(CASES, 0, noise=30.0))
    cases = population(6, 5, noise=30.0)
    ratios = []
    for case in cases:
        run = METHODS["linear"].reconstruct(state, xrays(jnp.asarray(case)), PROBLEM.cameras, KEY)
        ratios.append(np.abs(run.hu - case) / run.deviation)
    assert 0.55 < np.mean(np.stack(ratios) <= 1) < 0.8
    assert 0.88 < np.mean(np.stack(ratios) <= 2) < 0.99


def test_the_order_of_training_patients_matters_neither_to_the_map_nor_to_its_deviation():
    train, case = population(CASES, 0, noise=30.0), population(1, 5, noise=30.0)[0]
    one, other = (fitted("linear", hu) for hu in (train, np.roll(train, 1, axis=0)))
    np.testing.assert_allclose(other.deviation, one.deviation, rtol=1e-3)
    images = xrays(jnp.asarray(case))
    found = [reconstruction("linear", state, images) for state in (one, other)]
    np.testing.assert_allclose(*found, atol=0.5)


def test_samples_of_the_linear_prior_have_the_mean_and_spread_of_the_population(train, fits):
    state = fits["linear"]
    drawn = np.asarray(jax.jit(METHODS["linear"].sample, static_argnums=2)(state, KEY, 64))
    both = np.concatenate([train, train[:, ::-1]])
    assert drawn.shape == (64, *PROBLEM.grid.shape)
    assert np.abs(drawn.mean(axis=0) - both.mean(axis=0)).mean() < 0.3 * both.std(axis=0).mean()
    assert drawn.std(axis=0).mean() == pytest.approx(both.std(axis=0).mean(), rel=0.2)


@pytest.mark.parametrize("name", ["nearest", "linear"])
def test_xrays_from_elsewhere_are_refused(name, fits):
    other = (PROBLEM.cameras[0], camera_at(30.0, shape=(12, 12), pixel_mm=30.0))
    images = xrays(jnp.zeros(PROBLEM.grid.shape))
    with pytest.raises(InputError, match="view 2 is 60 degrees from the nearest X-ray"):
        METHODS[name].reconstruct(fits[name], images, other, KEY)


@pytest.mark.parametrize("name", ["nearest", "linear"])
def test_another_detector_gives_much_the_same_under_jit(name, train, fits):
    """Finer pixels over the same plane: what is resampled from them differs by interpolation alone."""
    finer = biplanar(shape=(36, 36), pixel_mm=10.0)
    case = jnp.asarray(train[2])

    @partial(jax.jit, static_argnums=2)
    def run(state, hu, cameras):
        mu = beam.hu_to_mu(hu)
        images = [line_integrals(mu, PROBLEM.grid.affine, camera) for camera in cameras]
        return METHODS[name].reconstruct(state, images, cameras, KEY).hu

    away = np.abs(train[2] - train.mean(axis=0)).mean()
    assert np.abs(run(fits[name], case, _Hashed(finer)) - case).mean() < 0.5 * away


class _Hashed(tuple):
    """Cameras as a static argument."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def test_two_training_volumes_are_enough_for_the_linear_prior(train):
    state = fitted("linear", train[:2])
    found = reconstruction("linear", state, xrays(jnp.asarray(train[0])))
    assert np.abs(found - train[0]).mean() < np.abs(train[:2].mean(axis=0) - train[0]).mean()
