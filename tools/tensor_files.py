"""Files of tensors, read and written: .pth (or .pt), and without PyTorch .safetensors and .npz.

Beside the state dict a file may hold facts: the other entries of a .pth, the metadata of a safetensors, each
written as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy
from safetensors import safe_open

from jxrecon.files import one_line, write_file
from jxrecon.types import InputError

Tensors: TypeAlias = dict[str, np.ndarray]
"""Name -> array, as a state dict has them."""

LEAST_TORCH = (2, 10)
"""Older versions of torch.load can be made to run code even with weights_only=True."""

_MOST_FACTS = 1 << 16  # characters


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


def read(path: Path, expected: str) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, facts) of a file.

    Args:
        path: .pth, .pt or .safetensors.
        expected: what should be there, for the error.

    Raises:
        InputError: there is no such file, it is damaged, or holds no state dict; or PyTorch is needed.
    """
    if path.suffix == ".pkl":
        raise InputError(
            f"{path}: a pickle runs code when it is read, and StyleGAN2-ADA's hold 2-D networks, which no "
            "experiment here has: expected .pth or .safetensors"
        )
    if path.suffix == ".npz":
        return _read_npz(path), {}
    if path.suffix not in (".pth", ".pt"):
        return _read_safetensors(path)
    torch = import_torch()
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected {expected}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or malicious file makes it raise anything
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: cannot be read as a PyTorch file of tensors ({line})") from None
    state = _state_of(content)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise InputError(f"{path}: no dict of tensors, expected a state_dict, by itself or in one")
    parts = ("state_dict", "net", "enc", "opt")
    facts = {} if state is content else {k: v for k, v in content.items() if k not in parts}
    wide = {k: v.float() if v.dtype == torch.bfloat16 else v for k, v in state.items()}
    return {name: value.detach().numpy() for name, value in wide.items()}, facts


def _state_of(content: Any) -> Any:
    """The state dict, by itself or in one; NeRP's file has it as net, with the frequencies beside it."""
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("net"), Mapping):
        frequencies = {"B": content["enc"]} if "enc" in content else {}
        return {**content["net"], **frequencies}
    return content.get("state_dict", content)


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected .pth or .safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = {name: _fact(text) for name, text in (file.metadata() or {}).items()}
    except Exception as error:  # SafetensorError, and what its types and names make others raise
        raise InputError(
            f"{path}: cannot be read as safetensors ({one_line(error)[:200]})"
        ) from None
    return state, facts


def _read_npz(path: Path) -> Tensors:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an .npz of named arrays")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile and NumPy raise a dozen kinds
        raise InputError(f"{path}: cannot be read as .npz ({one_line(error)[:200]})") from None


def _fact(text: str) -> Any:
    """What the JSON says; other text stays as it is."""
    if len(text) >= _MOST_FACTS:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def write_safetensors(path: Path, tensors: Tensors, facts: Mapping[str, Any]) -> None:
    """Writes them, whole or not at all."""
    texts = {name: json.dumps(value) for name, value in facts.items()}
    write_file(path, safetensors.numpy.save(tensors, texts))


def write_npz(path: Path, tensors: Tensors) -> None:
    """Writes them, whole or not at all."""
    stream = io.BytesIO()
    np.savez(stream, **tensors)
    write_file(path, stream.getvalue())


def write_pth(path: Path, tensors: Tensors, pack: Callable[[dict[str, Any]], Any]) -> None:
    """Writes what `pack` makes of PyTorch's tensors.

    Raises:
        InputError: PyTorch is not installed.
    """
    torch, stream = import_torch(), io.BytesIO()
    torch.save(
        pack({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}), stream
    )
    write_file(path, stream.getvalue())


def changed(a: Tensors, b: Tensors) -> list[str]:
    """Names whose tensors are not the same to the last bit."""
    return [
        name
        for name in sorted(a.keys() | b.keys())
        if name not in a
        or name not in b
        or (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape)
        or a[name].tobytes() != b[name].tobytes()
    ]
