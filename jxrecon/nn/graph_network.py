"""Residual graph convolutions over an organ's mesh: what IGCN, Pixel2Mesh and X-ray2Shape are made of."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from jxrecon.nn.graph import Aggregate, GraphConvolution


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
            convolution = GraphConvolution(
                self.hidden, self.self_weight, self.activation, name=name
            )
            return convolution(x, aggregate)

        x = layer(x, "first")
        for pair in range(self.pairs):
            x = (x + layer(layer(x, f"pair_{pair}a"), f"pair_{pair}b")) / 2.0
        return GraphConvolution(self.features, self.self_weight, name="head")(x, aggregate), x
