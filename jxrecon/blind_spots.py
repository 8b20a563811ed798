"""`jxrecon blind-spots`: what metrics miss, as data and as a page."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.flags import add_hu_flags, stated_of
from jxrecon.types import InputError


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "blind-spots",
        "Shows how each metric moves with blur, noise, a shift, fainter bone, a missing nodule, a left-right "
        "flip and a border of air: blind_spots.csv, .json and .html. Without --data, --exp and --ct: on the "
        "chest CT of the package.",
        "jxrecon blind-spots --exp x2ct_hn --size tiny --data DIR --out DIR",
    )
    add = made.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the page and its numbers")
    add(
        "--exp", metavar="NAME", help="experiment whose grid and window (x2ct_hn with --data alone)"
    )
    add("--size", help="of the experiment")
    add(
        "--data", type=Path, metavar="DIR", help="real CT, as for training; else SYNTHETIC subjects"
    )
    add("--split", default="validation", help="train, validation or test (%(default)s)")
    add(
        "--ct",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="CTs: NIfTI, MHA, MHD, NRRD, DICOM folders",
    )
    add_hu_flags(add)
    add("--spacing-mm", type=float, default=4.0, help="coarsen files to (%(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N cases")
    add("--blur-mm", type=float, default=10.0, help="of the stand-in reconstruction (%(default)s)")
    add("--no-lpips", action="store_true", help="leave LPIPS out: it takes most of the time")
    return made


def main(options: argparse.Namespace) -> int:
    """Measures and writes the page.

    Raises:
        InputError: an argument or the data is not as it should be, or the folder cannot be written.
    """
    from jxrecon.evaluation import blind_spots
    from jxrecon.files import check_writable, make_folder, write_file
    from jxrecon.report.blind_spots import write_page

    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1 case")
    for option, value in (("--spacing-mm", options.spacing_mm), ("--blur-mm", options.blur_mm)):
        if not 0 < value < 100:
            raise InputError(f"{option} {value:g}: expected more than 0 and less than 100 mm")
    check_writable(options.out)
    data, blur = _cases(options), options.blur_mm
    data = data._replace(cases=data.cases[: options.limit])
    blind_spots.check(data)
    make_folder(options.out)
    rows = blind_spots.measure(data, blur, not options.no_lpips)
    summary = blind_spots.summarise(data, rows, blur)
    shown = data.cases[len(data.cases) // 2]
    pictures = {
        kind: dict(blind_spots.changes(shown, kind, blur)) for kind in blind_spots.pairs(blur)
    }
    page = options.out / "blind_spots.html"
    write_file(options.out / "blind_spots.csv", blind_spots.table(rows))
    write_file(options.out / "blind_spots.json", json.dumps(summary, indent=2) + "\n")
    write_page(page, summary, pictures, shown, data.private)
    print(f"page: {page}")
    return 0


def _cases(options: argparse.Namespace) -> Any:
    """What the arguments say is measured."""
    from jxrecon.data.sample import chest_ct_path
    from jxrecon.evaluation import blind_spots
    from jxrecon.units import Window

    folder = options.data
    if options.ct and (folder or options.exp):
        raise InputError("--ct: together with --data or --exp, expected one of them")
    if folder or options.exp:
        name = options.exp or "x2ct_hn"
        return blind_spots.from_experiment(
            name, options.size, folder, options.split, stated_of(options)
        )
    paths, stated = options.ct or [chest_ct_path()], stated_of(options)
    cases = blind_spots.from_files(paths, options.spacing_mm, stated)
    size = f"voxels of {' x '.join(f'{mm:.3g}' for mm in cases[0].spacing_mm)} mm in the first"
    rule = "a chest CT of LIDC-IDRI that ships with the package (CC BY 3.0)"
    if options.ct:
        rule = f"CT from {len(cases)} file{'s' if len(cases) > 1 else ''}"
    rule = f"{rule}, {size}, air outside the body."
    return blind_spots.Cases(cases, Window(), rule, False, bool(options.ct))


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
