"""The field's share of a whole X-ray: closed-form cases, and what left-out patients leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data import scenes, surround
from jxrecon.data.acquisition import acquisition
from jxrecon.experiment import Views
from jxrecon.runs import config
from jxrecon.types import InputError

CASES, PIXELS = 9, 30


def population(seed=0, cases=CASES, directions=4):
    """(whole, field) X-rays whose surround is a linear function of few directions."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    of_whole, of_field = fixed.normal(size=(2, directions, PIXELS))
    codes = rng.normal(size=(2 * cases, directions))
    return (5 + codes @ of_whole).astype(np.float32), (2 + codes @ of_field).astype(np.float32)


FIT, RESIDUALS = jax.jit(surround.fit), jax.jit(surround.residuals)


def test_the_regression_is_the_formula():
    whole, field = population()
    found = FIT(whole, field)
    x, f = whole - whole.mean(0), field - field.mean(0)
    products = x @ x.T
    lam = surround.LAMBDA * np.trace(products) / len(x)
    y = population(seed=5)[0][0]
    expected = (y - whole.mean(0)) @ x.T @ np.linalg.solve(
        products + lam * np.eye(len(x)), f
    ) + field.mean(0)
    np.testing.assert_allclose(found.field(y), expected, atol=2e-4)


def test_a_surround_that_is_a_linear_function_is_found():
    found = jax.jit(lambda a, b: surround.fit(a, b, 1e-4))(*population())
    whole, field = population(seed=5)
    for y, f in zip(whole, field):
        np.testing.assert_allclose(found.field(y), f, atol=0.03)


def test_residuals_are_those_of_a_fit_without_patient_and_mirror_image():
    whole, field = population()
    residuals = RESIDUALS(whole, field)
    for i in (0, 4):
        kept = [j for j in range(2 * CASES) if j % CASES != i]
        other = FIT(whole[kept], field[kept])
        for j in (i, i + CASES):
            np.testing.assert_allclose(residuals[j], other.field(whole[j]) - field[j], atol=2e-4)


def test_a_left_out_patient_has_no_influence():
    whole, field = population()
    changed = field.copy()
    changed[[2, 2 + CASES]] += 100.0
    before, after = RESIDUALS(whole, field), RESIDUALS(whole, changed)
    np.testing.assert_allclose(after[2] + 100.0, before[2], atol=1e-3)
    assert np.abs(after[3] - before[3]).max() > 0.1


def test_weights_are_larger_where_the_surround_is_known():
    whole, field = population()
    rng = np.random.default_rng(3)
    field[:, :10] += rng.normal(size=(len(field), 10)).astype(np.float32)
    found = FIT(whole, field)
    weights = np.asarray(found.relative_weights(0.05))
    assert weights[:10].max() < weights[10:].min()
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)
    assert (found.variance[:10] > 0.5).all()
    np.testing.assert_allclose(found.variance, np.mean(RESIDUALS(whole, field) ** 2, 0), rtol=1e-4)


def test_of_one_patient_the_field_is_the_mean():
    whole, field = population(cases=1)
    np.testing.assert_allclose(RESIDUALS(whole, field), field.mean(0) - field, atol=1e-4)


@pytest.mark.slow  # 17 + 76 scenes are read and projected: minutes
def test_on_openkbp_the_fields_xray_is_found_to_nine_percent(real_data, tmp_path):
    folder = real_data / "openkbp_hn"
    if not folder.is_dir():
        pytest.skip(f"no openkbp_hn in {real_data}")
    experiment = config.find("x2vision_hn", "medium")
    grid, cameras = experiment.field.grid, Views(pixels=64).cameras
    data = scenes.load(experiment, folder, tmp_path)
    train, validation = (
        acquisition(cases, grid, cameras, experiment.xrays)
        for cases in (data.train, data.validation)
    )
    found = train.surround()
    count = len(data.validation.names)
    whole, field = (
        np.asarray(surround.flat(images))[:count]
        for images in (validation.all_images(), validation.field_images())
    )
    guess = np.stack([found.field(jnp.asarray(y)) for y in whole])

    def off(a, part):
        a, b = a[:, part], field[:, part]
        return np.mean(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))

    everything, pixels = slice(None), 64 * 64
    assert off(guess, everything) < 0.09
    assert off(guess, slice(pixels)) < 0.08
    assert off(guess, slice(pixels, None)) < 0.10
    assert off(whole, everything) > 0.8
    expected = np.sqrt(np.mean(np.square(guess - field)))
    assert 0.8 < np.sqrt(np.mean(found.variance)) / expected < 1.4


def test_it_is_read_as_it_was_written(tmp_path):
    found = FIT(*population())
    surround.write_surround(tmp_path / "surround.npz", found)
    again = surround.read_surround(tmp_path / "surround.npz")
    jax.tree.map(np.testing.assert_array_equal, found, again)
    (tmp_path / "surround.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read as the surround of a run"):
        surround.read_surround(tmp_path / "surround.npz")


def test_the_share_of_images_keeps_their_shapes():
    found = FIT(*population())
    images = (np.ones((2, 5), np.float32), np.zeros((4, 5), np.float32))
    share, weights = found.share(images)
    assert [y.shape for y in share] == [y.shape for y in weights] == [(2, 5), (4, 5)]
    y = np.concatenate([np.ones(10, np.float32), np.zeros(20, np.float32)])
    np.testing.assert_allclose(surround.flat(share), found.field(y), atol=1e-5)
