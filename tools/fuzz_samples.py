"""Good files of every format that the package reads, each with its reader: what `fuzz` damages."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pydicom
import safetensors.numpy
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    XRayAngiographicImageStorage,
)
from weight_files import read_official

from jxrecon.data import lidc
from jxrecon.data.openkbp import field_centres, is_openkbp
from jxrecon.data.rtstruct import read_labels
from jxrecon.data.surround import Surround, View, read_surround, write_surround
from jxrecon.evaluation.table import CaseTable
from jxrecon.geometry import camera_at
from jxrecon.io import radiographs
from jxrecon.io.ct import read_ct
from jxrecon.io.meshes import read_mesh, write_mesh
from jxrecon.likelihood.check import Shadows, read_shadows, write_shadows
from jxrecon.mesh import Mesh
from jxrecon.report.curves import read_log
from jxrecon.runs import config
from jxrecon.runs.log import MetricsLog
from jxrecon.runs.run import open_run

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
    return [
        *_volumes(folder),
        *_xrays(folder),
        *_meshes(folder),
        *_arrays(folder),
        *_tables(folder),
    ]


def _volumes(folder: Path) -> list[Sample]:
    hu = np.full((16, 16, 12), -1000, np.int16)
    hu[4:12, 4:12] = np.random.default_rng(0).integers(-100, 300, (8, 8, 12))
    image = nib.Nifti1Image(hu, np.diag([2.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, code="scanner")
    names = ("ct.nii", "ct.nii.gz", "ct.mha", "ct.nrrd", "ct.mhd", "ct.nhdr")
    paths = [folder / name for name in names]
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
    structures = folder / "organs.dcm"
    _rtstruct(structures)
    read = partial(read_labels, structures, hu.shape, np.diag([2.0, 2.0, 3.0, 1.0]))
    found.append(Sample(structures, read))
    case = lidc.Case(*(np.ones(s, np.int16) for s in ((6, 6, 6), (6, 6), (6, 6))))
    lidc.write_case(folder / "case.h5", case)
    return [*found, Sample(folder / "case.h5", lambda: lidc.read_case(folder / "case.h5"))]


def _rtstruct(path: Path) -> None:
    """A square contour of the mandible."""
    square = [-2.0, -2, 3, -20, -2, 3, -20, -20, 3, -2, -20, 3]
    region, drawn, contour = (pydicom.Dataset() for _ in range(3))
    region.ROINumber, region.ROIName = 1, "Mandible"
    contour.ContourData, contour.NumberOfContourPoints = square, 4
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, [contour]
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = (
        RTStructureSetStorage,
        "1.2.9",
        "RTSTRUCT",
    )
    data.StructureSetROISequence, data.ROIContourSequence = [region], [drawn]
    _save(path, data)


def _save(path: Path, data: pydicom.Dataset) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def _slice(path: Path, stored: np.ndarray, k: int) -> None:
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.{k + 1}"
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", "P1", "1.2.3"
    data.ImagePositionPatient, data.ImageOrientationPatient = (
        [0.0, 0.0, 2.0 * k],
        [1, 0, 0, 0, 1, 0],
    )
    data.PixelSpacing, data.InstanceNumber = [1, 1], k + 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    _add_pixels(data, stored)
    _save(path, data)


def _add_pixels(data: pydicom.Dataset, stored: np.ndarray) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.astype("<u2").tobytes()


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
        *_counts(folder, np.rint(60000 * np.exp(-image)).astype(np.uint16)),
        Sample(side, lambda: radiographs.read(path)),
        Sample(side, lambda: radiographs.read(path)),
    ]


def _counts(folder: Path, counts: np.ndarray) -> list[Sample]:
    """An X-ray as detectors give it: raw counts in TIFF, NPY, coloured PNG and DICOM."""
    given = radiographs.Given("frontal", 1000.0, 1500.0, (30.0, 30.0), intensity="raw", i0=60000.0)
    tifffile.imwrite(folder / "plain.tif", counts)
    Image.fromarray(counts).save(folder / "packed.tiff", compression="tiff_lzw")
    np.save(folder / "counts.npy", counts)
    np.savez(folder / "counts.npz", counts)
    grey = np.maximum(counts >> 8, 1).astype(np.uint8)
    Image.fromarray(np.stack([grey] * 3, -1)).save(folder / "rgb.png")
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    names = ("plain.tif", "packed.tiff", "counts.npy", "counts.npz", "rgb.png", "palette.png")
    kinds = (("dx", DigitalXRayImageStorageForProcessing), ("xa", XRayAngiographicImageStorage))
    for kind, storage in kinds:
        data = pydicom.Dataset()
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = storage, "1.2.8", kind.upper()
        data.DistanceSourceToDetector, data.DistanceSourceToPatient = 1500, 1000
        data.ImagerPixelSpacing, data.PatientOrientation = [30, 30], ["L", "F"]
        data.PixelIntensityRelationship = "LIN"
        if kind == "xa":
            data.NumberOfFrames, data.PositionerPrimaryAngle = 2, 180
        _add_pixels(data, np.stack([counts] * 2) if kind == "xa" else counts)
        _save(folder / f"{kind}.dcm", data)
    dicom = given._replace(pixel_mm=None, source_axis_mm=None, source_detector_mm=None)
    return [
        *(Sample(folder / name, partial(radiographs.read, folder / name, given)) for name in names),
        Sample(folder / "dx.dcm", partial(radiographs.read, folder / "dx.dcm", dicom)),
        Sample(folder / "xa.dcm", partial(radiographs.read, folder / "xa.dcm",
                                          dicom._replace(view=None, frame=2))),
    ]  # fmt: skip


def _meshes(folder: Path) -> list[Sample]:
    mesh = Mesh(
        np.array([[0, 0, 0], [90, 0, 0], [0, 80, 0], [0, 0, 70]], np.float32),
        np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32),
    )
    texts = {"t.ply": ASCII_PLY, "t.stl": ASCII_STL, "t.vtk": ASCII_VTK, "t.vtp": ASCII_VTP}
    paths = [folder / f"b.{ending}" for ending in ("ply", "stl", "obj", "vtk")]
    for path in paths:
        write_mesh(path, mesh)
    texts["z.vtp"] = _packed_vtp(*mesh)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [
        Sample(path, lambda path=path: read_mesh(path))
        for path in [*paths, *(folder / name for name in texts)]
    ]


def _packed_vtp(vertices: np.ndarray, faces: np.ndarray) -> str:
    """XML polydata of arrays that are compressed by zlib and written in base64."""

    def packed(array: np.ndarray) -> str:
        content, block = array.tobytes(), zlib.compress(array.tobytes())
        head = np.array([1, len(content), 0, len(block)], "<u4").tobytes()
        return (base64.b64encode(head) + base64.b64encode(block)).decode()

    text = re.sub(r'format="ascii">[^<]*<', 'format="binary">{}<', ASCII_VTP)
    text = text.replace('byte_order="Lit', 'compressor="vtkZLibDataCompressor" byte_order="Lit')
    text = text.replace('Points="3"', f'Points="{len(vertices)}"')
    ends = 3 * np.arange(1, len(faces) + 1, dtype="<i8")
    return text.format(packed(vertices), packed(faces.astype("<i8")), packed(ends))


def _arrays(folder: Path) -> list[Sample]:
    """What lies in a run folder beside its checkpoints, in NPZ."""
    surround, shadows = folder / "surround.npz", folder / "check.npz"
    shapes = ((2, 2), (2, 2), (2, 2, 2), (4, 4), (2, 2, 2), 2, (2, 2))
    write_surround(surround, Surround((View(*map(jnp.ones, shapes)),)))
    views = tuple(camera_at(angle, shape=(4, 4), pixel_mm=30.0) for angle in (0.0, 90.0))
    write_shadows(shadows, Shadows(views, np.ones((2, 3, 2, 4, 4), np.uint8)))
    return [
        Sample(surround, lambda: read_surround(surround)),
        Sample(shadows, lambda: read_shadows(shadows)),
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
