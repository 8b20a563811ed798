"""Weights of X2CT-GAN and X2CT-CNN (kylekma/X2CT): `{epoch}_net_{G,D}.pth`.

A .pth is a dict of iters, epoch, state_dict and lr.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from weights import Start, Weights, split

from jxrecon.interop import weights as convert
from jxrecon.methods.volumes.x2ct.discriminator import Discriminator
from jxrecon.methods.volumes.x2ct.networks import Architecture, Generator
from jxrecon.types import InputError

_CHECK_EDGE = 32  # voxels of the volume that a discriminator is tried on


class X2CT(Weights):
    """A generator or a discriminator, of one view or two."""

    FAMILY = "X2CT-GAN"
    FIELDS: ClassVar[dict[str, str]] = {"generator": "G", "discriminator": "D"}
    EPOCH = 0
    EXAMPLE = "90_net_G.pth"

    @classmethod
    def recognises(cls, state: convert.State) -> bool:
        return _is_discriminator(state) or any("encoder_layer" in name for name in state)

    @classmethod
    def from_state(
        cls, state: convert.State, facts: dict[str, Any], net: str = "", real: str = "A"
    ) -> Self:
        """The tensors say which net it is; an epoch is a number."""
        facts = {name: value for name, value in facts.items() if not isinstance(value, str)}
        if _is_discriminator(state):
            hidden = sum(name.endswith("weight") for name in state) - 1
            return cls(
                "D", "discriminator", *split(state, convert.x2ct_discriminator(hidden)), facts
            )
        return cls("G", "generator", *split(state, _generator_table(state)), facts)

    def to_state(self) -> dict[str, Any]:
        if self.net == "D":
            table = convert.x2ct_discriminator(len(self.features))
        else:
            table = convert.x2ct_generator(self.views, self.architecture.layers)
        return convert.to_torch(self.params, table, self.buffers)

    def pack(self, tensors: dict[str, Any]) -> dict[str, Any]:
        facts = {"iters": 0, "epoch": 0, "lr": 2e-4, **self.facts}
        begin = {"iters": facts["iters"], "epoch": facts["epoch"]}
        return {**begin, "state_dict": tensors, "lr": facts["lr"]}

    @property
    def views(self) -> int:
        """How many X-rays it takes."""
        tree = self.params["params"]
        if self.net == "G":
            return sum(name.startswith("encoder_") for name in tree)
        return int(tree["conv_0"]["kernel"].shape[-2]) - 1

    @property
    def described(self) -> str:
        return f"X2CT-GAN, {self.views} view(s)"

    @property
    def start(self) -> Start:
        return Start("x2ct_lidc" if self.views == 2 else "x2ct_lidc_single", "paper")

    @property
    def architecture(self) -> Architecture:
        """The architecture that a generator's parameters are of.

        Raises:
            InputError: there is none without ablations.
        """
        tree = self.params["params"]
        try:
            encoder, decoder = tree["encoder_0"], tree["decoder_0"]
            stages = sum(name.startswith("stage_") for name in encoder)
            dense = [encoder[f"stage_{i}"]["dense"] for i in range(stages)]
            levels = [decoder[f"compress_{i}"]["kernel"].shape[-1] for i in range(stages)]
            last = decoder[f"layer_{stages}"]["up"]["kernel"].shape[-2]
            code = encoder["code"]["kernel"].shape[-1]
            return Architecture(
                size=round((code / last) ** (1 / 3)) * 2**stages,
                views=self.views,
                stem=encoder["stem"]["kernel"].shape[-1],
                growth=dense[0]["grow_0"]["kernel"].shape[-1],
                layers=tuple(sum(name.startswith("grow_") for name in block) for block in dense),
                decoder=(*levels, last),
            )
        except (KeyError, IndexError, ZeroDivisionError) as error:
            raise InputError(
                f"parameters: {error} is missing, expected a generator of X2CT"
            ) from None

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of a discriminator's layers but the last."""
        tree = self.params["params"]
        return tuple(tree[f"conv_{i}"]["kernel"].shape[-1] for i in range(len(tree) - 1))

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        """Of its views, and for "D" of the volume before them."""
        edge = self.architecture.size if self.net == "G" else _CHECK_EDGE
        volume = [(1, 1, edge, edge, edge)] if self.net == "D" else []
        return [*volume, *[(1, 1, edge, edge)] * self.views]

    def module(self, dtype: Any = jnp.float32) -> Any:
        if self.net == "D":
            return Discriminator(self.features, dtype)
        return Generator(dataclasses.replace(self.architecture, dtype=dtype))

    def arguments(self, inputs: list[Any]) -> list[Any]:
        """Views without a channel, a volume with it as the last axis."""
        if self.net == "G":
            return [[x[:, 0] for x in inputs]]
        volume, *views = inputs
        return [jnp.moveaxis(volume, 1, -1), [x[:, 0] for x in views]]

    def output(self, y: Any) -> Any:
        """The fused volume, or the scores."""
        return y.volume if self.net == "G" else y

    def trial(self) -> Self:
        """At the smallest size that it works at: all its parameters, but of the code a 2^3 corner.

        At 128^3 PyTorch's float64 convolutions would take 92 GB.
        """
        if self.net == "D":
            return self
        arch, tree = self.architecture, self.params["params"]
        channels, edge = arch.decoder[-1], arch.size // 2**arch.stages
        cut = dict(tree)
        for view in range(arch.views):
            encoder = dict(tree[f"encoder_{view}"])
            encoder["code"] = {
                name: leaf.reshape(-1, channels, edge, edge, edge)[..., :2, :2, :2].reshape(
                    *leaf.shape[:-1], -1
                )
                for name, leaf in encoder["code"].items()
            }
            cut[f"encoder_{view}"] = encoder
        return dataclasses.replace(self, params={"params": cut})

    def torch_module(self) -> Any:
        from torch_modules import x2ct

        if self.net == "G":
            return x2ct.generator(self.architecture)
        return x2ct.Discriminator(self.views, self.features)


def _is_discriminator(state: convert.State) -> bool:
    return "model.0.weight" in state and state["model.0.weight"].ndim == 5


def _generator_table(state: convert.State) -> convert.Table:
    """The table of a generator, its views and dense layers counted from the names."""
    views = 2 if any(name.startswith("view2Model.") for name in state) else 1
    prefix = "view1Model." if views == 2 else ""
    layers: list[int] = []
    while f"{prefix}encoder_layer{len(layers)}.2.weight" in state:
        block = f"{prefix}encoder_layer{len(layers)}.3.conv_block"
        count = 0
        while f"{block}.{count}.conv1.weight" in state:
            count += 1
        layers.append(count)
    if not layers:
        raise InputError("no dense layer in it, expected a generator of X2CT-GAN")
    return convert.x2ct_generator(views, layers)
