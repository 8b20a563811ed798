"""How far every network and its PyTorch and ONNX twins are apart: the table of experiments/to_pytorch.md.

    python tools/torch_table.py [lift_hn igcn_liver ...]

Each experiment is taken at its size for CPU with random weights: nothing is trained, so that no last layer
is still zero. Weights go to a .pth, are loaded strictly, and come back; of each part the outputs of one input
are compared, and those of the whole in onnxruntime.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import proofs
import run_files
from tensor_files import changed
from twins import tensors_of, with_tensors

from jxrecon.cli import entry
from jxrecon.io.meshes import write_mesh
from jxrecon.kinds import TEMPLATE
from jxrecon.mesh import Mesh
from jxrecon.phantom.liver import liver_template
from jxrecon.runs import config, run
from jxrecon.runs.run import Run
from jxrecon.types import InputError, PyTree

SIZES = {
    "x2vision_hn": "small",
    "x2vision_hn skip, encoder": "coarse",
    "x2ct_hn": "tiny",
    "x2ct_hn_single": "tiny",
    "lift_hn": "tiny",
    "cnn2d": "tiny",
    "henzler": "tiny",
    "cyclegan_xray": "64",
    "igcn_liver": "small",
    "igcn_plus_liver": "small",
    "p2m_liver": "small",
    "xray2shape_liver": "small",
    "field_liver": "small",
    "weights lift_hn": "",
    "weights lift_hn_single": "",
}
"""Rows -> sizes; the first word is the experiment."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("rows", nargs="*", help=f"of {', '.join(SIZES)}; default: all")
    return made


def main(args: argparse.Namespace) -> int:
    """Prints the table.

    Raises:
        InputError: there is no such row, or outputs differ by more than they may.
    """
    if unknown := set(args.rows) - set(SIZES):
        raise InputError(f"{min(unknown)}: no such row, expected of {', '.join(SIZES)}")
    print("| run | tensors, parameters | to PyTorch | and back | ONNX |\n|---|---|---|---|---|")
    for name in args.rows or SIZES:
        print(row(name, SIZES[name]), flush=True)
    return 0


def row(name: str, size: str) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        first, _, rest = name.partition(" ")
        if first == "weights":
            opened = run.open_run(rest)
            state, _ = run.restore(opened)
        else:
            opened = untrained(first, size, (), Path(folder))
            state = random_state(opened.method)
        twin, file = run_files.of_run(opened, state)
        path = Path(folder, "net.pth")
        run_files.write(file, path)
        read = run_files.read(path)
        back = with_tensors(twin, jax.tree.map(jnp.zeros_like, state), read.tensors)
        same = changed(file.tensors, tensors_of(twin, back)) == []
        module = proofs.module_of(twin, read.tensors)
        found = proofs.compared(twin, state, module)
        onnx = proofs.exported(twin, state, module, Path(folder, "net.onnx"))
        count = sum(p.numel() for p in module.parameters())
        parts = ", ".join(f"{part.partition('.')[2] or 'whole'} {v}" for part, v in found.items())
        title = f"`{name}`" + (f", {size}" if size else "")
        told = "bit-identical" if same else "CHANGED"
        return f"| {title} | {len(file.tensors)}, {count:,} | {parts} | {told} | {onnx:.1e} |"


def untrained(exp: str, size: str, assignments: Sequence[str], folder: Path) -> Run:
    """A run of an experiment that was never started; surfaces are SYNTHETIC livers."""
    experiment = config.override(config.find(exp, size), list(assignments))
    organ = liver_template()
    write_mesh(folder / TEMPLATE, Mesh(organ.vertices, organ.faces))
    problem = experiment.kind.problem(experiment, 3, folder)
    method = experiment.build(experiment.settings, problem)
    return Run(folder, experiment, None, problem, method, True, "")


def random_state(method: Any) -> PyTree:
    """A state of random numbers, of the size that a trained network's have; nothing is compiled."""
    rng = np.random.default_rng(3)

    def fill(path: Any, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        name, drawn = jax.tree_util.keystr(path[-1:], simple=True), rng.standard_normal(leaf.shape)
        if name == "covariance":
            drawn = np.eye(len(drawn)) + 0.01 * (drawn + drawn.T)
        elif name in ("var", "scale"):
            drawn = 1.0 + 0.1 * np.abs(drawn)
        elif "kernel" in name:
            drawn = drawn / max(np.prod(leaf.shape[:-1]), 1) ** 0.5
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(method.init, jax.random.key(0)))


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
