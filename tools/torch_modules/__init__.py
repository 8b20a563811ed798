"""The networks of this repository in plain PyTorch: this folder needs no JAX and may be copied elsewhere.

    import torch_modules
    module = torch_modules.load("lift.pth")       # a file of tools/to_torch.py, loaded with strict=True
    change, log_size = module(features)

A file holds, beside its `state_dict`, the name of its network and the arguments that it is built with; a
safetensors holds both as metadata. `build` makes an untrained module of them.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODULES = {
    "x2vision": "X2Vision",
    "x2ct": "X2CT",
    "lift": "Lift",
    "cnn2d": "Cnn2d",
    "henzler": "Henzler",
    "nerp": "Nerp",
    "igcn": "Igcn",
    "igcn_plus": "IgcnPlus",
    "pixel2mesh": "Pixel2Mesh",
    "xray2shape": "Xray2Shape",
    "displacement_field": "DisplacementField",
    "cyclegan": "CycleGAN",
}
"""Name of a network -> its class."""

_FILES = {"cnn2d": "frontal", "henzler": "frontal", "igcn_plus": "igcn"}
"""Where a class does not lie in the file of the network's name."""


def build(network: str, arguments: dict[str, Any]) -> nn.Module:
    """The untrained module of a network of `MODULES`."""
    file = import_module(f".{_FILES.get(network, network)}", __name__)
    return getattr(file, MODULES[network])(**arguments)


def load(path: str | Path) -> nn.Module:
    """The module of a file of tools/to_torch.py, for evaluation."""
    if Path(path).suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network, arguments = facts["network"], json.loads(facts["arguments"])
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
        network, arguments = content["network"], content["arguments"]
        state = content["state_dict"]
    module = build(network, arguments)
    module.load_state_dict(state, strict=True)
    return module.eval()
