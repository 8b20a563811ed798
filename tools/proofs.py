"""Whether a run's networks and their PyTorch and ONNX twins give the same, on one made-up input each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tensor_files import Tensors, import_torch
from twins import Trial, Twin

from jxrecon.compile import jit
from jxrecon.files import write_file
from jxrecon.types import InputError, PyTree

TORCH, ONNX = 1e-5, 1e-4
"""Largest differences that are let pass, relative to the largest value, in float32."""


def module_of(twin: Twin, tensors: Tensors) -> Any:
    """The PyTorch module with this state dict, loaded with strict=True.

    Raises:
        InputError: PyTorch is not installed.
    """
    torch = import_torch()
    import torch_modules

    module = torch_modules.build(twin.network, twin.arguments)
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    module.load_state_dict(state, strict=True)
    return module.eval()


def compared(twin: Twin, state: PyTree, module: Any) -> dict[str, float]:
    """Name of each part -> the largest difference between PyTorch's output and ours.

    Raises:
        InputError: one is larger than `TORCH`.
    """
    torch = import_torch()
    found = {}
    for trial in twin.trials():
        part = module.get_submodule(trial.part)
        with torch.no_grad():
            theirs = part(*map(torch.from_numpy, trial.inputs))
        name = ".".join(filter(None, [twin.network, trial.part]))
        found[name] = _difference(_ours(trial, state), _arrays(theirs), name, TORCH)
    return found


def exported(twin: Twin, state: PyTree, module: Any, path: Path) -> float:
    """Writes the whole module as ONNX and gives the largest difference between its output and ours.

    Raises:
        InputError: what writes or runs ONNX is not installed, or the difference is larger than `ONNX`.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # which torch.onnx needs
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed, expected it for --onnx: pip install 'jxrecon[torch]'"
        ) from None
    torch, trial = import_torch(), twin.trials()[0]
    names = [f"input_{n}" for n in range(len(trial.inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations
        program = torch.onnx.export(
            module, tuple(map(torch.from_numpy, trial.inputs)), input_names=names, dynamo=True,
            verbose=False,
        )  # fmt: skip
    content = program.model_proto.SerializeToString()
    onnx.checker.check_model(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = session.run(None, dict(zip(names, trial.inputs)))
    difference = _difference(_ours(trial, state), given, str(path), ONNX)
    write_file(path, content)
    return difference


def _ours(trial: Trial, state: PyTree) -> list[np.ndarray]:
    call: Callable[..., Any] = jit(trial.ours)
    return _arrays(call(state, *map(jnp.asarray, trial.inputs)))


def _arrays(given: Any) -> list[np.ndarray]:
    return [np.asarray(one) for one in (given if isinstance(given, tuple | list) else [given])]


def _difference(ours: list[np.ndarray], theirs: list[np.ndarray], name: str, most: float) -> float:
    """The largest difference over the largest value; outputs are of the same number and shapes."""
    shapes = [[one.shape for one in arrays] for arrays in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{name}: outputs are {shapes[1]}, expected {shapes[0]} as ours")
    largest = max(
        float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-30))
        for a, b in zip(ours, theirs)
    )
    if not largest <= most:
        raise InputError(
            f"{name}: outputs differ by {largest:.1e} of their largest value, expected at most {most:g}"
        )
    return largest
