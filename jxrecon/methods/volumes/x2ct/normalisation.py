"""How X-rays become what X2CT-GAN's networks see.

| rule | line integrals -> [0, 1] | for |
|---|---|---|
| fixed | `nn.views.fixed_range`: one factor for all images | line integrals, as this project measures them |
| maximum | `eight_bit`: each image by its own maximum | the authors' data, weights trained on it |
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.methods.base.trained_views import fixed_range


def eight_bit(integrals: Float[Array, "*b rows columns"]) -> Float[Array, "*b rows columns"]:
    """[X2CT data] raw / max of each image in 255 steps, as the authors' PNG files hold it."""
    top = jnp.max(integrals, (-2, -1), keepdims=True)
    return jnp.floor(255.0 * integrals / jnp.maximum(top, 1e-6)) / 255.0


NORMALISATIONS: dict[str, Callable[[Array], Array]] = {
    "fixed": fixed_range,
    "maximum": eight_bit,
}
