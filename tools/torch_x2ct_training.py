"""X2CT-GAN's training in plain PyTorch, for the benchmark: G and D steps as published."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_modules.x2ct import Architecture, Discriminator, generator

from jxrecon.methods.volumes.x2ct.losses import X2CT_GAN, Weights


def start(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases, in place."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, 0.0, 0.02)


class Training:
    """One G and D step after the other, as the published training does them."""

    def __init__(
        self,
        arch: Architecture,
        weights: Weights = X2CT_GAN,
        features: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        self.weights = weights
        self.generator, self.discriminator = generator(arch), Discriminator(arch.views, features)
        for module in (self.generator, self.discriminator):
            start(module)
        self.adam = [
            torch.optim.Adam(module.parameters(), 2e-4, (0.5, 0.99))
            for module in (self.generator, self.discriminator)
        ]

    def step(self, real: Tensor, *views: Tensor) -> float:
        """G, then D on the same volume; gives the generator's loss."""
        w, of_g, of_d = self.weights, *self.adam
        fake = self.generator(*views)
        self.discriminator.requires_grad_(False)
        loss = w.adversarial * (self.discriminator(fake, *views) - 1).square().mean()
        loss = loss + w.reconstruction * functional.mse_loss(fake, real)
        for axis in (2, 3, 4):
            projected = functional.l1_loss(fake.mean(axis), real.mean(axis))
            loss = loss + w.projection / 3 * projected
        of_g.zero_grad()
        loss.backward()
        of_g.step()
        self.discriminator.requires_grad_(True)
        on_real = (self.discriminator(real, *views) - 1).square().mean()
        on_fake = self.discriminator(fake.detach(), *views).square().mean()
        of_d.zero_grad()
        (w.adversarial * (on_real + on_fake)).backward()
        of_d.step()
        return float(loss.detach())
