"""Our weights of X2CT-GAN, X2CT-CNN or CycleGAN -> files that the published code loads with strict=True.

    python tools/to_torch.py RUN --out DIR [--which best] [--epoch 90]
    python tools/to_torch.py weights.safetensors --out DIR

Writes {epoch}_net_G.pth and {epoch}_net_D.pth, dicts of iters, epoch, state_dict and lr; of CycleGAN
{epoch}_net_G_A.pth, G_B, D_A and D_B, state dicts alone, A being the real X-rays unless the run was
converted with --real B. A plain .safetensors of each state dict lies beside them. Each state dict is loaded
strictly into PyTorch's layers, whose output is compared with ours. Without PyTorch only the .safetensors
can be had: --format safetensors.
"""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial
from pathlib import Path

from weight_files import read_official, read_ours, read_run, write_official
from weights import import_torch, proof

from jxrecon.cli import entry
from jxrecon.files import component
from jxrecon.flags import add_trust_flag
from jxrecon.types import InputError

_FORMATS = ("pth", "safetensors")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("source", type=Path, help="run folder, or a parameter file of from_torch.py")
    made.add_argument("--out", type=Path, required=True, help="folder of the files")
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
    if "pth" in args.format:
        import_torch()
    if args.source.is_dir():
        if args.which not in ("latest", "best") and not args.which.isdigit():
            raise InputError(f"--which {args.which}: expected latest, best or a step")
        which = int(args.which) if args.which.isdigit() else args.which
        nets = read_run(args.source, which, args.trust)
    else:
        nets = read_ours(args.source)
    for weights in nets:
        epoch = weights.facts.get("epoch", weights.EPOCH) if args.epoch is None else args.epoch
        if isinstance(weights.EPOCH, int) and not isinstance(epoch, int):
            raise InputError(f"--epoch {epoch}: expected a number, as {weights.FAMILY} keeps it")
        weights = weights.with_facts(epoch=epoch)
        state = weights.to_state()
        for ending in args.format:
            name = component(f"{epoch}_net_{weights.net}.{ending}", f"{args.source}: epoch")
            path = args.out / name
            write_official(weights, path)
            back = read_official(path, weights.net).to_state()
            changed = [name for name in state if state[name].tobytes() != back[name].tobytes()]
            if changed or len(back) != len(state):
                raise InputError(f"{path}: {changed or 'tensors'} changed on the way to the disk")
            print(f"wrote {path}: {len(state)} tensors, read back bit-identical")
        if args.no_check:
            continue
        if importlib.util.find_spec("torch") is None:
            print(f"{weights.net}: PyTorch is not installed, its output was not compared")
        else:
            print(proof(weights))
    return 0


def _epoch(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
