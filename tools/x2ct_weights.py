"""Weights of X2CT-GAN: read from and written to files in the published layout and in ours, and tried out.

Published: `{epoch}_net_{G,D}.pth`, a dict of iters, epoch, state_dict and lr; or a plain safetensors of
the state dict. Ours: a run folder, or one safetensors whose names are the paths of the parameters below
`generator/` and `discriminator/`. What only the published file needs - running statistics of the norms,
iters, epoch, lr - is kept beside the parameters, so that the way back gives every bit again.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from jxrecon import convert, run
from jxrecon.checkpoint import Checkpoints
from jxrecon.cli import cache_folder
from jxrecon.compile import jit
from jxrecon.config import Experiment
from jxrecon.data.images import replace
from jxrecon.methods.base import Problem
from jxrecon.methods.x2ct.discriminator import Discriminator
from jxrecon.methods.x2ct.networks import Architecture, Generator
from jxrecon.types import InputError

Net = Literal["G", "D"]
FIELDS = {"G": "generator", "D": "discriminator"}
"""Where a net lies in a training state and in our parameter files."""

LEAST_TORCH = (2, 10)
"""Older versions of torch.load can be made to run code even with weights_only=True."""

_NORMS = "norms of "  # begins the names of running statistics in our files
_KEPT = "official.safetensors"  # in a run folder: what only the published layout needs
_CHECK_EDGE = 32  # voxels of the volume that a discriminator is tried on


class Weights(NamedTuple):
    """One net.

    Attributes:
        net: "G" or "D".
        params: our tree of NumPy arrays below "params".
        buffers: official name -> running statistics of the norms, as the file had them.
        facts: iters, epoch and lr of the file.
    """

    net: Net
    params: dict[str, Any]
    buffers: dict[str, np.ndarray]
    facts: dict[str, Any]

    @property
    def views(self) -> int:
        """How many X-rays it takes."""
        tree = self.params["params"]
        return sum(k.startswith("encoder_") for k in tree) if self.net == "G" else (
            tree["conv_0"]["kernel"].shape[-2] - 1
        )  # fmt: skip


# The published layout.


def import_torch() -> Any:
    """PyTorch, where there is one that is fit to read files.

    Raises:
        InputError: it is not installed or too old.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            "PyTorch is not installed, expected it for .pth files: pip install 'jxrecon[torch]', or"
            " give a .safetensors"
        ) from None
    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        raise InputError(
            f"PyTorch is {torch.__version__}, expected at least 2.10: older ones run code of a"
            " malicious file even with weights_only=True"
        )
    return torch


