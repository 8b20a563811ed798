"""Data sets in the layout that a paper's code expects, from what can be had.

    python -m jxrecon.prepare lidc SRC OUT      # LIDC-IDRI, or any CT, for X2CT-GAN
    python -m jxrecon.prepare meshes SRC OUT    # surfaces or labels of one organ, for IGCN

lidc: SRC holds DICOM series or NIfTI files, in any subfolders; every series or file is a case. OUT gets
CASE/ct_xray_data.h5 with ct, xray1 and xray2, and train.txt and test.txt that share no patient: of DICOM
the Patient ID, of NIfTI LIDC-IDRI-NNNN where the path has one, else the first folder below SRC, else the
file. The authors' body masks were never released: ours takes their place. Finished cases are skipped, so
that a run can be stopped and started again; cases that cannot be used are listed in rejected.txt.

meshes: SRC holds one organ of many patients, as PLY, OBJ, STL or VTK surfaces or as NIfTI label volumes, in
any subfolders, in RAS mm and about upright. One template is fitted to all of them, so that they share
vertices and faces. OUT gets template.ply, NAME.ply of each organ in its own world mm, registration.csv with
the quality of each, and rejected.txt. Finished organs are skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jxrecon.cli import entry
from jxrecon.correspondence import folder
from jxrecon.data import lidc
from jxrecon.files import write_file
from jxrecon.io import dicom
from jxrecon.io.nifti import is_volume, read_volume
from jxrecon.terminal import progress
from jxrecon.types import InputError

LEAKED = "LIDC-IDRI-0442"
"""The patient that is in both of the authors' lists."""

_LIDC = re.compile(r"LIDC-IDRI-\d{4}")


class Source(NamedTuple):
    """One CT to prepare.

    Attributes:
        name: of the case.
        patient: no patient is in both lists.
        files: one NIfTI file, or the slices of a DICOM series.
    """

    name: str
    patient: str
    files: tuple[Path, ...]


