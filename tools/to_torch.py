"""Our X2CT-GAN or X2CT-CNN weights -> files that the published code loads with strict=True.

    python tools/to_torch.py RUN --out DIR [--which best] [--epoch 90]
    python tools/to_torch.py weights.safetensors --out DIR

Writes {epoch}_net_G.pth and {epoch}_net_D.pth, dicts of iters, epoch, state_dict and lr, and a plain
.safetensors of each state dict beside them. Each state dict is loaded strictly into PyTorch's layers,
whose output is compared with ours. Without PyTorch only the .safetensors can be had: --format safetensors.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from x2ct_weights import import_torch, proof, read_official, read_ours, read_run, to_state

from x2ct_weights import write_official  # isort: skip

from jxrecon.cli import entry
from jxrecon.types import InputError

_FORMATS = ("pth", "safetensors")


def main(argv: list[str] | None = None) -> int:
    """Writes the files, reads them back and compares.

    Raises:
        InputError: the source or the output is not as it should be, or PyTorch is needed and absent.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="run folder, or a parameter file of from_torch.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--which", default="latest", help="latest, best or a step of the run")
    parser.add_argument("--epoch", type=int, help="default: that of the converted file, else 0")
    parser.add_argument("--format", nargs="+", choices=_FORMATS, default=_FORMATS)
    parser.add_argument("--no-check", action="store_true", help="leave out the comparison")
    args = parser.parse_args(argv)
    if "pth" in args.format:
        import_torch()
    if args.source.is_dir():
        if args.which not in ("latest", "best") and not args.which.isdigit():
            raise InputError(f"--which {args.which}: expected latest, best or a step")
        nets = read_run(args.source, int(args.which) if args.which.isdigit() else args.which)
    else:
        nets = read_ours(args.source)
    for weights in nets:
        epoch = weights.facts.get("epoch", 0) if args.epoch is None else args.epoch
        weights = weights._replace(facts={**weights.facts, "epoch": epoch})
        state = to_state(weights)
        for ending in args.format:
            path = args.out / f"{epoch}_net_{weights.net}.{ending}"
            write_official(weights, path)
            back = to_state(read_official(path))
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


if __name__ == "__main__":
    raise SystemExit(entry(main))
