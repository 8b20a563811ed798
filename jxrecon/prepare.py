"""Data sets in the layout that training or a paper's code expects, from what can be had.

    jxrecon prepare hn SRC OUT        # TCIA's head-and-neck DICOM, for --data
    jxrecon prepare openkbp SRC OUT   # OpenKBP's CSV files as published, for --data
    jxrecon prepare lidc SRC OUT      # LIDC-IDRI, or any CT, for X2CT-GAN
    jxrecon prepare labels SRC OUT    # organ labels of public sets, made into surfaces
    jxrecon prepare meshes SRC OUT    # surfaces or labels of one organ, brought to one topology for IGCN

All skip what is finished, so that a run can be stopped and started again, and tell in OUT/manifest.jsonl
where each case comes from, in OUT/rejects.csv what cannot be used; OUT/pictures.html shows every case.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_hu_flags, add_mesh_flags, stated_of, unsaid_of
from jxrecon.types import InputError

if TYPE_CHECKING:
    from jxrecon.io.preparation import How, Outcome

_HN = (
    "The layout of --data: SRC holds DICOM series of CT, or other files of CT, in any subfolders; OUT gets "
    "train/, validation/ and test/ that share no patient, NAME_ct.nii.gz and, where organs were drawn "
    "(RTSTRUCT), NAME_labels.nii.gz."
)
_OPENKBP = (
    "The layout of --data: SRC is provided-data of github.com/ababier/open-kbp, with train-pats, "
    "validation-pats, test-pats; OUT gets the CTs, their labels and patients.csv, with the field of "
    "x2vision_hn about the parotids."
)
_LIDC = (
    "X2CT-GAN's layout: SRC holds DICOM series, NIfTI, MHA, MHD or NRRD files in any subfolders; OUT "
    "gets volumes of 320^3 mm with two X-rays each, and train.txt and test.txt that share no patient."
)
_LABELS = (
    "Surfaces by marching cubes: SRC is a task of the Medical Decathlon, LiTS or TotalSegmentator; OUT gets "
    "NAME.ply of every case, for jxrecon prepare meshes."
)
_MESHES = (
    "One topology: SRC holds one organ of many patients, as PLY, OBJ, STL or VTK surfaces or NIfTI labels, "
    "in RAS mm and about upright; OUT gets a template fitted to each, and registration.csv with its quality."
)


def parser() -> argparse.ArgumentParser:
    """The flags of `jxrecon prepare`."""
    parser = command_parser(
        "prepare",
        "Brings CTs or organs into the layout that training or a paper's code expects.",
        "jxrecon prepare lidc LIDC-IDRI/ lidc/",
    )
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    add = _subcommand(sets, "hn", "head-and-neck CT of TCIA, for --data", _HN)
    add("--validation", type=float, default=0.15, metavar="SHARE", help="of patients (%(default)s)")
    add("--test", type=float, default=0.0, metavar="SHARE", help="of the patients (%(default)s)")
    _ct_flags(add)
    _subcommand(sets, "openkbp", "OpenKBP as published, for --data", _OPENKBP)
    add = _subcommand(sets, "lidc", "X2CT-GAN's layout and geometry", _LIDC)
    add("--test", type=float, default=0.1, metavar="SHARE", help="of the patients (%(default)s)")
    add("--edge", type=int, default=320, help="voxels of 1 mm along each edge (%(default)s)")
    _ct_flags(add)
    add = _subcommand(sets, "labels", "organ labels of public sets as surfaces", _LABELS)
    add("--organ", metavar="NAME", help="of TotalSegmentator: the file's name, such as liver")
    values = "values of the organ's voxels, K[,K...] (all above 0: organ and tumours)"
    add("--label", metavar="K", help=values)
    _piece_flag(add)
    add = _subcommand(sets, "meshes", "surfaces that share one topology", _MESHES)
    add("--template", type=Path, metavar="FILE", help="mesh to fit (mean of some of the organs)")
    vertices = "of the default template, the nearest 10 f^2 + 2 (%(default)s)"
    add("--vertices", type=int, default=1002, metavar="N", help=vertices)
    add("--label", type=int, metavar="K", help="value of the organ in label volumes (all above 0)")
    add("--limit", type=int, metavar="N", help="only the first N organs")
    _piece_flag(add)
    add_mesh_flags(add)
    return parser


def _subcommand(sets: argparse._SubParsersAction, name: str, text: str, description: str) -> Any:  # type: ignore[type-arg]
    command = sets.add_parser(name, help=text, description=description, allow_abbrev=False)
    add = command.add_argument
    add("source", type=Path, metavar="SRC", help="folder to read, with subfolders")
    add("out", type=Path, metavar="OUT", help="folder to fill")
    add("--strict", action="store_true", help="exit 1 if anything was left out")
    add(
        "--dry-run",
        action="store_true",
        help="read all, tell counts, rejects and disk space, write nothing",
    )
    cores = min(4, os.cpu_count() or 1)
    add("--jobs", type=int, default=cores, metavar="N", help="sources at once (%(default)s)")
    add(
        "--licence",
        metavar="TEXT",
        help="of the sources, for the manifest (as a file beside them says)",
    )
    return add


def _ct_flags(add: Any) -> None:
    add("--seed", type=int, default=0, help="seed of the lists (%(default)s)")
    add("--fix", action="store_true", help="repair series with missing, doubled or tilted slices")
    add_hu_flags(add)


def _piece_flag(add: Any) -> None:
    add(
        "--largest-piece",
        action="store_true",
        help="leave other pieces out, however large they are",
    )


def main(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0; 1 when a CT or an organ was left out under --strict.
    """
    from jxrecon.io.preparation import How

    if not 1 <= options.jobs <= 256:
        raise InputError(f"--jobs {options.jobs}: expected 1 to 256")
    how = How(options.jobs, options.dry_run, options.licence)
    outcome = _SETS[options.set](options, how)
    if how.dry:
        print(outcome.told(options.out))
    return 1 if outcome.rejected and options.strict else 0


