"""Poses found with the latents: nothing changes where nothing is found, and a turned view is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_prior
from scipy.stats import norm

from jxrecon import drr
from jxrecon.compile import jit
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.methods.volumes.x2vision import latent, pose, prior, stages
from jxrecon.methods.volumes.x2vision.latent import Latents, LatentSettings
from jxrecon.pose import Pose

GRID = centred_grid((14, 14, 14), (14.0, 14.0, 14.0))
CAMERAS = biplanar(shape=(24, 24), pixel_mm=14.0)


def blobs():
    """A SYNTHETIC volume without symmetry, 1/mm: [1, x, y, z]."""
    at = np.stack(np.meshgrid(*(np.arange(14) - 6.5,) * 3, indexing="ij"), -1)
    rng, mu = np.random.default_rng(0), np.zeros(GRID.shape)
    for centre in rng.uniform(-4, 4, (6, 3)):
        mu += 0.01 * np.exp(-((at - centre) ** 2).sum(-1) / 3.0)
    return jnp.asarray(mu, jnp.float32)[None]


def test_views_as_told_change_nothing():
    mu = blobs()
    seen = jit(lambda mu, views: pose.project(mu, GRID, CAMERAS, views))(mu, pose.as_told(1, 2))
    for image, camera in zip(seen, CAMERAS):
        plain = np.asarray(drr.line_integrals(mu[0], GRID.affine, camera))
        off = np.linalg.norm(image[0] - plain) / np.linalg.norm(plain)
        assert off < 0.02  # a moved view is projected by another interpolation
    assert float(pose.likelihood(pose.as_told(3, 2)).sum()) == 0.0


def test_coarse_grids_show_oblique_views_as_sharply_as_straight_ones():
    small = prior.make_prior(toy_prior.SETTINGS, toy_prior.problem(16))
    straight, there = small.problem.cameras, Pose(jnp.array([0.0, 0.05, 0.1]), jnp.zeros(3))
    oblique = tuple(there.apply(camera) for camera in straight)
    images = tuple(jnp.zeros((1, *camera.shape)) for camera in straight)
    at = {n: stages.level_of(small, n, images, straight, None) for n in (1, 2)}
    assert (at[1].method, at[2].method) == ("auto", "auto")
    coarse = stages.level_of(small, 1, images, oblique, None)
    grid = coarse.prior.problem.grid
    volumes = jax.random.uniform(jax.random.key(0), (1, *grid.shape, 1))
    mu = drr.hu_to_mu(small.problem.window.to_hu(volumes[0, ..., 0]))
    expected = drr.project(mu, grid.affine, coarse.cameras, "joseph")
    traced = jit(lambda c: stages.level_of(small, 1, images, c, None).shown(volumes, None))(oblique)
    for known, unknown, sharp in zip(coarse.shown(volumes, None), traced, expected):
        np.testing.assert_allclose(known[0], sharp, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(unknown[0], sharp, rtol=1e-4, atol=1e-5)
    assert stages.level_of(small, 2, images, oblique, None).method == "auto"


def test_the_likelihood_of_views_is_scipys_density_up_to_its_constant():
    draw = np.random.default_rng(0).standard_normal
    views = pose.Views(*(draw(shape) for shape in ((3, 2, 3), (3, 2, 3), (3, 2), (3, 2))))
    densities = [norm.logpdf(part) - norm.logpdf(0) for part in views]
    expected = -sum(density.reshape(3, -1).sum(1) for density in densities)
    np.testing.assert_allclose(pose.likelihood(views), expected, rtol=1e-5)


def test_a_turned_and_brighter_view_is_found_and_the_first_one_stays():
    mu = blobs()
    turn = Pose(jnp.deg2rad(jnp.array([1.0, 0.0, 5.0])), jnp.zeros(3))
    images = tuple(
        drr.line_integrals(mu[0], GRID.affine, camera)[None]
        for camera in (CAMERAS[0], turn.apply(CAMERAS[1]))
    )
    images = images[0], 1.08 * images[1]
    statistics = latent.w_statistics(jax.random.normal(jax.random.key(0), (50, 3)))
    start = Latents(jnp.zeros((1, 1, 3)), (jnp.zeros((1, 1)),), pose.as_told(1, 2))
    others = dict.fromkeys(("lambda_p", "lambda_w", "lambda_c", "lambda_n"), 0.0)
    settings = LatentSettings(iterations=150, pose=True, lambda_2=1000.0, **others)

    def project(latents):
        return pose.project(mu, GRID, CAMERAS, latents.views)

    found = jit(lambda s: latent.invert(s, images, project, statistics, settings))(start)
    views = found.latents.views
    degrees = pose.ROTATION_DEG * np.asarray(views.rotation[0])
    np.testing.assert_allclose(degrees[1], [1.0, 0.0, 5.0], atol=0.5)
    np.testing.assert_array_equal(degrees[0], 0.0)
    assert float(jnp.exp(pose.LOG_GAIN * views.gain[0, 1])) == pytest.approx(1.08, abs=0.02)
    best = int(np.argmin(found.trace["total"][:, 0]))
    told = float(found.trace["view_2_deg"][best, 0])
    assert told == pytest.approx(np.linalg.norm(degrees[1]), rel=1e-4)
    mm = float(found.trace["view_2_mm"][best, 0])
    assert mm < 4.0
