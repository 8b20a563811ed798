"""Codes that vary from place to place: what they are worth in closed form, and in an inversion."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_prior

from jxrecon.compile import jit
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.x2vision import codes, local, method, prior
from jxrecon.methods.volumes.x2vision.latent import LatentSettings
from jxrecon.types import InputError, TrainingVolumes

GRID = centred_grid((8, 12, 8), (25.0, 20.0, 25.0))
CAMERAS = biplanar(shape=(24, 24), pixel_mm=20.0)
SETTINGS = dataclasses.replace(
    toy_prior.SETTINGS,
    base=(4, 6, 4),
    architecture="skip",
    codes="principal",
    xray_channels=(4, 6),
    adversarial="none",
)
MODEL = prior.make_prior(SETTINGS, Problem(GRID, CAMERAS, toy_prior.FIELD.window, 6))


def patients(count=6):
    """Smooth bodies of water with waves of a few hundred HU in them."""
    rng = np.random.default_rng(0)
    places = np.stack(np.indices(GRID.shape), -1) / np.array(GRID.shape)
    waves = rng.normal(size=(count, 3)) * 2
    hu = [300 * np.sin(2 * np.pi * (places @ w + rng.uniform())) for w in waves]
    return np.stack(hu).astype(np.float32)


@pytest.fixture(scope="module")
def state():
    """The linear part of a prior alone: its network is 0."""
    hu = jnp.asarray(patients())
    images = prior.project(MODEL, toy_prior.FIELD.window.to_unit(hu)[..., None], CAMERAS)
    seen = TrainingVolumes(hu.astype(jnp.int16), images)
    return jit(lambda key: prior.fit(MODEL, prior.init(MODEL, key), seen))(jax.random.key(0))


def test_a_code_varies_by_one_deviation_everywhere():
    phi = local.bumps(50, 7)
    np.testing.assert_allclose(np.sum(np.square(phi), 1), 1, rtol=1e-6)
    assert local.cells(GRID, 45.0) == (4, 5, 4)
    assert local.cells(GRID, 1e4) == (1, 1, 1)


def test_codes_of_near_places_are_alike_as_told():
    """rho of the file's head, away from the edges: L is the edge of a cell."""
    phi = np.asarray(local.bumps(400, 10))  # 40 voxels a cell
    rho = phi[200] @ phi.T
    away = (np.arange(400) - 200) / 40
    np.testing.assert_allclose(rho[100:300], np.exp(-(away**2) / 2)[100:300], atol=0.05)


def test_a_field_of_codes_is_a_sum_over_cells():
    u = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 2, 4, 3)), jnp.float32)
    phi = [local.bumps(n, m) for n, m in zip((5, 6, 7), (2, 4, 3))]
    expected = np.einsum("bdijk,xi,yj,zk->bdxyz", u, *phi)
    np.testing.assert_allclose(local.spread_out(u, (5, 6, 7)), expected, atol=1e-5)


def test_one_cell_is_one_code_for_the_volume(state):
    axes = state.ema["axes"]
    z = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6)), jnp.float32)
    u = jnp.asarray(np.random.default_rng(3).normal(size=(2, 6)), jnp.float32)
    volume = jit(codes.Axes.volume, static_argnums=2)
    for shape in (GRID.shape, (4, 6, 4)):
        alike = volume(axes, z + u * axes.deviation[None], shape)
        np.testing.assert_allclose(
            volume(axes, z, shape, u[..., None, None, None]), alike, rtol=1e-4, atol=1e-5
        )


def test_a_patient_like_one_here_and_like_another_there_is_found(state):
    hu = patients()
    half = (np.arange(GRID.shape[2]) < GRID.shape[2] // 2)[None, None]
    mixed = jnp.asarray(np.where(half, hu[0], hu[1]))[None]
    images = prior.project(MODEL, toy_prior.FIELD.window.to_unit(mixed)[..., None], CAMERAS)
    settings = LatentSettings(iterations=60, starts=1, lambda_u=0.1)

    def error(length_mm):
        latent = dataclasses.replace(settings, local_mm=length_mm)

        def find(images):
            key = jax.random.key(0)
            found = method.invert_projections(MODEL, latent, state.ema, images, CAMERAS, key)
            latents = found.latents
            volumes = prior.volumes_of(MODEL, state.ema, latents.ws, latents.noise, latents.local)
            return volumes, found.trace

        volumes, trace = jit(find)(images)
        assert ("L_u" in trace) == (length_mm > 0)
        return float(jnp.sqrt(jnp.mean(jnp.square(volumes - mixed))))

    assert error(60.0) < 0.7 * error(0.0)


def test_codes_of_a_table_do_not_vary():
    table = dataclasses.replace(SETTINGS, codes="table")
    for prior_settings, length in ((table, 45.0), (SETTINGS, -1.0)):
        settings = method.Settings(prior_settings, LatentSettings(local_mm=length))
        with pytest.raises(InputError, match=r"local_mm=.*: expected 0 with .*codes=table"):
            method.build(settings, MODEL.problem)
