"""Whether a run's networks and their PyTorch and ONNX twins give the same, on one made-up input each."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tensor_files import Tensors, import_torch
from twins import Trial, Twin

from jxrecon.compile import jit
from jxrecon.files import write_file
from jxrecon.types import InputError, PyTree

TORCH, ONNX, FLOAT64 = 1e-5, 1e-4, 1e-9
"""Largest differences that are let pass, relative to the largest value: in float32, of ONNX, in float64."""


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


class Apart(NamedTuple):
    """The largest difference of two outputs over the largest value.

    Attributes:
        float32: as both compute by default.
        float64: of networks whose norms raise rounding above `TORCH` in float32; else None.
    """

    float32: float
    float64: float | None = None

    def __str__(self) -> str:
        more = "" if self.float64 is None else f" ({self.float64:.1e} in float64)"
        return f"{self.float32:.1e}{more}"


def compared(twin: Twin, state: PyTree, module: Any) -> dict[str, Apart]:
    """Name of each part -> how far PyTorch's output and ours are apart.

    Raises:
        InputError: by more than `TORCH` in float32, and either more than `ONNX` there, or more than
            `FLOAT64` in float64.
    """
    found = {}
    for trial in twin.trials():
        name = ".".join(filter(None, [twin.network, trial.part]))
        narrow, wide = _apart(trial, state, module, name), None
        if narrow > TORCH:
            with jax.enable_x64(True):
                wide = _apart(
                    trial, jax.tree.map(_wide, state), copy.deepcopy(module).double(), name
                )
        if narrow > (TORCH if wide is None else ONNX) or (wide is not None and wide > FLOAT64):
            raise InputError(
                f"{name}: outputs differ by {Apart(narrow, wide)} of their largest value, expected at"
                f" most {TORCH:g}, or {FLOAT64:g} in float64"
            )
        found[name] = Apart(narrow, wide)
    return found


def _wide(leaf: Any) -> Any:
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _apart(trial: Trial, state: PyTree, module: Any, name: str) -> float:
    torch = import_torch()
    dtype = next(module.parameters()).dtype
    inputs = [torch.from_numpy(x).to(dtype) for x in trial.inputs]
    with torch.no_grad():
        theirs = module.get_submodule(trial.part)(*inputs)
    ours = _ours(trial, state, [x.numpy() for x in inputs])
    return _difference(ours, _arrays(theirs), name)


def exported(twin: Twin, state: PyTree, module: Any, path: Path) -> float:
    """`written` of a run's whole module."""
    trial = twin.trials()[0]
    return written(module, trial.inputs, _ours(trial, state, trial.inputs), path)


def written(module: Any, inputs: Sequence[np.ndarray], ours: list[np.ndarray], path: Path) -> float:
    """Writes a module as ONNX and gives the largest difference between its output and ours.

    Args:
        module: of PyTorch.
        inputs: what it is tried on.
        ours: what our network makes of them.
        path: of the file.

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
    torch, names = import_torch(), [f"input_{n}" for n in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations
        program = torch.onnx.export(
            module, tuple(map(torch.from_numpy, inputs)), input_names=names, dynamo=True,
            verbose=False,
        )  # fmt: skip
    content = program.model_proto.SerializeToString()
    onnx.checker.check_model(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = session.run(None, dict(zip(names, inputs)))
    largest = _difference(ours, given, str(path))
    if not largest <= ONNX:
        raise InputError(
            f"{path}: outputs differ by {largest:.1e} of their largest value, expected at most {ONNX:g}"
        )
    write_file(path, content)
    return largest


def _ours(trial: Trial, state: PyTree, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return _arrays(jit(trial.ours)(state, *map(jnp.asarray, inputs)))


def _arrays(given: Any) -> list[np.ndarray]:
    return [np.asarray(one) for one in (given if isinstance(given, tuple | list) else [given])]


def _difference(ours: list[np.ndarray], theirs: list[np.ndarray], name: str) -> float:
    """The largest difference over the largest value.

    Raises:
        InputError: outputs are of another number or shape.
    """
    shapes = [[one.shape for one in arrays] for arrays in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{name}: outputs are {shapes[1]}, expected {shapes[0]} as ours")
    return max(
        float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-30))
        for a, b in zip(ours, theirs)
    )