def _share(options: argparse.Namespace, name: str, low: float) -> float:
    share: float = getattr(options, name)
    if not low <= share < 1 or share + (name == "validation") * options.test >= 1:
        raise InputError(f"--{name} {share:g}: expected a share between {low:g} and 1")
    return share


def _hn(options: argparse.Namespace, how: How) -> Outcome:
    from jxrecon.data.head_neck_folder import Settings, prepare_folder

    shares = _share(options, "validation", 0.0), _share(options, "test", 0.0)
    settings = Settings(*shares, options.seed, options.fix, stated_of(options))
    outcome = prepare_folder(options.source, options.out, settings, how)
    _tell_splits(options, outcome, how)
    return outcome


def _openkbp(options: argparse.Namespace, how: How) -> Outcome:
    from jxrecon.data.openkbp_csv import prepare_folder

    outcome = prepare_folder(options.source, options.out, how)
    _tell_splits(options, outcome, how)
    return outcome


def _tell_splits(options: argparse.Namespace, outcome: Outcome, how: How) -> None:
    if how.dry:
        return
    splits = [row["split"] for row in outcome.rows]
    counts = ", ".join(f"{splits.count(s)} {s}" for s in ("train", "validation", "test"))
    labelled = sum(len(row["outputs"]) > 1 for row in outcome.rows)
    print(
        f"{len(splits)} cases in {options.out} ({outcome.skipped} were there): {counts}; {labelled} with "
        f"labels; {len(outcome.rejected)} left out"
    )


def _lidc(options: argparse.Namespace, how: How) -> Outcome:
    from jxrecon.data.ct_sources import find_cts
    from jxrecon.data.lidc_folder import Settings, prepare_folder

    if not 0 < options.test < 1:
        raise InputError(f"--test {options.test:g}: expected a share between 0 and 1")
    sources = find_cts(options.source, options.out).told(options.source).sources
    settings = Settings(options.test, options.seed, options.edge, options.fix, stated_of(options))
    outcome, lists = prepare_folder(sources, options.out, settings, how)
    train, test = len(lists["train"]), len(lists["test"])
    if not how.dry:
        print(
            f"{train + test} cases in {options.out} ({outcome.skipped} were there): {train} train, "
            f"{test} test, seed {options.seed}; {len(outcome.rejected)} left out"
        )
    return outcome


def _labels(options: argparse.Namespace, how: How) -> Outcome:
    from jxrecon.correspondence.label_folders import Settings, find_labels, prepare_folder

    try:
        values = tuple(int(word) for word in options.label.split(",")) if options.label else ()
    except ValueError:
        raise InputError(f"--label {options.label}: expected whole numbers, K[,K...]") from None
    sources = find_labels(options.source, options.organ, options.out)
    settings = Settings(options.organ, values, options.largest_piece)
    outcome = prepare_folder(sources, options.out, settings, how)
    if not how.dry:
        _tell_organs(options, outcome)
    return outcome


def _meshes(options: argparse.Namespace, how: How) -> Outcome:
    from jxrecon.correspondence import folder

    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1")
    sources = folder.find_organs(options.source, options.out)[: options.limit]
    shape = folder.Shape(options.template, options.vertices)
    reading = folder.Reading(options.label, options.largest_piece, unsaid_of(options))
    outcome = folder.prepare_folder(sources, options.out, shape, reading, how)
    if not how.dry:
        folder.print_quality(folder.table_of(outcome, reading))
        _tell_organs(options, outcome)
    return outcome


def _tell_organs(options: argparse.Namespace, outcome: Outcome) -> None:
    print(
        f"{len(outcome.rows)} organs in {options.out} ({outcome.skipped} were there); "
        f"{len(outcome.rejected)} left out"
    )


_SETS = {"hn": _hn, "openkbp": _openkbp, "lidc": _lidc, "labels": _labels, "meshes": _meshes}

command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
