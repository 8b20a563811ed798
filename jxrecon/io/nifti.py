"""CT volumes in NIfTI files: read whole or not at all, written whole or not at all, moved between grids."""

from __future__ import annotations

import gzip
import logging
import zlib
from io import BufferedIOBase
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from jxrecon.files import MAX_BYTES, one_line, whole
from jxrecon.geometry import Grid
from jxrecon.io.images import mm_per_unit
from jxrecon.terminal import note
from jxrecon.types import InputError

DEFLATE_RATIO = 1032
"""Most that one byte of a gzip stream can expand to: zlib's documented limit, 1032:1."""

SIZE_SHARE, APART_MM = 0.1, 1.0
"""How far a NIfTI's two frames may differ in silence: share of a voxel's size; distance of a corner."""

_MAX_HEADER_BYTES = 16 * 1024**2
_SILENT = logging.Logger("nifti", level=logging.CRITICAL + 1)  # what is wrong is told in one line


def is_volume(path: Path) -> bool:
    """Whether the name ends as a NIfTI file's does: .nii or .nii.gz, in any case of letters."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_volume(path: Path) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A volume in nibabel's canonical order (RAS), read to the end of its stream.

    Size, type and frame are judged from the header alone, before a voxel is decompressed.

    Args:
        path: a single-file NIfTI-1 or NIfTI-2, .nii or .nii.gz; [x, y, z] or [x, y, z, 1].

    Returns:
        The voxels [x, y, z], int16 where the file holds unscaled int16 and float32 otherwise, and
        the affine, index -> world mm, float64. A sheared affine is kept as it is.

    Raises:
        InputError: the file is absent, truncated, damaged, too large, of another kind, says not
            where it lies in the world, or holds a voxel that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a NIfTI volume (.nii or .nii.gz)")
    if not is_volume(path):
        raise InputError(f"{path}: its name ends in {path.suffix!r}, expected .nii or .nii.gz")
    zipped = path.name.lower().endswith(".gz")
    opener = gzip.open if zipped else open
    try:
        with opener(path, "rb") as stream:
            header = _read_header(stream, path)
            shape, dtype = _checked_shape(header, path), _checked_dtype(header, path)
            affine = _checked_affine(header, path)
            skip = float(header["vox_offset"]) - int(header["sizeof_hdr"])
            if not 0 <= skip <= _MAX_HEADER_BYTES:  # NaN too
                raise InputError(
                    f"{path}: vox_offset is {float(header['vox_offset']):g}, expected the voxels "
                    f"after the header and within {_MAX_HEADER_BYTES} bytes"
                )
            count = int(np.prod(shape))
            most = path.stat().st_size * (DEFLATE_RATIO if zipped else 1)
            if count * dtype.itemsize > most:
                raise InputError(
                    f"{path}: truncated, {path.stat().st_size} bytes cannot hold the declared "
                    f"{' x '.join(map(str, shape))} voxels of {dtype}"
                )
            _read_exactly(stream, int(skip), path)
            voxels = np.frombuffer(_read_exactly(stream, count * dtype.itemsize, path), dtype)
            _read_to_end(stream, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or truncated ({error}), expected a whole file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    volume = _scaled(voxels, header, path).reshape(shape, order="F")
    if volume.dtype != np.int16 and not np.isfinite(volume).all():
        bad = int(volume.size - np.isfinite(volume).sum())
        raise InputError(f"{path}: {bad} voxels are not finite, expected a number in each")
    return canonical(volume, affine)


def _read_header(stream: BufferedIOBase, path: Path) -> nib.Nifti1Header:
    block = stream.read(348)
    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        if size not in (int.from_bytes(block[:4], order) for order in ("little", "big")):
            continue
        block += _read_exactly(stream, size - len(block), path)
        try:
            header = kind(bytes(block), check=False)
            header.check_fix(_SILENT)
        except (HeaderDataError, ValueError) as error:
            raise InputError(f"{path}: its NIfTI header is invalid ({one_line(error)})") from None
        if bytes(header["magic"])[:3] in (b"n+1", b"n+2"):
            return header
    raise InputError(f"{path}: begins with {block[:4]!r}, expected a single-file NIfTI header")


def _checked_shape(header: nib.Nifti1Header, path: Path) -> tuple[int, ...]:
    shape = tuple(int(n) for n in header.get_data_shape())
    volume = shape[:3] if shape[3:] and set(shape[3:]) == {1} else shape
    if len(volume) != 3 or min(volume) < 1:
        raise InputError(f"{path}: its shape is {shape}, expected three axes x, y, z")
    if (size := 4 * np.prod([float(n) for n in volume])) > MAX_BYTES:
        raise InputError(
            f"{path}: declares {' x '.join(map(str, volume))} voxels, {size / 1024**3:.1f} GiB, "
            f"expected at most {MAX_BYTES / 1024**3:g} GiB"
        )
    return volume


def _checked_dtype(header: nib.Nifti1Header, path: Path) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype("V1")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(
            f"{path}: NIfTI datatype {int(header['datatype'])}, expected integers or real numbers"
        )
    return dtype


def _checked_affine(header: nib.Nifti1Header, path: Path) -> np.ndarray:
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise InputError(
            f"{path}: sform_code and qform_code are 0, expected one that says where the volume lies"
        )
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, KeyError, ValueError) as error:
        raise InputError(f"{path}: its frame is invalid ({one_line(error)})") from None
    mm = mm_per_unit(header, path)
    affine[:3] *= mm
    if not is_frame(affine):
        rows = " ".join(f"{value:g}" for value in affine[:3].ravel())
        raise InputError(f"{path}: its affine is [{rows}], expected finite mm and an inverse")
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        _compare_frames(header, mm, path)
    return affine


def _compare_frames(header: nib.Nifti1Header, mm: float, path: Path) -> None:
    """Tells of a sform and a qform that put a volume in two places, as after a registration.

    Raises:
        InputError: they have voxels of different sizes, of which one must be wrong.
    """
    with_sform = header.copy()
    try:
        sform, own = header.get_sform(), header.get_qform()
        with_sform.set_qform(sform)  # which has no shear
        wanted = with_sform.get_qform()
    except (HeaderDataError, np.linalg.LinAlgError):
        return  # a qform that is none
    sizes = [mm * np.linalg.norm(frame[:3, :3], axis=0) for frame in (sform, own)]
    if not np.allclose(sizes[0], sizes[1], rtol=SIZE_SHARE, atol=0):
        told = [" x ".join(f"{size:.3g}" for size in one) for one in sizes]
        raise InputError(
            f"{path}: by its sform voxels are {told[0]} mm, by its qform {told[1]} mm, expected the same"
        )
    corners = np.array([*np.ndindex(2, 2, 2)]) * header.get_data_shape()[:3]
    apart = (wanted - own)[:3, :3] @ corners.T + (wanted - own)[:3, 3:]
    if (most := mm * np.linalg.norm(apart, axis=0).max()) > APART_MM:
        note(
            f"{path}: its qform puts it up to {most:.1f} mm from where its sform does, which was taken"
        )


def is_frame(affine: np.ndarray) -> bool:
    """Finite and invertible, voxels between a micrometre and ten metres, within a kilometre."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        return False
    stretches = np.linalg.svd(affine[:3, :3], compute_uv=False)
    return bool(stretches.min() > 1e-3 and stretches.max() < 1e4)


