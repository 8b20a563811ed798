"""Graph convolution X' = act(A X W [+ X W0] + b) over the vertices of a mesh, and a residual network of it.

The operator A comes in as a function, so that one layer serves all of the family:

| network | aggregate | self_weight |
|---|---|---|
| IGCN+ | `normalised(template)`: D^-1 (A + I) | no |
| Pixel2Mesh, as in PyTorch | `normalised(template, self_loop=False)`: D^-1 A | yes |
| Pixel2Mesh, the paper's Chebyshev pair | `chebyshev(template)`: 2 L / lambda_max - I | yes |
| batches of different meshes | `segment_sum(graphs)` on a padded `jraph.GraphsTuple` | either |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jxrecon.mesh.aggregation import Aggregate


class GraphConvolution(nn.Module):
    """X' = act(A X W [+ X W0] + b), parameters `kernel` [in, out], `self_kernel`, `bias` [out].

    A is applied on the side of W with fewer channels; the result is the same but for rounding.

    Attributes:
        features: channels of X'.
        self_weight: whether a vertex's own features have a matrix W0 of their own.
        activation: applied last.
        use_bias: whether there is b.
        dtype: in which it computes; the input's if None.
        precision: the matrix products'.
    """

    features: int
    self_weight: bool = False
    activation: Callable[[Array], Array] = jax.nn.identity
    use_bias: bool = True
    dtype: Any = None
    precision: jax.lax.PrecisionLike = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch v c"], aggregate: Aggregate
    ) -> Float[Array, "*batch v features"]:
        """Features of every vertex, and A as a function of them."""
        dtype = self.dtype or x.dtype
        x, shape = x.astype(dtype), (x.shape[-1], self.features)

        def times(x: Array, name: str) -> Array:
            weight = self.param(name, nn.initializers.glorot_uniform(), shape)
            return jnp.matmul(x, weight.astype(dtype), precision=self.precision)

        narrow = self.features < x.shape[-1]
        y = aggregate(times(x, "kernel")) if narrow else times(aggregate(x), "kernel")
        if self.self_weight:
            y = y + times(x, "self_kernel")
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            y = y + jnp.broadcast_to(bias.astype(dtype), y.shape)
        return self.activation(y)


class GraphNetwork(nn.Module):
    """A graph convolution in, residual pairs (x + act(GC(act(GC(x))))) / 2, a linear one out.

    Attributes:
        hidden: channels between.
        pairs: how many.
        features: channels out.
        self_weight: whether a vertex has weights of its own (Pixel2Mesh); else the aggregate is meant to
            count it among its neighbours (IGCN).
        activation: after every layer but the last.
    """

    hidden: int
    pairs: int
    features: int
    self_weight: bool = False
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(
        self, x: Float[Array, "b v i"], aggregate: Aggregate
    ) -> tuple[Float[Array, "b v o"], Float[Array, "b v h"]]:
        """(result, what the last pair gave) from features of the vertices and the mesh's operator."""

        def layer(x: Array, name: str) -> Array:
            settings = self.hidden, self.self_weight, self.activation
            return GraphConvolution(*settings, name=name)(x, aggregate)

        x = layer(x, "first")
        for pair in range(self.pairs):
            x = (x + layer(layer(x, f"pair_{pair}a"), f"pair_{pair}b")) / 2.0
        return GraphConvolution(self.features, self.self_weight, name="head")(x, aggregate), x
