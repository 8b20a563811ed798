"""PyTorch -> a run folder of ours: a file of to_torch.py, or published weights of X2CT-GAN or CycleGAN.

    python tools/from_torch.py NAME.pth --out RUN [--data DIR]            # the experiment that the file names
    python tools/from_torch.py NAME.pth --out RUN --run OTHER             # OTHER with these weights
    python tools/from_torch.py NAME.pth --out RUN --exp NAME [--set ...]  # of a state dict, or .npz, alone
    python tools/from_torch.py NAME.pth --out lift.safetensors --run lift_hn
    python tools/from_torch.py 90_net_G.pth [90_net_D.pth] --out RUN [--exp x2ct_lidc] [--data DIR]
    python tools/from_torch.py latest_net_G_A.pth [latest_net_G_B.pth ...] --out RUN [--real B]
    python tools/from_torch.py FILE ... --out weights.safetensors

A file of to_torch.py may have been trained further in PyTorch; all its tensors are needed, of the right
shapes. A new run is made as training starts one: it looks at the experiment's data (--data, or the built-in
population), and its optimisers are at rest. With --run all else is a copy of that run.

A run folder is what `python -m jxrecon.reconstruct`, `evaluate` and `train` take (CycleGAN's: `reconstruct
--style`). Of published files a net that is not given is untrained, and --data is the folder that training
will go on with. Of CycleGAN, A is taken for the real X-rays and B for the synthetic ones, so that G_A is
the one that --style uses; --real B turns it round. Which net a file holds is in its name, as
{epoch}_net_G_A.pth, or given by --net, once a file.

A .pth needs PyTorch 2.10 or newer and is read as tensors alone; a .safetensors needs none. Each net is tried
on one input against PyTorch where it is installed, and all tensors are compared on the way back.
"""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import run_files
from tensor_files import changed
from twins import tensors_of
from weight_files import FAMILIES, read_official, read_ours, read_run, write_ours, write_run
from weights import Weights, outputs, proof

from jxrecon.cli import entry
from jxrecon.runs import config
from jxrecon.types import InputError


def main(args: argparse.Namespace) -> int:
    """Converts, writes, reads back and compares.

    Raises:
        InputError: a file, the experiment or the output is not as it should be.
    """
    if (file := _whole_run(args)) is not None:
        _into_run(file, args)
        return 0
    nets = _read(args)
    for weights in nets:
        print(f"{weights.net}: {weights.described}, {weights.count:,} parameters, {weights.facts}")
    if args.out.suffix == ".safetensors":
        write_ours(nets, args.out)
        written = read_ours(args.out)
    else:
        _write_run(nets, args)
        trust = [Path(args.exp)] if args.exp else []  # which the user has just named
        written = read_run(args.out, trust=trust)
    print(f"wrote {args.out}")
    back = {weights.field: weights for weights in written}
    if not args.no_check:
        for weights in nets:
            _check(weights, back[weights.field])
    return 0


def _whole_run(args: argparse.Namespace) -> run_files.RunFile | None:
    """The file of a whole run; None where published files are given."""
    if len(args.files) > 1:
        return None
    file = run_files.read(args.files[0])
    published = any(family.recognises(file.tensors) for family in FAMILIES)
    named = args.run is not None or (args.exp and not published)
    return file if file.facts or named else None


def _into_run(file: run_files.RunFile, args: argparse.Namespace) -> None:
    """Writes the run, reads it back and compares."""
    origin = args.files[0]
    source = run_files.Source(args.run, args.exp or "", args.size, args.set, args.data)
    twin, state = run_files.into_run(file, origin, args.out, source)
    own = {name: value for name, value in file.tensors.items() if name not in twin.constants}
    held = tensors_of(twin, state, tensorflow=origin.suffix == ".npz")
    names = changed(own, {name: value for name, value in held.items() if name in own})
    if names and args.out.suffix != ".safetensors":
        raise InputError(f"{args.out}: {names[0]} changed on the way there, expected the same bits")
    rounded = f"{len(names)} of them rounded to 16 bits" if names else "bit-identical"
    print(f"wrote {args.out}: {len(own)} tensors of {twin.network}, {rounded}")
    if args.no_check or importlib.util.find_spec("torch") is None:
        print("the outputs of PyTorch and of ours were not compared")
        return
    import proofs

    tensors = tensors_of(twin, state)
    for name, largest in proofs.compared(twin, state, proofs.module_of(twin, tensors)).items():
        print(f"{name}: PyTorch and ours differ by {largest} of the largest value")


