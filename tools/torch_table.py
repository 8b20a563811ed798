"""How far every network and its PyTorch and ONNX twins are apart: the table of experiments/to_pytorch.md.

    python tools/torch_table.py [igcn lift_hn ...]

Of each experiment a toy with random weights: nothing is trained, so that no last layer is still zero; and the
weights that ship. They go to a .pth, are loaded strictly, and come back; of each part the outputs of one
input are compared, and those of the whole in onnxruntime.
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

SURFACE = ("views.pixels=32", "settings.width=2", "settings.hidden=6", "settings.pairs=1")
VGG = (*SURFACE, "settings.stages=[1,1,2,1]")
PRIOR = (
    "field.shape=[4,6,4]",
    "views.pixels=8",
    "settings.prior.base=[2,3,2]",
    "settings.prior.channels=[6,4]",
    "settings.prior.w_dim=5",
    "settings.prior.mapping_layers=2",
)
TABLE = (*PRIOR, "settings.prior.architecture=orig", "settings.prior.codes=table",
         "settings.latent.start=mean")  # fmt: skip
PRINCIPAL = ("field.shape=[8,16,8]", "views.pixels=8", "settings.prior.base=[1,2,1]",
             "settings.prior.channels=[6,5,4,3]", "settings.prior.w_dim=5",
             "settings.prior.xray_channels=[3,4]")  # fmt: skip
TOYS = {
    "x2vision": ("x2vision_hn", "small", TABLE),
    "x2vision_principal": ("x2vision_hn", "coarse", PRINCIPAL),
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
"""Row -> experiment, size, and what makes a toy of it."""

SHIPPED = ("lift_hn", "lift_hn_single")
"""Weights that ship, as they are."""

ROWS = (*TOYS, *SHIPPED)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; default: all")
    return made


def main(args: argparse.Namespace) -> int:
    """Prints the table.

    Raises:
        InputError: there is no such row, or outputs differ by more than they may.
    """
    if unknown := set(args.rows) - set(ROWS):
        raise InputError(f"{min(unknown)}: no such row, expected of {', '.join(ROWS)}")
    print("| network | tensors, parameters | to PyTorch | and back | ONNX |\n|---|---|---|---|---|")
    for name in args.rows or ROWS:
        print(row(name), flush=True)
    return 0


def row(name: str) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        if name in SHIPPED:
            opened = run.open_run(name)
            state, _ = run.restore(opened)
        else:
            opened = untrained(*TOYS[name], Path(folder))
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
        title = f"`{name}`, the weights that ship" if name in SHIPPED else name
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
        if name in ("var", "scale", "spread", "deviation"):
            drawn = 1.0 + 0.1 * np.abs(drawn)
        elif "kernel" in name:
            drawn = drawn / max(np.prod(leaf.shape[:-1]), 1) ** 0.5
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(method.init, jax.random.key(0)))


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
