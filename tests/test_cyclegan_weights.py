"""CycleGAN's published files become a style that reconstruct opens, and come back to the last bit."""

from __future__ import annotations

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from torch_commands import TOOLS, needs_torch, of_words

from jxrecon.compile import jit
from jxrecon.data.unpaired import from_unit, to_unit
from jxrecon.geometry import camera_at
from jxrecon.inference.styles import open_style
from jxrecon.interop import weights as convert
from jxrecon.io.radiographs import Radiograph
from jxrecon.methods.styles.cyclegan.networks import Discriminator, Generator
from jxrecon.nn.blocks import init_variables
from jxrecon.runs.run import open_run, restore

NETS = ("G_A", "G_B", "D_A", "D_B")
WIDTH, BLOCKS, CHANNELS, PIXELS = 2, 1, 3, 32
SMALL = ["--set", "field.shape=[32,32,1]", "--set", "settings.pool=1"]


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    import from_torch
    import to_torch
    import weights
    from cyclegan_weights import CycleGAN

    yield types.SimpleNamespace(
        from_torch=of_words(from_torch.command),
        to_torch=of_words(to_torch.command),
        proof=weights.proof,
        CycleGAN=CycleGAN,
    )
    sys.path.remove(str(TOOLS))


def state_of(net, statistics=convert.BUFFERS, width=WIDTH):
    """Random weights of a net in the published layout, with these statistics of its norms."""
    rng = np.random.default_rng(NETS.index(net))
    if net[0] == "G":
        module = Generator(width, BLOCKS, CHANNELS)
        table = convert.cyclegan_generator(BLOCKS, statistics=True)
    else:
        module, table = Discriminator(width), convert.cyclegan_discriminator(statistics=True)
    image = jax.ShapeDtypeStruct((1, PIXELS, PIXELS, CHANNELS), jnp.float32)
    shapes = jax.eval_shape(lambda x: init_variables(module, jax.random.key(0), x), image)
    params = jax.tree.map(lambda s: (0.3 * rng.normal(size=s.shape)).astype(np.float32), shapes)
    state = convert.to_torch(params, table)
    for name in list(state):
        ending = name.rpartition(".")[2]
        if ending in convert.BUFFERS and ending not in statistics:
            del state[name]
        elif ending in ("running_mean", "running_var"):
            state[name] = rng.random(state[name].shape).astype(np.float32)
        elif ending == "num_batches_tracked":
            state[name] = np.array(41)
    return state


