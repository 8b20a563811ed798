"""NeRP gives the numbers of its authors' code, and finds a SYNTHETIC body from few X-rays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxrecon import phantom
from jxrecon.drr import mu_to_hu
from jxrecon.drr.operator import field_of_view, operator
from jxrecon.geometry import camera_at, centred_grid
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.nerp import (
    QUICK,
    Settings,
    coordinates,
    evaluation,
    ffn,
    fourier_features,
    initial,
    nerp,
    siren,
)
from jxrecon.nn.optimise import descend
from jxrecon.types import InputError
from jxrecon.units import HU_AIR, MU_WATER_PER_MM, Window

# Compile quickly: what runs once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

KEY = jax.random.key(0)
NETWORKS = {"siren": siren, "ffn": ffn}


@pytest.fixture(scope="module")
def oracle(oracles):
    with np.load(oracles / "nerp.npz") as numbers:
        return {key: numbers[key] for key in numbers.files}


@pytest.fixture(scope="module", params=NETWORKS)
def official(request, rule, oracle):
    """(name, frequencies, layers, points, target) in float64."""
    name = request.param
    tensors = rule.weights("nerp", name)
    found = [sum(x.astype(np.float64).sum() for x in tensors.values())]
    np.testing.assert_allclose(found, oracle[f"check/{name}"][:1], rtol=1e-9)
    matrices, biases = list(tensors.values())[::2], list(tensors.values())[1::2]
    layers = tuple((w.T.astype(np.float64), b.astype(np.float64)) for w, b in zip(matrices, biases))
    frequencies = rule.normal("B", (256, 3), 0.0, 4.0).astype(np.float64)
    points, target = (
        rule.uniform(f"nerp/{x}", (512, n)) for x, n in (("coords", 3), ("target", 1))
    )
    return name, frequencies, layers, points.astype(np.float64), target.astype(np.float64)


def test_grids_of_coordinates_are_the_authors(oracle):
    for key, shape in (("grid3d_2x3x4", (2, 3, 4)), ("grid2d_3x5", (3, 5))):
        np.testing.assert_allclose(coordinates(shape), oracle[key], atol=1e-7)


def test_network_loss_gradients_and_adam_are_the_authors(official, oracle, rule):
    name, frequencies, layers, points, target = official

    def loss(layers, e):
        return 0.5 * jnp.mean(jnp.square(NETWORKS[name](layers, e) - target))

    def steps(layers, e):
        optimiser = optax.adam(1e-5)

        def step(carry, _):
            layers, state = carry
            value, slope = jax.value_and_grad(loss)(layers, e)
            layers, state = descend(optimiser, slope, state, layers)
            norms = jax.tree.map(lambda x: jnp.sqrt(jnp.sum(x * x)), slope)
            return (layers, state), (value, norms)

        return jax.lax.scan(step, (layers, optimiser.init(layers)), None, 6)[1]

    with jax.enable_x64(True):
        e = fourier_features(jnp.asarray(points), jnp.asarray(frequencies))
        layers = jax.tree.map(jnp.asarray, layers)
        out = np.asarray(jit(NETWORKS[name])(layers, e))
        losses, norms = jax.tree.map(np.asarray, jit(steps)(layers, e))
    exact = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(rule.sample(e, 4096), oracle["embedding_sample"], **exact)
    np.testing.assert_allclose(out, oracle[f"{name}/out"], **exact)
    np.testing.assert_allclose(losses[0], oracle[f"{name}/loss"], **exact)
    np.testing.assert_allclose(
        [x[0] for x in jax.tree.leaves(norms)], oracle[f"{name}/gradnorm"], **exact
    )
    np.testing.assert_allclose(losses, oracle[f"{name}/adam_losses"], **exact)


def test_networks_are_the_authors_in_float32_too(official, oracle):
    name, *rest = official
    frequencies, layers, points, _ = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), tuple(rest)
    )
    out = NETWORKS[name](layers, fourier_features(points, frequencies))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, oracle[f"{name}/out"], atol=1e-5)


# Reconstruction.

GRID = centred_grid((12, 12, 12), (16.0, 16.0, 16.0))
# All see the body, none the ends of the axis; one program projects them all.
CAMERAS = tuple(
    camera_at(a, shape=(14, 16), pixel_mm=(18.0, 22.0)) for a in (55.0, 80.0, 105.0, 130.0)
)
PROBLEM = Problem(GRID, CAMERAS, Window(), 1)
BODIES = phantom.stack(
    [
        phantom.ellipsoid((10, -8, 0), (60, 70, 75), 0.02),
        phantom.ellipsoid((30, 10, 20), (20, 25, 20), 0.015),
        phantom.ellipsoid((-15, -20, -10), (22, 22, 30), -0.015),
    ]
)
SETTINGS = Settings(
    features=32,
    scale=1.0,
    width=32,
    depth=3,
    iterations=100,
    learning_rate=1e-3,
    prior_iterations=100,
    prior_learning_rate=2e-3,
    adapted_iterations=50,
    adapted_learning_rate=1e-4,
    chunk=2000,
)


A = operator(GRID, CAMERAS)
project = jax.jit(A.project)


@pytest.fixture(scope="module")
def case():
    """(HU, X-rays by the projector itself)."""
    mu = jit(lambda: phantom.rasterise(BODIES, GRID, 2))()
    (images,) = project(mu)
    return np.asarray(mu_to_hu(mu)), tuple(np.asarray(images))


def error(hu, truth):
    return float(np.sqrt(np.mean((np.asarray(hu) - truth) ** 2)))


@pytest.fixture(scope="module")
def found(case):
    """What comes without a prior, and what progress heard of it."""
    _, images = case
    heard = []

    def hear(iteration, objective):
        heard.append((int(iteration), float(objective)))

    plain = nerp(PROBLEM, SETTINGS)
    assert plain.init(KEY) == ()
    without = jit(lambda y: plain.reconstruct((), y, CAMERAS, KEY, hear))(images)
    jax.block_until_ready(without)
    jax.effects_barrier()
    return without, sorted(heard)


def test_iterations_lower_the_reprojection_error_far_below_that_of_nothing(found):
    residual = np.asarray(found[0].trace["residual"])
    assert residual.shape == (SETTINGS.iterations,)
    assert residual.min() < 0.05 < 0.5 < residual[0]  # an empty volume has 1


def test_the_volume_is_that_of_the_lowest_objective(found, case):
    result, heard = found
    mu = (np.asarray(result.hu) / 1000 + 1) * MU_WATER_PER_MM  # SIREN goes below vacuum
    r = [np.asarray(p) - np.asarray(q) for p, q in zip(project(mu), A.stacked(case[1]))]
    objective = 0.5 * sum((x**2).sum() for x in r) / sum(x.size for x in r)
    lowest = float(np.min(result.trace["objective"]))
    assert objective == pytest.approx(lowest, rel=1e-2)
    assert heard[-1][1] >= 0.999 * lowest
    assert (np.diff([value for _, value in heard]) <= 0).all()


def test_the_body_is_found_better_than_by_air_or_its_mean(found, case):
    truth, _ = case
    # Four views within 75 degrees leave much open.
    assert error(found[0].hu, truth) < 0.7 * truth.std() < 0.7 * error(HU_AIR, truth)


def test_a_prior_is_an_argument_of_what_is_compiled(case):
    truth, images = case
    method = nerp(PROBLEM, dataclasses.replace(SETTINGS, adapted_iterations=7))
    result = jax.eval_shape(lambda p, y: method.reconstruct(p, y, CAMERAS, KEY), truth, images)
    assert result.hu.shape == GRID.shape
    assert result.trace["objective"].shape == (7,)


@pytest.mark.slow
def test_one_program_serves_all_priors_and_a_good_one_helps(found, case):
    truth, images = case
    traced = []

    @jit
    def method(prior, y):
        traced.append(prior)
        return nerp(PROBLEM, SETTINGS).reconstruct(prior, y, CAMERAS, KEY)

    informed = method(truth, images)
    misled = method(np.full_like(truth, HU_AIR), images)
    assert informed.trace["residual"].shape == (SETTINGS.adapted_iterations,)
    assert len(traced) == 1  # one program for all patients
    plain, good, bad = (r.trace["objective"][0] for r in (found[0], informed, misled))
    assert good < 0.1 * min(plain, bad)
    assert error(informed.hu, truth) < 0.7 * error(found[0].hu, truth)
    assert error(informed.hu, truth) < 0.7 * error(misled.hu, truth)


def test_unseen_voxels_are_air(found):
    seen = np.asarray(field_of_view(GRID, CAMERAS))
    assert 0.5 < seen.mean() < 1
    np.testing.assert_array_equal(np.asarray(found[0].hu)[~seen], HU_AIR)


def test_chunks_change_neither_the_volume_nor_its_gradient():
    settings = Settings(network="ffn", features=4, width=8, depth=3)
    network = initial(KEY, settings)

    def both(chunk):
        def total(layers):
            chosen = dataclasses.replace(settings, chunk=chunk)
            found = evaluation(network.frequencies, (5, 4, 3), chosen)(layers)
            return jnp.sum(jnp.square(found)), found

        return jit(jax.value_and_grad(total, has_aux=True))(network.layers)

    parts, whole = both(7), both(1000)
    for one, other in zip(*map(jax.tree.leaves, (parts, whole))):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    volume = np.asarray(whole[0][1])
    assert 0 < volume.min() < volume.max() < 1  # the sigmoid


def test_a_grid_is_evaluated_in_as_few_chunks_as_hold_it():
    settings = Settings(features=4, width=8, depth=3, chunk=7)
    network = initial(KEY, settings)
    evaluate = evaluation(network.frequencies, (5, 4, 3), settings)
    (loop,) = (e for e in jax.make_jaxpr(evaluate)(network.layers).eqns if "length" in e.params)
    assert loop.params["length"] == 9  # of 60 points


def test_a_fresh_network_has_the_papers_size_and_spread():
    network = jit(lambda key: initial(key, Settings()))(KEY)
    assert network.frequencies.shape == (256, 3)
    assert np.std(network.frequencies) == pytest.approx(4.0, rel=0.1)
    assert [w.shape for w, _ in network.layers] == [(512, 256), *[(256, 256)] * 6, (256, 1)]
    first, second = (np.abs(w).max() for w, _ in network.layers[:2])
    assert first == pytest.approx(1 / 512, rel=0.01)
    assert second == pytest.approx((6 / 256) ** 0.5 / 30, rel=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"network": "cnn"},
        {"depth": 1},
        {"iterations": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_bad_options_are_refused_in_one_line(options):
    with pytest.raises(InputError, match="expected") as refused:
        nerp(PROBLEM, Settings(**options))
    assert "\n" not in str(refused.value)


def test_counts_of_one_are_enough():
    counts = ("iterations", "prior_iterations", "adapted_iterations", "features", "width", "chunk")
    assert nerp(PROBLEM, Settings(**dict.fromkeys(counts, 1))).init(KEY) == ()


def test_a_prior_on_another_grid_is_refused(case):
    prior = np.zeros((4, 5, 6), np.float32)
    with pytest.raises(InputError, match=r"prior volume is \(4, 5, 6\), expected"):
        nerp(PROBLEM, SETTINGS).reconstruct(prior, case[1], CAMERAS, KEY)


def test_quick_is_smaller_than_the_paper_and_of_the_same_kind():
    assert nerp(PROBLEM, QUICK).init(KEY) == ()
    assert QUICK.network == Settings().network
    assert QUICK.width * QUICK.iterations < 0.01 * Settings().width * Settings().iterations
