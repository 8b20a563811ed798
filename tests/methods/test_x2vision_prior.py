"""The prior's training step on a toy field: what each phase moves, what it leaves, and that it learns."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_prior import FIELD, SETTINGS, boxes, problem

from jxrecon.methods.volumes.x2vision import losses, prior, training
from jxrecon.methods.volumes.x2vision.latent import LatentSettings
from jxrecon.methods.volumes.x2vision.method import (
    Settings,
    best_start,
    build,
    invert_projections,
    style_statistics,
    volumes_of,
)
from jxrecon.nn.optimise import descend
from jxrecon.types import VolumeBatch

PROBLEM = problem(pixels=16)
MODEL = prior.make_prior(SETTINGS, PROBLEM)


def _batch(count=4):
    return VolumeBatch(jnp.asarray(boxes(count)), jnp.arange(count, dtype=jnp.int32))


@pytest.fixture(scope="module")
def start():
    return jax.jit(lambda key: prior.init(MODEL, key))(jax.random.key(0))


@pytest.fixture(scope="module")
def step():
    return jax.jit(lambda state, batch, key: training.train_step(MODEL, state, batch, key))


@pytest.fixture(scope="module")
def trained(start, step):
    """States after each of the first four steps: two of the warm start, two of the game."""
    states, terms = [start], [{}]
    for i in range(4):
        state, found = step(states[-1], _batch(), jax.random.fold_in(jax.random.key(1), i))
        states.append(state)
        terms.append(found)
    return states, terms


def _moved(old, new):
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new)))


def test_levels_must_end_at_the_grid():
    with pytest.raises(ValueError, match="levels end at"):
        prior.make_prior(dataclasses.replace(SETTINGS, channels=(8, 6, 4)), PROBLEM)


def test_the_warm_start_moves_generator_and_codes_and_leaves_the_discriminator(trained):
    states, terms = trained
    assert _moved(states[0].generator, states[1].generator)
    assert _moved(states[0].codes, states[1].codes)
    assert not _moved(states[0].discriminator, states[2].discriminator)
    assert float(terms[1]["loss_D"]) == 0.0


def test_the_game_begins_after_the_warm_start(trained):
    states, terms = trained
    assert _moved(states[2].discriminator, states[3].discriminator)
    assert float(terms[3]["loss_D"]) > 0.0
    assert float(terms[2]["R1"]) == 0.0
    assert int(states[4].step) == 4


def test_the_step_of_the_warm_up_is_the_whole_one_without_the_game(start, trained):
    steps, warm = build(Settings(SETTINGS), PROBLEM).warm_up
    assert steps == SETTINGS.warm_start_steps
    state, terms = jax.jit(warm)(start, _batch(), jax.random.fold_in(jax.random.key(1), 0))
    states, whole = trained
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(states[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert terms.keys() == whole[1].keys()
    alone = dataclasses.replace(SETTINGS, adversarial="none")
    assert build(Settings(alone), PROBLEM).warm_up is None


def test_the_log_keeps_the_last_r1_between_its_lazy_steps(start, step):
    at_a_lazy_step = start.replace(step=jnp.asarray(SETTINGS.r1_every, jnp.int32))
    state, terms = step(at_a_lazy_step, _batch(), jax.random.key(0))
    assert float(terms["R1"]) > 0.0
    _, later = step(state, _batch(), jax.random.key(1))
    assert float(later["R1"]) == float(terms["R1"])


def test_every_term_is_finite(trained):
    for terms in trained[1]:
        assert all(np.isfinite(value) for value in terms.values())


def test_a_step_is_a_function_of_state_batch_and_key(start, step):
    one, terms = step(start, _batch(), jax.random.key(5))
    other, again = step(start, _batch(), jax.random.key(5))
    assert not _moved(one, other)
    assert terms == again


def test_a_volume_and_its_mirror_image_have_codes_of_their_own(start, step):
    def moved(index, key):
        codes = step(start, _batch()._replace(index=index), key)[0].codes
        return np.flatnonzero(np.any(codes != start.codes, axis=1))

    flipped = set()
    for n in range(3):  # 12 coins
        own = moved(_batch().index, jax.random.key(n))
        np.testing.assert_array_equal(own // 2, np.arange(4))
        flipped |= set(own % 2)
        already_mirrored = _batch().index + PROBLEM.cases
        np.testing.assert_array_equal(moved(already_mirrored, jax.random.key(n)), own ^ 1)
    assert flipped == {0, 1}


def test_the_average_follows_the_generator(trained):
    states, _ = trained
    before, after = states[3], states[4]
    images = 4.0 * 4
    beta = 0.5 ** (4 / min(SETTINGS.ema_kimg * 1000, SETTINGS.ema_rampup * images))
    for new, old, found in zip(*map(jax.tree.leaves, (after.generator, before.ema, after.ema))):
        expected = np.asarray(new) + beta * (np.asarray(old) - np.asarray(new))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_auto_decoder_learns_its_volumes(start):
    real = FIELD.window.to_unit(_batch().hu)[..., None]
    step = jax.jit(
        lambda state, key: training.auto_decoder_step(MODEL, state, real, 2 * _batch().index, key)
    )
    state, first = step(start, jax.random.key(0))
    for i in range(150):
        state, last = step(state, jax.random.key(i))
    assert float(last["L_code"]) < 0.3 * float(first["L_code"])
    assert float(last["L_projection"]) < 0.6 * float(first["L_projection"])
    untouched = state.codes[1::2]  # those of the mirror images, which were not shown
    np.testing.assert_array_equal(untouched, start.codes[1::2])


def test_style_mixing_changes_the_fine_layers_only(start):
    always = MODEL._replace(settings=dataclasses.replace(SETTINGS, style_mixing=1.0))
    never = MODEL._replace(settings=dataclasses.replace(SETTINGS, style_mixing=0.0))
    key = jax.random.key(3)
    mixed = np.asarray(prior.random_styles(always, start.generator, key, 16))
    plain = np.asarray(prior.random_styles(never, start.generator, key, 16))
    assert (plain == plain[:, :1]).all()
    np.testing.assert_array_equal(mixed[:, 0], plain[:, 0])
    assert not np.array_equal(mixed[:, -1], plain[:, -1])


def test_lazy_adam_scales_rate_and_memory_with_its_interval():
    gradient, params = {"a": jnp.asarray([2.0])}, {"a": jnp.asarray([1.0])}
    adam = prior.lazy_adam(0.1, 3)
    moved, _ = descend(adam, gradient, adam.init(params), params)
    np.testing.assert_allclose(moved["a"], [1 - 0.075], rtol=1e-5)  # first Adam step: rate x 3/4


@pytest.mark.parametrize("name", ["non_saturating", "least_squares"])
def test_both_games_reward_each_side_for_its_own_aim(name):
    game = losses.ADVERSARIAL[name]
    low, high = jnp.full((2, 1), -1.0), jnp.full((2, 1), 1.0)
    assert game.generator(high) < game.generator(low)
    assert game.discriminator(high, low) < game.discriminator(low, high)


def test_least_squares_losses_by_hand():
    game = losses.ADVERSARIAL["least_squares"]
    real, fake = jnp.asarray([[0.5], [1.0]]), jnp.asarray([[0.0], [2.0]])
    assert float(game.generator(fake)) == pytest.approx(0.5 * (1 + 1) / 2)
    assert float(game.discriminator(real, fake)) == pytest.approx(0.5 * 0.125 + 0.5 * 2.0)


def test_r1_of_a_quadratic_is_known():
    volumes = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 2, 2, 1)), jnp.float32)
    penalty = losses.r1_penalty(lambda x: jnp.sum(x**2, axis=(1, 2, 3)), volumes)
    expected = (4 * np.asarray(volumes) ** 2).reshape(3, -1).sum(1)
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


def test_path_lengths_of_a_linear_synthesis_are_known():
    matrix = jnp.asarray(np.random.default_rng(1).standard_normal((3, 8)), jnp.float32)

    def synthesise(ws):
        return (ws[:, 0] @ matrix).reshape(-1, 2, 2, 2, 1)

    key = jax.random.key(0)
    ws = jnp.ones((2, 1, 3))
    noise = np.asarray(jax.random.normal(key, (2, 2, 2, 2, 1))) / np.sqrt(8)
    expected = np.linalg.norm(noise.reshape(2, 8) @ np.asarray(matrix).T, axis=1)
    np.testing.assert_allclose(losses.path_lengths(synthesise, ws, key), expected, rtol=1e-5)


def test_a_step_draws_path_lengths_to_their_running_mean_and_the_mean_to_them(start):
    settings = dataclasses.replace(SETTINGS, path_length_weight=2.0)
    model = MODEL._replace(settings=settings, generator_adam=optax.sgd(1e-3))
    none = model.generator_adam.init(start.generator)

    @jax.jit
    def step(generator, mean):
        state, key = start.replace(path_length=mean), jax.random.key(1)
        generator, _, found = training.path_length_step(model, state, generator, none, key, 4)
        return generator, (found - mean) / settings.path_length_decay  # of the lengths from it

    for mean in (0.0, 1.0):  # the first below the lengths, the second above
        moved, before = step(start.generator, jnp.asarray(mean))
        _, after = step(moved, jnp.asarray(mean))
        assert 0 < float(after / before) < 1
        assert (float(before) > 0) == (mean == 0)


def test_the_setting_that_finds_poses_gives_every_start_views_of_its_own(start):
    """`--set settings.latent.pose=true`."""
    settings = Settings(SETTINGS, LatentSettings(iterations=3, starts=2, pose=True))
    run = partial(
        build(settings, PROBLEM).reconstruct, cameras=PROBLEM.cameras, key=jax.random.key(0)
    )
    images = tuple(jax.ShapeDtypeStruct(camera.shape, jnp.float32) for camera in PROBLEM.cameras)
    trace = jax.eval_shape(lambda images: run(start, images).trace, images)
    assert {"L_v", "view_2_deg", "view_2_mm"} <= trace.keys()
    assert {term.shape for term in trace.values()} == {(3,)}  # of the best start


def test_samples_are_volumes_in_the_window(start):
    volumes = prior.sample(MODEL, start, jax.random.key(0), 3)
    assert volumes.shape == (3, *FIELD.shape)
    assert float(volumes.min()) >= FIELD.window.low
    assert float(volumes.max()) <= FIELD.window.high


@pytest.mark.slow
def test_inverting_its_own_projections_lowers_their_error(start):
    """The generator's random weights serve: what is tested is the inversion, not the prior."""
    settings = LatentSettings(iterations=200, learning_rate=0.05, starts=2)
    statistics = style_statistics(MODEL, start.ema)
    z = jax.random.normal(jax.random.key(9), (1, SETTINGS.w_dim))
    ws = prior.map_styles(MODEL, start.ema, z)
    assert statistics.mean.shape == statistics.std.shape == (SETTINGS.w_dim,)
    truth = prior.synthesise(MODEL, start.ema, ws, None)
    images = prior.project(MODEL, truth, PROBLEM.cameras)
    found = jax.jit(
        lambda images: invert_projections(
            MODEL, settings, start.ema, images, PROBLEM.cameras, jax.random.key(2)
        )
    )(images)
    latents, place = best_start(found, settings.starts)
    assert 0 <= int(place[0]) < 2
    assert float(found.objective[place[0]]) == float(found.objective.min())
    trace = found.trace["L_2"][:, place[0]]
    assert float(trace.min()) < 0.05 * float(found.trace["L_2"][0].max())
    assert volumes_of(MODEL, start.ema, latents.ws, latents.noise).shape == (1, *FIELD.shape)


@pytest.mark.slow
def test_the_method_reconstructs_and_reports_quality(start):
    settings = Settings(SETTINGS, LatentSettings(iterations=5, starts=2), eval_iterations=1)
    method = build(settings, PROBLEM)
    images = tuple(jnp.ones(camera.shape) for camera in PROBLEM.cameras)
    found = method.reconstruct(start, images, PROBLEM.cameras, jax.random.key(0))
    assert found.hu.shape == FIELD.shape
    assert set(found.trace) == {"total", "L_2", "L_p", "L_w", "L_c", "L_n"}
    assert found.trace["total"].shape == (5,)
    terms = method.eval_step(start, _batch(2), jax.random.key(0))
    assert set(terms) == {"psnr_db", "projection_error", "sign_D_held_out"}
    assert all(np.isfinite(value) for value in terms.values())
