"""Weights that come with the package: one safetensors file each, its card beside it, checked on reading.

jxrecon/weights/NAME.safetensors   arrays of the state that `Method.ship` makes, large ones in 16 bits;
                                   as metadata the run's config.json and step
jxrecon/weights/NAME.md            the card: data, training, results, what they are not for
jxrecon/weights/patients_*         of no run: what the geometry of X-rays is checked by
jxrecon/weights/SHA256SUMS         of the safetensors files, as `sha256sum -c` reads it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jxrecon.files import write_file
from jxrecon.types import InputError, PyTree

FOLDER = Path(__file__).parents[1] / "weights"
SUMS = "SHA256SUMS"
PATIENTS = "patients_"
"""How names of files begin that are no run."""
FEW = 256
"""Arrays of no more numbers keep 32 bits."""


FOR_XRAYS = {1: "lift_hn_single", 2: "lift_hn"}
"""Number of X-rays -> the weights that ship for them."""


def for_xrays(count: int) -> str:
    """The name of the weights that ship for so many X-rays.

    Raises:
        InputError: there are none.
    """
    if count not in FOR_XRAYS:
        raise InputError(
            f"{count} X-rays: the weights that ship take one or two, expected --run DIR or --method NAME"
        )
    return FOR_XRAYS[count]


def names() -> list[str]:
    """Of the weights at hand, in alphabetical order."""
    paths = FOLDER.glob("*.safetensors")
    return sorted(path.stem for path in paths if not path.stem.startswith(PATIENTS))


def patients_of(rule: str) -> Path | None:
    """The file of what was learnt from the training cases that a run's rule tells of; None: there is none."""
    for path in sorted(FOLDER.glob(f"{PATIENTS}*.safetensors")):
        if read_config(path)[0]["rule"] == rule:
            return path
    return None


def path_of(name: str) -> Path | None:
    """The file of these weights; None where there is none."""
    return FOLDER / f"{name}.safetensors" if name in names() else None


def write(path: Path, state: PyTree, config: dict[str, Any], step: int) -> None:
    """Writes weights and their line in SHA256SUMS.

    Args:
        path: NAME.safetensors.
        state: of `Method.ship`.
        config: what the run's config.json holds.
        step: of the checkpoint.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    arrays = {jax.tree_util.keystr(place): _narrow(np.asarray(leaf)) for place, leaf in leaves}
    content = save(arrays, {"config": json.dumps(config), "step": str(step)})
    write_file(path, content)
    sums = path.parent / SUMS
    lines = sums.read_text().splitlines() if sums.exists() else []
    lines = [line for line in lines if not line.endswith(f"  {path.name}")]
    lines.append(f"{hashlib.sha256(content).hexdigest()}  {path.name}")
    write_file(sums, "\n".join(sorted(lines, key=lambda line: line[66:])) + "\n")


def read_config(path: Path) -> tuple[dict[str, Any], int]:
    """(what the run's config.json held, step) of weights, once the file is known to be whole.

    Raises:
        InputError: the file is not the one that SHA256SUMS names.
    """
    with _opened(path) as file:
        return _facts(file)


def expected_time(path: Path) -> str:
    """How long a reconstruction by these weights takes, in words."""
    seconds = float(read_config(path)[0]["cpu_seconds"])
    return (
        f"takes about {seconds:.0f} s of one CPU core, compiling included; less when started again"
    )


def read(path: Path, abstract: PyTree) -> tuple[PyTree, int]:
    """(state, step) of weights.

    Args:
        path: NAME.safetensors.
        abstract: its shapes and dtypes, of `Method.ship`.

    Raises:
        InputError: the file is not the one that SHA256SUMS names, or of another version of the method.
    """
    arrays, _, step = contents(path)

    def one(place: Any, leaf: Any) -> Any:
        array = arrays.pop(jax.tree_util.keystr(place), None)
        if array is None or array.shape != leaf.shape:
            found = "none" if array is None else str(array.shape)
            raise InputError(
                f"{path}: {jax.tree_util.keystr(place)} is {found}, expected {leaf.shape}: these weights "
                "belong to another version"
            )
        return jnp.asarray(array, leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, abstract), step


def contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], int]:
    """(arrays by their places in what was written, as ".mean"; config; step); errors as of `read_config`."""
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, *_facts(file)


def _facts(file: Any) -> tuple[dict[str, Any], int]:
    told = file.metadata()
    return json.loads(told["config"]), int(told["step"])


def _narrow(array: np.ndarray) -> np.ndarray:
    """Large arrays of floats in 16 bits; all else as it is."""
    if not np.issubdtype(array.dtype, np.floating) or array.size <= FEW:
        return array
    if not np.isfinite(array).all() or np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
        raise InputError(f"weights reach {np.abs(array).max():g}, expected what 16 bits hold")
    return array.astype(np.float16)


def _opened(path: Path) -> Any:
    sums = dict(line.split("  ")[::-1] for line in (path.parent / SUMS).read_text().splitlines())
    if hashlib.sha256(path.read_bytes()).hexdigest() != sums.get(path.name):
        raise InputError(
            f"{path}: not the file that {SUMS} names: it is damaged or was changed; install jxrecon anew"
        )
    try:
        return safe_open(path, "numpy")
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from None
