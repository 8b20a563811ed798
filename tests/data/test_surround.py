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

CASES, SHAPE, REACH = 6, (5, 6), (0.3, 0.4)


def population(seed=0, cases=CASES, directions=4):
    """(whole, field) X-rays of one view whose surround is a linear function of few directions."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    of_whole, of_field = fixed.normal(size=(2, directions, *SHAPE))
    codes = rng.normal(size=(2 * cases, directions))
    whole, field = (np.tensordot(codes, of, 1) for of in (of_whole, of_field))
    return (5 + whole).astype(np.float32), (2 + field).astype(np.float32)


@jax.jit
def fitted(whole, field):
    return surround.fit((whole,), (field,), (REACH,)).views[0]


@jax.jit
def left(whole, field):
    return surround.residuals(whole, field, jnp.array(REACH))


def closeness():
    """rho of all pixels of `SHAPE`, written out."""
    rows, columns = np.indices(SHAPE)
    far = [
        (place[:, None] - place[None]) / n / reach
        for place, n, reach in zip((rows.ravel(), columns.ravel()), SHAPE, REACH)
    ]
    return np.exp(-(far[0] ** 2 + far[1] ** 2) / 2)


def test_the_regression_is_the_formula():
    whole, field = population()
    x, f = (a.reshape(len(a), -1).astype(np.float64) for a in (whole, field))
    y = population(seed=5)[0][0]
    apart, x, f, middle = y.ravel() - x.mean(0), x - x.mean(0), f - f.mean(0), f.mean(0)
    k, rho, count = x.T @ x / len(x), closeness(), x.shape[1]
    inverse = np.linalg.inv(rho * k + surround.LAMBDA * np.trace(k) / count * np.eye(count))
    expected = middle + apart @ inverse @ (rho * (x.T @ f / len(x)))
    np.testing.assert_allclose(fitted(whole, field).share(y).ravel(), expected, atol=2e-5)


def test_a_pixel_is_found_from_what_the_xray_shows_near_it():
    """Pixels differ for themselves and the field's are half of theirs: no weighting of cases says so."""
    whole = np.random.default_rng(2).normal(size=(40, 8, 8)).astype(np.float32)
    near = surround.fit((whole,), (0.5 * whole,), ((0.05, 0.05),)).views[0]
    wide = surround.fit((whole,), (0.5 * whole,), ((1e3, 1e3),)).views[0]
    y = np.random.default_rng(3).normal(size=(8, 8)).astype(np.float32)
    off = [
        np.linalg.norm(view.share(y) - 0.5 * y) / np.linalg.norm(0.5 * y) for view in (near, wide)
    ]
    assert off[0] < 0.15 < 0.4 < off[1]
    far = y.copy()
    far[7, 7] += 100.0
    np.testing.assert_array_equal(near.share(far)[:4, :4], near.share(y)[:4, :4])


def test_residuals_are_those_of_a_fit_without_patient_and_mirror_image():
    whole, field = population()
    residuals = left(whole, field)
    for i in (0, 4):
        kept = [j for j in range(2 * CASES) if j % CASES != i]
        other = fitted(whole[kept], field[kept])
        for j in (i, i + CASES):
            np.testing.assert_allclose(residuals[j], other.share(whole[j]) - field[j], atol=1e-4)


def test_a_left_out_patient_has_no_influence():
    whole, field = population()
    changed = field.copy()
    changed[[2, 2 + CASES]] += 100.0
    before, after = left(whole, field), left(whole, changed)
    np.testing.assert_allclose(after[2] + 100.0, before[2], atol=1e-3)
    assert np.abs(after[3] - before[3]).max() > 0.1


def test_of_more_patients_than_groups_each_is_left_out_once():
    cases = surround.FOLDS + 3
    whole, field = population(cases=cases)
    out = [j for j in range(2 * cases) if j % cases % surround.FOLDS == 1]
    kept = np.setdiff1d(np.arange(2 * cases), out)
    other, residuals = fitted(whole[kept], field[kept]), left(whole, field)
    assert len(out) == 4
    for j in out:
        np.testing.assert_allclose(residuals[j], other.share(whole[j]) - field[j], atol=1e-4)


