"""Published X2CT-GAN weights -> a run folder of ours, or one parameter file.

    python tools/from_torch.py 90_net_G.pth [90_net_D.pth] --out RUN [--exp x2ct_lidc] [--data DIR]
    python tools/from_torch.py 90_net_G.pth [90_net_D.pth] --out weights.safetensors

A run folder is what `python -m jxrecon.reconstruct`, `evaluate` and `train` take; its optimisers are at
rest, and a discriminator that is not given is untrained. --data is the folder that training will go on
with. A .pth needs PyTorch 2.10 or newer and is read as tensors alone; a .safetensors of the state dict
needs none. Each net is tried on one input before and after the way there and back, and against PyTorch
where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import jax
import numpy as np
from x2ct_weights import (
    Weights,
    from_state,
    outputs,
    proof,
    read_official,
    read_ours,
    read_run,
    to_state,
    write_ours,
    write_run,
)

from jxrecon import config
from jxrecon.cli import entry
from jxrecon.types import InputError


def main(argv: list[str] | None = None) -> int:
    """Converts, writes, reads back and compares.

    Raises:
        InputError: a file, the experiment or the output is not as it should be.
    """
    args = _parser().parse_args(argv)
    nets = [read_official(path) for path in args.files]
    nets.sort(key=lambda weights: "GD".index(weights.net))
    if [weights.net for weights in nets] not in (["G"], ["D"], ["G", "D"]):
        raise InputError(f"{args.files[-1]}: the same net again, expected one G and one D")
    for weights in nets:
        count = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
        print(f"{weights.net}: {weights.views} view(s), {count:,} parameters, {weights.facts}")
    if args.out.suffix == ".safetensors":
        write_ours(nets, args.out)
        written = read_ours(args.out)
    else:
        if nets[0].net != "G":
            raise InputError(f"--out {args.out}: a run needs a generator, expected its file too")
        exp = args.exp or ("x2ct_lidc" if nets[0].views == 2 else "x2ct_lidc_single")
        size = args.size or (None if args.exp and args.exp.endswith(".py") else "paper")
        experiment = config.override(config.find(exp, size), args.set)
        write_run(nets, args.out, experiment, exp, args.data)
        written = read_run(args.out)
    print(f"wrote {args.out}")
    if not args.no_check:
        for weights, back in zip(nets, written):
            _check(weights, back)
    return 0


def _check(weights: Weights, written: Weights) -> None:
    """Says how far apart the outputs are before and after what was written, and PyTorch's and ours."""
    state, again = to_state(weights), to_state(written)
    changed = [name for name in state if state[name].tobytes() != again[name].tobytes()]
    if changed:
        raise InputError(f"{changed[0]} changed on the way there and back, expected the same bits")
    before, after = outputs(weights, from_state(again, {}))
    print(
        f"{weights.net}: {len(state)} tensors bit-identical on the way there and back; largest"
        f" difference of the output {np.abs(before - after).max():g} (float32, one input)"
    )
    if importlib.util.find_spec("torch") is None:
        print(f"{weights.net}: PyTorch is not installed, its output was not compared")
    else:
        print(proof(weights))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".pth or .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="run folder, or NAME.safetensors")
    parser.add_argument("--exp", metavar="NAME", help="experiment of the run; default: x2ct_lidc, or"
                        " x2ct_lidc_single for one view")  # fmt: skip
    parser.add_argument("--size", help="one of its sizes; default: paper")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--data", type=Path, metavar="DIR", help="training data of the run")
    parser.add_argument("--no-check", action="store_true", help="leave out the comparisons")
    return parser


if __name__ == "__main__":
    raise SystemExit(entry(main))
