"""X2CT-GAN (Ying et al., CVPR 2019): a CT volume from one or two X-rays by a dense encoder-decoder.

The axes of the paper are decided here and nowhere else. Inside this package a volume is [n, D, H, W, c]:
D runs with the rows of both views, W with the columns of the frontal view (view 1), H with the columns of
the lateral view (view 2). The views of `geometry.camera_at` at 0 and 90 degrees have rows from head to
foot, frontal columns from the patient's right to the left, lateral columns from front to back. In the
project's frame [n, x, y, z, c] (RAS) that makes D = -z, H = -y, W = -x: the volume is transposed and all
three axes are reversed, the views are taken as they are. `reorient` does it, both ways. Files in the
authors' layout hold [D, H, W] volumes and matching views: they become ours by the same function.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def reorient(volume: Float[Array, "b k l m c"]) -> Float[Array, "b m l k c"]:
    """[b, x, y, z, c] in the project's frame <-> [b, D, H, W, c] in the paper's; its own inverse."""
    return jnp.flip(jnp.swapaxes(volume, 1, 3), (1, 2, 3))
