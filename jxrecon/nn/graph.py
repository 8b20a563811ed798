"""Graph convolution X' = act(A X W [+ X W0] + b) over the vertices of a mesh.

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

from jxrecon.mesh.aggregation import (
    Aggregate,
    Neighbours,
    chebyshev,
    chebyshev_graph,
    mean_graph,
    neighbours,
    normalised,
    segment_sum,
)

__all__ = [
    "Aggregate",
    "GraphConvolution",
    "Neighbours",
    "chebyshev",
    "chebyshev_graph",
    "mean_graph",
    "neighbours",
    "normalised",
    "segment_sum",
]


def _same(x: Array) -> Array:
    return x


class GraphConvolution(nn.Module):
    """X' = act(A X W [+ X W0] + b), parameters `kernel` [in, out], `self_kernel`, `bias` [out].

    A is applied on the side of W with fewer channels; the result is the same but for rounding.

    Attributes:
        features: channels of X'.
        self_weight: whether a vertex's own features have a matrix W0 of their own.
        activation: applied last.
        use_bias: whether there is b.
        kernel_init: of W and W0; Glorot as in IGCN+ and Pixel2Mesh.
        dtype: in which it computes; the input's if None.
        precision: of the matrix products.
    """

    features: int
    self_weight: bool = False
    activation: Callable[[Array], Array] = _same
    use_bias: bool = True
    kernel_init: Callable[..., Any] = nn.initializers.glorot_uniform()
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
            weight = self.param(name, self.kernel_init, shape)
            return jnp.matmul(x, weight.astype(dtype), precision=self.precision)

        narrow = self.features < x.shape[-1]
        y = aggregate(times(x, "kernel")) if narrow else times(aggregate(x), "kernel")
        if self.self_weight:
            y = y + times(x, "self_kernel")
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            y = y + jnp.broadcast_to(bias.astype(dtype), y.shape)
        return self.activation(y)
