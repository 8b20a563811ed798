"""A prior that grows and encodes: levels that change nothing at first, stages, doubt, an earlier scan."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_prior
from toy_prior import FIELD, boxes, problem

from jxrecon.compile import jit
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.x2vision import (
    codes,
    doubt,
    encoder,
    guided,
    method,
    pivotal,
    prior,
    stages,
    training,
)
from jxrecon.methods.volumes.x2vision.latent import Latents, LatentSettings
from jxrecon.methods.volumes.x2vision.networks import Synthesis, draw_noise
from jxrecon.nn.resample import upsample2
from jxrecon.runs.growth import grown, shared
from jxrecon.types import TrainingVolumes, VolumeBatch

SETTINGS = dataclasses.replace(
    toy_prior.SETTINGS,
    architecture="skip",
    codes="principal",
    xray_channels=(4, 6),
    adversarial="none",
    code_learning_rate=0.002,
)
LATENT = LatentSettings(
    iterations=2, starts=1, start="xrays", anchor=0.5, coarse_iterations=(3,), samples=4
)
PROBLEM = problem(pixels=32)
MODEL = prior.make_prior(SETTINGS, PROBLEM)
WHOLE = method.Model(MODEL, method.Settings(SETTINGS, LATENT))


def unit_of(hu):
    return FIELD.window.to_unit(hu)[None, ..., None]


def images_of(hu):
    return prior.project(MODEL, unit_of(hu)[0], PROBLEM.cameras)


def batch_of(count=4):
    hu = jnp.asarray(boxes(count))
    return VolumeBatch(hu, jnp.arange(count, dtype=jnp.int32), images_of(hu))


@pytest.fixture(scope="module")
def start():
    batch = batch_of(2)  # two of four volumes: the linear part cannot show the others
    seen = TrainingVolumes(batch.hu.astype(jnp.int16), batch.images)
    return jit(lambda key: prior.fit(MODEL, prior.init(MODEL, key), seen))(jax.random.key(0))


@pytest.fixture(scope="module")
def trained(start):
    """90 steps of the auto-encoder, whose averages are its weights, and their terms."""
    batch = batch_of()
    real = FIELD.window.to_unit(batch.hu)[..., None]

    @jit
    def learn(state):
        def step(state, key):
            state, terms = training.auto_encoder_step(MODEL, state, real, batch.images, key)
            return state.replace(step=state.step + 1), terms

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 90))

    state, terms = learn(start)
    return state.replace(ema=prior.averaged_parts(state.generator, state.encoder)), terms


def test_a_grown_generator_shows_the_old_volume_upsampled():
    old = Synthesis((2, 3, 2), (8, 6), 5, architecture="skip")
    new = Synthesis((2, 3, 2), (8, 6, 4), 5, architecture="skip", fade_in=True)

    @jit
    def both(key):
        """Old weights none of which are at their start, in both generators."""
        keys = jax.random.split(key, 4)
        w = jax.random.normal(keys[0], (2, 5))
        ws = jnp.repeat(w[:, None], new.num_ws, axis=1)
        noise = draw_noise(keys[1], new.noise_shapes, 2)
        first = old.init(keys[2], ws[:, : old.num_ws])["params"]
        leaves, tree = jax.tree.flatten(first)
        flat = jax.random.normal(keys[3], (sum(leaf.size for leaf in leaves),))
        parts = jnp.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
        params = jax.tree.unflatten(
            tree, [leaf + part.reshape(leaf.shape) for leaf, part in zip(leaves, parts)]
        )
        fresh = new.init(keys[2], ws)["params"]
        before = old.apply({"params": params}, ws[:, : old.num_ws], noise[: len(old.noise_shapes)])
        return upsample2(before), new.apply({"params": grown(fresh, params)}, ws, noise)

    before, after = both(jax.random.key(0))
    assert float(jnp.abs(before).max()) > 0.1
    np.testing.assert_array_equal(after, before)


def test_growth_keeps_what_fits_and_counts_anew():
    old = {"a": jnp.ones((2, 3)), "b": jnp.ones(4), "count": jnp.asarray(7), "gone": jnp.ones(2)}
    fresh = {
        "a": jnp.zeros((2, 3)),
        "b": jnp.zeros(5),
        "count": jnp.asarray(0),
        "new": jnp.zeros(2),
    }
    found = grown(fresh, old)
    assert found["a"].sum() == 6
    assert found["b"].shape == (5,)
    assert found["b"].sum() == found["new"].sum() == found["count"] == 0
    assert shared(fresh, old) == (6, 14)


def test_principal_codes_tell_volumes_apart_and_random_ones_are_as_varied():
    """Of mirrored volumes too; z has the stated deviations; volumes come back from rows and deviations."""
    volumes = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 6, 4)), jnp.float32)
    axes = jit(codes.principal)(volumes, codes.no_axes((4, 6, 4), (4, 6, 4), 12))
    both = jnp.concatenate([volumes, volumes[:, ::-1]])
    z = axes.code(both)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.T @ z / 10, jnp.diag(axes.deviation**2), atol=1e-4)
    assert float(jnp.sum(axes.deviation**2)) == pytest.approx(12, rel=1e-5)
    assert not axes.deviation[9:].any()  # ten volumes have nine directions
    np.testing.assert_allclose(axes.volume(z, (4, 6, 4))[..., 0], both, atol=1e-3)
    drawn = codes.random_codes({"axes": axes}, jax.random.key(0), (20_000, 12))
    np.testing.assert_allclose(np.std(drawn, axis=0), axes.deviation, rtol=0.03)


def test_a_grown_prior_keeps_its_codes_and_shows_them_on_the_finer_grid():
    """On half of it, upsampled; at a coarser level, as averages."""
    seeds = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3, 2)), jnp.float32)
    volumes = upsample2(upsample2(seeds[..., None]))[..., 0]  # [5, 8, 12, 8]
    none = codes.no_axes((4, 6, 4), (4, 6, 4), 9)
    small = codes.principal(codes.averaged(volumes, (4, 6, 4)), none)
    fresh = codes.no_axes((8, 12, 8), (4, 6, 4), 9)
    kept = {name: getattr(small, name) for name in ("mean", "rows", "spread", "deviation")}
    others = 0.5 * volumes
    axes = jit(codes.principal)(others, fresh._replace(**kept))
    np.testing.assert_array_equal(axes.rows, small.rows)
    z = axes.code(others)
    np.testing.assert_allclose(z, small.code(codes.averaged(others, (4, 6, 4))), atol=1e-5)
    mean = 0.5 * (others + others[:, ::-1]).mean(0)[None]
    fine = upsample2(codes.averaged(others - mean, (4, 6, 4))[..., None])[..., 0]
    np.testing.assert_allclose(axes.volume(z, (8, 12, 8))[..., 0], mean + fine, atol=2e-3)
    coarse = axes.volume(z, (2, 3, 2))[..., 0]
    np.testing.assert_allclose(coarse, codes.averaged(others, (2, 3, 2)), atol=0.02)


def test_averages_are_of_blocks_and_short_axes_stay():
    x = jnp.arange(16.0).reshape(1, 4, 4)
    np.testing.assert_allclose(codes.averaged(x, (2, 8))[0, 0], [2.0, 3.0, 4.0, 5.0])


def test_training_shows_volumes_by_their_codes_and_what_x_rays_say_of_them(trained):
    state, terms = trained
    for name in ("L_code", "L_guess"):
        assert float(terms[name][-1]) < 0.5 * float(terms[name][0])
    assert state.codes == state.codes_optimiser == ()


@pytest.mark.parametrize("shape", [(16, 16), (48, 40), (64, 64)])
def test_x_rays_of_any_size_suit_the_encoder(shape):
    image = jnp.broadcast_to(jnp.linspace(0.0, 6.0, shape[0])[None, :, None], (2, *shape))
    found = encoder.stacked((image, image), 32)
    assert found.shape == (2, 32, 32, 2)
    np.testing.assert_allclose(found.mean(), 0.25, atol=1e-3)


def test_codes_and_starts_that_do_not_exist_are_refused():
    table = method.Settings(dataclasses.replace(SETTINGS, codes="table"), LATENT)
    with pytest.raises(ValueError, match="start=xrays: expected mean with"):
        method.build(table, PROBLEM)
    with pytest.raises(ValueError, match="codes=both: expected table or principal"):
        prior.make_prior(dataclasses.replace(SETTINGS, codes="both"), PROBLEM)


def test_a_coarse_level_is_the_generator_with_fewer_levels(trained):
    state, _ = trained
    batch = batch_of(2)
    level = stages.level_of(MODEL, 1, batch.images, PROBLEM.cameras, None)
    assert level.prior.problem.grid.shape == (2, 3, 2)
    np.testing.assert_allclose(
        level.prior.problem.grid.corners_mm, PROBLEM.grid.corners_mm, atol=1e-3
    )
    assert level.cameras[0].shape == level.images[0].shape[1:] == (16, 16)
    small = Synthesis((2, 3, 2), (8,), 6, architecture="skip")
    w = jnp.ones((1, 1, 6))
    expected = small.apply({"params": state.ema["synthesis"]}, jnp.repeat(w, 2, axis=1), None)
    expected = expected + state.ema["axes"].volume(w[:, 0], (2, 3, 2))
    shown = prior.project(level.prior, expected, level.cameras)
    for a, b in zip(level.project(state.ema, Latents(w, ())), shown):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_doubt_has_the_precision_of_the_objective(trained):
    """That of L_w in closed form; the data only add to it; draws have its inverse as their covariance."""
    state, _ = trained
    statistics = method.style_statistics(MODEL, state.ema)
    settings = dataclasses.replace(LATENT, lambda_2=0.0)
    level = stages.level_of(MODEL, 2, batch_of(1).images, PROBLEM.cameras, None)
    found = Latents(prior.alike(MODEL, statistics.mean[None]), ())
    prior_alone = doubt.precision(level, state.ema, found, statistics, settings)
    with_data = doubt.precision(level, state.ema, found, statistics, LATENT)
    frame = np.asarray(statistics.axes * statistics.scales[None])
    likely = frame.T @ np.diag(1 / np.asarray(statistics.std) ** 2) @ frame
    np.testing.assert_allclose(prior_alone, 0.1 * 4 * likely, rtol=1e-3, atol=1e-4)
    gain = np.linalg.eigvalsh(np.asarray(with_data - prior_alone))
    assert gain.min() > -1e-3 * gain.max()
    assert gain.max() > 1
    drawn = np.asarray(doubt.offsets(with_data, statistics, jax.random.key(0), 4000))
    np.testing.assert_allclose(drawn.mean(0), 0, atol=1e-5)
    expected = frame @ np.linalg.inv(np.asarray(with_data, np.float64)) @ frame.T
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.slow
def test_pivotal_tuning_lowers_the_data_term_and_leaves_coarse_levels(trained):
    state, _ = trained
    settings = dataclasses.replace(LATENT, tuning_iterations=30, tuning_levels=1, tuning_keep=1.0)
    level = stages.level_of(MODEL, 2, batch_of(4)[2], PROBLEM.cameras, None)
    level = level._replace(images=tuple(image[3:] for image in level.images))
    latents = method.start_latents(
        MODEL, state.ema, method.style_statistics(MODEL, state.ema), jax.random.key(0), LATENT
    )
    found = jit(lambda g, x: pivotal.tuned(MODEL, settings, g, x, level))(state.ema, latents)

    def off(generator):
        shown = prior.project(
            MODEL, prior.synthesise(MODEL, generator, latents.ws, latents.noise), level.cameras
        )
        return sum(float(jnp.linalg.norm(a - b)) for a, b in zip(shown, level.images))

    assert off(found) < 0.9 * off(state.ema)
    jax.tree.map(np.testing.assert_array_equal, found["mapping"], state.ema["mapping"])
    for name in ("level0", "output0", "const"):
        jax.tree.map(
            np.testing.assert_array_equal, found["synthesis"][name], state.ema["synthesis"][name]
        )


def test_a_reconstruction_starts_where_it_is_told_and_says_its_doubt(trained):
    state, _ = trained
    case = jax.tree.map(lambda a: a[1], batch_of())
    away = jax.tree.map(lambda a: a[2], batch_of())

    @jit
    def find(state, whole, scale):
        state = state.replace(scale=scale)
        key, hints = jax.random.key(0), {"whole": whole}
        return method.reconstruct(WHOLE, state, case.images, PROBLEM.cameras, key, **hints)

    found = find(state, case.images, jnp.ones(()))
    assert found.trace["total"].shape == (5,)
    assert found.hu.shape == FIELD.shape
    assert float(found.deviation.min()) > 0
    elsewhere = find(state, away.images, jnp.asarray(3.0))
    assert float(jnp.abs(elsewhere.hu - found.hu).max()) > 1  # starts and anchors elsewhere
    wider = find(state, case.images, jnp.asarray(3.0))
    np.testing.assert_allclose(wider.deviation, 3.0 * found.deviation, rtol=1e-5)
    # What G cannot show adds to the doubt: here a tenth of a unit, of which the window has two.
    more = state.replace(residual=state.residual + 0.1**2)
    unsure = find(more, case.images, jnp.ones(()))
    added = np.sqrt(unsure.deviation**2 - found.deviation**2)
    np.testing.assert_allclose(added, 0.1 * FIELD.window.range / 2, rtol=1e-3)
    # The best w of the coarse stage begins the next one: both weigh its likelihood alike.
    best = int(found.trace["total"][:3].argmin())
    data = 2 * LATENT.lambda_2 * found.trace["L_2"] + LATENT.lambda_p * found.trace["L_p"]
    likely = found.trace["total"][best] - data[best]
    np.testing.assert_allclose(likely, LATENT.lambda_w * found.trace["L_w"][3], rtol=1e-4)


def test_what_the_generator_cannot_show_of_a_start_stays(trained):
    """Its X-rays ask for no change; those of another volume move it."""
    state, _ = trained
    batch = batch_of()
    start = batch.hu[3] + 300.0 * jnp.asarray(np.indices(FIELD.shape).sum(0) % 2, jnp.float32)

    @jit
    def find(state, hu):
        images = tuple(i[0] for i in images_of(hu[None]))
        hints = {"start": start}
        return method.reconstruct(
            WHOLE, state, images, PROBLEM.cameras, jax.random.key(0), **hints
        ).hu

    own = prior.volumes_of(
        MODEL, state.ema, prior.alike(MODEL, prior.encoded(MODEL, state, unit_of(start))), None
    )
    lacking = float(jnp.abs(own[0] - start).max())
    assert lacking > 250
    assert float(jnp.abs(find(state, start) - start).max()) < 0.3 * lacking
    assert float(jnp.abs(find(state, batch.hu[1]) - start).max()) > 30


@pytest.mark.slow
def test_deviations_are_calibrated_on_cases_kept_out(trained):
    state, _ = trained
    batch = jax.tree.map(lambda a: a[:2], batch_of())
    calibrate = jit(lambda s: method.calibrate(WHOLE, s, batch, lambda images: (images, None)))
    once = calibrate(state.replace(scale=jnp.asarray(0.2)))
    other = calibrate(state.replace(scale=jnp.asarray(5.0)))
    assert float(once.scale) == pytest.approx(float(other.scale), rel=1e-4)


@pytest.mark.slow
def test_an_earlier_scan_follows_the_patient(trained):
    """A block of bone in water, 12 mm away from where it was: a field of its own, fine enough to see that."""
    grid = centred_grid((16, 18, 16), (12.0, 12.0, 12.0))
    settings = dataclasses.replace(SETTINGS, base=(8, 9, 8))
    cameras = biplanar(shape=(32, 32), pixel_mm=12.0)
    model = prior.make_prior(settings, Problem(grid, cameras, FIELD.window, 4))
    state = jit(lambda key: prior.init(model, key))(jax.random.key(0))
    x, y, z = np.indices(grid.shape)

    def body(shift):
        water = (x - 7.5) ** 2 + (y - 8.5) ** 2 + (z - 7.5) ** 2 < 36
        bone = (x - 7.5 - shift) ** 2 + (y - 8.5) ** 2 + (z - 7.5) ** 2 < 6
        return jnp.asarray(np.where(bone, 1000.0, np.where(water, 0.0, -1000.0)), jnp.float32)

    unit = FIELD.window.to_unit(body(1.0))[None, ..., None]
    seen = stages.level_of(model, 2, prior.project(model, unit, cameras), cameras, None)
    statistics = method.style_statistics(model, state.ema)
    chosen = guided.GuidedSettings(guide=0.0, lattice_mm=40.0)
    found = jit(lambda scan: guided.follow((model, LATENT, chosen), state, scan, statistics, seen))(
        body(0.0)
    )
    before = float(jnp.mean((body(0.0) - body(1.0)) ** 2))
    assert float(jnp.mean((found.hu - body(1.0)) ** 2)) < 0.7 * before


def test_what_ships_reconstructs_alike_and_holds_nothing_of_training(trained):
    state, _ = trained
    case = jax.tree.map(lambda a: a[1], batch_of())
    find = jit(
        lambda s: method.reconstruct(WHOLE, s, case.images, PROBLEM.cameras, jax.random.key(0))
    )
    handed = method.ship(state)
    assert handed.ema["axes"].moves.steps.dtype == jnp.int8
    assert not jax.tree.leaves((handed.generator, handed.discriminator, handed.encoder))
    assert not jax.tree.leaves((handed.generator_optimiser, handed.encoder_optimiser))
    np.testing.assert_allclose(find(handed).hu, find(state).hu, atol=8.0)
    jax.tree.map(np.testing.assert_array_equal, method.ship(handed), handed)
