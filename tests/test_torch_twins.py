"""Every network has a PyTorch twin: the names of tensors, the way there and back, and the same output."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from torch_commands import TOOLS, needs_torch, of_words

from jxrecon.interop import tensorflow
from jxrecon.interop import weights as convert
from jxrecon.interop.layouts import table_of
from jxrecon.methods.surfaces.igcn.networks import IgcnPlus
from jxrecon.nn.blocks import Conv
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.runs.run import open_run, restore, start
from jxrecon.types import InputError

TOYS = (
    "x2vision", "x2vision_principal", "lift", "cnn2d", "henzler", "igcn", "igcn_silhouette", "igcn_plus",
    "igcn_plus_faults", "pixel2mesh", "xray2shape", "displacement_field", "x2ct", "x2ct_cnn_single",
    "cyclegan",
)  # fmt: skip
"""Of tools/torch_table.py."""
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnxruntime", "onnxscript")),
    reason="PyTorch, onnxruntime or onnxscript is not installed",
)


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    import from_torch
    import proofs
    import run_files
    import tensor_files
    import to_torch
    import torch_table
    import twins

    yield types.SimpleNamespace(
        from_torch=of_words(from_torch.command),
        to_torch=of_words(to_torch.command),
        proofs=proofs,
        run_files=run_files,
        changed=tensor_files.changed,
        table=torch_table,
        twins=twins,
    )
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def toy(tools, tmp_path_factory):
    """name -> (a run, a state of random numbers): nothing is compiled."""

    @functools.cache
    def make(name):
        run = tools.table.untrained(*tools.table.TOYS[name], tmp_path_factory.mktemp(name))
        return run, tools.table.random_state(run.method)

    return make


def test_every_toy_is_tried(tools):
    assert set(tools.table.TOYS) == set(TOYS)


def test_names_and_layouts_follow_from_the_layers():
    image = jnp.zeros((1, 4, 4, 3))
    rows = {row.torch: row for row in table_of(Conv(5), [image], {"params": ("net",)}, "a.")}
    assert rows["a.weight"].path == ("net", "kernel")
    assert rows["a.weight"].rule == "conv"
    assert rows["a.bias"].rule == "vector"
    up = {row.torch: row.rule for row in table_of(Conv(5, up=True), [image], {"params": ()})}
    assert up["weight"] == "conv_transpose"


DEFAULT = ("lift", "henzler")
"""The others have the same layers, or tables with tests of their own."""


@pytest.mark.parametrize(
    "name",
    [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in TOYS],
)
def test_a_state_comes_back_from_its_file_to_the_last_bit(tools, toy, tmp_path, name):
    run, state = toy(name)
    twin, file = tools.run_files.of_run(run, state)
    tools.run_files.write(file, tmp_path / "net.safetensors")
    read = tools.run_files.read(tmp_path / "net.safetensors")
    assert tools.changed(file.tensors, read.tensors) == []
    assert read.facts == file.facts
    other = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), state)
    back = tools.twins.with_tensors(twin, other, read.tensors)
    assert tools.changed(file.tensors, tools.twins.tensors_of(twin, back)) == []


@needs_torch
@pytest.mark.parametrize("name", TOYS)
def test_pytorch_loads_it_strictly_and_gives_the_same(tools, toy, name):
    run, state = toy(name)
    twin, file = tools.run_files.of_run(run, state)
    module = tools.proofs.module_of(twin, file.tensors)  # raises unless all tensors fit
    for trial in twin.trials():
        given = jax.tree.leaves(tools.proofs.jit(trial.ours)(state, *trial.inputs))
        assert all(np.abs(np.asarray(one)).max() > 1e-6 for one in given)  # so that one can tell
    for apart in tools.proofs.compared(twin, state, module).values():
        assert apart.float32 <= 1e-5 or (name.startswith("x2ct") and apart.float64 <= 1e-9)


@needs_onnx
@pytest.mark.parametrize("name", TOYS)
def test_onnxruntime_gives_the_same(tools, toy, tmp_path, name):
    run, state = toy(name)
    twin, file = tools.run_files.of_run(run, state)
    module = tools.proofs.module_of(twin, file.tensors)
    assert tools.proofs.exported(twin, state, module, tmp_path / "net.onnx") <= 1e-4
    assert (tmp_path / "net.onnx").stat().st_size > 0


@needs_torch
def test_weights_that_pytorch_has_trained_come_here(tools, toy):
    import torch
    import torch_modules

    run, state = toy("cnn2d")
    twin, _ = tools.run_files.of_run(run, state)
    torch.manual_seed(0)
    module = torch_modules.build(twin.network, twin.arguments)
    adam = torch.optim.Adam(module.parameters(), 1e-2)
    image = torch.rand(4, *run.problem.cameras[0].shape)
    coarse = torch.nn.functional.avg_pool2d(image, image.shape[1] // run.problem.grid.shape[0])
    truth = coarse[..., None].expand(-1, -1, -1, run.problem.grid.shape[1])
    losses = []
    for _ in range(12):
        loss = (module(image) - truth).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    trained = tools.twins.with_tensors(twin, state, tensors)
    tools.proofs.compared(twin, trained, module.eval())  # raises where they differ
    assert tools.changed(tensors, tools.twins.tensors_of(twin, trained)) == []


# Whole files.


@pytest.fixture(scope="module")
def run_folder(toy, tmp_path_factory):
    """A run of the toy 2DCNN, as training leaves it."""
    made, state = toy("cnn2d")
    folder = tmp_path_factory.mktemp("run") / "cnn2d"
    names = types.SimpleNamespace(names=("a", "b", "c"))
    dataset = types.SimpleNamespace(train=names, rule="made up", synthetic=True)
    start(folder, made.experiment, "cnn2d", None, dataset)
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save(7, state)
    return folder


def test_a_run_goes_to_a_file_and_into_a_copy_of_itself(tools, run_folder, tmp_path, capsys):
    file, copy, again = tmp_path / "a.safetensors", tmp_path / "copy", tmp_path / "b.safetensors"
    assert tools.to_torch("--run", run_folder, "--out", file, "--no-check") == 0
    words = ("--out", copy, "--run", run_folder, "--no-check")
    assert tools.from_torch(file, *words) == 0
    assert "bit-identical" in capsys.readouterr().out
    assert tools.to_torch(copy, "--out", again, "--no-check") == 0
    one, other = map(tools.run_files.read, (file, again))
    assert tools.changed(one.tensors, other.tensors) == []
    assert one.facts == other.facts
    _, step = restore(open_run(copy))
    assert step == 7
    assert tools.from_torch(file, *words) == 2  # it is there now


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("missing", "conv.0.weight is missing"),
        ("unknown", "conv.99.weight is unknown"),
        ("shape", "(7, 6,"),
        ("double", "is float64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tools, toy, damage, told):
    run, state = toy("cnn2d")
    twin, (tensors, _) = tools.run_files.of_run(run, state)
    if damage == "missing":
        del tensors["conv.0.weight"]
    elif damage == "unknown":
        tensors["conv.99.weight"] = np.zeros(3, np.float32)
    elif damage == "double":
        tensors["conv.0.weight"] = tensors["conv.0.weight"].astype(np.float64)
    else:
        tensors["conv.0.weight"] = tensors["conv.0.weight"][..., :-1]
    with pytest.raises(InputError) as refused:
        tools.twins.with_tensors(twin, state, tensors)
    assert told in str(refused.value)


@pytest.mark.parametrize("damage", ["shape", "text", "facts"])
def test_a_file_that_does_not_fit_is_told_in_one_line_and_leaves_nothing(
    tools, toy, run_folder, tmp_path, damage, capsys
):
    file, out = tmp_path / "a.safetensors", tmp_path / "out"
    tensors, facts = tools.run_files.of_run(*toy("cnn2d"))[1]
    if damage == "shape":
        tensors["conv.0.weight"] = tensors["conv.0.weight"][..., :-1]
    elif damage == "facts":
        facts = {**facts, "network": ["cnn2d"]}
    tools.run_files.write(tools.run_files.RunFile(tensors, facts), file)
    if damage == "text":
        file.write_bytes(b"no tensors" * 9)
    assert tools.from_torch(file, "--out", out, "--run", run_folder) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(file) in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


def test_a_pickle_is_refused(tools, tmp_path, capsys):
    (tmp_path / "ffhq.pkl").write_bytes(b"\x80\x04.")
    assert tools.from_torch(tmp_path / "ffhq.pkl", "--out", tmp_path / "run") == 2
    assert "a pickle runs code" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_that_ship_come_back_to_the_same_bits(tools, tmp_path, capsys):
    from jxrecon.runs import shipped

    file, out = tmp_path / "lift.safetensors", tmp_path / "lift_hn.safetensors"
    assert tools.to_torch("--run", "lift_hn", "--out", file, "--no-check") == 0
    words = ("--run", "lift_hn", "--no-check")
    assert tools.from_torch(file, "--out", tmp_path / "lift_hn", *words) == 2
    assert tools.from_torch(file, "--out", out, *words) == 0
    assert "bit-identical" in capsys.readouterr().out
    # Not the files' bytes: safetensors writes metadata in an order that chance decides.
    (arrays, *facts), (ours, *known) = map(shipped.contents, (out, shipped.path_of("lift_hn")))
    assert facts == known
    bits = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    expected = {name: (array.dtype, array.shape, array.tobytes()) for name, array in ours.items()}
    assert [name for name in bits | expected if bits.get(name) != expected.get(name)] == []


# TensorFlow's names.


@pytest.mark.parametrize("name", ["igcn_plus", pytest.param("pixel2mesh", marks=pytest.mark.slow)])
def test_a_state_comes_back_through_tensorflows_names(tools, toy, tmp_path, name):
    run, state = toy(name)
    twin, file = tools.run_files.of_run(run, state, ".npz")
    tools.run_files.write(file, tmp_path / "net.npz")
    other = jax.tree.map(jnp.zeros_like, state)
    read = tools.run_files.read(tmp_path / "net.npz")
    back = tools.twins.with_tensors(twin, other, read.tensors)
    assert tools.changed(file.tensors, tools.twins.tensors_of(twin, back, True)) == []


def test_igcn_plus_has_the_names_and_shapes_of_the_released_code(oracles):
    network = IgcnPlus()
    image, place = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 5, 2))
    shapes = jax.eval_shape(
        lambda *x: network.init(jax.random.key(0), *x, lambda v: v),
        image,
        place,
        jnp.zeros((1, 5, 3)),
    )
    params = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes["params"])
    names = tensorflow.igcn_plus()
    ours = convert.to_torch({"params": {"params": params}}, names.table, copy=False)
    rows = [line.split("\t") for line in (oracles / "igcn_keys.txt").read_text().splitlines()[1:]]
    official = {row[1]: row[2] for row in rows if row[0] == "igcn"}
    ours |= names.at_rest
    assert {name: "x".join(map(str, array.shape)) for name, array in ours.items()} == official


def test_pixel2mesh_names_every_layer_once():
    names = [row.torch for row in tensorflow.pixel2mesh().table]
    assert len(names) == len(set(names)) == 2 * 18 + 3 * 43
    assert names[-3:] == [
        f"gcn/graphconvolution_43_vars/{w}" for w in ("weights_0", "weights_1", "bias")
    ]


# NeRP.


@pytest.fixture(params=["siren", "ffn"])
def nerp_state(request, oracles):
    """Random numbers in the published names and shapes."""
    rng = np.random.default_rng(0)
    rows = [line.split("\t") for line in (oracles / "nerp_keys.txt").read_text().splitlines()[1:]]
    return {
        row[1]: (float(row[4]) * rng.standard_normal(tuple(map(int, row[2].split("x"))))).astype(
            np.float32
        )
        for row in rows
        if row[0] in ("encoder", request.param)
    }


def test_nerps_published_tensors_come_back_to_the_last_bit(tools, nerp_state, tmp_path):
    source, ours = tmp_path / "nerp.safetensors", tmp_path / "ours.safetensors"
    safetensors.numpy.save_file(nerp_state, source)
    assert tools.from_torch(source, "--out", tmp_path / "run", "--no-check") == 2  # no runs of it
    assert tools.from_torch(source, "--out", ours, "--no-check") == 0
    words = ("--out", tmp_path / "back", "--format", "safetensors", "--no-check")
    assert tools.to_torch(ours, *words) == 0
    (back,) = (tmp_path / "back").glob("*.safetensors")
    assert tools.changed(nerp_state, safetensors.numpy.load_file(back)) == []


@needs_torch
def test_nerps_published_file_gives_the_same_in_pytorch(tools, nerp_state, tmp_path, capsys):
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in nerp_state.items()}
    frequencies = tensors.pop("B")
    torch.save({"net": tensors, "enc": frequencies, "opt": {}}, tmp_path / "model_002000.pt")
    ours = tmp_path / "ours.safetensors"
    assert tools.from_torch(tmp_path / "model_002000.pt", "--out", ours) == 0
    assert "PyTorch's output and ours" in capsys.readouterr().out
    assert tools.to_torch(ours, "--out", tmp_path / "back", "--format", "pth", "--no-check") == 0
    (back,) = (tmp_path / "back").glob("*.pth")
    content = torch.load(back, weights_only=True)
    assert torch.equal(content["enc"], frequencies)
    assert all(torch.equal(content["net"][name], value) for name, value in tensors.items())


@needs_onnx
def test_nerp_is_written_as_onnx(tools, nerp_state, tmp_path, capsys):
    source, ours = tmp_path / "nerp.safetensors", tmp_path / "ours.safetensors"
    safetensors.numpy.save_file(nerp_state, source)
    assert tools.from_torch(source, "--out", ours, "--no-check") == 0
    assert tools.to_torch(ours, "--onnx", tmp_path / "nerp.onnx") == 0
    assert "onnxruntime and ours differ" in capsys.readouterr().out
