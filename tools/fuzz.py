"""Damages small files of every format at random and reads them: each is read, or refused in one line.

    python tools/fuzz.py --count 500 --seed 0

The process that reads them is another one. What counts as a fault: an error that is no InputError, a warning,
a line that shows NumPy's types, more than 10 s, more than 500 MB beside what reading the
undamaged file takes. The seed and the number of a fault make its file again: --keep DIR writes it there.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import safetensors.numpy
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from weight_files import read_official

from jxrecon.data import lidc
from jxrecon.data.openkbp import field_centres, is_openkbp
from jxrecon.evaluation.table import CaseTable
from jxrecon.geometry import camera_at
from jxrecon.io import radiographs
from jxrecon.io.ct import read_ct
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.mesh import Mesh
from jxrecon.report.curves import read_log
from jxrecon.runs import config
from jxrecon.runs.log import MetricsLog
from jxrecon.runs.run import open_run
from jxrecon.types import InputError

SECONDS, BYTES = 10.0, 500_000_000

_GOOD, _HANGS = ("read", "refused"), "hangs or dies"

ASCII_PLY = """ply
format ascii 1.0
element vertex 4
property float x
property float y
property float z
element face 2
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
1 1 0
0 1 1
4 0 1 2 3
3 0 1 3
"""
ASCII_STL = """solid a
facet normal 0 0 1
outer loop
vertex 0 0 0
vertex 1 0 0
vertex 0 1 0
endloop
endfacet
endsolid a
"""
ASCII_VTK = """# vtk DataFile Version 4.2
by hand
ASCII
DATASET POLYDATA
POINTS 4 float
0 0 0 1 0 0 1 1 0 0 1 0
POLYGONS 2 8
3 0 1 2
3 0 2 3
"""
ASCII_VTP = """<VTKFile type="PolyData" byte_order="LittleEndian"><PolyData><Piece NumberOfPoints="3">
<Points><DataArray type="Float32" NumberOfComponents="3" format="ascii">0 0 0 1 0 0 0 1 0</DataArray></Points>
<Polys><DataArray type="Int64" Name="connectivity" format="ascii">0 1 2</DataArray>
<DataArray type="Int64" Name="offsets" format="ascii">3</DataArray></Polys></Piece></PolyData></VTKFile>
"""
ODD_NUMBERS = (
    b"-1", b"0", b"65536", b"4294967295", b"99999999999999999999", b"1e999", b"nan", b"inf", b"[" * 3000,
    b"../../x", b"\xff\xfe", b"null", b'"', b",", b"\n",
)  # fmt: skip


class Sample(NamedTuple):
    """A good file.

    Attributes:
        path: of the file that is damaged.
        read: reads it, or what it is a part of.
    """

    path: Path
    read: Callable[[], Any]


def samples(folder: Path) -> list[Sample]:
    """A good file of every format below a folder."""
    return [*_volumes(folder), *_xrays(folder), *_meshes(folder), *_tables(folder)]


def _volumes(folder: Path) -> list[Sample]:
    import SimpleITK as sitk

    hu = np.full((16, 16, 12), -1000, np.int16)
    hu[4:12, 4:12] = np.random.default_rng(0).integers(-100, 300, (8, 8, 12))
    image = nib.Nifti1Image(hu, np.diag([2.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, code="scanner")
    paths = [folder / name for name in ("ct.nii", "ct.nii.gz", "ct.mha", "ct.nrrd")]
    for path in paths[:2]:
        nib.save(image, path)
    for path in paths[2:]:
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(path))
    found = [Sample(path, lambda path=path: read_ct(path)) for path in paths]
    series = folder / "series"
    series.mkdir()
    for k in range(3):
        _slice(series / f"{k}.dcm", hu[..., k].T.astype(np.int32) + 1024, k)
    found.append(Sample(series / "1.dcm", lambda: read_ct(series)))
    case = lidc.Case(*(np.ones(s, np.int16) for s in ((6, 6, 6), (6, 6), (6, 6))))
    lidc.write_case(folder / "case.h5", case)
    return [*found, Sample(folder / "case.h5", lambda: lidc.read_case(folder / "case.h5"))]


def _slice(path: Path, stored: np.ndarray, k: int) -> None:
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.{k + 1}"
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", "P1", "1.2.3"
    data.ImagePositionPatient, data.ImageOrientationPatient = (
        [0.0, 0.0, 2.0 * k],
        [1, 0, 0, 0, 1, 0],
    )
    data.PixelSpacing, data.InstanceNumber = [0.5, 0.5], k + 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.astype("<u2").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def _xrays(folder: Path) -> list[Sample]:
    camera = camera_at(0.0, shape=(9, 8), pixel_mm=3.0)
    image = np.random.default_rng(1).uniform(0, 5, (9, 8)).astype(np.float32)
    xray = radiographs.Radiograph(image, camera, "x", np.zeros(3))
    found = []
    for ending in (".nii.gz", ".nii", ".npz", ".png"):
        path = folder / f"x_{ending[1:]}{ending}"
        radiographs.write(path, xray)
        found.append(Sample(path, lambda path=path: radiographs.read(path)))
    side = radiographs.sidecar_path(path)
    return [
        *found,
        Sample(side, lambda: radiographs.read(path)),
        Sample(side, lambda: radiographs.read(path)),
    ]


def _meshes(folder: Path) -> list[Sample]:
    mesh = Mesh(
        np.array([[0, 0, 0], [90, 0, 0], [0, 80, 0], [0, 0, 70]], np.float32),
        np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32),
    )
    texts = {"t.ply": ASCII_PLY, "t.stl": ASCII_STL, "t.vtk": ASCII_VTK, "t.vtp": ASCII_VTP}
    paths = [folder / f"b.{ending}" for ending in ("ply", "stl", "obj", "vtk")]
    for path in paths:
        write_mesh(path, mesh)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [
        Sample(path, lambda path=path: read_mesh(path))
        for path in [*paths, *(folder / name for name in texts)]
    ]


def _tables(folder: Path) -> list[Sample]:
    patients = folder / "patients.csv"
    columns = ["patient", "split", "crop_x_mm", "crop_y_mm", "crop_z_mm", "covers_hn"]
    patients.write_text(
        _csv([columns, ["p1", "train", "1", "2", "3", "1"], ["p2", "train", "4", "5", "6", "1"]])
    )
    cases = folder / "cases.csv"
    with CaseTable(cases, {"a": "1"}, ["mae"]) as table:
        for case in ('one "two",\nthree', "four"):
            table.add(("a", "2", "test", case), {"mae": 1.5})
    log = MetricsLog(folder, 0)
    for step in range(1, 9):
        log.write(step, "train", {"loss": 1 / step})
    log.close()
    experiment = config.to_dict(config.find("henzler", "tiny"))
    saved = {
        "experiment": experiment,
        "exp": "henzler",
        "data": None,
        "cases": 3,
        "rule": "-",
        "synthetic": True,
    }
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(saved, indent=1))
    weights = folder / "90_net_D_A.safetensors"
    weights.write_bytes(
        safetensors.numpy.save(_discriminator(), {"facts": '{"epoch": 90, "lr": 0.1}'})
    )
    return [
        Sample(patients, lambda: is_openkbp(folder) and field_centres(folder, "train")),
        Sample(cases, lambda: CaseTable(cases, {"a": "1"}, ["mae"]).__exit__()),
        Sample(folder / "metrics.jsonl", lambda: read_log(folder / "metrics.jsonl")),
        Sample(folder / "metrics.jsonl", lambda: MetricsLog(folder, 5).close()),
        Sample(run / "config.json", lambda: open_run(run)),
        Sample(weights, lambda: read_official(weights)),
    ]


def _discriminator() -> dict[str, np.ndarray]:
    """A small one of CycleGAN, in the published layout."""
    channels, state = (1, 2, 4, 8, 16, 1), {}
    for layer, (entering, leaving) in zip((0, 2, 5, 8, 11), itertools.pairwise(channels)):
        state[f"model.{layer}.weight"] = np.zeros((leaving, entering, 4, 4), np.float32)
        state[f"model.{layer}.bias"] = np.zeros(leaving, np.float32)
    return state


def _csv(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The bytes of a file after one to four random changes."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, to = sorted(random.integers(0, len(data) + 1, 2).tolist())
        # the head of a file says what it is and holds
        at = at if random.random() < 0.5 else min(at, int(random.integers(0, 400)))
        kind = random.integers(0, 8)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[at : at + 4] = random.bytes(4)
        elif kind == 2:
            data[at : at + 4] = random.choice(
                [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"]
            )
        elif kind == 3:
            del data[at : at + int(random.integers(1, 64))]
        elif kind == 4:
            data[at:at] = data[at : min(to, at + 256)]
        elif kind == 5:
            del data[to:]
        else:
            _change_word(data, at, ODD_NUMBERS[random.integers(len(ODD_NUMBERS))])
    return bytes(data)


def _change_word(data: bytearray, at: int, word: bytes) -> None:
    """Puts a word in place of the number that begins next, as of a text."""
    digits = b"0123456789.-"
    while at < len(data) and data[at] not in digits:
        at += 1
    end = at
    while end < len(data) and data[end] in digits:
        end += 1
    data[at:end] = word


class Outcome(NamedTuple):
    """What became of a file: "read", "refused" or a fault in words; the error; memory that it took, bytes."""

    what: str
    line: str
    peak: int


class Worker:
    """A process that makes the good files in a folder and reads them when it is told to."""

    def __init__(self, folder: Path, ending: str) -> None:
        """Begins; `ending` is that of the files, empty for all."""
        spawn = multiprocessing.get_context("spawn")  # JAX does not survive a fork
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(folder, ending, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.paths: list[Path] = self._pipe.recv()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def tried(self, place: int) -> Outcome | None:
        """What reading one of the files ends in; None where the process is of no use any more."""
        self._pipe.send(place)
        try:
            return Outcome(*self._pipe.recv()) if self._pipe.poll(SECONDS) else None
        except EOFError:
            return None


def _serve(folder: Path, ending: str, pipe: Any) -> None:
    good = [one for one in samples(folder) if one.path.name.endswith(ending)]
    for sample in good:
        try:
            sample.read()
        except InputError as error:
            print(f"undamaged, yet refused: {error}", file=sys.stderr)
    warnings.simplefilter("error")  # which a user would see as a line more
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    pipe.send([sample.path for sample in good])
    while True:
        pipe.send(tuple(_outcome(good[pipe.recv()].read)))


def _outcome(read: Callable[[], Any]) -> Outcome:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most memory so far
    before, what, line = _peak(), "read", ""
    try:
        read()
    except InputError as error:
        what, line = "refused", str(error)
    except Exception as error:
        what, line = f"raises {type(error).__name__}", str(error)
    if "np." in line or "numpy" in line:
        what = f"{what} in no good line"
    peak = _peak() - before
    return Outcome(what if peak < BYTES else f"takes {peak} bytes", line, peak)


def _peak() -> int:
    """Most bytes of memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _one(worker: Worker, seed: int, number: int) -> tuple[Path, Outcome, bytes]:
    """Damages a file, has it read and puts it back."""
    place = number % len(worker.paths)
    path = worker.paths[place]
    content = path.read_bytes()
    damaged = mutated(content, np.random.default_rng([seed, number]))
    path.write_bytes(damaged)
    outcome = worker.tried(place) or Outcome(_HANGS, "", 0)
    path.write_bytes(content)
    return path, outcome, damaged


def main(arguments: list[str] | None = None) -> int:
    """Damages and reads; returns 1 after a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500, help="files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--only", default="", metavar="ENDING", help="files of this ending alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the files of faults go")
    options = parser.parse_args(arguments)
    totals, most, begun = Counter[str](), 0, 0
    while begun < options.count:
        with tempfile.TemporaryDirectory() as folder, Worker(Path(folder), options.only) as worker:
            while begun < options.count:
                begun += 1
                path, outcome, damaged = _one(worker, options.seed, begun - 1)
                totals[outcome.what] += 1
                most = max(most, outcome.peak)
                if outcome.what not in _GOOD:
                    print(f"{begun - 1} {path.name}: {outcome.what}: {outcome.line}")
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{begun - 1}_{path.name}").write_bytes(damaged)
                if outcome.what == _HANGS:
                    break
    told = ", ".join(f"{count} {what}" for what, count in totals.most_common())
    print(f"{options.count} damaged files: {told}; {most / 1e6:.0f} MB at most")
    return 1 if totals.keys() - set(_GOOD) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
