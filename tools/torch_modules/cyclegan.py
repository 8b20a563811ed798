"""CycleGAN's layers in plain PyTorch, with the tensor names of the published checkpoints.

Written from the layer tables of `jxrecon.methods.styles.cyclegan.networks`, for proofs of the converters.
Images are [n, c, rows, columns]. InstanceNorm always takes the instance's statistics.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import OfTheInstance


class _Norm(OfTheInstance, nn.InstanceNorm2d):
    def __init__(self, channels: int, statistics: bool) -> None:
        super().__init__(channels, track_running_stats=statistics)


class _Block(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x)))))."""

    def __init__(self, channels: int, statistics: bool) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for _ in range(2):
            steps += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
            steps += [_Norm(channels, statistics), nn.ReLU()]
        self.conv_block = nn.Sequential(*steps[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Generator(nn.Module):
    """The residual generator.

    Args:
        channels: of the images it takes.
        out: of those it makes.
        width: channels of the first layer.
        blocks: residual ones.
        statistics: whether the norms hold running ones, as those from before PyTorch 0.4.
    """

    def __init__(
        self, channels: int, out: int, width: int, blocks: int, statistics: bool = False
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7)]
        steps += [_Norm(width, statistics), nn.ReLU()]
        for c in (width, 2 * width):
            steps.append(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1))
            steps += [_Norm(2 * c, statistics), nn.ReLU()]
        steps += [_Block(4 * width, statistics) for _ in range(blocks)]
        for c in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(c, c // 2, 3, stride=2, padding=1, output_padding=1)
            steps += [up, _Norm(c // 2, statistics), nn.ReLU()]
        steps += [nn.ReflectionPad2d(3), nn.Conv2d(width, out, 7), nn.Tanh()]
        self.model = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """Images in [-1, 1] -> images in [-1, 1]."""
        return self.model(x)


class Discriminator(nn.Module):
    """Scores of 70x70 patches; arguments as of `Generator`."""

    def __init__(self, channels: int, width: int, statistics: bool = False) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1)]
        steps.append(nn.LeakyReLU(0.2))
        for i in range(3):
            c = 2**i * width
            steps.append(nn.Conv2d(c, 2 * c, 4, stride=1 if i == 2 else 2, padding=1))
            steps += [_Norm(2 * c, statistics), nn.LeakyReLU(0.2)]
        steps.append(nn.Conv2d(8 * width, 1, 4, padding=1))
        self.model = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, k, l]."""
        return self.model(x)


class CycleGAN(nn.Module):
    """The four networks of a run, by the style that they make or judge.

    Args:
        channels: of the images.
        width: channels of the first layers.
        blocks: residual ones of a generator.
    """

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.generators, self.discriminators = nn.ModuleDict(), nn.ModuleDict()
        for style in ("real", "synthetic"):
            self.generators[style] = Generator(channels, channels, width, blocks)
            self.discriminators[style] = Discriminator(channels, width)

    def forward(self, image: Tensor) -> Tensor:
        """A real X-ray [n, channels, rows, columns] in [-1, 1] -> a synthetic one."""
        return self.generators["synthetic"](image)
