"""Small files that ask for much: refused or read in the memory and time of what they hold."""

from __future__ import annotations

import base64
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from jxrecon.data import lidc
from jxrecon.io.images import read_pixels
from jxrecon.io.meshes import read_mesh
from jxrecon.io.nifti import read_volume
from jxrecon.types import InputError

POINTS = 2**26  # bytes that a block of the VTP below unpacks to


def vtp(path: Path) -> None:
    """64 blocks of 64 MB, each from 64 kB, whose header says that they are of 4 bytes."""
    packed = zlib.compress(bytes(POINTS), 9)
    head = struct.pack("<67I", 64, 4, POINTS, *[len(packed)] * 64)
    text = base64.b64encode(head).decode() + base64.b64encode(packed * 64).decode()
    path.write_text(
        '<VTKFile type="PolyData" compressor="vtkZLibDataCompressor"><PolyData><Piece><Points>'
        f'<DataArray type="Float32" format="binary">{text}</DataArray></Points></Piece></PolyData></VTKFile>'
    )


def empty_lists(path: Path) -> None:
    """A PLY of 5 million faces, the first of three corners, the others of none."""
    head = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nelement face 5000000\nproperty list uchar int vertex_indices\nend_header\n"
    )
    corners = np.eye(3, dtype="<f4").tobytes() + b"\3" + np.arange(3, dtype="<i4").tobytes()
    path.write_bytes(head.encode() + corners + bytes(5_000_000 - 1))


def mixed_lists(path: Path) -> None:
    """A PLY of 100,000 other records with lists of every length before its vertices."""
    head = (
        "ply\nformat binary_little_endian 1.0\nelement other 100000\nproperty list uchar uchar a\n"
        "element vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    path.write_bytes(head.encode() + b"\0\1\7" * 50_000)


def spaces(path: Path) -> None:
    """An ASCII STL of blank lines, over which a careless pattern goes again from each of them."""
    path.write_bytes(
        b"solid\nfacet\n" + b"\n" * 200_000 + b"vertex " + b" " * 200_000 + b"\nendsolid\n"
    )


def wide(path: Path) -> None:
    """An ASCII PLY of many short numbers and a long one: a table of them would be 200 GB."""
    head = (
        "ply\nformat ascii 1.0\nelement vertex 100000\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n"
    )
    path.write_text(head + "1 2 3\n" * 99_999 + "1 2 " + "3" * 1_000_000)


def tags(path: Path) -> None:
    path.write_text('<VTKFile type="PolyData">' + "<a/>" * 2_000_000 + "</VTKFile>")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (vtp, "a.vtp"),
        (tags, "a.vtp"),
        (empty_lists, "a.ply"),
        (mixed_lists, "a.ply"),
        (wide, "a.ply"),
        (spaces, "a.stl"),
    ],
)
def test_a_mesh_asks_for_no_more_than_it_holds(make, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InputError, match=name):
            read_mesh(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10
    assert peak < 2e8 + 10 * path.stat().st_size


def test_hdf5_holds_its_arrays_itself(tmp_path: Path) -> None:
    case = lidc.Case(*(np.zeros(s, np.int16) for s in ((4, 4, 4), (4, 4), (4, 4))))
    lidc.write_case(tmp_path / "good.h5", case)
    assert lidc.read_case(tmp_path / "good.h5").ct.shape == (4, 4, 4)

    def refused(name: str, line: str) -> None:
        with pytest.raises(InputError, match=rf"{name}\.h5: .*{line}"):
            lidc.read_case(tmp_path / f"{name}.h5")

    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["ct"] = h5py.ExternalLink("good.h5", "/ct")
    refused("link", "ct is a link")
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["g"] = h5py.ExternalLink("good.h5", "/")
        file["ct"] = h5py.SoftLink("/g/ct")
    refused("soft", "ct is a link")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((4, 4, 4), "i2")
        layout[:] = h5py.VirtualSource(tmp_path / "good.h5", "ct", (4, 4, 4))
        file.create_virtual_dataset("ct", layout)
    refused("virtual", "in other files")
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("ct", (4, 4, 4), "i2", external=[("/etc/passwd", 0, 128)])
    refused("external", "in other files")
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("ct", (400, 1000, 1000), "i2", chunks=(1, 1000, 1000))
    refused("large", "declares 800000000 bytes, which a file of .* cannot hold")


def test_an_npz_of_wide_words_is_refused(tmp_path: Path) -> None:
    head = "{'descr': '|S1000000', 'fortran_order': False, 'shape': (8000, 8000), }"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode()
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("image.npy", content)
    with pytest.raises(InputError, match=r"the image is \|S1000000\[8000, 8000\], expected real"):
        read_pixels(tmp_path / "x.npz")


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_scaling_by_what_is_no_number_is_refused(number: float, tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    content[112:120] = struct.pack("<2f", 1.0, number)  # scl_slope, scl_inter
    (tmp_path / "x.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.nii: its scaling is invalid"):
        read_volume(tmp_path / "x.nii")
