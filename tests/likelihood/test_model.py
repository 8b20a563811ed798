"""The distribution of X-rays: against SciPy's, and what leaving patients out does."""

import numpy as np
from scipy.stats import multivariate_t

from jxrecon.likelihood import model as models


def _images(rng, count, pixels=6):
    return rng.normal(size=(count, pixels)) * [5, 3, 2, 1, 1, 1]


def test_the_likelihood_is_that_of_the_student_distribution():
    rng = np.random.default_rng(0)
    fitted = models.fit(_images(rng, 40))
    model = fitted.whole._replace(
        components=fitted.whole.components[-3:], variance=fitted.whole.variance[-3:], residual=0.7
    )
    v = model.components
    np.testing.assert_allclose(v @ v.T, np.eye(3), atol=1e-9)
    covariance = v.T @ np.diag(model.variance) @ v + 0.7 * np.eye(6)
    y = rng.normal(size=(5, 6))
    expected = multivariate_t(model.mean, covariance, df=models.NU).logpdf(y)
    found = models.log_likelihood(model, y)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-6, atol=1e-9)


def test_a_part_left_out_changes_nothing_in_its_own_model():
    rng = np.random.default_rng(1)
    images = _images(rng, 24)
    changed = images.copy()
    others = models.left_out(12, 1)
    changed[[*others, *(others + 12)]] += 100.0
    a, b = models.fit(images).without[1], models.fit(changed).without[1]
    np.testing.assert_array_equal(a.mean, b.mean)
    assert not np.array_equal(
        models.fit(images).without[0].mean, models.fit(changed).without[0].mean
    )
