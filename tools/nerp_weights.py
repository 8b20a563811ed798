"""Weights of NeRP (liyues/NeRP): `model_{iterations}.pt`, a dict of net, enc and opt.

`enc` holds the frequencies of the Fourier features, as `B` of the state dict here; `opt` is left out. NeRP is
fitted to each patient anew: there are parameter files of it, but no runs.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp
from weights import Start, Weights, split

from jxrecon.interop import weights as convert
from jxrecon.interop.weights import Parameter
from jxrecon.methods.volumes import nerp
from jxrecon.types import InputError

_POINTS = 256  # that a network is tried at


class Network(NamedTuple):
    """The network as a module: `init` and `apply` as Linen's have them.

    Attributes:
        settings: kind and sizes.
    """

    settings: nerp.Settings

    def init(self, key: Any, points: Any) -> dict[str, Any]:
        """Fresh parameters."""
        frequencies, layers = nerp.initial(key, self.settings)
        named = {f"layer_{n}": {"kernel": w, "bias": b} for n, (w, b) in enumerate(layers)}
        return {"params": {"frequencies": frequencies, **named}}

    def apply(self, variables: dict[str, Any], points: Any) -> Any:
        """Coordinates [n, 3] -> [n, 1]."""
        tree, depth = variables["params"], self.settings.depth
        layers = tuple(
            (tree[f"layer_{n}"]["kernel"], tree[f"layer_{n}"]["bias"]) for n in range(depth)
        )
        forward = {"siren": nerp.siren, "ffn": nerp.ffn}[self.settings.network]
        return forward(layers, nerp.fourier_features(points, tree["frequencies"]))


class NeRP(Weights):
    """The network of one patient."""

    FAMILY = "NeRP"
    FIELDS: ClassVar[dict[str, str]] = {"nerp/siren": "siren", "nerp/ffn": "ffn"}
    EPOCH = "latest"
    EXAMPLE = "model_002000.pt"

    @classmethod
    def recognises(cls, state: convert.State) -> bool:
        return (
            any(re.fullmatch(r"model\.\d+\.(linear\.)?weight", n) for n in state) and "B" in state
        )

    @classmethod
    def from_state(
        cls, state: convert.State, facts: dict[str, Any], net: str = "", real: str = "A"
    ) -> Self:
        """The tensors say which kind it is."""
        kind = "siren" if "model.0.linear.weight" in state else "ffn"
        depth = sum(name.endswith("weight") for name in state)
        return cls(kind, f"nerp/{kind}", *split(state, _table(kind, depth)), facts)

    def to_state(self) -> dict[str, Any]:
        return convert.to_torch(self.params, _table(self._settings.network, self._settings.depth))

    def pack(self, tensors: dict[str, Any]) -> dict[str, Any]:
        net = {name: value for name, value in tensors.items() if name != "B"}
        return {"net": net, "enc": tensors["B"]}

    @property
    def _settings(self) -> nerp.Settings:
        """Kind and sizes that the parameters are of.

        Raises:
            InputError: they are of no such network.
        """
        tree = self.params["params"]
        try:
            return nerp.Settings(
                network=self.field.partition("/")[2],
                features=len(tree["frequencies"]),
                width=tree["layer_0"]["kernel"].shape[1],
                depth=len(tree) - 1,
            )
        except KeyError as error:
            raise InputError(
                f"parameters: {error} is missing, expected a network of NeRP"
            ) from None

    @property
    def described(self) -> str:
        s = self._settings
        return f"NeRP, {s.network}, {s.features} frequencies, {s.depth} layers of {s.width}"

    @property
    def start(self) -> Start:
        raise InputError("NeRP is fitted to each patient anew: expected --out NAME.safetensors")

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        """Coordinates."""
        return [(_POINTS, 3)]

    def module(self, dtype: Any = jnp.float32) -> Any:
        """Computes in the type of its input."""
        return Network(self._settings)

    def torch_module(self) -> Any:
        from torch_modules.nerp import Nerp

        s = self._settings
        return Nerp(s.network, s.features, s.width, s.depth)


def _table(kind: str, depth: int) -> convert.Table:
    rows = [Parameter("B", ("frequencies",), "vector")]
    for n in range(depth):
        name = f"model.{n}.linear" if kind == "siren" else f"model.{2 * n}"
        rows.append(Parameter(f"{name}.weight", (f"layer_{n}", "kernel"), "linear"))
        rows.append(Parameter(f"{name}.bias", (f"layer_{n}", "bias"), "vector"))
    return tuple(rows)
