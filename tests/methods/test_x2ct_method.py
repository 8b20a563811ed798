"""X2CT-GAN as a Method: what a step does, what X-rays it takes, and that it learns."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import compile, drr
from jxrecon.experiment import Population, Views, Xrays
from jxrecon.files import cache_folder
from jxrecon.geometry import camera_at, centred_grid, parallel_at
from jxrecon.methods.base.method import Problem
from jxrecon.methods.base.trained_views import fixed_range, on_trained_pixels
from jxrecon.methods.volumes.x2ct import method as x2ct
from jxrecon.methods.volumes.x2ct.method import Settings, build, eight_bit, make_model
from jxrecon.methods.volumes.x2ct.networks import Architecture, Generator
from jxrecon.runs import config
from jxrecon.types import InputError, VolumeBatch
from jxrecon.units import Window

SIZE = 8
GRID = centred_grid((SIZE,) * 3, (28.0, 30.0, 25.0))
WINDOW = Window(-1024.0, 2000.0)


def jit(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def problem(views=2, **changes):
    cameras = Views(pixels=SIZE, count=views).cameras
    return Problem(GRID, cameras, WINDOW, 2)._replace(**changes)


def small_model(views=1, **settings):
    """A model with the smallest networks there are: 8^3, one stage of one layer."""
    fields = {"architecture": "tiny", "learning_rate": 1e-3, "discriminator": (2, 2), **settings}
    least = Architecture(size=SIZE, views=views, stem=4, growth=2, layers=(1,), decoder=(2, 4))
    model = make_model(Settings(**fields), problem(views, grid=GRID16, cameras=cameras16(views)))
    return model._replace(problem=problem(views), generator=Generator(least))


GRID16 = centred_grid((16,) * 3, (14.0, 15.0, 12.5))  # the least that "tiny" takes


def cameras16(views):
    return Views(pixels=16, count=views).cameras


TRAINED_8 = problem(1).cameras


def xrayed(hu, grid=GRID, cameras=TRAINED_8):
    """A batch of these volumes with their fields' X-rays."""
    images = jax.vmap(lambda mu: drr.project(mu, grid.affine, cameras))(drr.hu_to_mu(hu))
    return VolumeBatch(hu, jnp.arange(len(hu)), tuple(images))


def batch(count=2, seed=0):
    hu = np.random.default_rng(seed).uniform(-1000, 1500, (count, SIZE, SIZE, SIZE))
    return xrayed(jnp.asarray(hu, jnp.float32))


