"""Weights of X2CT-GAN and CycleGAN go from the published layouts to ours and back without losing a bit."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from torch_commands import TOOLS, needs_torch

from jxrecon.interop import weights as convert

# One stage of one dense layer, down to a bottleneck of 2^3.
LAYERS, SIZE = (1,), 4
EXPERIMENT = '''
"""A toy X2CT-GAN."""
import dataclasses
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.methods.volumes.x2ct import method
from jxrecon.methods.volumes.x2ct.networks import Architecture

def toy(**settings):
    settings.pop("size")
    return Architecture(size=4, stem=4, growth=2, layers=(1,), decoder=(2, 4), **settings)

def build(settings, problem):
    method.ARCHITECTURES["toy"] = toy
    return method.build(settings, problem)

def get_config(size):
    return Experiment(
        name="toy", size="toy", kind=VOLUMES, field=Field((4, 4, 4), (9.0, 9.0, 9.0)), views=Views(4),
        schedule=Schedule(1, 1), population=Population(train=8, validation=1), build=build,
        settings=method.Settings(architecture="toy", discriminator=(4, 8, 8, 8)),
    )
'''


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    import from_torch
    import to_torch
    import weights
    from cyclegan_weights import CycleGAN
    from x2ct_weights import X2CT

    yield types.SimpleNamespace(
        from_torch=from_torch.command,
        to_torch=to_torch.command,
        proof=weights.proof,
        X2CT=X2CT,
        CycleGAN=CycleGAN,
    )
    sys.path.remove(str(TOOLS))


def toy_weights(net, views=2):
    """Random weights of a toy net in the published layout, with statistics of norms."""
    rng = np.random.default_rng(views)
    from jxrecon.methods.volumes.x2ct.discriminator import Discriminator
    from jxrecon.methods.volumes.x2ct.networks import Architecture, Generator

    if net == "G":
        arch = Architecture(SIZE, views, stem=4, growth=2, layers=LAYERS, decoder=(2, 4))
        module, table = Generator(arch), convert.x2ct_generator(views, LAYERS)
        inputs = [[np.zeros((1, SIZE, SIZE), np.float32)] * views]
    else:
        module, table = Discriminator((4, 8, 8, 8)), convert.x2ct_discriminator()
        inputs = [
            np.zeros((1, 16, 16, 16, 1), np.float32),
            [np.zeros((1, 16, 16), np.float32)] * views,
        ]
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x), *inputs)
    params = jax.tree.map(lambda s: (0.3 * rng.normal(size=s.shape)).astype(np.float32), shapes)
    state = convert.to_torch(params, table)
    for name in state:
        if name.endswith(("mean", "var")):
            state[name] = rng.random(state[name].shape).astype(np.float32)
        elif name.endswith("tracked"):
            state[name] = np.array(41)
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Plain safetensors of a biplanar generator and its discriminator."""
    folder = tmp_path_factory.mktemp("official")
    for net in "GD":
        content = safetensors.numpy.save(toy_weights(net))
        (folder / f"{net}.safetensors").write_bytes(content)
    return folder


