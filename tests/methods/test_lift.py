"""Lift on a toy population: it learns, knows nothing of whom it must not, and says how far off it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jxrecon.compile import jit
from jxrecon.drr import beam, project
from jxrecon.geometry import biplanar, camera_at, centred_grid
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.lift import inputs, losses, method, networks
from jxrecon.methods.volumes.lift.compact import compact
from jxrecon.methods.volumes.lift.method import Settings
from jxrecon.types import InputError, TrainingVolumes, VolumeBatch
from jxrecon.units import Window

N, SHAPE, PIXELS = 6, (16, 16, 16), 12
KEY = jax.random.key(0)
GRID = centred_grid(SHAPE, (12.0, 12.0, 12.0))
SETTINGS = Settings(widths=(6, 8), warmup_steps=1, steps=40, learning_rate=3e-3, calibration=1)
CAMERAS = biplanar(shape=(PIXELS, PIXELS), pixel_mm=26.0)


def problem(views=2, shape=SHAPE):
    grid = GRID if shape == SHAPE else centred_grid(shape, (12.0, 12.0, 12.0))
    return Problem(grid, CAMERAS[:views], Window(), N)


def population(count=N, seed=0):
    """Balls of water and bone whose sizes and places vary, in air."""
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*(np.arange(n) - 7.5 for n in SHAPE), indexing="ij"))
    volumes = []
    for _ in range(count):
        hu = np.full(SHAPE, -1000.0)
        for value, size in ((0.0, 6.0), (700.0, 2.5), (300.0, 2.0)):
            middle = rng.normal(0, 1.5, 3)
            away = (index - middle[:, None, None, None]) ** 2
            hu[away.sum(0) < (size * rng.uniform(0.8, 1.2)) ** 2] = value
        volumes.append(hu)
    return np.stack(volumes).astype(np.float32)


@jax.jit
def xrays(hu):
    """[n, 2, pixels, pixels] of volumes."""
    return jax.lax.map(lambda v: jnp.stack(project(beam.hu_to_mu(v), GRID.affine, CAMERAS)), hu)


HU = population()
IMAGES = np.asarray(xrays(jnp.concatenate([HU, HU[:, ::-1]])))


def batch(index, views=2):
    index = np.asarray(index, np.int32)
    hu = np.concatenate([HU, HU[:, ::-1]])[index]
    images = tuple(jnp.asarray(IMAGES[index, v]) for v in range(views))
    return VolumeBatch(jnp.asarray(hu), jnp.asarray(index), images)


@functools.cache
def started(views=2):
    """(model, state with its prior)."""
    model = method.make_model(SETTINGS, problem(views))
    state = jit(functools.partial(method.init, model))(KEY)
    return model, jit(method.fit)(state, everything(HU, IMAGES, views))


def everything(hu, images, views=2):
    """All that a fit is given."""
    whole = jnp.asarray(np.round(hu), jnp.int16)
    return TrainingVolumes(whole, tuple(jnp.asarray(images[:, v]) for v in range(views)))


@functools.cache
def trained(views=2):
    """(model, state after 40 steps on the same three cases, its terms)."""
    model, state = started(views)
    step, cases = jit(functools.partial(method.train_step, model)), batch([0, 3, 4 + N], views)
    trace = []
    for n in range(SETTINGS.steps):
        state, terms = step(state, cases, jax.random.key(n))
        trace.append({name: float(value) for name, value in terms.items()})
    return model, state, trace


@functools.cache
def runs(views=2):
    """`posterior` compiled: (state, images, index)."""
    return jit(functools.partial(method.posterior, started(views)[0]))


@functools.cache
def judge():
    """`eval_step` compiled: (state, cases, key)."""
    return jit(functools.partial(method.eval_step, started()[0]))


@pytest.mark.parametrize("views", [1, 2])
def test_training_lowers_the_loss_from_one_view_and_from_two(views):
    _, state, trace = trained(views)
    assert trace[-1]["L"] < 0.75 * trace[0]["L"]
    assert state.step == SETTINGS.steps
    assert trace[0]["learning_rate"] > 10 * trace[-1]["learning_rate"]


def test_before_training_lift_is_the_linear_prior():
    _, state = started()
    case = batch([2])
    images = tuple(y[0] for y in case.images)
    for index, left_out in ((2, 2), (-1, -1), (2 + N, 2)):
        found = runs()(state, images, index)
        prior = inputs.explain(state.prior, images, jnp.asarray(left_out)).hu
        np.testing.assert_allclose(found.hu, np.clip(prior, -1024, 2000), atol=0.1)


def test_a_left_out_case_has_no_influence_on_what_is_made_of_its_xrays():
    _, state, _ = trained()
    changed = HU.copy()
    changed[2] = population(1, seed=99)[0]
    images = np.asarray(xrays(jnp.concatenate([changed, changed[:, ::-1]])))
    other = method.fit(state, everything(changed, images))
    # the same sigma: it is chosen on all patients
    basis = other.prior.basis._replace(sigma=state.prior.basis.sigma)
    table = inputs.linear_posterior.left_out_weights(basis)
    other = other.replace(prior=other.prior._replace(basis=basis, weights=table))
    for index in (2, 2 + N):
        seen = tuple(jnp.asarray(y) for y in IMAGES[index])
        before, after = (runs()(s, seen, index).hu for s in (state, other))
        np.testing.assert_allclose(before, after, atol=2.0)
    known = [runs()(s, seen, -1).hu for s in (state, other)]
    assert np.abs(known[0] - known[1]).max() > 50.0


def test_a_mirror_image_is_explained_by_its_own_xrays():
    _, state = started()
    own, other = (
        inputs.explain(state.prior, tuple(jnp.asarray(y) for y in IMAGES[i]), jnp.asarray(2)).hu
        for i in (2, 2 + N)
    )
    assert np.abs(other - own[::-1]).max() > 20.0  # cones from the left are none from the right
    truth = HU[2]
    assert np.mean((other[::-1] - truth) ** 2) < np.mean((own[::-1] - truth) ** 2)


def test_features_see_a_point_where_the_cameras_see_it():
    image = jnp.arange(PIXELS * PIXELS, dtype=jnp.float32).reshape(PIXELS, PIXELS)
    coarse = inputs.half(GRID)
    places = np.asarray(inputs.back_projected(image[..., None], CAMERAS[0], coarse)).mean(-1)
    point = coarse.affine[:3, :3] @ np.array([3, 4, 5]) + coarse.affine[:3, 3]
    row, column = np.asarray(CAMERAS[0].place_of(jnp.asarray(point, jnp.float32)))
    assert places[3, 4, 5] == pytest.approx(row * PIXELS + column, abs=0.02)


def test_features_are_bilinear_samples_a_quarter_shadow_about_every_ray():
    """In any order; a shadow is as large as the cone makes it; past the edge an X-ray goes on as it ended."""
    coarse = inputs.half(GRID)
    camera = camera_at(20.0, 10.0, shape=(7, 5), pixel_mm=(35.0, 50.0))
    image = np.random.default_rng(0).normal(size=camera.shape).astype(np.float32)
    found = inputs.back_projected(jnp.asarray(image[..., None]), camera, coarse)
    index = np.indices(coarse.shape).reshape(3, -1).T
    points = index @ coarse.affine[:3, :3].T + coarse.affine[:3, 3]
    voxel = coarse.spacing_mm[0] * np.stack([a / np.linalg.norm(a) for a in (camera.v, camera.u)])
    at = np.asarray(camera.place_of(np.float32([*points, np.zeros(3), *voxel])), np.float64)
    row, column = at[: len(points)].T
    assert row.min() < -0.5
    assert row.max() > 6.5
    middle, below, beside = at[len(points) :]
    down, right = (below - middle)[0] / 4, (beside - middle)[1] / 4
    places = [(row + a * down, column + b * right) for a in (-1, 1) for b in (-1, 1)]
    expected = [map_coordinates(image, place, order=1, mode="nearest") for place in places]
    np.testing.assert_allclose(
        np.sort(found.reshape(-1, 4)), np.sort(np.transpose(expected)), atol=2e-4
    )


def test_a_network_of_identities_adds_its_levels_interpolated_between_centres_of_voxels():
    """Kernels copy their input, where silu changes nothing: what comes out is known."""
    net = networks.UNet((1, 1), start_log_size=0.0)
    x = np.random.default_rng(0).uniform(50, 60, (1, 4, 6, 8, 1)).astype(np.float32)
    params = jax.tree.map(jnp.zeros_like, networks.init_params(net, KEY, x.shape))
    for name in ("down_0", "down_1", "up_0"):
        params[name]["skip"]["kernel"] += 1
    params["join_0"]["kernel"] += 1
    params["last"]["kernel"] = params["last"]["kernel"].at[1, 1, 1].set(1)
    coarse = x[0, ..., 0].reshape(2, 2, 3, 2, 4, 2).mean((1, 3, 5))
    for axis, n in enumerate(coarse.shape):
        places = np.arange(n) + 0.5, (np.arange(2 * n) + 0.5) / 2
        coarse = np.apply_along_axis(
            lambda line, old, new: np.interp(new, old, line), axis, coarse, *places
        )
    expected = np.kron(x[0, ..., 0] + coarse, np.ones((2, 2, 2)))
    for found in net.apply({"params": params}, jnp.asarray(x)):
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_features_keep_every_voxel_of_the_prior():
    model, state = started()
    hu, features = method.see(
        model, state.prior, tuple(y[0] for y in batch([1]).images), jnp.asarray(1)
    )
    assert features.shape == (8, 8, 8, 8 + 2 * 8 + 3)
    unit = (model.problem.window.to_unit(hu) + 1) / 2
    back = networks.depth_to_space(features[None, ..., :8], 2)[0, ..., 0]
    np.testing.assert_allclose(back, unit, atol=1e-6)


def test_the_methods_parts_fit_together():
    _, state, _ = trained()
    built = method.build(SETTINGS, problem())
    terms = judge()(state, batch([0, 3]), KEY)
    assert set(terms) == {
        "psnr_db", "psnr_half_db", "mae_hu_tissue", "within_one", "within_two", "psnr_prior_db"
    }  # fmt: skip
    for case in (0, 3):  # learnt from, each without itself in the prior
        seen = tuple(jnp.asarray(y) for y in IMAGES[case])
        prior = inputs.explain(state.prior, seen, jnp.asarray(case)).hu
        found = runs()(state, seen, case).hu
        assert np.mean((found - HU[case]) ** 2) < 0.8 * np.mean((prior - HU[case]) ** 2)
    images = tuple(y[0] for y in batch([0]).images)
    found, expected = built.reconstruct(state, images, CAMERAS, KEY), runs()(state, images, -1)
    np.testing.assert_allclose(found.hu, expected.hu, atol=0.01)
    np.testing.assert_allclose(found.deviation, expected.deviation, rtol=1e-3)
    assert built.own_views
    assert not built.field_model
    assert built.kept_out == SETTINGS.calibration


def test_other_views_than_the_trained_ones_are_an_error():
    _, state, _ = trained()
    built = method.build(SETTINGS, problem())
    images = tuple(y[0] for y in batch([0]).images)
    with pytest.raises(InputError, match="lift's view 2"):
        built.reconstruct(state, images[:1], CAMERAS[:1], KEY)


def test_a_grid_that_cannot_be_halved_is_an_error():
    with pytest.raises(InputError, match="expected multiples of 4: its network has 2 levels"):
        method.build(SETTINGS, problem(shape=(16, 18, 16)))


def test_deviations_are_calibrated_on_cases_nobody_learned_from():
    model, state, _ = trained()
    fresh = population(4, seed=5)
    y = xrays(jnp.asarray(fresh))
    cases = VolumeBatch(jnp.asarray(fresh), jnp.full(4, -1, jnp.int32), (y[:, 0], y[:, 1]))
    state = jit(functools.partial(method.calibrate, model))(state, cases)
    more = population(6, seed=6)
    y = xrays(jnp.asarray(more))
    cases = VolumeBatch(jnp.asarray(more), jnp.full(6, -1, jnp.int32), (y[:, 0], y[:, 1]))
    terms = judge()(state, cases, KEY)
    assert 0.60 < terms["within_one"] < 0.85
    assert 0.88 < terms["within_two"] < 0.99


def test_the_size_of_the_error_teaches_the_mean_nothing():
    found, truth = jnp.full((1, 2, 2, 2), 0.3), jnp.zeros((1, 2, 2, 2))
    size = jnp.full((1, 2, 2, 2), -2.0)

    def total(found, nll):
        return losses.objective(found, size, truth, losses.Weights(1.0, 20.0, nll))[0]

    np.testing.assert_array_equal(jax.grad(total)(found, 0.0), jax.grad(total)(found, 5.0))
    sizes = jnp.linspace(-3.0, 0.0, 31)
    nll = jax.vmap(
        lambda s: losses.objective(found, s + 0 * size, truth, losses.Weights())[1]["NLL"]
    )(sizes)
    assert sizes[jnp.argmin(nll)] == pytest.approx(np.log(0.3), abs=0.06)


def test_what_ships_explains_x_rays_as_the_prior_does_but_holds_no_training_volume():
    _, state = started()
    shipped = jit(method.ship)(state)
    known = {leaf.shape for leaf in jax.tree.leaves(shipped.prior)}
    assert HU.shape not in known
    rank = min(state.prior.basis.r.shape)
    images = tuple(jnp.asarray(IMAGES[1, v]) for v in range(2))
    whole = inputs.explain(state.prior, images, jnp.asarray(-1))
    found = inputs.explain(shipped.prior, images, jnp.asarray(-1))
    assert shipped.prior.components.unit.shape == (rank,)
    for a, b in zip(whole.images, found.images):
        np.testing.assert_allclose(a, b, atol=0.03 * float(jnp.max(a)))
    prior = shipped.prior
    t = prior.reading.against(jnp.concatenate([y.ravel() for y in images]) - prior.seen)
    again = np.asarray(prior.mean + prior.components.of(t))
    coarse = 1000 * np.asarray(beam.hu_to_mu(whole.hu)).reshape(8, 2, 8, 2, 8, 2).mean((1, 3, 5))
    assert np.sqrt(np.mean((coarse - np.maximum(again, 0.0)) ** 2)) < 0.05 * np.std(coarse)


def test_fewer_components_explain_less():
    _, state = started()
    hu, basis, _ = state.prior
    weights = state.prior.without(N)
    images = jnp.concatenate([jnp.asarray(IMAGES[1, v]).ravel() for v in range(2)])
    whole = state.prior.explain(images, jnp.asarray(-1))[1]
    errors = [
        float(
            jnp.linalg.norm(
                compact(hu, basis, weights, rank).explain(images, jnp.asarray(0))[1] - whole
            )
        )
        for rank in (1, 3, 11)
    ]
    assert errors[0] > errors[1] > errors[2]
