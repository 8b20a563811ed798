"""The twins of networks whose tensors have published names: X2CT-GAN, X2CT-CNN and CycleGAN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jxrecon.interop import weights as convert
from jxrecon.interop.weights import Row
from jxrecon.methods.volumes.x2ct.discriminator import Discriminator
from jxrecon.methods.volumes.x2ct.networks import Generator
from jxrecon.nn.blocks import apply
from jxrecon.runs.run import Run
from jxrecon.types import InputError, PyTree

from .base import Trial, Twin, below, first, last, normal, plain


def x2ct(run: Run, state: PyTree) -> Twin:
    model = run.method.init.args[0]
    arch = model.generator.arch
    if not (arch.connection_b and arch.fusion and arch.write_back):
        raise InputError(f"{run.folder}: an ablation of X2CT-GAN, expected its whole generator")
    table = convert.x2ct_generator(arch.views, arch.layers)
    rows = [*below(table, "generator.", ("generator", "params"))]
    views = [np.abs(normal(1, 1, arch.size, arch.size))] * arch.views
    volume = np.abs(normal(1, 1, *(arch.size,) * 3))
    trials = [
        Trial("", tuple(views), lambda s, *v: first(_x2ct_volume(model, s, v))),
    ]
    features = model.discriminator.features if state.discriminator else ()
    if features:
        table = convert.x2ct_discriminator(len(features))
        rows += below(table, "discriminator.", ("discriminator", "params"))

        def score(s: PyTree, volume: Any, *views: Any) -> Any:
            seen = [view[:, 0] for view in views]
            network = Discriminator(features, volume.dtype)
            return first(network.apply(s.discriminator, last(volume), seen))

        trials.append(Trial("discriminator", (volume, *views), score))
    names = ("size", "views", "stem", "growth", "layers", "decoder", "dropout")
    arguments = {
        "architecture": {name: plain(getattr(arch, name)) for name in names},
        "features": list(features),
    }
    return Twin("x2ct", arguments, tuple(rows), {}, lambda: tuple(trials))


def _x2ct_volume(model: Any, state: PyTree, views: Any) -> Any:
    network = Generator(replace(model.generator.arch, dtype=views[0].dtype))
    return network.apply(state.generator, [view[:, 0] for view in views]).volume


def cyclegan(run: Run, state: PyTree) -> Twin:
    model, s = run.method.init.args[0], run.experiment.settings
    tables = {
        "generators": convert.cyclegan_generator(s.blocks),
        "discriminators": convert.cyclegan_discriminator(),
    }
    rows: list[Row] = []
    for kind, table in tables.items():
        for style in ("real", "synthetic"):
            rows += below(table, f"{kind}.{style}.", (kind, style))
    image = np.tanh(normal(1, s.channels, *model.problem.shape))

    def ours(kind: str, style: str) -> Callable[..., Any]:
        network = model.generator if kind == "generators" else model.discriminator
        return lambda state, x: first(apply(network, getattr(getattr(state, kind), style), last(x)))

    trials = [Trial("", (image,), ours("generators", "synthetic"))]
    for kind in tables:
        for style in ("real", "synthetic"):
            trials.append(Trial(f"{kind}.{style}", (image,), ours(kind, style)))
    arguments = {"channels": s.channels, "width": s.width, "blocks": s.blocks}
    return Twin("cyclegan", arguments, tuple(rows), {}, lambda: tuple(trials))