def test_weights_are_larger_where_the_surround_is_known():
    whole, field = population()
    rng = np.random.default_rng(3)
    field[:, :2] += 3 * rng.normal(size=field[:, :2].shape).astype(np.float32)
    found = surround.Surround((fitted(whole, field),))
    (weights,) = found.relative_weights(0.05)
    assert weights[:2].mean() < 0.5 * weights[2:].mean()
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(
        found.views[0].variance, np.mean(left(whole, field) ** 2, 0), rtol=1e-4
    )


def test_weights_are_of_mean_1_over_all_views():
    known, unknown = (np.full((2, 2), v, np.float32) for v in (0.0, 3.0))
    one = fitted(*population())
    both = surround.Surround((one._replace(variance=known), one._replace(variance=unknown)))
    more, less = both.relative_weights(1.0)
    np.testing.assert_allclose([more.mean(), less.mean()], [1.6, 0.4], rtol=1e-6)


def test_of_one_patient_the_field_is_the_mean():
    whole, field = population(cases=1)
    np.testing.assert_allclose(left(whole, field), field.mean(0) - field, atol=1e-4)


def test_blocks_share_out_an_image():
    image = np.random.default_rng(0).normal(size=(1, 48, 64)).astype(np.float32)
    blocks = surround.in_blocks(jnp.asarray(image))
    assert blocks.shape == (1, 32, 32)
    whole = image.reshape(16, 3, 32, 2)  # three rows make two blocks
    first = (whole[:, 0] + whole[:, 1] / 2).mean(-1) / 1.5
    np.testing.assert_allclose(blocks[0, ::2], first, atol=1e-5)
    np.testing.assert_array_equal(surround.in_blocks(image[:, :5, :7]), image[:, :5, :7])


@pytest.mark.slow  # 17 + 76 scenes are read and projected: minutes
def test_on_openkbp_the_fields_xray_is_found_to_seven_percent(real_data, tmp_path):
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
        np.stack([np.asarray(view)[:count] for view in images], 1)
        for images in (validation.all_images(), validation.field_images())
    )
    share = jax.jit(lambda images: jnp.stack(found.share(images)[0]))
    guess = np.stack([share(tuple(case)) for case in whole])

    def off(a, views):
        a, b = (x[:, views].reshape(count, -1) for x in (a, field))
        return np.mean(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))

    assert off(guess, [0, 1]) < 0.07
    assert off(guess, [0]) < 0.06
    assert off(guess, [1]) < 0.075
    assert off(whole, [0, 1]) > 0.8
    expected = np.sqrt(np.mean(np.square(guess - field)))
    variance = np.mean([np.mean(view.variance) for view in found.views])
    assert 0.8 < np.sqrt(variance) / expected < 1.4


def test_it_is_read_as_it_was_written(tmp_path):
    found = surround.Surround((fitted(*population()), fitted(*population(seed=1))))
    surround.write_surround(tmp_path / "surround.npz", found)
    again = surround.read_surround(tmp_path / "surround.npz")
    jax.tree.map(np.testing.assert_array_equal, found, again)
    (tmp_path / "surround.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read as the surround of a run"):
        surround.read_surround(tmp_path / "surround.npz")


def test_one_of_an_older_version_says_so(tmp_path):
    np.savez(tmp_path / "surround.npz", whole_mean=np.ones(3))
    with pytest.raises(InputError, match="no view in it: train again"):
        surround.read_surround(tmp_path / "surround.npz")


def test_the_share_of_images_keeps_their_shapes():
    other = np.random.default_rng(0).normal(size=(2, 2 * CASES, 4, 3)).astype(np.float32)
    whole, field = zip(population(), other)
    found = surround.fit(whole, field, (REACH, REACH))
    images = (np.ones(SHAPE, np.float32), np.zeros((4, 3), np.float32))
    share, weights = found.share(images)
    assert [y.shape for y in share] == [y.shape for y in weights] == [SHAPE, (4, 3)]
    np.testing.assert_allclose(share[0], fitted(*population()).share(images[0]), atol=1e-4)
