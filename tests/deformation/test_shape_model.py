"""The shape model: what is put in comes out."""

import numpy as np
import pytest

from jxrecon.deformation import shape_model
from jxrecon.phantom.liver import liver, liver_template
from jxrecon.types import InputError


@pytest.fixture(scope="module")
def livers() -> np.ndarray:
    return np.stack([liver(3, n) for n in range(12)])


def project(model, surfaces):
    """Coefficients in standard deviations, least squares."""
    offset = shape_model.aligned(np.asarray(surfaces, np.float64)) - model.mean
    return np.tensordot(offset, model.components, ([1, 2], [1, 2])) / model.deviations


def test_two_modes_are_found_with_their_deviations():
    random = np.random.default_rng(0)
    mean = liver_template().vertices.astype(np.float64)
    modes = np.linalg.qr(random.normal(size=(mean.size, 2)))[0].T.reshape(2, -1, 3)
    modes -= modes.mean(1, keepdims=True)
    weights = random.normal(size=(40, 2)) * [30.0, 10.0]
    model = shape_model.fit(mean + np.tensordot(weights, modes, 1))
    assert len(model.deviations) == 2
    spread = np.linalg.eigvalsh(np.cov(weights.T))[::-1] ** 0.5
    np.testing.assert_allclose(model.deviations, spread, rtol=1e-2)
    gram = np.tensordot(model.components, model.components, ([1, 2], [1, 2]))
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-5)


def test_size_is_kept_and_place_is_not():
    shape = liver_template().vertices
    sizes = np.array([0.8, 0.9, 1.0, 1.1, 1.2])
    model = shape_model.fit(sizes[:, None, None] * shape + 50.0 * np.arange(5)[:, None, None])
    assert len(model.deviations) == 1
    larger = shape_model.shapes(model, np.array([[1.0]])) - model.mean
    ratio = np.linalg.norm(larger) / np.linalg.norm(model.mean)
    np.testing.assert_allclose(ratio, np.std(sizes, ddof=1), rtol=1e-4)


def test_projected_draws_give_their_coefficients_back(livers):
    model = shape_model.fit(livers)
    wanted = np.random.default_rng(1).normal(size=(3, len(model.deviations)))
    found = project(model, shape_model.shapes(model, wanted) + 7.0)
    np.testing.assert_allclose(found, wanted, atol=1e-2)


def test_all_modes_rebuild_the_training_shapes(livers):
    model = shape_model.fit(livers)
    rebuilt = shape_model.shapes(model, project(model, livers))
    np.testing.assert_allclose(rebuilt, shape_model.aligned(livers), atol=1e-2)


def test_draws_stay_within_two_deviations_and_vary(livers):
    model = shape_model.fit(livers)
    drawn = shape_model.draw(model, np.random.default_rng(0), 60)
    coefficients = project(model, drawn)
    assert np.abs(coefficients).max() < shape_model.LIMIT_SD + 1e-2
    np.testing.assert_allclose(coefficients.std(), 0.88, atol=0.08)  # of a normal clipped at 2


@pytest.mark.parametrize(
    ("surfaces", "words"),
    [
        (np.zeros((1, 5, 3)), "n at least 2"),
        (np.ones((3, 5, 3)), "one shape"),
        (np.full((3, 5, 3), np.nan), "surface 0"),
    ],
)
def test_what_is_no_population_is_refused(surfaces, words):
    with pytest.raises(InputError, match=words):
        shape_model.fit(surfaces)