def changed(before, after):
    """The largest change of a parameter."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after))
    return max((float(jnp.abs(a - b).max()) for a, b in pairs), default=0.0)


@pytest.fixture(scope="module")
def gan():
    """(model, state, batch, key, state after one step, terms)."""
    model = small_model()
    state, key = jit(lambda k: x2ct.init(model, k))(jax.random.key(0)), jax.random.key(1)
    after, terms = jit(lambda s, b, k: x2ct.train_step(model, s, b, k))(state, batch(), key)
    return model, state, batch(), key, after, terms


def test_a_step_moves_both_networks_by_the_rate_and_logs_the_papers_terms(gan):
    _, state, _, _, after, terms = gan
    assert int(after.step) == 1
    for net in ("generator", "discriminator"):
        assert changed(getattr(state, net), getattr(after, net)) == pytest.approx(1e-3, rel=0.02)
    names = {"L_LSGAN(G)", "L_re", "L_pl", "L_G", "L_LSGAN(D)", "D(real)", "D(fake)"}
    assert set(terms) == {*names, "learning_rate"}
    parts = sum(float(terms[k]) for k in ("L_LSGAN(G)", "L_re", "L_pl"))
    assert float(terms["L_G"]) == pytest.approx(parts, rel=1e-5)


def test_the_discriminator_learns_on_the_fakes_that_the_generator_was_judged_by(gan):
    """Its terms are those of the old generator and the old discriminator, with the same dropout."""
    model, state, batch, key, _, terms = gan

    @jit
    def by_hand(state):
        views = x2ct.views_of(model, batch.images)
        fake = x2ct.generate(model, state.generator, views, key)
        scores = x2ct.score(model, state.discriminator, fake, views)
        return jnp.mean(scores**2), jnp.mean((scores - 1.0) ** 2)

    as_fake, as_real = by_hand(state)
    assert float(terms["D(fake)"]) == pytest.approx(0.1 * float(as_fake), rel=1e-4)
    assert float(terms["L_LSGAN(G)"]) == pytest.approx(0.1 * float(as_real), rel=1e-4)


def test_without_an_adversary_there_is_no_discriminator():
    model = small_model(adversarial_weight=0.0, projection_weight=0.0)
    state = jax.eval_shape(lambda k: x2ct.init(model, k), jax.random.key(0))
    assert jax.tree.leaves(state.discriminator) == []
    _, terms = jax.eval_shape(
        lambda s, b: x2ct.train_step(model, s, b, jax.random.key(0)), state, batch()
    )
    assert set(terms) == {"L_re", "L_G", "learning_rate"}


def test_the_rate_rises_is_constant_and_then_falls_to_zero():
    settings = Settings(learning_rate=0.5, warmup_steps=5, constant_steps=10, decay_steps=20)
    steps = (0, 3, 4, 10, 20, 30, 40)
    rates = [float(x2ct.learning_rate(settings, jnp.asarray(s))) for s in steps]
    assert rates == pytest.approx([0.1, 0.4, 0.5, 0.5, 0.25, 0.0, 0.0])
    assert float(x2ct.learning_rate(Settings(), jnp.asarray(10**6))) == pytest.approx(2e-4)


def test_volumes_of_and_hu_of_are_each_others_inverse_inside_the_window(gan):
    model, hu = gan[0], batch(seed=3).hu
    volumes = x2ct.volumes_of(model, hu)
    assert 0 <= float(volumes.min()) <= float(volumes.max()) <= 1
    np.testing.assert_allclose(x2ct.hu_of(model, volumes), hu, atol=1e-2)
    np.testing.assert_allclose(x2ct.hu_of(model, 3 * volumes + 1), 2000.0, atol=1e-2)


def test_reconstruct_gives_what_eval_step_measures(gan):
    model, state, *_ = gan
    hu = batch(1).hu
    images = drr.project(drr.hu_to_mu(hu[0]), GRID.affine, model.problem.cameras)
    key = jax.random.key(0)
    found = jit(lambda s: x2ct.reconstruct(model, s, images, model.problem.cameras, key).hu)(state)
    terms = jit(lambda s: x2ct.eval_step(model, s, batch(1), key))(state)
    error = float(jnp.mean((found - hu[0]) ** 2))
    assert float(terms["psnr_db"]) == pytest.approx(10 * np.log10(3024.0**2 / error), rel=1e-4)


def test_an_x_ray_on_another_detector_gives_the_same_volume_under_jit(gan, ramp):
    model, state, *_ = gan
    found, expected = (
        jit(lambda s, y, c=camera: x2ct.reconstruct(model, s, [y], [c], jax.random.key(0)).hu)(
            state, ramp(camera)
        )
        for camera in (camera_at(0.0, shape=(24, 31), pixel_mm=(16.0, 12.0)), *TRAINED_8)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.0)


# X-rays.


def test_normalisations_by_hand():
    image = jnp.asarray([[0.0, 2.0], [4.0, 16.0]])
    np.testing.assert_allclose(fixed_range(image), [[0.0, 0.25], [0.5, 1.0]])
    image = jnp.asarray([[[0.0, 1.0], [1.5, 3.0]], [[0.0, 0.0], [0.0, 6.0]]])
    expected = np.array([[[0, 85], [127, 255]], [[0, 0], [0, 255]]]) / 255
    np.testing.assert_allclose(eight_bit(image), expected, atol=1e-6)


def bead(camera):
    """X-ray of two small spheres in the plane across the frontal view, by their shadows' places."""
    grid = centred_grid((32, 8, 32), (6.0, 6.0, 6.0))
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in grid.shape), indexing="ij")
    near = [(x - a) ** 2 + y**2 + (z - c) ** 2 < 9 for a, c in ((6.0, 4.0), (-4.0, -7.0))]
    return drr.line_integrals(
        jnp.asarray(near[0] + 0.5 * near[1], jnp.float32), grid.affine, camera
    )


TRAINED = Views(pixels=32, count=2).cameras


