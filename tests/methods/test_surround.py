"""The field's share of a whole X-ray: closed-form cases, and what left-out patients leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import drr
from jxrecon.data.scene_xrays import axes_of, xrays_of
from jxrecon.data.scenes import in_turn, mirrored, scenes_of
from jxrecon.data.volumes import load
from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.methods.base import surround

CASES, PIXELS = 9, 30


def population(seed=0, cases=CASES, directions=4):
    """(whole, field) X-rays whose surround is a linear function of few directions."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    of_whole, of_field = fixed.normal(size=(2, directions, PIXELS))
    codes = rng.normal(size=(2 * cases, directions))
    return (5 + codes @ of_whole).astype(np.float32), (2 + codes @ of_field).astype(np.float32)


FIT = jax.jit(surround.fit)


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
    found = FIT(whole, field)
    for i in (0, 4):
        kept = [j for j in range(2 * CASES) if j % CASES != i]
        other = FIT(whole[kept], field[kept])
        for j in (i, i + CASES):
            np.testing.assert_allclose(
                found.residuals[j], other.field(whole[j]) - field[j], atol=2e-4
            )


def test_a_left_out_patient_has_no_influence():
    whole, field = population()
    changed = field.copy()
    changed[[2, 2 + CASES]] += 100.0
    before, after = FIT(whole, field).residuals, FIT(whole, changed).residuals
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
    assert (found.variance()[:10] > 0.5).all()


def test_of_one_patient_the_field_is_the_mean():
    whole, field = population(cases=1)
    found = FIT(whole, field)
    np.testing.assert_allclose(found.residuals, field.mean(0) - field, atol=1e-4)


@pytest.mark.slow  # 17 + 76 scenes are read and projected: minutes
def test_on_openkbp_the_fields_xray_is_found_to_nine_percent(real_data, tmp_path):
    folder = real_data / "openkbp_hn"
    if not folder.is_dir():
        pytest.skip(f"no openkbp_hn in {real_data}")
    shape, extent = (80, 96, 112), (224.0, 240.0, 201.6)
    experiment = Experiment(
        name="hn",
        size="full",
        field=Field(shape, tuple(e / n for e, n in zip(extent, shape))),
        views=Views(pixels=64),
        schedule=Schedule(steps=1, batch_size=1),
        settings=None,
        kind=None,
    )
    grid, cameras = experiment.field.grid, experiment.views.cameras
    data = load(experiment, folder, tmp_path)
    sets = {
        split: scenes_of(data, split, folder, grid, tmp_path) for split in ("train", "validation")
    }
    affines = [a for s in sets.values() for a in (*s.affines, *map(mirrored, s.affines))]
    axes = axes_of(affines, cameras)
    whole_of = jax.jit(lambda hu, a: jnp.stack(xrays_of(hu, a, cameras, axes)).ravel())
    field_of = jax.jit(
        lambda hu: jnp.stack(drr.project(drr.hu_to_mu(hu), grid.affine, cameras)).ravel()
    )

    def xrays(split, mirrors):
        s = sets[split]
        count = len(s.names) * (1 + mirrors)
        whole = [whole_of(hu, jnp.asarray(a, jnp.float32)) for hu, a in list(in_turn(s))[:count]]
        hu = s.volumes.hu.astype(np.float32)
        fields = [*hu, *hu[:, ::-1]][:count]
        return np.stack(whole), np.stack([field_of(jnp.asarray(f)) for f in fields])

    found = FIT(*xrays("train", True))
    whole, field = xrays("validation", False)
    guess = np.stack([found.field(jnp.asarray(y)) for y in whole])

    def off(a, part):
        a, b = a[:, part], field[:, part]
        return np.mean(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))

    everything, pixels = slice(None), 64 * 64
    assert off(guess, everything) < 0.09
    assert off(guess, slice(pixels)) < 0.08
    assert off(guess, slice(pixels, None)) < 0.10
    assert off(whole, everything) > 0.8
    left_out = np.linalg.norm(found.residuals) / np.linalg.norm(guess - field)
    assert 0.8 < left_out / np.sqrt(152 / 17) < 1.4
