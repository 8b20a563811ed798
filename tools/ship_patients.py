"""Makes what ships of training patients, so that the geometry of X-rays is checked without them.

    python tools/ship_patients.py --data ../shared/data/openkbp_hn --name patients_hn

writes jxrecon/weights/NAME.safetensors and its line in SHA256SUMS, and prints what the card, NAME.md,
tells: size, margins, and how near a weighting of the components comes to patients that they were made of,
and to others.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jxrecon.cli import command_parser, entry
from jxrecon.likelihood.modes import Modes
from jxrecon.likelihood.patients import Patients
from jxrecon.types import InputError
from jxrecon.units import MU_WATER_PER_MM


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = command_parser(
        "ship_patients", "What ships of training patients.", "ship_patients --data DIR"
    )
    made.add_argument("--data", type=Path, required=True, help="folder of the training's CT")
    made.add_argument("--exp", default="lift_hn", help="whose field and views (%(default)s)")
    made.add_argument("--size", help="of --exp")
    made.add_argument("--name", default="patients_hn", help="of the file (%(default)s)")
    made.add_argument("--out", type=Path, help="folder (that of the package)")
    return made


def main(options: argparse.Namespace) -> int:
    """Writes the file.

    Raises:
        InputError: the data cannot be read, or the name is that of a run.
    """
    from jxrecon.files import cache_folder
    from jxrecon.likelihood.known import known_of
    from jxrecon.likelihood.modes import packed, unpacked
    from jxrecon.likelihood.patients import patients_of
    from jxrecon.runs import config, shipped

    if not options.name.startswith(shipped.PATIENTS):
        raise InputError(f"--name {options.name}: expected one that begins with {shipped.PATIENTS}")
    experiment = config.find(options.exp, options.size)
    data = experiment.load(experiment, options.data, cache_folder("data"))
    patients, others = (
        patients_of(cases, experiment.field.grid) for cases in (data.train, data.validation)
    )
    known = known_of(patients, experiment.views.cameras)
    small = packed(known.modes)
    told = {"rule": data.rule, "cases": len(data.train.names), **known.facts()}
    path = (options.out or shipped.FOLDER) / f"{options.name}.safetensors"
    shipped.write(path, small, told, 0)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    for of, one in known.left_out.items():
        print(f"views {of}: margin {one.margin:.0f}, residual {one.residual**0.5:.3f}")
    for of, missed in known.missed.items():
        off = np.sqrt(np.square(missed.errors).mean(0)).round(1)
        print(f"pose of {of[1]} by {of[0]}: errors of left-out patients {off.tolist()}")
    modes = unpacked(small)
    for name, cases in {"those in it": patients, "patients never seen": others}.items():
        near = nearest_db(modes, cases)
        print(f"{name}: {near.mean():.1f} dB (mean of {len(near)}; highest {near.max():.1f})")
    return 0


def nearest_db(modes: Modes, patients: Patients) -> Float[np.ndarray, " n"]:
    """PSNR, peak 3024 HU, of the weighting of the components that is nearest to each patient, with the
    patient's CT at hand, over the voxels of the components' grid in which the mean is not air."""
    from jxrecon.data.scene_xrays import field_of

    inside = modes.volumes[0] > 0.1 * modes.volumes[0].max()
    if patients.grid.shape != modes.grid.shape or not np.allclose(
        patients.grid.affine, modes.grid.affine
    ):
        mu = [field_of(m, patients.grid.affine, modes.grid) for m in patients.mu]
        patients = Patients(np.maximum(np.stack(mu), 0.0), modes.grid)
    apart = (np.asarray(patients.mu) - modes.volumes[0])[:, inside]
    components = modes.volumes[1:, inside]
    weights = np.linalg.lstsq(components.T, apart.T)[0]
    hu = (apart - weights.T @ components) * (1000.0 / MU_WATER_PER_MM)
    return 20.0 * np.log10(3024.0) - 10.0 * np.log10(np.square(hu).mean(1))


command = partial(entry, parser, main)

if __name__ == "__main__":
    raise SystemExit(command())