def read_official(path: Path) -> Weights:
    """A published checkpoint or a safetensors of its state dict.

    Raises:
        InputError: there is no such file, it is damaged, or it is not a net of X2CT-GAN.
    """
    state, facts = _read_pth(path) if path.suffix in (".pth", ".pt") else _read_safetensors(path)
    for name, value in state.items():
        if value.dtype.kind not in "fiu" or (value.dtype.kind == "f" and value.itemsize < 4):
            raise InputError(f"{path}: {name} is {value.dtype}, expected float32 or float64")
    try:
        weights = from_state(state, facts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    check(weights, path)
    return weights


def from_state(state: convert.State, facts: dict[str, Any]) -> Weights:
    """The weights of a state dict, whichever net it is of.

    Raises:
        InputError: a tensor is missing or unknown.
    """
    net: Net
    if "model.0.weight" in state:
        net, table = "D", convert.x2ct_discriminator()
    else:
        net, table = "G", _generator_table(state)
    params = convert.from_torch(state, table)
    known = {row.torch for row in table if isinstance(row, convert.Parameter)}
    buffers = {name: np.asarray(value) for name, value in state.items() if name not in known}
    return Weights(net, params, buffers, facts)


def to_state(weights: Weights) -> dict[str, np.ndarray]:
    """The state dict that the published code loads strictly."""
    if weights.net == "D":
        table = convert.x2ct_discriminator()
    else:
        table = convert.x2ct_generator(weights.views, architecture(weights).layers)
    return convert.to_torch(weights.params, table, weights.buffers)


def write_official(weights: Weights, path: Path) -> None:
    """Writes a .pth as the published code does, or a plain .safetensors of the state dict."""
    state = to_state(weights)
    facts = {"iters": 0, "epoch": 0, "lr": 2e-4, **weights.facts}
    if path.suffix == ".safetensors":
        replace(path, safetensors.numpy.save(state, {"facts": json.dumps(facts)}))
        return
    torch, stream = import_torch(), io.BytesIO()
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    content = {"iters": facts["iters"], "epoch": facts["epoch"], "state_dict": tensors}
    torch.save({**content, "lr": facts["lr"]}, stream)
    replace(path, stream.getvalue())


def _read_pth(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    torch = import_torch()
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a checkpoint such as 90_net_G.pth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or malicious file makes it raise anything
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: cannot be read as a PyTorch file of tensors ({line})") from None
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise InputError(f"{path}: no dict of tensors, expected iters, epoch, state_dict and lr")
    facts = {name: content[name] for name in ("iters", "epoch", "lr") if name in content}
    try:
        json.dumps(facts)
    except TypeError:
        raise InputError(f"{path}: iters, epoch or lr is no number, found {facts}") from None
    wide = {k: v.float() if v.dtype == torch.bfloat16 else v for k, v in state.items()}
    return {name: value.numpy() for name, value in wide.items()}, facts


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected .pth or .safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, json.loads((file.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as safetensors ({line})") from None


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
        first = next(iter(state), "nothing")
        raise InputError(f"begins with {first}, expected a generator or discriminator of X2CT-GAN")
    return convert.x2ct_generator(views, layers)


# Ours.


def write_ours(nets: Sequence[Weights], path: Path, params: bool = True) -> None:
    """Writes a parameter file of one net or two; without `params` only what else there is to keep."""
    arrays: dict[str, np.ndarray] = {}
    for weights in nets:
        field = FIELDS[weights.net]
        leaves = jax.tree.leaves_with_path(weights.params["params"]) if params else []
        for parts, leaf in leaves:
            arrays["/".join([field, *(p.key for p in parts)])] = np.ascontiguousarray(leaf)
        arrays |= {f"{_NORMS}{field}/{name}": array for name, array in weights.buffers.items()}
    facts = {FIELDS[weights.net]: weights.facts for weights in nets}
    replace(path, safetensors.numpy.save(arrays, {"facts": json.dumps(facts)}))


def read_ours(path: Path) -> list[Weights]:
    """The nets of a parameter file, the generator first.

    Raises:
        InputError: there is no such file, it is damaged, or holds something else.
    """
    nets = [weights for weights in _read_ours(path) if weights.params["params"]]
    if not nets:
        raise InputError(f"{path}: holds no parameters, expected a generator or a discriminator")
    for weights in nets:
        check(weights, path)
    return nets


def _read_ours(path: Path) -> list[Weights]:
    arrays, facts = _read_safetensors(path)
    nets = {
        field: Weights(net, {"params": {}}, {}, facts.get(field, {}))
        for net, field in FIELDS.items()
    }
    for name, array in arrays.items():
        field, _, rest = name.removeprefix(_NORMS).partition("/")
        if field not in nets:
            raise InputError(f"{path}: {name} is unknown, expected generator/ or discriminator/")
        if name.startswith(_NORMS):
            nets[field].buffers[rest] = array
            continue
        *parents, last = rest.split("/")
        node = nets[field].params["params"]
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = array
    return list(nets.values())


def write_run(
    nets: Sequence[Weights], folder: Path, experiment: Experiment, exp: str, data: Path | None
) -> None:
    """Writes a run folder with one checkpoint, at step 0: the nets, and all else as training starts it.

    Args:
        nets: a generator, and perhaps a discriminator.
        folder: a new one.
        experiment: resolved.
        exp: the name or file that it was found by.
        data: folder that training goes on with; None: the built-in population.

    Raises:
        InputError: the nets are not of this experiment's architecture, or the folder holds a run.
    """
    if (folder / "config.json").exists():
        raise InputError(f"{folder} holds a run already, expected a new folder")
    source = f"X2CT-GAN weights {', '.join(str(w.facts) for w in nets)}, converted"
    dataset: Any = _Dataset(_Cases(("",) * experiment.population.train), source)
    if data is not None:
        cache = cache_folder()
        dataset = experiment.load(experiment, data, cache / "data" if cache else None)
    field, cases = experiment.field, len(dataset.train.names)
    problem = Problem(field.grid, experiment.views.cameras, field.window, cases)
    method = experiment.build(experiment.settings, problem)
    key = jax.random.key(experiment.schedule.seed)
    shapes = jax.eval_shape(method.init, key)
    for weights in nets:
        place = FIELDS[weights.net]
        origin = f"experiment {experiment.name}, size {experiment.size}: {place}"
        _compare(weights.params, getattr(shapes, place), origin)
    run.start(folder, experiment, exp, data, dataset)
    given = {
        FIELDS[w.net]: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), w.params) for w in nets
    }
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save(0, jit(method.init)(key).replace(**given))
    write_ours(nets, folder / _KEPT, params=False)


def read_run(folder: Path, which: int | Literal["latest", "best"] = "latest") -> list[Weights]:
    """The nets of a run of X2CT-GAN or X2CT-CNN, the generator first.

    Raises:
        InputError: there is no such run or checkpoint, or it is of another method.
    """
    state, step = run.restore(run.open_run(folder), which)
    kept = {w.net: w for w in _read_ours(folder / _KEPT)} if (folder / _KEPT).exists() else {}
    nets = []
    for net, field in FIELDS.items():
        params = getattr(state, field, {})
        if not isinstance(params, dict) or "params" not in params:
            continue
        rest = kept.get(net, Weights(net, {}, {}, {}))  # type: ignore[arg-type]
        facts = rest.facts if step == 0 else {"iters": step}
        nets.append(rest._replace(params=jax.tree.map(np.asarray, params), facts=facts))
    if not nets:
        raise InputError(f"{folder}: a run of another method, expected one of X2CT")
    for weights in nets:
        check(weights, folder)
    return nets


class _Cases(NamedTuple):
    names: tuple[str, ...]


class _Dataset(NamedTuple):
    """What `run.start` asks of a dataset."""

    train: _Cases
    rule: str
    synthetic: bool = False


# The networks.


def architecture(weights: Weights) -> Architecture:
    """The architecture that a generator's parameters are of.

    Raises:
        InputError: there is none without ablations.
    """
    tree = weights.params["params"]
    try:
        encoder, decoder = tree["encoder_0"], tree["decoder_0"]
        stages = sum(name.startswith("stage_") for name in encoder)
        dense = [encoder[f"stage_{i}"]["dense"] for i in range(stages)]
        levels = [decoder[f"compress_{i}"]["kernel"].shape[-1] for i in range(stages)]
        last = decoder[f"layer_{stages}"]["up"]["kernel"].shape[-2]
        code = encoder["code"]["kernel"].shape[-1]
        return Architecture(
            size=round((code / last) ** (1 / 3)) * 2**stages,
            views=weights.views,
            stem=encoder["stem"]["kernel"].shape[-1],
            growth=dense[0]["grow_0"]["kernel"].shape[-1],
            layers=tuple(sum(name.startswith("grow_") for name in block) for block in dense),
            decoder=(*levels, last),
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"parameters: {error} is missing, expected a generator of X2CT") from None


def network(weights: Weights, dtype: Any = jnp.float32) -> tuple[Any, list[Any]]:
    """Our module, and the shapes of what it is tried on: views, and for "D" the volume before them."""
    if weights.net == "G":
        arch = dataclasses.replace(architecture(weights), dtype=dtype)
        return Generator(arch), [(arch.size,) * 2] * arch.views
    tree = weights.params["params"]
    features = tuple(tree[f"conv_{i}"]["kernel"].shape[-1] for i in range(len(tree) - 1))
    edge = _CHECK_EDGE
    return Discriminator(features, dtype), [(edge,) * 3, *[(edge,) * 2] * weights.views]


def check(weights: Weights, origin: Path | str) -> None:
    """That the shapes fit each other.

    Raises:
        InputError: they do not; the line begins with `origin`.
    """
    try:
        module, shapes = network(weights)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None
    inputs = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes]
    expected = jax.eval_shape(
        lambda *x: module.init(jax.random.key(0), *_arguments(weights, x)), *inputs
    )
    _compare(weights.params, expected, str(origin))


def _compare(params: Any, expected: Any, origin: str) -> None:
    found, wanted = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in leaves
        }
        for leaves in map(jax.tree.leaves_with_path, (params, expected))
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{origin}: {name} has shape {found.get(name, 'none')},"
                f" expected {wanted.get(name, 'none')}"
            )