def save(path, state):
    path.write_bytes(safetensors.numpy.save(state))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The four nets: of today, of PyTorch 0.4, and from before."""
    folder = tmp_path_factory.mktemp("official")
    for net, kept in zip(NETS, ((), convert.BUFFERS, convert.BUFFERS[:2], ())):
        save(folder / f"latest_net_{net}.safetensors", state_of(net, kept))
    return folder


@pytest.fixture(scope="module")
def run(tools, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("style") / "run"
    sources = sorted(files.iterdir())  # D before G
    assert tools.from_torch(*sources, "--out", folder, "--no-check", *SMALL) == 0
    return folder


def identical(path, other):
    a, b = safetensors.numpy.load_file(path), safetensors.numpy.load_file(other)
    return set(a) == set(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


def test_four_files_become_a_run_and_come_back_bit_for_bit(tools, files, run, tmp_path):
    settings = open_run(run).experiment.settings
    assert (settings.width, settings.blocks, settings.channels) == (WIDTH, BLOCKS, CHANNELS)
    words = ("--format", "safetensors", "--no-check")
    assert tools.to_torch(run, "--out", tmp_path, *words) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in files.iterdir())
    for path in files.iterdir():
        assert identical(tmp_path / path.name, path)


def test_style_makes_of_an_x_ray_what_g_a_does(run):
    image = np.random.default_rng(5).uniform(0, 6, (PIXELS, PIXELS)).astype(np.float32)
    styled = open_style(run)(Radiograph(image, camera_at(0.0, shape=image.shape), "x"))
    params = convert.from_torch(state_of("G_A", ()), convert.cyclegan_generator(BLOCKS))
    seen = jnp.repeat(jnp.asarray(to_unit(image, "own"))[None, ..., None], CHANNELS, -1)
    made = np.asarray(jit(Generator(WIDTH, BLOCKS, CHANNELS).apply)(params, seen))[0].mean(-1)
    expected = from_unit(made, "own", image)
    np.testing.assert_allclose(styled.line_integrals, expected, rtol=0, atol=1e-4)
    assert np.abs(expected - image).max() > 0.1


def test_a_discriminator_lies_where_the_images_that_it_judges_are(run):
    state, step = restore(open_run(run))
    assert step == 0
    for net, params in zip(
        NETS,
        (
            state.generators.synthetic,
            state.generators.real,
            state.discriminators.synthetic,
            state.discriminators.real,
        ),
    ):
        first = ("model.1", "stem") if net[0] == "G" else ("model.0", "conv_0")
        bias = state_of(net)[f"{first[0]}.bias"]
        np.testing.assert_array_equal(params[first[1]]["bias"], bias)


def test_b_may_be_the_real_domain_and_its_files_keep_their_names(tools, files, tmp_path, capsys):
    out, sources = tmp_path / "ours.safetensors", sorted(files.glob("*_G_*"))
    assert tools.from_torch(*sources, "--real", "B", "--out", out) == 0
    said = capsys.readouterr().out
    assert "G_B: CycleGAN, real -> synthetic X-rays, 3 channel(s), width 2, 1 block(s)" in said
    assert said.count("bit-identical") == 2
    assert "generators/real/stem/bias" in safetensors.numpy.load_file(out)
    bias = safetensors.numpy.load_file(out)["generators/synthetic/stem/bias"]
    np.testing.assert_array_equal(bias, state_of("G_B")["model.1.bias"])
    words = ("--format", "safetensors", "--no-check", "--epoch", "200")
    assert tools.to_torch(out, "--out", tmp_path, *words) == 0
    for path in sources:
        assert identical(tmp_path / path.name.replace("latest", "200"), path)


def test_a_file_whose_name_does_not_say_the_net_needs_to_be_told(tools, tmp_path, capsys):
    path, out = tmp_path / "latest_net_G.safetensors", tmp_path / "ours.safetensors"
    save(path, state_of("G_A", ()))
    assert tools.from_torch(path, "--out", out, "--no-check") == 2
    assert "expected a name that ends in _G_A or _G_B, or --net" in capsys.readouterr().err
    assert tools.from_torch(path, "--net", "G_A", "--out", out, "--no-check") == 0


def _with(net, **more):
    return {**state_of(net, ()), **more}


FAULTS = {
    "no real -> synthetic": ({"G_B": {}}, [], "a run needs generators/synthetic"),
    "a name that lies": ({"D_A": _with("G_A")}, [], "it holds a CycleGAN generator, named D_A"),
    "dropout": (
        {"G_A": _with("G_A", **{"model.10.conv_block.6.weight": np.zeros(1, np.float32)})},
        [],
        "a generator with dropout",
    ),
    "affine norm": (
        {"G_A": _with("G_A", **{"model.2.weight": np.zeros(WIDTH, np.float32)})},
        [],
        "model.2.weight is unknown",
    ),
    "widths": (
        {"G_A": {}, "D_A": state_of("D_A", (), width=4)},
        [],
        "discriminators/synthetic: params/conv_0/bias has shape (4,), expected (2,)",
    ),
    "twice": ({"G_A": {}, "x_G_A": {}}, [], "the same net again"),
    "nets": ({"G_A": {}}, ["--net", "G_A", "G_B"], "expected 1, one for each file"),
    "data": ({"G_A": {}}, ["--data", "x"], "expected none, CycleGAN learns by jxrecon style"),
    "neither": ({"G_A": {"a": np.zeros(3, np.float32)}}, [], "X2CT-GAN or CycleGAN"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_told_in_one_line(tools, tmp_path, capsys, fault):
    given, words, expected = FAULTS[fault]
    paths = [
        save(tmp_path / f"latest_net_{name}.safetensors", state or state_of(name[-3:], ()))
        for name, state in given.items()
    ]
    out = tmp_path / "run"
    assert tools.from_torch(*paths, "--out", out, "--no-check", *SMALL, *words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert expected in line
    assert not out.exists()


@needs_torch
@pytest.mark.parametrize("net", ["G_A", "D_B"])
@pytest.mark.parametrize("statistics", [(), convert.BUFFERS, convert.BUFFERS[:2]])
def test_pytorchs_layers_load_it_strictly_and_give_the_same(tools, net, statistics):
    weights = tools.CycleGAN.from_state(state_of(net, statistics), {}, net)
    assert "largest difference" in tools.proof(weights, 1e-5)


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])  # False: as before PyTorch 1.6
def test_a_pth_is_a_state_dict_alone_and_comes_back_with_every_bit(tools, tmp_path, zipped):
    import torch

    state = state_of("G_A", convert.BUFFERS[:2])
    path, ours = tmp_path / "200_net_G_A.pth", tmp_path / "ours.safetensors"
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    assert tools.from_torch(path, "--out", ours, "--no-check") == 0
    assert tools.to_torch(ours, "--out", tmp_path / "back", "--format", "pth") == 0
    back = torch.load(tmp_path / "back" / path.name, weights_only=True)
    assert {k: v.numpy().tobytes() for k, v in back.items()} == {
        k: v.tobytes() for k, v in state.items()
    }
