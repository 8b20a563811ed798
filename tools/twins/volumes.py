"""The twins of X2Vision, lift, 2DCNN and Henzler's network."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from tensor_files import Tensors

from jxrecon.compile import jit
from jxrecon.interop.layouts import table_of
from jxrecon.interop.weights import Parameter, Row
from jxrecon.methods.volumes.lift.compact import Compact
from jxrecon.methods.volumes.lift.inputs import half
from jxrecon.methods.volumes.lift.method import posterior
from jxrecon.methods.volumes.x2vision import prior as manifold
from jxrecon.methods.volumes.x2vision.codes import Axes
from jxrecon.methods.volumes.x2vision.method import style_statistics
from jxrecon.nn.blocks import apply
from jxrecon.rounded import Rows
from jxrecon.runs.run import Run
from jxrecon.types import PyTree

from .base import Trial, Twin, camera_buffers, first, last, leaves_of, normal


def x2vision(run: Run, state: PyTree) -> Twin:
    prior = run.method.init.args[0]
    s, w_dim, trained = prior.settings, prior.settings.w_dim, bool(state.discriminator)
    pixels, views = manifold.ENCODED_PIXELS, len(prior.problem.cameras)
    z, ws = jnp.zeros((1, w_dim)), jnp.zeros((1, prior.synthesis.num_ws, w_dim))
    networks = {
        (owner, name): network
        for owner in (("generator", "ema") if trained else ("ema",))
        for name, network in {
            "mapping": (prior.mapping, z),
            "synthesis": (prior.synthesis, ws),
        }.items()
    }
    xrays = prior.encoder, jnp.zeros((1, pixels, pixels, views))
    if prior.encodes:
        networks[("ema", "encoder")] = xrays
    if prior.encodes and trained:
        networks[("encoder",)] = xrays
    if trained:
        volume = jnp.zeros((1, *prior.problem.grid.shape, 1))
        networks |= {("discriminator",): (prior.discriminator, volume)}
    rows: list[Row] = []
    for place, (network, example) in networks.items():
        rows += table_of(network, [example], {"params": place}, ".".join([*place, ""]))
    leaves = leaves_of(state)
    arrays = [("residual",), ("scale",)] if prior.encodes else [("codes",)] if trained else []
    axes = [path for path in leaves if path[1:2] == ("axes",)]
    rows += [Parameter(".".join(path), path, "vector") for path in [*arrays, *axes]]
    found = jit(lambda s: style_statistics(prior, s.ema))(state)
    constants = {f"w_{name}": np.asarray(a) for name, a in found._asdict().items()}
    shapes = {path[0]: leaves[path].shape for path in arrays}
    shapes |= {name: array.shape for name, array in constants.items()}
    generator = {
        "base": list(s.base),
        "channels": list(s.channels),
        "w_dim": w_dim,
        "mapping_layers": prior.mapping.layers,
        "architecture": s.architecture,
        "axes": _axes(state.ema["axes"]) if prior.encodes else None,
    }
    encoder = {
        "inputs": views,
        "shape": [pixels, pixels],
        "channels": list(s.xray_channels),
        "features": w_dim,
    }
    arguments = {
        "generator": generator,
        "encoder": encoder if prior.encodes else None,
        "trained": trained,
        "arrays": {name: list(shape) for name, shape in shapes.items()},
    }
    return Twin(
        "x2vision", arguments, tuple(rows), constants, partial(_x2vision_trials, prior, networks)
    )


def _axes(axes: Axes) -> dict[str, Any]:
    """Arguments of their twin."""
    rounded = isinstance(axes.moves, Rows)
    moves = axes.moves.steps if isinstance(axes.moves, Rows) else axes.moves
    return {
        "grid": list(axes.middle.shape),
        "coarse": list(axes.mean.shape),
        "moving": list(moves.shape[1:]),
        "features": len(axes.spread),
        "rounded": rounded,
    }


def _x2vision_trials(prior: Any, networks: dict) -> tuple[Trial, ...]:
    z = normal(2, prior.settings.w_dim)
    noise = tuple(normal(2, 1, *size) for size in prior.synthesis.noise_shapes)

    def generated(owner: str) -> Callable[..., Any]:
        def ours(state: PyTree, z: Any, *noise: Any) -> Any:
            generator = getattr(state, owner)
            ws = manifold.map_styles(prior, generator, z)
            maps = tuple(map(last, noise)) or None
            return first(manifold.synthesise(prior, generator, ws, maps))

        return ours

    def plainly(place: tuple[str, ...], network: Any) -> Callable[..., Any]:
        def ours(state: PyTree, x: Any) -> Any:
            params = getattr(state, place[0])
            return apply(network, params if len(place) == 1 else params[place[1]], last(x))

        return ours

    trials = [Trial("", (z,), generated("ema"))]
    for place, (network, example) in networks.items():
        if place[-1] == "synthesis":
            trials.append(Trial(place[0], (z, *noise), generated(place[0])))
        elif place[-1] != "mapping":
            x = normal(4, example.shape[-1], *example.shape[1:-1])
            trials.append(Trial(".".join(place), (x,), plainly(place, network)))
    return tuple(trials)


def lift(run: Run, state: PyTree) -> Twin:
    model = run.method.init.args[0]
    problem, settings = model.problem, model.settings
    coarse = half(problem.grid)
    channels = 8 + 8 * len(problem.cameras) + 3
    example = jnp.zeros((1, *coarse.shape, channels))
    owners = [name for name in ("params", "ema") if getattr(state, name)]
    rows: list[Row] = [Parameter("scale", ("scale",), "vector")]
    for name in owners:
        rows += table_of(model.net, [example], {"params": (name,)}, f"{name}.")

    def ours(name: str) -> Callable[..., Any]:
        return lambda s, x: tuple(apply(model.net, getattr(s, name), last(x)))

    features = normal(1, channels, *coarse.shape)
    trials = [Trial(part, (features,), ours(part or "ema")) for part in ("", *owners)]
    network = {"inputs": channels, "widths": list(settings.widths), "dropout": settings.dropout}
    arguments = {"network": network, "trained": "params" in owners, "reconstruction": None}
    constants: Tensors = {}
    if isinstance(state.prior, Compact):
        arguments["reconstruction"] = {
            "half": list(coarse.shape),
            "pixels": [list(camera.shape) for camera in problem.cameras],
            "rank": len(state.prior.reading.unit),
            "window_hu": [problem.window.low, problem.window.high],
        }
        places = [path for path in leaves_of(state) if path[0] == "prior"]
        rows += [Parameter(".".join(["before", *path]), path, "vector") for path in places]
        constants["before.affine"] = coarse.affine.astype(np.float32)
        for n, camera in enumerate(problem.cameras):
            constants |= camera_buffers(camera, f"before.cameras.{n}.")
        ends = np.cumsum([math.prod(camera.shape) for camera in problem.cameras])[:-1]
        parts = np.split(1.1 * np.asarray(state.prior.seen), ends)  # a patient a tenth thicker
        images = tuple(
            part.reshape(camera.shape).astype(np.float32)
            for part, camera in zip(parts, problem.cameras)
        )
        trials[0] = Trial("", images, lambda s, *y: tuple(posterior(model, s, y)))
    return Twin("lift", arguments, tuple(rows), constants, lambda: tuple(trials))


def _frontal(network: str, arguments: dict[str, Any], run: Run) -> Twin:
    model = run.method.init.args[0]
    pixels = model.problem.cameras[0].shape
    image = jnp.zeros((1, *pixels))
    places = {"params": ("params",), "batch_stats": ("statistics",)}
    rows = table_of(model.network, [image], places, train=False)

    def ours(state: PyTree, image: Any) -> Any:
        variables = {"params": state.params, "batch_stats": state.statistics}
        return model.network.apply(variables, image, train=False)

    trial = Trial("", (np.abs(normal(2, *pixels)),), ours)
    return Twin(
        network, {"shape": list(model.network.shape), **arguments}, rows, {}, lambda: (trial,)
    )


def cnn2d(run: Run, state: PyTree) -> Twin:
    settings = run.experiment.settings
    return _frontal("cnn2d", {"width": settings.width, "blocks": settings.blocks}, run)


def henzler(run: Run, state: PyTree) -> Twin:
    settings, pixels = run.experiment.settings, run.problem.cameras[0].shape[0]
    arguments = {
        "pixels": pixels,
        "channels": list(settings.channels),
        "blocks": settings.blocks,
    }
    return _frontal("henzler", arguments, run)
