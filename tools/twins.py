"""Every network of a run and its PyTorch twin: names and layouts of the tensors, and how both are tried.

One function a method says which networks its state holds, by `interop.layouts` read off their layers, which
arguments `torch_modules.build` needs, and what both are given to compare their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jxrecon.compile import jit
from jxrecon.geometry import vectors
from jxrecon.interop import weights as convert
from jxrecon.interop.layouts import table_of
from jxrecon.interop.weights import Parameter, Row, Table
from jxrecon.mesh.aggregation import normalised
from jxrecon.methods.styles.cyclegan.method import Settings as CycleGANSettings
from jxrecon.methods.surfaces.displacement_field import Settings as FieldSettings
from jxrecon.methods.surfaces.igcn.method import Settings as IgcnSettings
from jxrecon.methods.surfaces.igcn.plus import Settings as IgcnPlusSettings
from jxrecon.methods.surfaces.pixel2mesh.method import Settings as Pixel2MeshSettings
from jxrecon.methods.surfaces.xray2shape import Settings as Xray2ShapeSettings
from jxrecon.methods.volumes.cnn2d import Settings as Cnn2dSettings
from jxrecon.methods.volumes.henzler import Settings as HenzlerSettings
from jxrecon.methods.volumes.lift.method import Settings as LiftSettings
from jxrecon.methods.volumes.x2ct.method import Settings as X2CTSettings
from jxrecon.methods.volumes.x2vision import prior as manifold
from jxrecon.methods.volumes.x2vision.method import Settings as X2VisionSettings
from jxrecon.methods.volumes.x2vision.method import style_statistics
from jxrecon.nn.blocks import apply
from jxrecon.runs.run import Run
from jxrecon.types import InputError, PyTree, shown

Tensors = dict[str, np.ndarray]


class Trial(NamedTuple):
    """One comparison of both frameworks.

    Attributes:
        part: name of the PyTorch submodule; "": the whole module.
        inputs: in PyTorch's layout, as the submodule takes them.
        ours: (state, *inputs) -> what ours gives, in PyTorch's layout.
    """

    part: str
    inputs: tuple[np.ndarray, ...]
    ours: Callable[..., Any]


class Twin(NamedTuple):
    """A run's networks as one PyTorch module.

    Attributes:
        network: name in `torch_modules`.
        arguments: what it is built with; plain numbers, lists and dicts.
        table: of the tensors that the state holds; paths are those in the state.
        constants: tensors of the module that follow from the rest.
        trials: the first is of the whole module.
    """

    network: str
    arguments: dict[str, Any]
    table: Table
    constants: Tensors
    trials: tuple[Trial, ...]


def twin_of(run: Run, state: PyTree) -> Twin:
    """The twin of a run with this state.

    Raises:
        InputError: its method has none.
    """
    make = _TWINS.get(type(run.experiment.settings))
    if make is None:
        raise InputError(f"{run.folder}: {run.experiment.name} has no network that PyTorch knows")
    return make(run, state)


def tensors_of(twin: Twin, state: PyTree) -> Tensors:
    """The state dict.

    Raises:
        InputError: the state lacks a parameter.
    """
    leaves = _leaves(state)
    paths = {row.path for row in twin.table if isinstance(row, Parameter)}
    held = {path: np.asarray(leaf) for path, leaf in leaves.items() if path in paths}
    return {**convert.to_torch({"params": unflatten_dict(held)}, twin.table), **twin.constants}


def with_tensors(twin: Twin, state: PyTree, tensors: Tensors) -> PyTree:
    """The state with the weights of a state dict.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    own = {name: value for name, value in tensors.items() if name not in twin.constants}
    if missing := sorted(twin.constants.keys() - tensors.keys()):
        raise InputError(
            f"state dict: {missing[0]} is missing, expected {twin.network}'s constants"
        )
    given = flatten_dict(convert.from_torch(own, twin.table)["params"])

    def replaced(place: Any, leaf: Any) -> Any:
        value = given.get(_names(place))
        if value is None:
            return leaf
        if value.shape != leaf.shape:
            raise InputError(
                f"state dict: {'/'.join(_names(place))} is {shown(value.shape)}, expected {leaf.shape}"
            )
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(replaced, state)


