"""The field's share of an X-ray of the whole patient: ridge regression in the projection domain.

A method with a forward model of the field alone has y = A x_field + r, where r is what the surround adds:
shoulders, head, chest. r is found first, from y, with the training scenes' X-rays. With the whole X-rays X
and the field's own F of the N training cases and mirror images, one row each, all centred,

    F_hat(y) = mean_F + (y - mean_X) X' (X X' + lambda tr(X X') / N 1)^-1 (F - mean_F)

and what it leaves has the covariance that left-out patients show. Pure functions on arrays; other cameras
mean other X and F.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jxrecon import files
from jxrecon.types import AnyArray, InputError

LAMBDA = 1e-2
"""From 1e-3 to 3e-2 the error on left-out patients of openkbp_hn changes by less than 1 % of itself."""


SURROUND = "surround.npz"
"""In the folder of a run."""

NOISE = 0.05
"""Standard deviation of a line integral below which no pixel is trusted more."""


def flat(images: Sequence[Float[AnyArray, "*n rows columns"]]) -> Float[Array, "*n pixels"]:
    """The views of a case, or of many, after one another."""
    parts = [jnp.asarray(y).reshape(*y.shape[:-2], -1) for y in images]
    return jnp.concatenate(parts, -1)


class Surround(NamedTuple):
    """The regression, and what it leaves on patients who were left out.

    Attributes:
        whole_mean: of the whole X-rays.
        field_mean: of the field's own.
        whole: centred whole X-rays, X.
        gain: (X X' + lambda tr / N)^-1 (F - mean_F): F_hat(y) = mean_F + ((y - mean_X) X') gain.
        variance: mean square of what F_hat leaves in every pixel, on cases that it was found without: the
            diagonal of the covariance.
    """

    whole_mean: Float[Array, " pixels"]
    field_mean: Float[Array, " pixels"]
    whole: Float[Array, "n2 pixels"]
    gain: Float[Array, "n2 pixels"]
    variance: Float[Array, " pixels"]

    def field(self, y: Float[AnyArray, " pixels"]) -> Float[Array, " pixels"]:
        """F_hat(y): the X-ray that the field alone would have cast."""
        with jax.default_matmul_precision("highest"):
            return self.field_mean + (self.whole @ (y - self.whole_mean)) @ self.gain

    def share(
        self, images: Sequence[Float[AnyArray, "rows columns"]]
    ) -> tuple[tuple[Float[Array, "rows columns"], ...], tuple[Float[Array, "rows columns"], ...]]:
        """(the field's share of X-rays, how much each pixel of it is to be trusted: of mean 1)."""
        ends = np.cumsum([y.size for y in images])[:-1].tolist()

        def like(pixels: Float[Array, " pixels"]) -> tuple[Float[Array, "rows columns"], ...]:
            parts = jnp.split(pixels, ends)
            return tuple(part.reshape(y.shape) for part, y in zip(parts, images))

        return like(self.field(flat(images))), like(self.relative_weights(NOISE))

    def relative_weights(self, noise: Float[Array, ""] | float = 0.0) -> Float[Array, " pixels"]:
        """Weights of the data term, 1 / (variance + noise^2), of mean 1 over the pixels.

        Args:
            noise: standard deviation of a line integral that the weights shall not exceed; pixels that no
                patient's surround reaches would weigh infinitely else.
        """
        weights = 1.0 / (self.variance + jnp.square(noise))
        return weights / jnp.mean(weights)


def fit(
    whole: Float[AnyArray, "n2 pixels"], field: Float[AnyArray, "n2 pixels"], ridge: float = LAMBDA
) -> Surround:
    """The regression on all cases, and what it leaves on every one of them left out.

    Args:
        whole: X-rays of the scenes, all views of a case in one row; first the n cases, then their mirror
            images.
        field: X-rays of their fields, the same.
        ridge: lambda.
    """
    whole, field = jnp.asarray(whole), jnp.asarray(field)
    with jax.default_matmul_precision("highest"):
        whole_mean, field_mean = jnp.mean(whole, axis=0), jnp.mean(field, axis=0)
        x = whole - whole_mean[None]
        gain = weights_without(x @ x.T, jnp.ones(len(x), jnp.float32), ridge) @ field
    variance = jnp.mean(jnp.square(residuals(whole, field, ridge)), axis=0)
    return Surround(whole_mean, field_mean, x, gain, variance)


def residuals(
    whole: Float[AnyArray, "n2 pixels"], field: Float[AnyArray, "n2 pixels"], ridge: float = LAMBDA
) -> Float[Array, "n2 pixels"]:
    """F_hat - F of every case, found without the patient and the mirror image; arguments as of `fit`."""
    total = len(whole)
    n = total // 2
    x, f = jnp.asarray(whole), jnp.asarray(field)
    x, f = x - jnp.mean(x, axis=0, keepdims=True), f - jnp.mean(f, axis=0, keepdims=True)
    if n == 1:
        return -f  # nobody to predict from
    with jax.default_matmul_precision("highest"):
        products = x @ x.T

        def left_out(i: Int[Array, ""]) -> Float[Array, "2 pixels"]:
            keep = jnp.where(jnp.arange(total) % n != i, 1.0, 0.0)
            both = jnp.stack([i, i + n])
            return predict(products, keep, both, ridge) @ f - f[both]

        return lax.map(left_out, jnp.arange(n)).swapaxes(0, 1).reshape(total, -1)


def weights_without(
    products: Float[Array, "n2 n2"], keep: Float[Array, " n2"], ridge: float
) -> Float[Array, "n2 n2"]:
    """H (K + lambda tr(K) / N)^-1 H over the kept cases, with K = H X X' H and H centring on their mean."""
    count = jnp.sum(keep)
    centring = jnp.diag(keep) - jnp.outer(keep, keep) / count
    kernel = centring @ products @ centring
    shift = ridge * jnp.trace(kernel) / count
    # Those left out have rows of nothing: any number on the diagonal keeps the matrix regular.
    inverse = jnp.linalg.inv(kernel + shift * jnp.eye(len(keep), dtype=jnp.float32))
    return centring @ inverse @ centring


def predict(
    products: Float[Array, "n2 n2"],
    keep: Float[Array, " n2"],
    rows: Int[Array, " m"],
    ridge: float,
) -> Float[Array, "m n2"]:
    """Weights of the training cases' F in F_hat of some cases, by the kept cases alone."""
    apart = products[rows] - (products @ keep / jnp.sum(keep))[None]
    mean = (keep / jnp.sum(keep))[None]
    # (y - mean_X) X' for centred rows X: the centring stands in `weights_without`.
    return mean + apart @ weights_without(products, keep, ridge)


def write_surround(path: Path, surround: Surround) -> None:
    """Writes it as .npz, whole or not at all; errors as of `files.whole`."""
    with files.whole(path) as part, part.open("wb") as stream:
        np.savez(stream, **surround._asdict())  # type: ignore[arg-type]  # its own flag is none of the names


def read_surround(path: Path) -> Surround:
    """What `write_surround` wrote.

    Raises:
        InputError: the file is gone or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            return Surround(*(jnp.asarray(kept[name]) for name in Surround._fields))
    except Exception as error:  # whatever a damaged file makes NumPy raise
        line = files.one_line(error)[:200]
        raise InputError(f"{path}: cannot be read as the surround of a run ({line})") from None
