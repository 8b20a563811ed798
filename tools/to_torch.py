"""Our networks -> PyTorch: all of a run in one file, or the published files of X2CT-GAN and CycleGAN.

    python tools/to_torch.py --run RUN --out NAME.pth [--onnx NAME.onnx] [--which best]
    python tools/to_torch.py --run lift_hn --out NAME.safetensors
    python tools/to_torch.py --run RUN --out NAME.npz
    python tools/to_torch.py --run RUN --out DIR [--epoch 90]
    python tools/to_torch.py nerp.safetensors --out DIR [--onnx nerp.onnx]

NAME.pth holds the state dict of one plain module of `torch_modules`, by which `torch_modules.load` makes it
again with strict=True: every network of the run, the running means, and what else a reconstruction needs of
them. RUN is a run folder or the name of weights that ship. --onnx writes the module's forward: the generator
by the running mean, the regression network. An .npz has the names and layouts of the released TensorFlow
codes of IGCN+ and Pixel2Mesh.

DIR is for the code of others: {epoch}_net_G.pth and {epoch}_net_D.pth of X2CT-GAN, dicts of iters, epoch,
state_dict and lr; of CycleGAN {epoch}_net_G_A.pth, G_B, D_A and D_B, state dicts alone, A being the real
X-rays unless the run was converted with --real B. A plain .safetensors of each lies beside them.

What was written is read back and compared to the last bit, and each network is tried on one input in PyTorch
and in ours. Without PyTorch only .safetensors can be had, and nothing is tried.
"""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import run_files
from tensor_files import changed, import_torch
from twins import tensors_of
from weight_files import read_official, read_ours, read_run, write_official
from weights import Weights, loaded, outputs, proof, trial_inputs

from jxrecon.cli import entry
from jxrecon.files import component
from jxrecon.flags import add_trust_flag
from jxrecon.runs import run
from jxrecon.types import InputError

_FORMATS = ("pth", "safetensors")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = made.add_mutually_exclusive_group(required=True)
    add = source.add_argument
    add("source", type=Path, nargs="?", help="run folder, or a parameter file of from_torch.py")
    add("--run", type=Path, help="run folder, or the name of weights that ship")
    made.add_argument("--out", type=Path, help="NAME.pth, NAME.safetensors or a folder")
    made.add_argument("--onnx", type=Path, metavar="FILE", help="the module's forward as ONNX")
    made.add_argument("--which", default="latest", help="latest, best or a step of the run")
    made.add_argument("--epoch", type=_epoch, help="default: that of the converted file, else 0, of"
                        " CycleGAN latest")  # fmt: skip
    made.add_argument("--format", nargs="+", choices=_FORMATS, default=_FORMATS)
    made.add_argument("--no-check", action="store_true", help="leave out the comparison")
    add_trust_flag(made)
    return made


def main(args: argparse.Namespace) -> int:
    """Writes the files, reads them back and compares.

    Raises:
        InputError: the source or the output is not as it should be, or PyTorch is needed and absent.
    """
    args.source = args.run or args.source
    if args.which not in ("latest", "best") and not args.which.isdigit():
        raise InputError(f"--which {args.which}: expected latest, best or a step")
    which = int(args.which) if args.which.isdigit() else args.which
    if args.out is None and args.onnx is None:
        raise InputError("--out is missing, expected NAME.pth, NAME.safetensors or a folder")
    parameters = args.source.suffix == ".safetensors"
    if not parameters and (args.out is None or args.out.suffix in run_files.ENDINGS):
        _whole(args, which)
        return 0
    if args.onnx is not None and not parameters:
        raise InputError(f"--onnx {args.onnx}: expected with --out NAME.pth, or without --out")
    if args.out is not None and "pth" in args.format:
        import_torch()
    nets = read_ours(args.source) if parameters else read_run(args.source, which, args.trust)
    for weights in nets if args.out is not None else ():
        _published(weights, args)
    if args.onnx is not None:
        _onnx(nets[0], args.onnx)
    return 0


def _onnx(weights: Weights, path: Path) -> None:
    """The first net of a parameter file."""
    import proofs

    weights = weights.trial()
    inputs = [x.astype(np.float32) for x in trial_inputs(weights)]
    largest = proofs.written(loaded(weights), inputs, outputs(weights), path)
    print(f"wrote {path}: onnxruntime and ours differ by {largest:.1e} of the largest value")


def _whole(args: argparse.Namespace, which: int | str) -> None:
    """One file of all networks, and the ONNX."""
    opened = run.open_run(args.source, args.trust)
    state, step = run.restore(opened, which)
    ending = "" if args.out is None else args.out.suffix
    twin, file = run_files.of_run(opened, state, ending)
    if args.out is not None:
        run_files.write(file, args.out)
        if names := changed(file.tensors, run_files.read(args.out).tensors):
            raise InputError(f"{args.out}: {names[0]} changed on the way to the disk")
        count = len(file.tensors)
        print(f"wrote {args.out}: step {step}, {count} tensors, read back bit-identical")
    if args.onnx is None and (args.no_check or importlib.util.find_spec("torch") is None):
        print("the outputs of PyTorch and of ours were not compared")
        return
    import proofs

    module = proofs.module_of(twin, tensors_of(twin, state))
    if not args.no_check:
        for name, largest in proofs.compared(twin, state, module).items():
            print(f"{name}: PyTorch and ours differ by {largest} of the largest value")
    if args.onnx is not None:
        largest = proofs.exported(twin, state, module, args.onnx)
        print(
            f"wrote {args.onnx}: onnxruntime and ours differ by {largest:.1e} of the largest value"
        )


def _published(weights: Weights, args: argparse.Namespace) -> None:
    """The files of one net for the code of others."""
    epoch = weights.facts.get("epoch", weights.EPOCH) if args.epoch is None else args.epoch
    if isinstance(weights.EPOCH, int) and not isinstance(epoch, int):
        raise InputError(f"--epoch {epoch}: expected a number, as {weights.FAMILY} keeps it")
    weights = weights.with_facts(epoch=epoch)
    state = weights.to_state()
    for ending in args.format:
        name = component(f"{epoch}_net_{weights.net}.{ending}", f"{args.source}: epoch")
        path = args.out / name
        write_official(weights, path)
        if names := changed(state, read_official(path, weights.net).to_state()):
            raise InputError(f"{path}: {names[0]} changed on the way to the disk")
        print(f"wrote {path}: {len(state)} tensors, read back bit-identical")
    if args.no_check:
        return
    if importlib.util.find_spec("torch") is None:
        print(f"{weights.net}: PyTorch is not installed, its output was not compared")
    else:
        print(proof(weights))


def _epoch(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