def _arguments(weights: Weights, inputs: Any) -> list[Any]:
    """Inputs [1, *space] as our modules take them."""
    return [list(inputs)] if weights.net == "G" else [inputs[0][..., None], list(inputs[1:])]


def trial(weights: Weights) -> Weights:
    """The net at the smallest size that it works at: all its parameters, but of the code a 2^3 corner.

    At 128^3 PyTorch's float64 convolutions would take 92 GB.
    """
    if weights.net == "D":
        return weights
    arch, tree = architecture(weights), weights.params["params"]
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
    return weights._replace(params={"params": cut})


def trial_inputs(weights: Weights) -> list[np.ndarray]:
    """Made-up inputs in [0, 1], always the same, [1, *space] in float64."""
    rng = np.random.default_rng(0)
    return [rng.random((1, *shape)) for shape in network(weights)[1]]


def outputs(weights: Weights, *others: Weights, dtype: str = "float32") -> list[np.ndarray]:
    """What our network gives for the trial inputs with these and other parameters.

    Returns:
        A volume [1, D, H, W] or a map of scores for each.
    """
    weights, *others = map(trial, (weights, *others))
    with jax.enable_x64(dtype == "float64"):
        module, _ = network(weights, jnp.dtype(dtype))
        arguments = _arguments(weights, [jnp.asarray(x, dtype) for x in trial_inputs(weights)])
        apply = jit(module.apply)
        given = []
        for one in (weights, *others):
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), one.params)
            y = apply(params, *arguments)
            given.append(np.asarray(y.volume if weights.net == "G" else y)[..., 0])
    return given


