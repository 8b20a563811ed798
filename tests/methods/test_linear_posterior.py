"""The linear prior in coordinates: its MAP, nobody's influence and deviation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.drr import beam, project
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.methods.base import linear_posterior as lp
from jxrecon.units import MU_WATER_PER_MM

N = 7
GRID = centred_grid((6, 7, 8), (20.0, 20.0, 20.0))
CAMERAS = biplanar(shape=(9, 8), pixel_mm=30.0)


def population(seed=0, count=N):
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    mean = fixed.uniform(-200, 200, GRID.shape)
    directions = fixed.normal(size=(3, *GRID.shape))
    hu = mean + np.einsum("nk,kxyz->nxyz", rng.normal(size=(count, 3)) * [90, 60, 30], directions)
    return jnp.asarray(np.round(hu + 20 * rng.normal(size=hu.shape)), jnp.int16)


@jax.jit
def xrays(hu):
    """[pixels, 2n] of volumes and mirror images."""

    def one(volume):
        views = project(beam.hu_to_mu(volume.astype(jnp.float32)), GRID.affine, CAMERAS)
        return jnp.concatenate([view.ravel() for view in views])

    return jnp.concatenate([jax.lax.map(one, hu), jax.lax.map(lambda v: one(v[::-1]), hu)]).T


HU = population()
IMAGES = xrays(HU)
BASIS = jax.jit(lp.fit)(HU, IMAGES)
TABLE = jax.jit(lp.left_out_weights)(BASIS)
SEEN = xrays(population(seed=3, count=1))[:, 0]


def weights(basis, y, i):
    return lp.weights_of(basis, lp.without(i, N)).of(basis.coordinates(y))


def test_sigma_reconstructs_left_out_patients_best_and_the_map_is_the_closed_form():
    x = MU_WATER_PER_MM * (1 + np.concatenate([HU, HU[:, ::-1]]).astype(np.float64) / 1000)
    x, t = x.reshape(2 * N, -1), np.asarray(IMAGES, np.float64)

    def found(y, kept, sigma):
        mean, m = t[:, kept].mean(1), x[kept].mean(0)
        p, d = (t[:, kept] - mean[:, None]), x[kept] - m
        p, d = p / len(kept) ** 0.5, d / len(kept) ** 0.5
        z = np.linalg.solve(p.T @ p + sigma**2 * np.eye(len(kept)), p.T @ (y - mean))
        return m + z @ d

    def error(sigma):
        others = [[j for j in range(2 * N) if j % N != i] for i in range(N)]
        return sum(np.sum((found(t[:, i], others[i], sigma) - x[i]) ** 2) for i in range(N))

    largest = np.linalg.norm(t - t.mean(1, keepdims=True), 2) / (2 * N) ** 0.5
    sigmas = largest * np.logspace(-4, -1, lp.CANDIDATES)
    assert BASIS.sigma == pytest.approx(min(sigmas, key=error), rel=1e-3)
    w = TABLE.offset[N] + TABLE.matrix[N] @ BASIS.coordinates(SEEN)
    expected = found(np.asarray(SEEN, np.float64), range(2 * N), float(BASIS.sigma))
    expected = 1000 * (expected / MU_WATER_PER_MM - 1)
    np.testing.assert_allclose(lp.volume_of(HU, w).reshape(-1), expected, atol=0.5)
    np.testing.assert_allclose(np.sum(w), 1.0, rtol=1e-4)


def test_the_expected_xray_is_the_same_sum_of_training_xrays():
    w = weights(BASIS, SEEN, -1)
    np.testing.assert_allclose(BASIS.expected(w), IMAGES @ w, atol=1e-3)


@pytest.mark.parametrize("i", [0, 4])
def test_a_left_out_patient_and_mirror_image_have_no_influence(i):
    changed = HU.at[i].add(500)
    images = xrays(changed)
    other = lp.basis_of(images, BASIS.sigma)
    for y in (SEEN, IMAGES[:, i], IMAGES[:, i + N]):
        before, after = weights(BASIS, y, i), weights(other, y, i)
        assert before[i] == before[i + N] == 0
        np.testing.assert_allclose(before, after, atol=2e-4)
        np.testing.assert_allclose(lp.volume_of(HU, before), lp.volume_of(changed, after), atol=0.5)
    assert np.abs(weights(BASIS, SEEN, -1) - weights(other, SEEN, -1)).max() > 1e-3


def test_a_left_out_prior_is_that_of_the_others():
    kept = jnp.asarray([j for j in range(N) if j != 2])
    alone = lp.basis_of(IMAGES[:, jnp.concatenate([kept, kept + N])], BASIS.sigma)
    w = lp.weights_of(alone, jnp.ones(2 * (N - 1))).of(alone.coordinates(SEEN))
    expected = lp.volume_of(HU[kept], w)
    np.testing.assert_allclose(
        lp.volume_of(HU, TABLE.offset[2] + TABLE.matrix[2] @ BASIS.coordinates(SEEN)),
        expected,
        atol=0.2,
    )


def test_the_deviation_is_that_of_the_posterior_written_out():
    both = np.concatenate([HU, HU[:, ::-1]]).astype(np.float64)
    mu = MU_WATER_PER_MM * (1 + np.maximum(both, -1000) / 1000).reshape(2 * N, -1)
    d = (mu - mu.mean(0)).T / np.sqrt(2 * N)
    p = np.asarray(IMAGES - IMAGES.mean(1, keepdims=True), np.float64) / np.sqrt(2 * N)
    posterior = np.linalg.inv(p.T @ p / float(BASIS.sigma) ** 2 + np.eye(2 * N))
    expected = np.sqrt(np.diag(d @ posterior @ d.T)) * 1000 / MU_WATER_PER_MM
    found = jax.jit(lp.deviation)(HU, BASIS)
    np.testing.assert_allclose(np.asarray(found).ravel(), expected, rtol=2e-3)


def test_fewer_pixels_than_volumes_are_enough():
    basis = lp.fit(HU, IMAGES[::16])
    assert basis.q.shape[1] < 2 * N
    assert np.isfinite(lp.deviation(HU, basis)).all()
    assert lp.left_out_weights(basis).matrix.shape == (N + 1, 2 * N, basis.q.shape[1])
