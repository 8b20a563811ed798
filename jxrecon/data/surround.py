"""The field's share of an X-ray of the whole patient: ridge regression, localised, in the projection domain.

A method with a forward model of the field alone has y = A x_field + r, where r is what the surround adds:
shoulders, head, chest. r is found first, from y, with the training scenes' X-rays. Of the N training cases
and mirror images, X are the whole X-rays, averaged to at most `BLOCKS` blocks along each axis, F the field's
own, both centred; of each view by itself

    F_hat(y) = mean_F + (y - mean_X) (rho . X'X / N + lambda tr(X'X / N) / c 1)^-1 (rho . X'F / N)

rho(p, q) = exp(-|p - q|^2 / 2 L^2) for places p, q of the detector, measured in the plane of the isocentre, c
blocks: a pixel is found from what the X-ray shows near it. No weighting of a few dozen patients fits a new
one everywhere, near a place one does (localisation of a covariance: Houtekamer & Mitchell, Monthly Weather
Review 2001). The same without products of pixels: a weighted sum of the training fields' X-rays, with weights
that vary over the image. What it leaves has the variance that left-out patients show. Other cameras mean
other X and F.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jxrecon import files
from jxrecon.geometry import AnyCamera, pitch_at, shares
from jxrecon.types import AnyArray, InputError

LAMBDA, REACH_MM = 0.1, 40.0
"""lambda and L: of 0.01 to 0.4 and 20 to 100 mm the best on openkbp_hn, and little worse around them."""

BLOCKS = 32
"""Of X along each axis of an image."""

FOLDS = 8
"""Groups of patients that are left out in turn to see what F_hat leaves."""

SURROUND = "surround.npz"
"""In the folder of a run."""

NOISE = 0.05
"""Standard deviation of a line integral below which no pixel is trusted more."""


class View(NamedTuple):
    """The regression of one view, and what it leaves on patients who were left out.

    Attributes:
        whole_mean: of the whole X-rays, in blocks.
        field_mean: of the field's own.
        whole: centred whole X-rays in blocks, X.
        inverse: (rho . X'X / N + lambda tr(X'X / N) / c 1)^-1.
        field: centred X-rays of the field, F.
        reach: L in heights and widths of the image.
        variance: mean square of what F_hat leaves in every pixel, on cases that it was found without.
    """

    whole_mean: Float[Array, "i j"]
    field_mean: Float[Array, "rows columns"]
    whole: Float[Array, "n2 i j"]
    inverse: Float[Array, "blocks blocks"]
    field: Float[Array, "n2 rows columns"]
    reach: Float[Array, "2"]
    variance: Float[Array, "rows columns"]

    def share(self, y: Float[AnyArray, "rows columns"]) -> Float[Array, "rows columns"]:
        """F_hat(y): the X-ray that the field alone would have cast."""
        apart = in_blocks(jnp.asarray(y)[None])[0] - self.whole_mean
        alpha = jnp.matmul(apart.ravel(), self.inverse, precision="highest").reshape(apart.shape)
        return self.field_mean + weighted_sum(alpha, self.whole, self.field, self.reach)


class Surround(NamedTuple):
    """The regressions of all views."""

    views: tuple[View, ...]

    def share(
        self, images: Sequence[Float[AnyArray, "rows columns"]]
    ) -> tuple[tuple[Float[Array, "rows columns"], ...], tuple[Float[Array, "rows columns"], ...]]:
        """(the field's share of X-rays, how much each pixel of it is to be trusted: of mean 1)."""
        found = tuple(view.share(y) for view, y in zip(self.views, images, strict=True))
        return found, self.relative_weights(NOISE)

    def relative_weights(
        self, noise: Float[Array, ""] | float = 0.0
    ) -> tuple[Float[Array, "rows columns"], ...]:
        """Weights of the data term, 1 / (variance + noise^2), of mean 1 over the pixels of all views.

        Args:
            noise: standard deviation of a line integral that the weights shall not exceed; pixels that no
                patient's surround reaches would weigh infinitely else.
        """
        weights = [1.0 / (view.variance + jnp.square(noise)) for view in self.views]
        mean = jnp.mean(jnp.concatenate([w.ravel() for w in weights]))
        return tuple(w / mean for w in weights)


def fit(
    whole: Sequence[Float[AnyArray, "n2 rows columns"]],
    field: Sequence[Float[AnyArray, "n2 rows columns"]],
    reach: Sequence[Sequence[float]],
) -> Surround:
    """The regressions on all cases, and what they leave on those that are left out.

    Args:
        whole: X-rays of the scenes, one array a view; first the n cases, then their mirror images.
        field: X-rays of their fields, the same.
        reach: L of every view, in heights and widths of the image.
    """
    return Surround(tuple(map(_fit, whole, field, reach)))


def reach_of(camera: AnyCamera, place_mm: Float[np.ndarray, "3"]) -> Float[np.ndarray, "2"]:
    """`REACH_MM` at this place in heights and widths of the camera's image."""
    return REACH_MM / pitch_at(camera, place_mm) / np.asarray(camera.shape)


def _fit(
    whole: Float[AnyArray, "n2 rows columns"],
    field: Float[AnyArray, "n2 rows columns"],
    reach: Sequence[float],
) -> View:
    """Of one view."""
    x, f, far = in_blocks(jnp.asarray(whole)), jnp.asarray(field), jnp.asarray(reach, jnp.float32)
    whole_mean, field_mean = jnp.mean(x, axis=0), jnp.mean(f, axis=0)
    x, f = x - whole_mean[None], f - field_mean[None]
    variance = jnp.mean(jnp.square(residuals(x, f, far)), axis=0)
    inverse = jnp.linalg.inv(kernel(x, len(x), far))
    return View(whole_mean, field_mean, x, inverse, f, far, variance)


def residuals(
    whole: Float[Array, "n2 i j"], field: Float[Array, "n2 rows columns"], reach: Float[Array, "2"]
) -> Float[Array, "n2 rows columns"]:
    """F_hat - F of every case, found without the patient and the mirror image, some others left out, too.

    Args:
        whole: X-rays of the scenes in blocks.
        field: of the fields.
        reach: as of `fit`.
    """
    total = len(whole)
    n = total // 2
    if n == 1:
        return jnp.mean(field, axis=0, keepdims=True) - field  # nobody to predict from
    groups = min(n, FOLDS)
    group = jnp.arange(total) % n % groups

    def left_out(k: Array) -> Float[Array, "n2 rows columns"]:
        keep = jnp.where(group == k, 0.0, 1.0)
        count = jnp.sum(keep)
        mean_x, mean_f = (
            jnp.tensordot(keep / count, a, 1, precision="highest") for a in (whole, field)
        )
        x, f = whole - mean_x[None], field - mean_f[None]
        kept = x * keep[:, None, None]
        solve = partial(jax.scipy.linalg.solve, assume_a="pos")
        alpha = solve(kernel(kept, count, reach), x.reshape(total, -1).T).T.reshape(x.shape)
        found = lax.map(lambda one: weighted_sum(one, kept, f, reach), alpha)
        return found * (total / count) - f

    def add(found: Array, k: Array) -> tuple[Array, None]:
        return jnp.where((group == k)[:, None, None], left_out(k), found), None

    return lax.scan(add, jnp.zeros_like(field), jnp.arange(groups))[0]


def kernel(
    x: Float[Array, "n2 i j"], count: Float[Array, ""] | int, reach: Float[Array, "2"]
) -> Float[Array, "blocks blocks"]:
    """rho . X'X / N + lambda tr(X'X / N) / c 1, of centred X-rays of which `count` are not 0."""
    rows = x.reshape(len(x), -1)
    covariance = jnp.matmul(rows.T, rows, precision="highest") / count
    shift = LAMBDA * jnp.trace(covariance) / len(covariance)
    rho = jnp.kron(*(closeness(n, n, far) for n, far in zip(x.shape[1:], reach)))
    return rho * covariance + shift * jnp.eye(len(covariance))


def weighted_sum(
    alpha: Float[Array, "i j"],
    whole: Float[Array, "n2 i j"],
    field: Float[Array, "n2 rows columns"],
    reach: Float[Array, "2"],
) -> Float[Array, "rows columns"]:
    """alpha (rho . X'F / N): each case's F by a weight that varies over the image."""
    rows, columns = (closeness(n, m, far) for n, m, far in zip(field.shape[1:], alpha.shape, reach))
    products = whole * alpha[None]
    weights = jnp.einsum("ri,nij,cj->nrc", rows, products, columns, precision="highest")
    return jnp.mean(weights * field, axis=0)


def closeness(one: int, other: int, reach: Float[Array, ""]) -> Float[Array, "one other"]:
    """rho along an axis, between the centres of so many parts of it and of so many others."""
    a, b = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in (one, other))
    return jnp.exp(-jnp.square((a[:, None] - b[None]) / reach) / 2)


