"""Every network has a PyTorch twin: the names of tensors, the way there and back, and the same output."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.interop.layouts import table_of
from jxrecon.io.meshes import write_mesh
from jxrecon.kinds import TEMPLATE
from jxrecon.mesh import Mesh
from jxrecon.nn.blocks import Conv
from jxrecon.phantom.liver import liver_template
from jxrecon.runs import config
from jxrecon.runs.run import Run, open_run, restore

TOOLS = Path(__file__).resolve().parents[1] / "tools"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnxruntime", "onnxscript")),
    reason="PyTorch, onnxruntime or onnxscript is not installed",
)

SURFACE = ("views.pixels=32", "settings.width=2", "settings.hidden=6", "settings.pairs=1")
VGG = (*SURFACE, "settings.stages=[1,1,2,1]")
PRIOR = ("field.shape=[4,6,4]", "views.pixels=8", "settings.prior.base=[2,3,2]",
         "settings.prior.channels=[6,4]", "settings.prior.w_dim=5", "settings.prior.mapping_layers=2")  # fmt: skip
ENCODED = ("settings.prior.encoder_channels=[3,4]", "settings.prior.xray_channels=[3,4]")
TOYS = {
    "x2vision": ("x2vision_hn", "small", PRIOR),
    "x2vision_skip": ("x2vision_hn", "coarse", (*PRIOR, *ENCODED)),
    "lift": ("lift_hn", "tiny", ("field.shape=[8,8,12]", "settings.widths=[3,4]")),
    "cnn2d": ("cnn2d", "tiny", ("settings.width=2", "settings.blocks=1")),
    "henzler": ("henzler", "tiny", ("field.shape=[12,20,16]", "views.pixels=16",
                                    "settings.channels=[4,8,24]")),
    "igcn": ("igcn_liver", "small", (*VGG, "settings.silhouette=false")),
    "igcn_silhouette": ("igcn_liver", "small", VGG),
    "igcn_plus": ("igcn_plus_liver", "small", ("views.pixels=32", "settings.channels=[2,4,6]",
                                               "settings.hidden=8", "settings.pairs=1")),
    "igcn_plus_faults": ("igcn_plus_liver", "small", ("views.pixels=32", "settings.channels=[2,4]",
                                                      "settings.hidden=8", "settings.faults=true")),
    "pixel2mesh": ("p2m_liver", "small", SURFACE),
    "xray2shape": ("xray2shape_liver", "small", VGG),
    "displacement_field": ("field_liver", "small",
                           ("views.pixels=32", "settings.width=2", "settings.stages=[1,1,1]",
                            "settings.hidden=4", "settings.nodes=4", "settings.layers=1")),
    "x2ct": ("x2ct_hn", "tiny", ("field.shape=[16,16,16]", "views.pixels=16", "settings.width=0.125")),
    "x2ct_cnn_single": ("x2ct_cnn_hn_single", "tiny",
                        ("field.shape=[16,16,16]", "views.pixels=16", "settings.width=0.125")),
    "cyclegan": ("cyclegan_xray", "64", ("field.shape=[32,32,1]", "settings.width=2",
                                         "settings.blocks=1")),
}  # fmt: skip
"""Name -> experiment, size and settings of a toy."""


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    import from_torch
    import proofs
    import run_files
    import tensor_files
    import to_torch
    import twins

    yield types.SimpleNamespace(
        from_torch=lambda *words: from_torch.command([str(word) for word in words]),
        to_torch=lambda *words: to_torch.command([str(word) for word in words]),
        proofs=proofs,
        run_files=run_files,
        changed=tensor_files.changed,
        twins=twins,
    )
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """name -> (a run, a state of random numbers): nothing is compiled."""

    @functools.cache
    def make(name):
        exp, size, settings = TOYS[name]
        experiment = config.override(config.find(exp, size), list(settings))
        experiment = dataclasses.replace(experiment, population=None)
        folder = tmp_path_factory.mktemp(name)
        organ = liver_template()
        write_mesh(folder / TEMPLATE, Mesh(organ.vertices, organ.faces))
        problem = experiment.kind.problem(experiment, 3, folder)
        method = experiment.build(experiment.settings, problem)
        run = Run(folder, experiment, None, problem, method, True, "")
        return run, random_state(method)

    return make


def random_state(method):
    rng = np.random.default_rng(3)

    def fill(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        name = jax.tree_util.keystr(path[-1:], simple=True)
        drawn = rng.standard_normal(leaf.shape)
        if name == "covariance":
            drawn = np.eye(len(drawn)) + 0.01 * (drawn + drawn.T)
        elif name in ("var", "scale"):
            drawn = 1.0 + 0.1 * np.abs(drawn)
        elif "kernel" in name:
            drawn = drawn / max(np.prod(leaf.shape[:-1]), 1) ** 0.5
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(method.init, jax.random.key(0)))


def test_names_and_layouts_follow_from_the_layers():
    image = jnp.zeros((1, 4, 4, 3))
    rows = {row.torch: row for row in table_of(Conv(5), [image], {"params": ("net",)}, "a.")}
    assert rows["a.weight"].path == ("net", "kernel")
    assert rows["a.weight"].rule == "conv"
    assert rows["a.bias"].rule == "vector"
    up = {row.torch: row.rule for row in table_of(Conv(5, up=True), [image], {"params": ()})}
    assert up["weight"] == "conv_transpose"


@pytest.mark.parametrize("name", TOYS)
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
    module = tools.proofs.module_of(twin, file.tensors)
    assert list(module.state_dict()) != []
    print(tools.proofs.compared(twin, state, module))
