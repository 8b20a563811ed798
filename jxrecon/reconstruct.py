"""`jxrecon reconstruct`: a CT volume, or an organ's surface, from X-ray files."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from jxrecon.cli import command_parser, entry
from jxrecon.types import InputError

UNEXPLAINED = 3
"""Exit code of a volume with a re-projection error over 0.2."""

SAMPLES = 8
"""Latents that `--std` draws where a run draws none."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    from jxrecon.flags import add_mesh_flags, add_trust_flag, add_xray_flags

    made = command_parser(
        "reconstruct",
        "A CT volume (HU, NIfTI), or an organ's surface with --mesh, from X-rays: by the weights that ship "
        "(head and neck; a frontal X-ray, or a frontal and a lateral one), by a trained run, or by a method "
        "that needs no training. Exit code 3 after a warning: the volume is written, but explains an X-ray "
        "of its field with an error |Ax - y| / |y| over 0.2.",
        "jxrecon reconstruct frontal.png lateral.png --sad 1000 --sid 1500 --pixel-mm 0.4 --intensity log",
    )
    add = made.add_argument
    add("files", type=Path, nargs="*", metavar="XRAY", help="as --xray")
    add("--run", type=Path, metavar="DIR", help="folder of a trained run, or the name of weights that ship "
        "(lift_hn from two X-rays, lift_hn_single from one)")  # fmt: skip
    add("--method", metavar="NAME", help="instead of --run: fdk, sirt, cgls, tv, nerp")
    add("--exp", default="x2vision_hn", help="experiment that lists --method (%(default)s)")
    add("--grid", metavar="X,Y,Z", help="voxels about the isocentre, with --method")
    add("--spacing-mm", metavar="S", help="their spacing, S or X,Y,Z in mm, with --method")
    add("--out", type=Path, default=Path("reconstruction"), metavar="DIR", help="folder of what is found "
        "(%(default)s)")  # fmt: skip
    add("--mesh", type=Path, metavar="FILE", help="the organ's known shape, in the X-rays' world")
    piece = "of --mesh: leave other pieces out, however large they are"
    add("--largest-piece", action="store_true", help=piece)
    add_mesh_flags(add)
    add("--format", default="ply", help="of surfaces: ply, stl, vtk or several (%(default)s)")
    add("--checkpoint", default="latest", help="latest, best or a step (%(default)s)")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="with --run: a setting of "
        "reconstruction alone, as settings.latent.pose=true; repeats")  # fmt: skip
    add("--seed", type=int, default=0, help="of the method's random starts (%(default)s)")
    style = "of jxrecon style: real X-rays look synthetic first"
    add("--style", type=Path, metavar="RUN", help=style)
    add("--xrays", choices=("patient", "field"), help="what they show: all of the patient, or the field "
        "alone; default: as the run's training")  # fmt: skip
    add("--surround", type=Path, metavar="RUN", help="with --method: a run, or weights that ship, whose "
        "training patients teach what the patient adds to X-rays of the field")  # fmt: skip
    add_trust_flag(made)
    add("--refine-pose", action="store_true", help="first find, by what training patients' X-rays look "
        "like, where all X-rays but the first were taken from")  # fmt: skip
    add("--std", action="store_true", help="the standard deviation of every voxel, too: X2Vision draws "
        "latents for it; methods that know it always write it")  # fmt: skip
    begin = "X2Vision starts from this run's volume of the X-rays"
    add("--start", type=Path, metavar="RUN", help=begin)
    add("--earlier", type=Path, metavar="CT", help="an earlier CT of the patient, registered to the X-rays' "
        "world: X2Vision deforms it to what they show")  # fmt: skip
    add_xray_flags(made, required=False)
    return made


def main(options: argparse.Namespace) -> int:
    """Reconstructs.

    Returns:
        0; 3 if the volume, which is written, does not explain an X-ray of its field.

    Raises:
        InputError: a flag, an X-ray, a run or a mesh is not as it should be.
    """
    from jxrecon.files import check_writable
    from jxrecon.flags import xrays_of
    from jxrecon.inference.patient import find_in_xrays
    from jxrecon.inference.styles import open_style
    from jxrecon.inference.surfaces import FORMATS
    from jxrecon.inference.volumes import Volume
    from jxrecon.io import radiographs
    from jxrecon.terminal import Spinner

    options.xray = [*options.files, *(options.xray or [])]
    if not options.xray:
        raise InputError("no X-ray was given, expected files such as frontal.png lateral.png")
    check_writable(options.out)
    request = _request(options)
    xrays = [radiographs.read(path, given) for path, given in xrays_of(options)]
    if options.style is not None:
        xrays = list(map(open_style(options.style, options.trust), xrays))
    for xray in xrays:
        print(radiographs.table(xray))
    run, formats = _run(options), options.format.split(",")
    if options.std and not getattr(run.method, "deviates", False):
        raise InputError(
            f"--std: {run.experiment.name} gives no standard deviation, expected lift_hn or x2vision_hn"
        )
    if not set(formats) <= set(FORMATS):
        raise InputError(f"--format {options.format}: expected some of {', '.join(FORMATS)}")
    with Spinner("compiling and reconstructing") as spinner:
        found = find_in_xrays(run, xrays, request._replace(say=print, progress=spinner.tell))
    more = {"xrays": [str(path) for path in options.xray]}
    if isinstance(found, Volume):
        return _write_volume(
            options, found, {**more, "style": options.style and str(options.style)}
        )
    _write_surface(options, found, formats, more)
    return 0