def _read_exactly(stream: BufferedIOBase, count: int, path: Path) -> bytearray:
    """`count` bytes in steps, so that memory grows with what is there and not with what is claimed."""
    data = bytearray()
    while len(data) < count:
        part = stream.read(min(count - len(data), 1 << 24))
        if not part:
            raise InputError(f"{path}: truncated, {count - len(data)} bytes are missing at its end")
        data += part
    return data


def _read_to_end(stream: BufferedIOBase, path: Path) -> None:
    """Reads what follows the voxels, for gzip's checksum at the very end; more than a header is refused."""
    left = _MAX_HEADER_BYTES
    while part := stream.read(1 << 20):
        left -= len(part)
        if left < 0:
            raise InputError(f"{path}: data follows its voxels, expected the end of the file")


def _scaled(voxels: np.ndarray, header: nib.Nifti1Header, path: Path) -> np.ndarray:
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{path}: its scaling is invalid ({one_line(error)})") from None
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if slope == 1.0 and intercept == 0.0 and voxels.dtype.kind == "i" and voxels.itemsize == 2:
        return voxels.astype(np.int16, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite: told below
        scaled = voxels.astype(np.float32)
        scaled *= np.float32(slope)
        scaled += np.float32(intercept)
    return scaled


def canonical(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A volume [x, y, z] and its affine, turned and flipped to RAS."""
    orientation = io_orientation(affine)
    turned = apply_orientation(volume, orientation)
    return np.ascontiguousarray(turned), affine @ inv_ornt_aff(orientation, volume.shape)


def write_volume(
    path: Path, hu: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> None:
    """Writes a volume as int16 HU, rounded and clipped, with its frame in sform and qform (mm).

    Args:
        path: ends in .nii or .nii.gz; its folder is made where it is missing.
        hu: CT values in HU, axes [x, y, z].
        affine: 4x4, index -> world mm (RAS).

    Raises:
        InputError: the name, the shape or a value is not one of a volume, or the disk refuses.
    """
    path, hu = Path(path), np.asarray(hu)
    if not is_volume(path):
        raise InputError(f"{path}: its name ends in {path.suffix!r}, expected .nii or .nii.gz")
    if hu.ndim != 3 or not np.isfinite(hu).all() or not np.isfinite(affine).all():
        raise InputError(
            f"{path}: shape {hu.shape}, expected finite HU [x, y, z] and a finite affine"
        )
    limits = np.iinfo(np.int16)
    image = nib.Nifti1Image(np.rint(hu).clip(limits.min, limits.max).astype(np.int16), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")  # nearest matrix without shear: readers take the sform
    image.header.set_xyzt_units("mm")
    with whole(path) as part:
        nib.save(image, part)


def resample(
    volume: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    grid: Grid,
    fill: float,
    samples: tuple[int, int, int] | None = None,
) -> Float[np.ndarray, "i j k"]:
    """A volume on another grid of the same world: linear interpolation, without aliasing.

    Each voxel of `grid` is the mean of the linear interpolant at `samples` evenly spaced points
    along each of its axes: with (1, 1, 1) that is plain linear resampling, with (2, 2, 2) it is
    linear resampling to a grid twice as fine, averaged in blocks.

    Args:
        volume: values, axes [x, y, z].
        affine: 4x4, index -> world mm.
        grid: where the result lies.
        fill: value outside the volume.
        samples: points along each axis of a voxel; None: the ratio of the spacings, rounded.

    Returns:
        float32 on `grid`.
    """
    step = np.linalg.inv(affine) @ grid.affine  # grid index -> volume index
    if samples is None:
        samples = tuple(np.maximum(1, np.rint(np.linalg.norm(step[:3, :3], axis=0))).astype(int))
    points = np.array(samples)
    matrix = step[:3, :3] / points
    offset = step[:3, 3] - step[:3, :3] @ ((points - 1) / (2 * points))
    diagonal = np.diagonal(matrix)
    aligned = np.array_equal(matrix, np.diag(diagonal)) and (diagonal > 0).all()
    fine = ndimage.affine_transform(
        np.asarray(volume, np.float32),
        diagonal if aligned else matrix,  # a diagonal takes scipy's separable, faster path
        offset,
        output_shape=tuple(n * p for n, p in zip(grid.shape, samples)),
        order=1,
        mode="constant",
        cval=fill,
        prefilter=False,
    )
    (a, b, c), (x, y, z) = samples, grid.shape
    return fine.reshape(x, a, y, b, z, c).mean(axis=(1, 3, 5), dtype=np.float32)