def _read(args: argparse.Namespace) -> list[Weights]:
    """The nets of the files, in the order of their family."""
    names = args.net or [""] * len(args.files)
    if len(names) != len(args.files):
        raise InputError(f"--net {' '.join(names)}: expected {len(args.files)}, one for each file")
    nets = [read_official(path, net, args.real) for path, net in zip(args.files, names)]
    family, seen = type(nets[0]), {}
    for path, weights in zip(args.files, nets):
        if type(weights) is not family:
            raise InputError(f"{path}: {weights.described}, expected {family.FAMILY} as before")
        if weights.net in seen:
            raise InputError(
                f"{path}: the same net again, {weights.net} as {seen[weights.net]}, expected one of"
                f" each {', '.join(family.FIELDS.values())}"
            )
        seen[weights.net] = path
    return sorted(nets, key=lambda weights: list(family.FIELDS).index(weights.field))


def _write_run(nets: list[Weights], args: argparse.Namespace) -> None:
    first, begin = nets[0], nets[0].start
    needed = next(iter(first.FIELDS))
    if first.field != needed:
        raise InputError(f"--out {args.out}: a run needs {needed}, expected its file too")
    if args.data is not None and first.FAMILY == "CycleGAN":
        raise InputError(f"--data {args.data}: expected none, CycleGAN learns by jxrecon style")
    exp = args.exp or begin.exp
    size = args.size or (None if exp.endswith(".py") else begin.size)
    experiment = config.override(config.find(exp, size), [*begin.assignments, *args.set])
    write_run(nets, args.out, experiment, exp, args.data)


def _check(weights: Weights, written: Weights) -> None:
    """Says how far apart the outputs are before and after what was written, and PyTorch's and ours."""
    state, again = weights.to_state(), written.to_state()
    if names := changed(state, again):
        raise InputError(f"{names[0]} changed on the way there and back, expected the same bits")
    before, after = outputs(weights, written)
    print(
        f"{weights.net}: {len(state)} tensors bit-identical on the way there and back; largest"
        f" difference of the output {np.abs(before - after).max():g} (float32, one input)"
    )
    if importlib.util.find_spec("torch") is None:
        print(f"{weights.net}: PyTorch is not installed, its output was not compared")
    else:
        print(proof(weights))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help=".pth or .safetensors")
    add("--out", type=Path, required=True, help="run folder, or NAME.safetensors")
    text = "run, or weights that ship, that the weights of a file of to_torch.py replace"
    add("--run", type=Path, metavar="RUN", help=text)
    add("--net", nargs="+", metavar="NET", help="G_A, G_B, D_A or D_B for each file, where its name does"
        " not say")  # fmt: skip
    add(
        "--real",
        choices=("A", "B"),
        default="A",
        help="CycleGAN's domain of real X-rays; default: A",
    )
    add("--exp", metavar="NAME", help="experiment of the run; default: the file's; of published files"
        " x2ct_lidc, x2ct_lidc_single for one view, cyclegan_xray")  # fmt: skip
    add(
        "--size",
        help="one of its sizes; default of published files: paper; of CycleGAN 128 for 6 blocks, else 256",
    )
    add("--set", action="append", default=[], metavar="FIELD=VALUE")
    add("--data", type=Path, metavar="DIR", help="training data of the run")
    add("--no-check", action="store_true", help="leave out the comparisons")
    return made


command = partial(entry, parser, main)


if __name__ == "__main__":
    raise SystemExit(command())