def _request(options: argparse.Namespace) -> Any:
    from jxrecon.flags import unsaid_of
    from jxrecon.inference.patient import Request
    from jxrecon.io.meshes import read_mesh
    from jxrecon.runs.run import open_run

    which = options.checkpoint
    if which.isdigit():
        which = int(which)
    elif which not in ("latest", "best"):
        raise InputError(f"--checkpoint {which}: expected latest, best or a step")
    mesh = None if options.mesh is None else read_mesh(options.mesh, unsaid=unsaid_of(options))
    if mesh is not None and options.largest_piece:
        from jxrecon.correspondence.organ import sound  # takes half a second, and is seldom needed

        mesh = sound(mesh, str(options.mesh), largest=True)
    surround = None if options.surround is None else open_run(options.surround, options.trust)
    return Request(
        which,
        options.seed,
        mesh,
        str(options.mesh),
        xrays=options.xrays,
        surround=surround,
        refine_pose=options.refine_pose,
        start=None if options.start is None else open_run(options.start, options.trust),
        earlier=options.earlier,
    )


def _run(options: argparse.Namespace) -> Any:
    """The run, or what stands in for it where a method needs no training."""
    from jxrecon.inference.volumes import untrained
    from jxrecon.io.xray_views import numbers
    from jxrecon.runs import shipped
    from jxrecon.runs.run import open_run

    if options.run is not None and options.method is not None:
        raise InputError(f"--run {options.run}, --method {options.method}: expected one of them")
    if options.method is None:
        folder = options.run or shipped.for_xrays(len(options.xray))
        run = open_run(folder, options.trust, options.set)
        latent = getattr(run.experiment.settings, "latent", None)
        if options.std and getattr(latent, "samples", None) == 0:
            more = [*options.set, f"settings.latent.samples={SAMPLES}"]
            run = open_run(folder, options.trust, more)
        return run
    if options.set:
        raise InputError(f"--set {options.set[0]}: expected with --run")
    shape = spacing = None
    if options.grid is not None:
        counts = numbers(options.grid, (3,), "--grid")
        x, y, z = map(int, counts)
        if (x, y, z) != counts or min(counts) < 1:
            raise InputError(f"--grid {options.grid}: expected three whole numbers of voxels")
        shape = x, y, z
    if options.spacing_mm is not None:
        mm = numbers(options.spacing_mm, (1, 3), "--spacing-mm")
        if not min(mm) > 0:
            raise InputError(f"--spacing-mm {options.spacing_mm}: expected positive millimetres")
        spacing = (mm[0], mm[len(mm) // 2], mm[-1])
    return untrained(options.method, shape, spacing, options.exp)


def _write_volume(options: argparse.Namespace, volume: Any, more: dict[str, Any]) -> int:
    from jxrecon.io.images import stem
    from jxrecon.report.viewer import told, write_reconstruction

    words = zip(*(stem(path).split("_") for path in options.xray))
    shared = takewhile(lambda same: len(set(same)) == 1, words)
    name = "_".join([*(same[0] for same in shared), "recon"])  # ct_frontal, ct_lateral -> ct_recon
    paths = write_reconstruction(options.out, name, volume, **more)
    print(*told(volume), paths[0], paths[-1], sep="\n")
    for line in volume.unexplained:
        print(f"warning: {line}", file=sys.stderr)
    return UNEXPLAINED if volume.unexplained else 0


def _write_surface(
    options: argparse.Namespace, surface: Any, formats: list[str], more: dict[str, Any]
) -> None:
    from jxrecon.files import write_file
    from jxrecon.io.images import stem
    from jxrecon.report.outlines import overlay_png

    name, problem = stem(options.xray[0]), surface.run.problem
    paths = surface.write(options.out, name, formats, **more)
    shapes = {"reference": surface.reference, "found": surface.vertices}
    overlay = overlay_png(surface.image, problem.camera, problem.template, shapes)
    write_file(options.out / f"{name}_overlay.png", overlay)
    moved = surface.moved_mm
    print(f"displacement: mean {moved.mean():.1f} mm, largest {moved.max():.1f} mm")
    print(*paths, sep="\n")


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