def identical(a, b):
    return set(a) == set(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


def test_there_and_back_through_a_parameter_file_is_bit_identical(tools, files, tmp_path, capsys):
    out = tmp_path / "ours.safetensors"
    sources = [str(files / f"{net}.safetensors") for net in "GD"]
    assert tools.from_torch([*sources, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("bit-identical") == 2
    assert "largest difference of the output 0 (float32" in said
    assert tools.to_torch([str(out), "--out", str(tmp_path), "--format", "safetensors", "--epoch", "90",
                           "--no-check"]) == 0  # fmt: skip
    for net in "GD":
        back = safetensors.numpy.load_file(tmp_path / f"90_net_{net}.safetensors")
        assert identical(back, safetensors.numpy.load_file(files / f"{net}.safetensors"))


def test_a_run_folder_restores_the_weights_and_gives_them_back(tools, files, tmp_path):
    experiment, folder = tmp_path / "toy.py", tmp_path / "run"
    experiment.write_text(EXPERIMENT)
    sources = [str(files / f"{net}.safetensors") for net in "GD"]
    arguments = ["--out", str(folder), "--exp", str(experiment), "--no-check"]
    assert tools.from_torch([*sources, *arguments]) == 0
    assert tools.to_torch([str(folder), "--out", str(tmp_path), "--format", "safetensors", "--trust",
                           str(experiment), "--no-check"]) == 0  # fmt: skip
    for net in "GD":
        back = safetensors.numpy.load_file(tmp_path / f"0_net_{net}.safetensors")
        assert identical(back, safetensors.numpy.load_file(files / f"{net}.safetensors"))
    assert tools.from_torch([*sources, *arguments]) == 2  # a run is there


def test_a_single_view_is_recognised(tools):
    state = toy_weights("G", views=1)
    weights = tools.X2CT.from_state(state, {})
    assert (weights.net, weights.views, weights.architecture.size) == ("G", 1, SIZE)
    assert identical(weights.to_state(), state)


@pytest.mark.parametrize(
    "damage", ["text", "short", "unknown", "missing", "shape", "absent", "half"]
)
def test_a_bad_file_is_told_in_one_line(tools, files, tmp_path, damage, capsys):
    path = tmp_path / "bad.safetensors"
    whole = (files / "G.safetensors").read_bytes()
    state = safetensors.numpy.load(whole)
    stem = "view1Model.encoder_layer.1.weight"
    if damage == "unknown":
        state["module.x"] = np.zeros(3, np.float32)
    elif damage == "missing":
        del state[stem]
    elif damage == "shape":
        state[stem] = np.zeros((5, 1, 7, 7), np.float32)
    elif damage == "half":
        state[stem] = state[stem].astype(np.float16)
    content = safetensors.numpy.save(state)
    content = {"text": b"not a tensor\n" * 9, "short": whole[:-100]}.get(damage, content)
    if damage != "absent":
        path.write_bytes(content)
    arguments = [str(path), "--out", str(tmp_path / "out.safetensors")]
    assert tools.from_torch(arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(path) in line
    assert not (tmp_path / "out.safetensors").exists()


def test_pth_needs_a_torch_that_is_not_too_old(tools, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.9.1+cpu"))
    path = tmp_path / "90_net_G.pth"
    path.write_bytes(b"x")
    assert tools.from_torch([str(path), "--out", str(tmp_path / "run")]) == 2
    assert "PyTorch is 2.9.1+cpu, expected at least 2.10" in capsys.readouterr().err


@needs_torch
@pytest.mark.parametrize(("net", "views"), [("G", 2), ("G", 1), ("D", 2)])
def test_pytorchs_layers_load_ours_strictly_and_give_the_same(tools, net, views):
    weights = tools.X2CT.from_state(toy_weights(net, views), {})
    assert "largest difference" in tools.proof(weights, 1e-5)


@needs_torch
def test_a_pth_comes_back_with_its_epoch_and_every_bit(tools, files, tmp_path):
    import torch

    state = safetensors.numpy.load_file(files / "G.safetensors")
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    content = {"iters": 7, "epoch": 90, "state_dict": tensors, "lr": 1e-4}
    torch.save(content, tmp_path / "90_net_G.pth")
    ours, out = tmp_path / "ours.safetensors", tmp_path / "back"
    assert tools.from_torch([str(tmp_path / "90_net_G.pth"), "--out", str(ours), "--no-check"]) == 0
    assert tools.to_torch([str(ours), "--out", str(out), "--no-check"]) == 0
    back = torch.load(out / "90_net_G.pth", weights_only=True)
    assert {k: v for k, v in back.items() if k != "state_dict"} == {
        "iters": 7,
        "epoch": 90,
        "lr": 1e-4,
    }
    assert identical({k: v.numpy() for k, v in back["state_dict"].items()}, state)


@needs_torch
@pytest.mark.parametrize("damage", ["short", "code", "tensor"])
def test_a_bad_pth_is_told_in_one_line(tools, tmp_path, damage, capsys):
    import torch

    path = tmp_path / "90_net_G.pth"
    torch.save({"state_dict": {"a": torch.zeros(3)}}, path)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "code":
        torch.save({"state_dict": Path("x")}, path)
    assert tools.from_torch([str(path), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@needs_torch
@pytest.mark.parametrize("name", ["multi", "single"])
def test_pytorchs_layers_have_the_official_names_and_shapes(tools, oracles, name):
    import torch
    from torch_modules import x2ct

    from jxrecon.methods.volumes.x2ct.networks import Architecture

    views = {"single": 1, "multi": 2}[name]
    with torch.device("meta"):
        modules = {
            "G": x2ct.generator(Architecture(size=64, views=views)),
            "D": x2ct.Discriminator(views),
        }
    rows = [
        line.split("\t") for line in (oracles / f"x2ct_{name}_keys.txt").read_text().splitlines()
    ]
    for net, module in modules.items():
        official = {row[1]: row[2] for row in rows if row[0] == net}
        ours = {k: "x".join(map(str, v.shape)) or "scalar" for k, v in module.state_dict().items()}
        assert ours == official
