"""What X-rays of training patients look like: a normal distribution of few components, and its likelihood.

    y ~ N(m, t (V' diag(v) V + s^2 1)),    t ~ inverse gamma(NU / 2, NU / 2)

y: all X-rays of a patient in a row; V, v: the first principal components of the training patients and
their mirror images; s: what patients who were left out have beside the components. t: some patients are
unlike the others in everything, which must not make every small difference between hypotheses a large
one; with it y has a Student distribution. In NumPy: matrices of a few hundred rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

COMPONENTS = 100
"""Of the model; fewer where there are fewer patients."""

NU = 10.0
"""Degrees of freedom of a patient's own scale t. Any number far below that of the pixels does the same."""

FOLDS = 4
"""Parts that the patients are dealt out to, one left out at a time."""


class XrayModel(NamedTuple):
    """The distribution.

    Attributes:
        mean: m.
        components: V, orthonormal rows.
        variance: v, along each.
        residual: s^2.
    """

    mean: Float[np.ndarray, " pixels"]
    components: Float[np.ndarray, "k pixels"]
    variance: Float[np.ndarray, " k"]
    residual: float


class Fitted(NamedTuple):
    """The distribution of all patients, and those found without a part of them.

    Attributes:
        whole: of all.
        without: number f without the patients f, f + FOLDS, ... and their mirror images.
    """

    whole: XrayModel
    without: tuple[XrayModel, ...]


FEWEST_PATIENTS = 8
"""Below that nothing can be said of patients who were left out."""


def left_out(count: int, fold: int) -> Float[np.ndarray, " part"]:
    """The patients of a part, of so many."""
    return np.arange(fold, count, min(FOLDS, count))


def fit(images: Float[np.ndarray, "n2 pixels"]) -> Fitted:
    """The distribution of these X-rays.

    Args:
        images: a row a patient; first the n patients, then their mirror images.
    """
    n = len(images) // 2
    parts, beside = [], []
    for fold in range(min(FOLDS, n)):
        others = left_out(n, fold)
        kept = np.setdiff1d(np.arange(2 * n), np.concatenate([others, others + n]))
        model = _components(images[kept] if kept.size else images)
        parts.append(model)
        apart = images[others] - model.mean
        beside.append(np.square(apart).sum(1) - np.square(apart @ model.components.T).sum(1))
    residual = max(float(np.concatenate(beside).mean()) / images.shape[1], LEAST)
    whole = _components(images)
    without = tuple(part._replace(residual=residual) for part in parts)
    return Fitted(whole._replace(residual=residual), without)


LEAST = 1e-4
"""Of s^2: X-rays of few photons differ by more."""


def _components(images: Float[np.ndarray, "n pixels"]) -> XrayModel:
    """Mean, components and variances, by the eigenvectors of the products of X-rays: n is small."""
    mean = images.mean(0)
    apart = images - mean
    square, u = np.linalg.eigh(apart @ apart.T)
    count = int(min(COMPONENTS, len(images) - 1, (square > 1e-9 * square[-1]).sum()))
    first = slice(len(square) - count, None)
    size = np.sqrt(square[first])
    return XrayModel(mean, (u[:, first] / size).T @ apart, square[first] / len(images), 0.0)


def of_rows(rows: Float[np.ndarray, "k1 pixels"], residual: float) -> XrayModel:
    """The distribution with this mean, the first row, and these components, times their deviations."""
    _, size, components = np.linalg.svd(rows[1:], full_matrices=False)
    kept = size > 1e-6 * size.max()
    return XrayModel(rows[0], components[kept], np.square(size[kept]), residual)


def distance(model: XrayModel, y: Float[np.ndarray, "*n pixels"]) -> Float[np.ndarray, "*n"]:
    """Squared Mahalanobis distance of X-rays; on average their number of pixels."""
    apart = y - model.mean
    c = apart @ model.components.T
    along = (np.square(c) / (model.variance + model.residual)).sum(-1)
    return along + (np.square(apart).sum(-1) - np.square(c).sum(-1)) / model.residual


def log_likelihood(model: XrayModel, y: Float[np.ndarray, "*n pixels"]) -> Float[np.ndarray, "*n"]:
    """log p(y): up to a constant of the number of pixels alone, so that models compare."""
    pixels, count = len(model.mean), len(model.variance)
    spread = np.log(model.variance + model.residual).sum()
    spread += (pixels - count) * np.log(model.residual)
    return log_student(distance(model, y), float(spread), pixels)


def log_student(
    square: Float[np.ndarray, "*n"], spread: float, pixels: int
) -> Float[np.ndarray, "*n"]:
    """log of the Student density with a squared distance and the logarithm of its covariance's
    determinant."""
    return -0.5 * (spread + (NU + pixels) * np.log1p(square / NU))