def find_sources(folder: Path) -> list[Source]:
    """The CTs below a folder, in the order of their names.

    Raises:
        InputError: there is no such folder, or no CT in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected DICOM series or NIfTI files")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    niftis = [path for path in files if is_volume(path)]
    found: list[tuple[str, str, tuple[Path, ...]]] = [
        (_stem(path), _patient(path.relative_to(folder)), (path,)) for path in niftis
    ]
    others = [path for path in files if not is_volume(path)]
    for series in dicom.find_series(progress(others, "looking for CT series", len(others))):
        patient = series.patient or series.uid
        found.append((patient, patient, series.files))
    if not found:
        raise InputError(f"{folder}: no CT found, expected DICOM series or NIfTI files")
    count, seen, sources = Counter(name for name, _, _ in found), Counter[str](), []
    for name, patient, paths in found:
        safe = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "case"
        seen[name] += 1
        many = f"_{seen[name]}" if count[name] > 1 else ""
        sources.append(Source(f"{safe}{many}", patient, paths))
    return sorted(sources)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii").removesuffix("_ct")


def _patient(path: Path) -> str:
    known = _LIDC.search(str(path))
    return known[0] if known else (path.parts[0] if len(path.parts) > 1 else _stem(path))


def split(sources: Sequence[Source], share: float, seed: int) -> dict[str, list[str]]:
    """Names of the cases of train and test: about `share` of the patients, by lot, are in test.

    A patient's lot depends on the seed and on the name alone; with two patients or more neither list is
    empty.
    """

    def lot(patient: str) -> str:
        return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    patients = sorted({source.patient for source in sources}, key=lot)
    count = min(max(1, round(share * len(patients))), len(patients) - 1)
    test = set(patients[:count])
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for source in sources:
        lists["test" if source.patient in test else "train"].append(source.name)
    return lists


def prepare_case(source: Source, path: Path, fix: bool = False, edge: int = lidc.EDGE) -> None:
    """Writes a case's file: volume and X-rays in the paper's geometry.

    Args:
        source: the CT.
        path: of the file.
        fix: see `dicom.read_series`.
        edge: voxels and pixels along each edge; the paper's is 320.

    Raises:
        InputError: the CT cannot be read or used, or the disk refuses.
    """
    first = source.files[0]
    if is_volume(first):
        hu, affine = read_volume(first)
    else:
        hu, affine = dicom.read_series(source.files, fix)
    try:
        ct = lidc.standard_volume(hu, affine, edge)
    except InputError as error:
        raise InputError(f"{first}: {error}") from None
    lidc.write_case(path, lidc.Case(ct, *lidc.make_xrays(ct, 1.0, edge)))


def _finished(path: Path, edge: int) -> bool:
    try:
        return path.is_file() and lidc.read_case(path).ct.shape == (edge,) * 3
    except InputError:
        return False


def _prepare_lidc(args: argparse.Namespace) -> int:
    if not 0 < args.test < 1:
        raise InputError(f"--test {args.test:g}: expected a share between 0 and 1")
    sources = find_sources(args.source)
    done: list[Source] = []
    rejected: list[str] = []
    skipped = 0
    for source in progress(sources, "preparing", len(sources)):
        path = args.out / source.name / lidc.FILE
        if _finished(path, args.edge):
            skipped += 1
        else:
            try:
                prepare_case(source, path, args.fix, args.edge)
            except InputError as error:
                rejected.append(f"{source.name}: {error}")
                print(f"left out: {rejected[-1]}", file=sys.stderr)
                continue
        done.append(source)
    write_file(args.out / "rejected.txt", "".join(f"{line}\n" for line in rejected).encode())
    if not done:
        raise InputError(f"none of the {len(rejected)} CTs can be used; {rejected[0]}")
    lists = split(done, args.test, args.seed)
    for name, cases in lists.items():
        write_file(args.out / f"{name}.txt", "".join(f"{case}\n" for case in cases).encode())
    if any(source.patient == LEAKED for source in done):
        place = next(name for name, cases in lists.items() if any(LEAKED in c for c in cases))
        print(f"note: {LEAKED}, which is in both of the authors' lists, is in {place}.txt alone")
    print(
        f"{len(done)} cases in {args.out} ({skipped} were there): {len(lists['train'])} train, "
        f"{len(lists['test'])} test, seed {args.seed}; {len(rejected)} left out"
    )
    return 1 if rejected and args.strict else 0


def _prepare_meshes(args: argparse.Namespace) -> int:
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit {args.limit}: expected at least 1")
    sources = folder.find_organs(args.source, args.out)[: args.limit]
    outcome = folder.prepare_folder(sources, args.out, args.template, args.vertices, args.label)
    folder.print_quality(outcome.rows)
    print(
        f"{len(outcome.rows)} organs in {args.out} ({outcome.skipped} were there); "
        f"{len(outcome.rejected)} left out"
    )
    return 1 if outcome.rejected and args.strict else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="SET")
    command = commands.add_parser(
        "lidc",
        help="X2CT-GAN's layout and geometry",
        description="X2CT-GAN's layout: volumes of 320^3 mm, two X-rays, lists of cases.",
    )
    command.add_argument("source", type=Path, metavar="SRC", help="folder of DICOM or NIfTI files")
    command.add_argument("out", type=Path, metavar="OUT", help="folder to fill")
    command.add_argument("--test", type=float, default=0.1, metavar="SHARE",
                         help="of the patients; default 0.1")  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="of the lists; default 0")
    command.add_argument("--edge", type=int, default=lidc.EDGE, metavar="N",
                         help="voxels of 1 mm along each edge; default 320, as the paper")  # fmt: skip
    command.add_argument("--fix", action="store_true", help="repair DICOM series with missing, doubled"
                         " or tilted slices instead of leaving them out")  # fmt: skip
    command.add_argument("--strict", action="store_true", help="exit 1 if a CT was left out")
    command.set_defaults(run=_prepare_lidc)
    command = commands.add_parser(
        "meshes",
        help="surfaces that share one topology",
        description="One template fitted to the same organ of many patients.",
    )
    command.add_argument("source", type=Path, metavar="SRC",
                         help="folder of surfaces or NIfTI label volumes")  # fmt: skip
    command.add_argument("out", type=Path, metavar="OUT", help="folder to fill")
    command.add_argument("--template", type=Path, metavar="FILE", help="a mesh to fit; default: the "
                         "mean of some of the organs on a geodesic sphere")  # fmt: skip
    command.add_argument("--vertices", type=int, default=folder.VERTICES, metavar="N",
                         help="of the default template, the nearest 10 f^2 + 2; default "
                         f"{folder.VERTICES}")  # fmt: skip
    command.add_argument("--label", type=int, metavar="K",
                         help="value of the organ in label volumes; default: all above 0")  # fmt: skip
    command.add_argument("--limit", type=int, metavar="N", help="only the first N organs")
    command.add_argument("--strict", action="store_true", help="exit 1 if an organ was left out")
    command.set_defaults(run=_prepare_meshes)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a command; see `--help`.

    Returns:
        0; 1 when a CT or an organ was left out under --strict.

    Raises:
        InputError: the source holds nothing to prepare, or the output cannot be written.
    """
    args = _parser().parse_args(argv)
    return int(args.run(args))


if __name__ == "__main__":
    raise SystemExit(entry(main))
