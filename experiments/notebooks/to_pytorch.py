# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weights to PyTorch and back
#
# A run's weights become a plain PyTorch state dict, which published code loads with `strict=True`;
# one from there becomes a run. Here a network of X2CT-GAN's kind, of two steps of training on
# SYNTHETIC subjects: a **toy** whose volumes say nothing, but whose tensors are as many and as named
# as after two thousand steps. Give `RUN` the folder of a run of your own to convert that.
#
# `.safetensors` files need no PyTorch. What does (`.pth` files, and the proof that both networks
# compute the same) prints one line where PyTorch is missing. No cell needs an accelerator. The tools
# lie in a clone of the repository, not in the installed package; in Colab: clone it and run `%pip
# install -e .` in its folder first.

# %%
RUN = None  # folder of a run of your own; None: a toy is trained
TOOLS = None  # folder tools/ of a clone; None: beside the package that is imported

# %%
import sys
from pathlib import Path

import numpy as np

import jxrecon

tools = Path(TOOLS) if TOOLS else Path(jxrecon.__file__).parents[1] / "tools"
assert (tools / "to_torch.py").is_file(), f"{tools}: no clone of the repository; set TOOLS"
sys.path.insert(0, str(tools))

import from_torch
import to_torch

# %%
if RUN is None:
    from jxrecon.train import command as train

    RUN = "toy_run"
    toy = [
        "population.train=2",
        "population.validation=1",
        "schedule.steps=2",
        "settings.constant_steps=1",
        "settings.decay_steps=1",
        "xrays.of=field",
    ]
    flags = [word for one in toy for word in ("--set", one)]
    arguments = ["--exp", "x2ct_cnn_hn_single", "--size", "tiny", "--workdir", RUN, "--no-evaluate"]
    assert train([*arguments, *flags]) == 0

# %% [markdown]
# ## There
# From a shell: `python tools/to_torch.py RUN --out DIR`, which also writes `.pth` files. Names and
# layouts are those of the published code: convolutions are [out, in, depth, height, width] there and
# [depth, height, width, in, out] here.

# %%
from safetensors.numpy import load_file

assert to_torch.command([RUN, "--out", "there", "--format", "safetensors", "--no-check"]) == 0
files = sorted(Path("there").glob("*.safetensors"))
for file in files:
    tensors = load_file(file)
    total = sum(tensor.size for tensor in tensors.values())
    print(f"{file.name}: {len(tensors)} tensors, {total:,} numbers")
    weights = [name for name, tensor in tensors.items() if tensor.ndim > 1]
    for name in weights[:6]:
        print(f"    {name:<48}{tensors[name].shape}")

# %% [markdown]
# ## And back
# From a shell: `python tools/from_torch.py FILE ... --out RUN`. Every bit comes back.

# %%
size = ["--exp", "x2ct_cnn_hn_single", "--size", "tiny"] if RUN == "toy_run" else []
generators = [str(file) for file in files if "_net_G" in file.name]
assert from_torch.command([*generators, "--out", "back_run", "--no-check", *size]) == 0
assert (
    to_torch.command(["back_run", "--out", "again", "--format", "safetensors", "--no-check"]) == 0
)
for file in map(Path, generators):
    once, twice = load_file(file), load_file(Path("again") / file.name)
    assert once.keys() == twice.keys()
    assert all(once[name].tobytes() == twice[name].tobytes() for name in once)
    print(f"{file.name}: {len(once)} tensors, bit-identical after the way there and back")

# %% [markdown]
# What comes back is a run like any other: it reconstructs, is evaluated, and training goes on with
# it.

# %%
run = jxrecon.open_run("back_run")
print(run.experiment.name, run.experiment.size, "-", run.rule)

# %% [markdown]
# ## In PyTorch
# The same files in PyTorch: the state dict is loaded strictly into PyTorch's layers, and both
# networks see the same input.

# %%
try:
    import torch
except ImportError:
    print("PyTorch is not installed: pip install 'jxrecon[torch]' to compare the outputs")
else:
    print("PyTorch", torch.__version__)
    assert to_torch.command([RUN, "--out", "proven", "--format", "pth"]) == 0
    loaded = torch.load(sorted(Path("proven").glob("*_net_G*.pth"))[0], weights_only=True)
    state = loaded.get("state_dict", loaded)
    name = next(iter(once))
    assert np.array_equal(state[name].numpy(), once[name])
