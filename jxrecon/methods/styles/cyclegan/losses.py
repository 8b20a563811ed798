"""What CycleGAN is trained with: the least-squares game, cycles, identities; and its pool of fakes."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

Images = Float[Array, "n r s c"]
Scores = Float[Array, "n k l 1"]


def fooling(on_fake: Scores) -> Float[Array, ""]:
    """[Zhu L_GAN, G's part] mean (D(G(x)) - 1)^2."""
    return jnp.mean(jnp.square(on_fake - 1.0))


def telling_apart(on_real: Scores, on_fake: Scores) -> Float[Array, ""]:
    """[Zhu L_GAN, D's part] 1/2 (mean (D(y) - 1)^2 + mean D(G(x))^2), halved to slow D down [Zhu 4]."""
    return 0.5 * (jnp.mean(jnp.square(on_real - 1.0)) + jnp.mean(jnp.square(on_fake)))


def cycle(there_and_back: Images, x: Images) -> Float[Array, ""]:
    """[Zhu Eq. 2 L_cyc] mean |F(G(x)) - x|, of one direction."""
    return jnp.mean(jnp.abs(there_and_back - x))


def identity(of_its_own: Images, y: Images) -> Float[Array, ""]:
    """[Zhu L_identity] mean |G(y) - y|, y of the style that G makes."""
    return jnp.mean(jnp.abs(of_its_own - y))


class Pool(struct.PyTreeNode):
    """Fakes of earlier steps, shown to the discriminator in place of half of the new ones.

    Attributes:
        images: [size, r, s, c]; those from `count` on are empty.
        count: how many there are.
    """

    images: Float[Array, "p r s c"]
    count: Int[Array, ""]


def empty_pool(size: int, shape: tuple[int, ...]) -> Pool:
    """A pool for `size` images of a shape; with size 0 every new fake is shown."""
    return Pool(jnp.zeros((size, *shape), jnp.float32), jnp.zeros((), jnp.int32))


def exchange(pool: Pool, fakes: Images, chances: Float[Array, "n 2"]) -> tuple[Pool, Images]:
    """[Zhu 4, Shrivastava et al. 2017] The pool afterwards, and what the discriminator sees.

    While the pool fills up, every fake is kept and seen. Then a coin decides for each: it is seen itself,
    or takes the place of a random one of the pool, which is seen for the last time.

    Args:
        pool: as the last step left it.
        fakes: new ones.
        chances: uniform in [0, 1), for coin and place of each.
    """
    size = pool.images.shape[0]
    if not size:
        return pool, fakes
    coins, places = chances[:, 0] < 0.5, (chances[:, 1] * size).astype(jnp.int32)
    seen = []
    for fake, coin, place in zip(fakes, coins, places):
        filling = pool.count < size
        place = jnp.where(filling, pool.count, place)
        old = pool.images[place]
        kept = jnp.where(filling | coin, fake, old)
        seen.append(jnp.where(filling | ~coin, fake, old))
        pool = Pool(pool.images.at[place].set(kept), pool.count + filling.astype(jnp.int32))
    return pool, jnp.stack(seen)