def _leaves(state: PyTree) -> dict[tuple[str, ...], Any]:
    return {_names(place): leaf for place, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _names(place: Any) -> tuple[str, ...]:
    """A path of a tree as plain names."""
    return tuple(jax.tree_util.keystr((part,), simple=True) for part in place)


def _first(x: Any) -> Any:
    """Channels last -> first."""
    return jnp.moveaxis(x, -1, 1)


def _last(x: Any) -> Any:
    """Channels first -> last."""
    return jnp.moveaxis(x, 1, -1)


def _normal(*shape: int) -> np.ndarray:
    """Made-up numbers, always the same."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _below(table: Table, prefix: str, place: tuple[str, ...]) -> Iterable[Row]:
    """A table of one network -> its rows in a table of many."""
    for row in table:
        if isinstance(row, Parameter):
            yield row._replace(torch=prefix + row.torch, path=(*place, *row.path))
        else:
            yield row._replace(torch=prefix + row.torch, weight=prefix + row.weight)


# Volumes.


def _x2vision(run: Run, state: PyTree) -> Twin:
    prior = run.method.init.args[0]
    s, w_dim, shape = prior.settings, prior.settings.w_dim, tuple(prior.problem.grid.shape)
    pixels, views = manifold.ENCODED_PIXELS, len(prior.problem.cameras)
    z, ws = jnp.zeros((1, w_dim)), jnp.zeros((1, prior.synthesis.num_ws, w_dim))
    networks = {"mapping": (prior.mapping, z), "synthesis": (prior.synthesis, ws)}
    encoders = {
        "volume": (prior.volume_encoder, jnp.zeros((1, *prior.encoded_shape, 1))),
        "xrays": (prior.xray_encoder, jnp.zeros((1, pixels, pixels, views))),
    }
    owners = {("generator",): networks, ("ema",): networks}
    arrays = [("codes",)]
    if prior.encodes:
        owners |= {("encoder",): encoders, ("ema", "encoder"): encoders}
        arrays = [("moments", "mean"), ("moments", "covariance"), ("residual",), ("scale",)]
    volume = jnp.zeros((1, *shape, 1))
    rows = [
        *table_of(prior.discriminator, [volume], {"params": ("discriminator",)}, "discriminator.")
    ]
    for owner, parts in owners.items():
        for name, (network, example) in parts.items():
            place = (*owner, name)
            rows += table_of(network, [example], {"params": place}, ".".join([*place, ""]))
    rows += [Parameter("_".join(path), path, "vector") for path in arrays]
    found = jit(lambda s: style_statistics(prior, s.ema, s.moments))(state)
    constants = {f"w_{name}": np.asarray(a) for name, a in found._asdict().items()}
    leaves = _leaves(state)
    shapes = {"_".join(path): leaves[path].shape for path in arrays}
    shapes |= {name: array.shape for name, array in constants.items()}
    generator = {
        "base": list(s.base),
        "channels": list(s.channels),
        "w_dim": w_dim,
        "mapping_layers": s.mapping_layers,
        "architecture": s.architecture,
    }
    seen = {
        "shape": list(prior.encoded_shape),
        "encoder_channels": list(s.encoder_channels),
        "pixels": pixels,
        "views": views,
        "xray_channels": list(s.xray_channels),
        "w_dim": w_dim,
    }
    arguments = {
        "generator": generator,
        "encoders": seen if prior.encodes else None,
        "arrays": {name: list(shape) for name, shape in shapes.items()},
    }
    return Twin("x2vision", arguments, tuple(rows), constants, _x2vision_trials(prior, owners))


def _x2vision_trials(prior: Any, owners: dict) -> tuple[Trial, ...]:
    shape = tuple(prior.problem.grid.shape)
    z, volumes = _normal(2, prior.settings.w_dim), _normal(4, 1, *shape)

    def generated(owner: str) -> Callable[..., Any]:
        def ours(state: PyTree, z: Any, *noise: Any) -> Any:
            generator = getattr(state, owner)
            ws = manifold.map_styles(prior, generator, z)
            maps = tuple(map(_last, noise)) or None
            return _first(manifold.synthesise(prior, generator, ws, maps))

        return ours

    def encoded(place: tuple[str, ...], name: str, network: Any) -> Callable[..., Any]:
        def ours(state: PyTree, x: Any) -> Any:
            params = state.encoder if place == ("encoder",) else state.ema["encoder"]
            return apply(network, params[name], _last(x))

        return ours

    noise = tuple(_normal(2, 1, *size) for size in prior.synthesis.noise_shapes)
    trials = [
        Trial("", (z,), generated("ema")),
        Trial("ema", (z, *noise), generated("ema")),
        Trial("generator", (z, *noise), generated("generator")),
        Trial("ema.mapping", (z,), lambda s, z: apply(prior.mapping, s.ema["mapping"], z)),
        Trial(
            "discriminator",
            (volumes,),
            lambda s, v: manifold.score(prior, s.discriminator, _last(v)),
        ),
    ]
    for place, parts in owners.items():
        if place[-1] == "encoder":
            for name, (network, example) in parts.items():
                x = _normal(2, example.shape[-1], *example.shape[1:-1])
                part = ".".join([*place, name])
                trials.append(Trial(part, (x,), encoded(place, name, network)))
    return tuple(trials)


def _x2ct(run: Run, state: PyTree) -> Twin:
    model = run.method.init.args[0]
    arch = model.generator.arch
    if not (arch.connection_b and arch.fusion and arch.write_back):
        raise InputError(f"{run.folder}: an ablation of X2CT-GAN, expected its whole generator")
    table = convert.x2ct_generator(arch.views, arch.layers)
    rows = [*_below(table, "generator.", ("generator", "params"))]
    views = [np.abs(_normal(1, 1, arch.size, arch.size))] * arch.views
    volume = np.abs(_normal(1, 1, *(arch.size,) * 3))
    trials = [
        Trial("", tuple(views), lambda s, *v: _first(_x2ct_volume(model, s, v))),
    ]
    features = model.discriminator.features if state.discriminator else ()
    if features:
        table = convert.x2ct_discriminator(len(features))
        rows += _below(table, "discriminator.", ("discriminator", "params"))

        def score(s: PyTree, volume: Any, *views: Any) -> Any:
            seen = [view[:, 0] for view in views]
            return _first(model.discriminator.apply(s.discriminator, _last(volume), seen))

        trials.append(Trial("discriminator", (volume, *views), score))
    names = ("size", "views", "stem", "growth", "layers", "decoder", "dropout")
    arguments = {
        "architecture": {name: _plain(getattr(arch, name)) for name in names},
        "features": list(features),
    }
    return Twin("x2ct", arguments, tuple(rows), {}, tuple(trials))


def _x2ct_volume(model: Any, state: PyTree, views: Any) -> Any:
    return model.generator.apply(state.generator, [view[:, 0] for view in views]).volume


def _lift(run: Run, state: PyTree) -> Twin:
    model = run.method.init.args[0]
    problem, settings = model.problem, model.settings
    half = tuple(n // 2 for n in problem.grid.shape)
    channels = 8 + 8 * len(problem.cameras) + 3
    example = jnp.zeros((1, *half, channels))
    owners = [name for name in ("params", "ema") if getattr(state, name)]
    rows: list[Row] = []
    for name in owners:
        rows += table_of(model.net, [example], {"params": (name,)}, f"{name}.")

    def ours(name: str) -> Callable[..., Any]:
        return lambda s, x: tuple(apply(model.net, getattr(s, name), _last(x)))

    features = _normal(1, channels, *half)
    trials = [Trial(part, (features,), ours(part or "ema")) for part in ("", *owners)]
    network = {"inputs": channels, "widths": list(settings.widths), "dropout": settings.dropout}
    arguments = {"network": network, "trained": "params" in owners}
    rows.append(Parameter("scale", ("scale",), "vector"))
    return Twin("lift", arguments, tuple(rows), {}, tuple(trials))


def _frontal(network: str, arguments: dict[str, Any], run: Run) -> Twin:
    model = run.method.init.args[0]
    pixels = model.problem.cameras[0].shape
    image = jnp.zeros((1, *pixels))
    places = {"params": ("params",), "batch_stats": ("statistics",)}
    rows = table_of(model.network, [image], places, train=False)

    def ours(state: PyTree, image: Any) -> Any:
        variables = {"params": state.params, "batch_stats": state.statistics}
        return model.network.apply(variables, image, train=False)

    trial = Trial("", (np.abs(_normal(2, *pixels)),), ours)
    return Twin(network, {"shape": list(model.network.shape), **arguments}, rows, {}, (trial,))


def _cnn2d(run: Run, state: PyTree) -> Twin:
    settings = run.experiment.settings
    return _frontal("cnn2d", {"width": settings.width, "blocks": settings.blocks}, run)


def _henzler(run: Run, state: PyTree) -> Twin:
    settings, pixels = run.experiment.settings, run.problem.cameras[0].shape[0]
    arguments = {
        "pixels": pixels,
        "channels": list(settings.channels),
        "blocks": settings.blocks,
    }
    return _frontal("henzler", arguments, run)


# Surfaces.


def _surface(
    network: str, names: tuple[str, ...], sees: bool = False, self_loop: bool | None = True
) -> Callable[[Run, PyTree], Twin]:
    """The twin of a network and its settings.

    Args:
        network: name in `torch_modules`.
        names: of the settings that are arguments.
        sees: whether it is given the reference's silhouette.
        self_loop: of the graph; None: the network has none.
    """

    def make(run: Run, state: PyTree) -> Twin:
        regression = run.method.init.args[0]
        settings, problem = run.experiment.settings, run.problem
        template, camera = problem.template, problem.camera
        constants = dict(zip(("source", "centre", "u", "v"), vectors(camera)))
        constants |= {"vertices": template.vertices, "faces": template.faces}
        scene = {
            "pixels": list(camera.shape),
            "vertices": len(template.vertices),
            "faces": len(template.faces),
        }
        if self_loop is not None:
            graph = normalised(template, self_loop)
            constants |= {"table": graph.table, "weights": graph.weights}
            scene["neighbours"] = len(graph.table)
        kinds = {name: np.int32 if name in ("faces", "table") else np.float32 for name in constants}
        buffers = {f"scene.{name}": np.asarray(a, kinds[name]) for name, a in constants.items()}
        rows = table_of(regression.network, regression.inputs, {"params": ("params",)})
        arguments = {name: _plain(getattr(settings, name)) for name in names}
        trial = _surface_trial(regression, problem, sees or getattr(settings, "silhouette", False))
        if network == "xray2shape":
            trial = trial._replace(inputs=trial.inputs[:1])
        return Twin(network, {"scene": scene, **arguments}, rows, buffers, (trial,))

    return make


def _surface_trial(regression: Any, problem: Any, silhouette: bool) -> Trial:
    vertices = np.asarray(problem.template.vertices, np.float32)
    moved = vertices + 5.0 * np.random.default_rng(1).standard_normal((2, 1, 3))
    reference = moved.astype(np.float32)
    image = 5.0 * np.random.default_rng(2).random((2, *problem.camera.shape), np.float32)
    seen: tuple[np.ndarray, ...] = ()
    if silhouette:
        splatter = regression.predict.args[0].splatter
        seen = (np.asarray(jit(splatter.silhouette)(reference), np.float32),)

    def ours(state: PyTree, image: Any, reference: Any = reference, *_: Any) -> Any:
        return regression.predict(state.params, image, reference)[0]

    return Trial("", (image, reference, *seen), ours)


# Styles.


def _cyclegan(run: Run, state: PyTree) -> Twin:
    model, s = run.method.init.args[0], run.experiment.settings
    tables = {
        "generators": convert.cyclegan_generator(s.blocks),
        "discriminators": convert.cyclegan_discriminator(),
    }
    rows: list[Row] = []
    for kind, table in tables.items():
        for style in ("real", "synthetic"):
            rows += _below(table, f"{kind}.{style}.", (kind, style))
    image = np.tanh(_normal(1, s.channels, *model.problem.shape))

    def ours(kind: str, style: str) -> Callable[..., Any]:
        network = model.generator if kind == "generators" else model.discriminator
        return lambda state, x: _first(
            apply(network, getattr(getattr(state, kind), style), _last(x))
        )

    trials = [Trial("", (image,), ours("generators", "synthetic"))]
    for kind in tables:
        for style in ("real", "synthetic"):
            trials.append(Trial(f"{kind}.{style}", (image,), ours(kind, style)))
    arguments = {"channels": s.channels, "width": s.width, "blocks": s.blocks}
    return Twin("cyclegan", arguments, tuple(rows), {}, tuple(trials))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_TWINS: dict[type, Callable[[Run, PyTree], Twin]] = {
    X2VisionSettings: _x2vision,
    X2CTSettings: _x2ct,
    LiftSettings: _lift,
    Cnn2dSettings: _cnn2d,
    HenzlerSettings: _henzler,
    IgcnSettings: _surface("igcn", ("width", "stages", "hidden", "pairs", "silhouette")),
    IgcnPlusSettings: _surface("igcn_plus", ("channels", "hidden", "pairs", "faults"), sees=True),
    Pixel2MeshSettings: _surface("pixel2mesh", ("width", "hidden", "pairs"), self_loop=False),
    Xray2ShapeSettings: _surface("xray2shape", ("width", "stages", "hidden", "pairs")),
    FieldSettings: _surface(
        "displacement_field",
        ("width", "stages", "nodes", "extent_mm", "hidden", "layers"),
        sees=True,
        self_loop=None,
    ),
    CycleGANSettings: _cyclegan,
}
