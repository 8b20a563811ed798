"""Weights of CycleGAN (junyanz/pytorch-CycleGAN-and-pix2pix): `{epoch}_net_{G_A,G_B,D_A,D_B}.pth`.

A .pth is a state dict and nothing else; which net it is and of what epoch, the name says. G_A makes B of A,
G_B makes A of B; D_A judges what G_A makes, so images of B, and D_B those of A. Where A is the real
X-rays and B the synthetic ones, which is assumed unless --real B says the contrary:

| published | ours, in `style` runs | |
|---|---|---|
| G_A | generators.synthetic | real -> synthetic, what `reconstruct --style` uses |
| G_B | generators.real | synthetic -> real |
| D_A | discriminators.synthetic | are these synthetic X-rays? |
| D_B | discriminators.real | are these real X-rays? |

With --real B, A and B change places. Only residual generators with InstanceNorm and without dropout, and
discriminators of 70x70 patches, are read: the published code's defaults for CycleGAN. Statistics of the
norms, which files from before PyTorch 0.4 hold, are kept for the way back and used for nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax.numpy as jnp
from weights import Start, Weights, split

from jxrecon.interop import weights as convert
from jxrecon.methods.styles.cyclegan.networks import Discriminator, Generator
from jxrecon.types import InputError

_PIXELS = 64  # of the images that a net is tried on


class CycleGAN(Weights):
    """A generator or a discriminator of images."""

    FAMILY = "CycleGAN"
    FIELDS: ClassVar[dict[str, str]] = {
        "generators/synthetic": "G_A",
        "generators/real": "G_B",
        "discriminators/synthetic": "D_A",
        "discriminators/real": "D_B",
    }
    EPOCH = "latest"
    EXAMPLE = "latest_net_G_A.pth"

    @classmethod
    def recognises(cls, state: convert.State) -> bool:
        first = state.get("model.0.weight", state.get("model.1.weight"))
        return first is not None and first.ndim == 4

    @classmethod
    def from_state(
        cls, state: convert.State, facts: dict[str, Any], net: str = "", real: str = "A"
    ) -> Self:
        kind = "D" if "model.0.weight" in state else "G"
        if net not in (f"{kind}_A", f"{kind}_B"):
            raise InputError(
                f"it holds a CycleGAN {'generator' if kind == 'G' else 'discriminator'}, named"
                f" {net or 'nothing'}: expected a name that ends in _{kind}_A or _{kind}_B, or --net"
            )
        if kind == "D":
            table = convert.cyclegan_discriminator(statistics=True)
        else:
            if "model.10.conv_block.6.weight" in state:
                raise InputError("a generator with dropout, expected one without")
            blocks = 0
            while f"model.{10 + blocks}.conv_block.1.weight" in state:
                blocks += 1
            table = convert.cyclegan_generator(blocks, statistics=True)
        place = "generators" if kind == "G" else "discriminators"
        field = f"{place}/{'synthetic' if net[-1] == real else 'real'}"
        return cls(net, field, *split(state, table), facts)

    def to_state(self) -> dict[str, Any]:
        """With the statistics that were in the file, and no others: the code of today has none."""
        if self._generates:
            table = convert.cyclegan_generator(self.blocks)
        else:
            table = convert.cyclegan_discriminator()
        return {**convert.to_torch(self.params, table), **self.buffers}

    @property
    def _generates(self) -> bool:
        return self.field.startswith("generators/")

    def _kernel(self, layer: str) -> tuple[int, ...]:
        """Shape [*k, in, out].

        Raises:
            InputError: there is no such layer.
        """
        try:
            return tuple(self.params["params"][layer]["kernel"].shape)
        except KeyError as error:
            raise InputError(
                f"parameters: {error} is missing, expected a net of CycleGAN"
            ) from None

    @property
    def _first(self) -> tuple[int, ...]:
        return self._kernel("stem" if self._generates else "conv_0")

    @property
    def blocks(self) -> int:
        """Residual ones of a generator."""
        return sum(name.startswith("block_") for name in self.params["params"])

    @property
    def described(self) -> str:
        style = self.field.partition("/")[2]
        source = {"synthetic": "real -> ", "real": "synthetic -> "}[style]
        what = f"{source}{style}" if self._generates else f"judges {style}"
        blocks = f", {self.blocks} block(s)" if self._generates else ""
        *_, channels, width = self._first
        return f"CycleGAN, {what} X-rays, {channels} channel(s), width {width}{blocks}"

    @property
    def start(self) -> Start:
        """A style; images are taken by their own range, as the published code's of 8 bits are."""
        *_, channels, width = self._first
        settings = {
            "width": width,
            "blocks": self.blocks,
            "channels": channels,
            "real_scale": "own",
            "synthetic_scale": "own",
        }
        assignments = tuple(f"settings.{name}={value}" for name, value in settings.items())
        return Start("cyclegan_xray", "128" if self.blocks == 6 else "256", assignments)

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        """Of one image."""
        return [(1, self._first[-2], _PIXELS, _PIXELS)]

    def module(self, dtype: Any = jnp.float32) -> Any:
        """Computes in the type of its input."""
        width = self._first[-1]
        if not self._generates:
            return Discriminator(width)
        return Generator(width, self.blocks, self._kernel("head")[-1])

    def torch_module(self) -> Any:
        from torch_modules import cyclegan

        *_, channels, width = self._first
        statistics = bool(self.buffers)
        if not self._generates:
            return cyclegan.Discriminator(channels, width, statistics)
        out = self._kernel("head")[-1]
        return cyclegan.Generator(channels, out, width, self.blocks, statistics)
