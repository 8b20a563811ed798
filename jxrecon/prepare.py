"""Data sets in the layout that a paper's code expects, from what can be had.

    jxrecon prepare lidc SRC OUT      # LIDC-IDRI, or any CT, for X2CT-GAN
    jxrecon prepare meshes SRC OUT    # surfaces or labels of one organ, for IGCN

Both skip what is finished, so that a run can be stopped and started again; what cannot be used is listed in
OUT/rejected.txt.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_hu_flags, stated_of
from jxrecon.types import InputError

_LIDC = (
    "X2CT-GAN's layout: SRC holds DICOM series, NIfTI, MHA, MHD or NRRD files in any subfolders; OUT "
    "gets volumes of 320^3 mm with two X-rays each, and train.txt and test.txt that share no patient."
)
_MESHES = (
    "One topology: SRC holds one organ of many patients, as PLY, OBJ, STL or VTK surfaces or NIfTI labels, "
    "in RAS mm and about upright; OUT gets a template fitted to each, and registration.csv with its quality."
)


def parser() -> argparse.ArgumentParser:
    """The flags of `jxrecon prepare`."""
    parser = command_parser(
        "prepare",
        "Brings CTs or organs into the layout that a paper's code expects.",
        "jxrecon prepare lidc LIDC-IDRI/ lidc/",
    )
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    add = _subcommand(sets, "lidc", "X2CT-GAN's layout and geometry", _LIDC)
    add("--test", type=float, default=0.1, metavar="SHARE", help="of the patients (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the lists (%(default)s)")
    add("--edge", type=int, default=320, help="voxels of 1 mm along each edge (%(default)s)")
    add("--fix", action="store_true", help="repair series with missing, doubled or tilted slices")
    add_hu_flags(add)
    add = _subcommand(sets, "meshes", "surfaces that share one topology", _MESHES)
    add("--template", type=Path, metavar="FILE", help="mesh to fit (mean of some of the organs)")
    vertices = "of the default template, the nearest 10 f^2 + 2 (%(default)s)"
    add("--vertices", type=int, default=1002, metavar="N", help=vertices)
    add("--label", type=int, metavar="K", help="value of the organ in label volumes (all above 0)")
    add("--limit", type=int, metavar="N", help="only the first N organs")
    return parser


def _subcommand(sets: argparse._SubParsersAction, name: str, text: str, description: str):  # type: ignore[no-untyped-def]
    command = sets.add_parser(name, help=text, description=description, allow_abbrev=False)
    command.add_argument("source", type=Path, metavar="SRC", help="folder to read, with subfolders")
    command.add_argument("out", type=Path, metavar="OUT", help="folder to fill")
    command.add_argument("--strict", action="store_true", help="exit 1 if anything was left out")
    return command.add_argument


def main(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0; 1 when a CT or an organ was left out under --strict.
    """
    left_out = _lidc(options) if options.set == "lidc" else _meshes(options)
    return 1 if left_out and options.strict else 0


def _lidc(options: argparse.Namespace) -> int:
    from jxrecon.data.lidc_folder import find_sources, prepare_folder

    if not 0 < options.test < 1:
        raise InputError(f"--test {options.test:g}: expected a share between 0 and 1")
    sources, seed = find_sources(options.source), options.seed
    lists, skipped, rejected = prepare_folder(
        sources, options.out, options.test, seed, options.edge, options.fix, stated_of(options)
    )
    train, test = len(lists["train"]), len(lists["test"])
    print(
        f"{train + test} cases in {options.out} ({skipped} were there): {train} train, "
        f"{test} test, seed {seed}; {len(rejected)} left out"
    )
    return len(rejected)


def _meshes(options: argparse.Namespace) -> int:
    from jxrecon.correspondence import folder

    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1")
    sources = folder.find_organs(options.source, options.out)[: options.limit]
    rows, skipped, rejected = folder.prepare_folder(
        sources, options.out, options.template, options.vertices, options.label
    )
    folder.print_quality(rows)
    print(f"{len(rows)} organs in {options.out} ({skipped} were there); {len(rejected)} left out")
    return len(rejected)


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