def test_xrays_of_the_trained_cameras_are_taken_as_they_are_in_any_order():
    images = [jnp.full((32, 32), 1.0), jnp.full((32, 32), 2.0)]
    found = on_trained_pixels(images[::-1], TRAINED[::-1], TRAINED, "x2ct")
    assert all(a is b for a, b in zip(found, images))


def test_an_xray_of_another_detector_and_distance_is_brought_onto_the_trained_pixels():
    geometry = {"source_axis_mm": 1100.0, "source_detector_mm": 1400.0, "pixel_mm": (4.5, 5.0)}
    other = camera_at(0.0, shape=(96, 80), **geometry)
    (found,) = on_trained_pixels([bead(other)], [other], TRAINED[:1], "x2ct")
    expected = bead(TRAINED[0])
    error = float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
    assert error < 0.15
    mirrored = other.replace(u=-other.u)  # the same X-ray read from the detector's other side
    (again,) = on_trained_pixels([bead(other)[:, ::-1]], [mirrored], TRAINED[:1], "x2ct")
    np.testing.assert_allclose(again, found, atol=1e-4)


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        ([TRAINED[0]], "view 2 is 90 degrees from the nearest"),
        ([TRAINED[0], camera_at(75.0)], "view 2 is 15 degrees from the nearest"),
        ([TRAINED[0], parallel_at(90.0)], "parallel rays"),
        ([TRAINED[0], camera_at(90.0, pixel_mm=0.5)], "X-ray 2 shows 4% of the detector"),
    ],
)
def test_views_that_the_networks_never_saw_are_refused(cameras, words):
    images = [jnp.zeros(camera.shape) for camera in cameras]
    with pytest.raises(InputError, match=words):
        on_trained_pixels(images, cameras, TRAINED, "x2ct")


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        ({"architecture": "huge"}, {}, "architecture is 'huge', expected one of paper, tiny"),
        ({"normalisation": "png"}, {}, "normalisation is 'png'"),
        ({"dtype": "int8"}, {}, "dtype is 'int8'"),
        ({}, {"grid": centred_grid((8, 8, 16), (1.0, 1.0, 1.0))}, "one size for all"),
        ({}, {"cameras": TRAINED}, "one size for all"),
        ({"architecture": "tiny"}, {}, "multiple of 8 of at least 16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, changes, words):
    with pytest.raises(InputError, match=words):
        build(Settings(**settings), problem(**changes))


# Learning.


@pytest.fixture(scope="module")
def four_cases():
    """The experiment at 32^3 and four real cases in HU, or SYNTHETIC ones where there are none."""
    repository = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("JXRECON_DATA", repository.parent / "shared" / "data"))
    folder = data / "openkbp_hn" if (data / "openkbp_hn").is_dir() else None
    experiment = config.find("x2ct_cnn_hn", "tiny")
    population, xrays = Population(train=4, validation=1), Xrays(of="field")
    experiment = dataclasses.replace(experiment, population=population, xrays=xrays)
    cache = cache_folder()
    volumes = experiment.load(experiment, folder, cache / "data" if cache else None)
    return experiment, jnp.asarray(volumes.train.hu[:4], jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("views", "count", "steps", "constant"), [(2, 2, 300, 200), (1, 2, 500, 333)]
)
def test_tiny_overfits_four_cases_to_30_db(four_cases, views, count, steps, constant):
    """Without dropout and adversary, whole-volume PSNR with the window as range."""
    experiment, hu = four_cases
    settings = dataclasses.replace(
        experiment.settings,
        dropout=0.0,
        learning_rate=1e-3,
        warmup_steps=60,
        constant_steps=constant,
        decay_steps=steps - constant,
    )
    cameras = dataclasses.replace(experiment.views, count=views).cameras
    field = experiment.field
    method = build(settings, Problem(field.grid, cameras, field.window, 4))
    state = compile.jit(method.init)(jax.random.key(0))
    train = compile.jit(method.train_step, donate_argnums=0)
    order, key = np.random.default_rng(0), jax.random.key(0)
    cases = xrayed(hu, field.grid, cameras)
    for _ in range(steps):
        index = jnp.asarray(order.choice(4, count, replace=False))
        state, _ = train(state, jax.tree.map(lambda x, index=index: x[index], cases), key)
    terms = compile.jit(method.eval_step)(state, cases, key)
    print(f"{views} views: {float(terms['psnr_db']):.2f} dB after {steps} steps")
    assert float(terms["psnr_db"]) > 30.0