def outputs_of_torch(weights: Weights) -> np.ndarray:
    """The same of the PyTorch module, into which the state dict is loaded strictly, in float64."""
    torch = import_torch()
    import torch_x2ct

    weights = trial(weights)
    if weights.net == "G":
        module = torch_x2ct.generator(architecture(weights))
    else:
        features = network(weights)[0].features
        module = torch_x2ct.Discriminator(weights.views, features)
    state = to_state(weights)
    module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    with torch.no_grad():
        inputs = [torch.from_numpy(x)[:, None] for x in trial_inputs(weights)]
        return module.double().eval()(*inputs)[:, 0].numpy()


def proof(weights: Weights, tolerance: float = 1e-5) -> str:
    """A line on how far our network and PyTorch's are apart, relative to the largest value, in float64.

    Raises:
        InputError: by more than the tolerance.
    """
    (ours,), theirs = outputs(weights, dtype="float64"), outputs_of_torch(weights)
    largest = np.abs(ours - theirs).max()
    relative = largest / np.abs(theirs).max()
    line = (
        f"{weights.net}: largest difference between PyTorch's output and ours {largest:.2e},"
        f" {relative:.2e} of the largest value (float64, one input)"
    )
    if not relative <= tolerance:
        raise InputError(f"{line}, expected at most {tolerance:g}")
    return line