def in_blocks(images: Float[Array, "n rows columns"]) -> Float[Array, "n i j"]:
    """Means over blocks that share out the image: `BLOCKS` along an axis, a pixel each if fewer."""
    rows, columns = (jnp.asarray(shares(n, min(n, BLOCKS)), jnp.float32) for n in images.shape[1:])
    return jnp.einsum("ir,nrc,jc->nij", rows, images, columns, precision="highest")


def write_surround(path: Path, surround: Surround) -> None:
    """Writes it as .npz, whole or not at all; errors as of `files.whole`."""
    arrays = {
        f"{name}_{n}": array
        for n, view in enumerate(surround.views)
        for name, array in view._asdict().items()
    }
    with files.whole(path) as part, part.open("wb") as stream:
        np.savez(stream, **arrays)


def read_surround(path: Path) -> Surround:
    """What `write_surround` wrote.

    Raises:
        InputError: the file is gone or damaged, or was written before 2026-11-30.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            count = sum(name.startswith("whole_mean_") for name in kept)
            if not count:
                raise ValueError("no view in it: train again")
            views = (
                View(*(jnp.asarray(kept[f"{name}_{n}"]) for name in View._fields))
                for n in range(count)
            )
            return Surround(tuple(views))
    except Exception as error:  # whatever a damaged file makes NumPy raise
        line = files.one_line(error)[:200]
        raise InputError(f"{path}: cannot be read as the surround of a run ({line})") from None
