"""The claim behind the latent optimiser: a volume of the prior is found again from two X-rays of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.compile import jit
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.x2vision import method, prior, training
from jxrecon.runs import config
from jxrecon.runs.batches import batch_at

SUBJECTS, STEPS, VOLUMES = 32, 200, 2


@pytest.fixture(scope="module")
def trained():
    """The small size, StyleGAN2 alone, after a short warm start on SYNTHETIC subjects."""
    experiment = config.override(
        config.find("x2vision_hn", "small"),
        [
            f"population.train={SUBJECTS}",
            "population.validation=1",
            "settings.prior.codes=table",
            "settings.prior.architecture=orig",
            "settings.latent.start=mean",
            "settings.latent.anchor=0",
        ],
    )
    volumes = experiment.load(experiment, None).train
    field = experiment.field
    problem = Problem(field.grid, experiment.views.cameras, field.window, SUBJECTS)
    model = prior.make_prior(experiment.settings.prior, problem)

    @jit
    def step(state, batch, key):
        real = problem.window.to_unit(batch.hu)[..., None]
        state, _ = training.auto_decoder_step(model, state, real, 2 * batch.index, key)
        return state

    state = jit(lambda key: prior.init(model, key))(jax.random.key(0))
    for i in range(STEPS):
        state = step(state, batch_at(volumes, i, 8, 0), jax.random.key(i))
    return model, state.generator, experiment.settings.latent


@pytest.mark.slow
def test_a_volume_of_the_small_prior_is_found_again_from_its_two_projections(trained):
    model, generator, settings = trained
    cameras, window = model.problem.cameras, model.problem.window
    settings = dataclasses.replace(settings, iterations=400, starts=1)
    z = jax.random.normal(jax.random.key(123), (VOLUMES, model.settings.w_dim))
    truth = prior.synthesise(model, generator, prior.map_styles(model, generator, z), None)
    images = prior.project(model, truth, cameras)
    found = jit(
        lambda images: method.invert_projections(
            model, settings, generator, images, cameras, jax.random.key(1)
        )
    )(images)

    def squared_error(latents):
        volumes = prior.synthesise(model, generator, latents.ws, latents.noise)
        differences = zip(prior.project(model, volumes, cameras), images)
        return sum(
            np.sum((np.asarray(a) - np.asarray(b)) ** 2, axis=(1, 2)) for a, b in differences
        )

    statistics = method.style_statistics(model, generator)
    start = method.start_latents(model, generator, statistics, jax.random.key(1), settings)
    before = squared_error(jax.tree.map(lambda a: jnp.repeat(a, VOLUMES, axis=0), start))
    fall = before / squared_error(found.latents)
    hu = method.volumes_of(model, generator, found.latents.ws, found.latents.noise)
    wanted = jnp.clip(window.to_hu(truth[..., 0]), window.low, window.high)
    mse = np.mean((np.asarray(hu) - np.asarray(wanted)) ** 2, axis=(1, 2, 3))
    psnr_db = 10 * np.log10(window.range**2 / mse)
    print(f"squared re-projection error falls {fall}-fold, PSNR {psnr_db} dB")
    assert (psnr_db > 30).all()
    assert (fall > 100).all()
