"""X-rays as files: an image of line integrals, and beside it a JSON sidecar with its camera.

The sidecar of `a.nii.gz` or `a.png` is `a.json`. Its keys, which flags can stand in for:

    camera          source_mm or, of parallel rays, direction; centre_mm, u_mm, v_mm and shape as the
                    camera's `to_dict` writes them, or
    view            see `xray_views.VIEWS`, with the next three keys
    source_axis_mm, source_detector_mm    from the source to isocentre and detector
    pixel_mm        pitch on the detector: one number, or [between rows, between columns]
    patient_orientation    where rows and columns run to, such as ["L", "F"]; else as the view has it
    isocentre_mm    the point of the world that the views turn about
    intensity       log: line integrals; raw: detector intensities; display: altered for the eye
    i0              intensity of the unattenuated beam, needed by raw images
    scale, offset   of whole numbers: value * scale + offset is the line integral (raw: the intensity)
    bits            of a pixel, which scale and offset are for
    range           [least, mean, largest] line integral of the image
    inverted        true: bright is dark and dark is bright, as in MONOCHROME1
    units, source   text for the reader

A NIfTI's affine puts every pixel where it stood in the world (first axis along the camera's u,
second along its v); the camera is read from sidecar or flags alone, and compared with it. An NPZ may
hold it as arrays. The tags of a DICOM radiograph tell as much: see `dicom_xrays`. What cannot belong
together is refused: see `xray_checks`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jxrecon import geometry
from jxrecon.files import read_json, write_file
from jxrecon.geometry import AnyCamera, Camera, ParallelCamera, camera_at, finite
from jxrecon.io import xray_checks
from jxrecon.io.dicom_files import is_dicom
from jxrecon.io.dicom_xrays import Said, lacks_orientation, read_dicom_xray
from jxrecon.io.images import (
    DICOM_SUFFIXES,
    WRITTEN,
    nifti_bytes,
    npz_bytes,
    png_bytes,
    read_pixels,
    stem,
    suffix,
)
from jxrecon.io.xray_pixels import OF_PIXELS, Lines, line_integrals_of
from jxrecon.io.xray_views import as_displayed, named_view, oriented, picture_of, view_angles
from jxrecon.types import InputError, shown

_DISTANCES = ("source_axis_mm", "source_detector_mm", "pixel_mm")
_CAMERA_ARRAYS = (
    ("source_mm", "centre_mm", "u_mm", "v_mm"),
    ("direction", "centre_mm", "u_mm", "v_mm"),
)


class Given(NamedTuple):
    """What the command line says about an X-ray (None: nothing): keys of the sidecar, which it outranks."""

    view: str | None = None
    source_axis_mm: float | None = None
    source_detector_mm: float | None = None
    pixel_mm: tuple[float, float] | None = None
    isocentre_mm: tuple[float, float, float] | None = None
    intensity: str | None = None
    i0: float | None = None
    inverted: bool | None = None
    scale: float | None = None
    offset: float | None = None
    patient_orientation: tuple[str, str] | None = None
    frame: int | None = None


NOTHING_GIVEN = Given()

_FLAGS = {
    "view": "--view",
    "source_axis_mm": "--sad",
    "source_detector_mm": "--sid",
    "pixel_mm": "--pixel-mm",
    "isocentre_mm": "--isocentre",
    "intensity": "--intensity",
    "i0": "--i0",
    "inverted": "--inverted",
    "scale": "--scale",
    "offset": "--offset",
    "patient_orientation": "--patient-orientation",
    "frame": "--frame",
}


class Radiograph(NamedTuple):
    """An X-ray and how it was taken.

    Attributes:
        line_integrals: [rows, columns] float32, dimensionless.
        camera: source (or direction of the rays) and detector in the X-ray's own world, mm.
        origin: the file, or what else it comes from.
        isocentre_mm: the point the views turn about, [3]; None where nothing tells it.
        resolved: lines of (quantity, value, where it came from) for printing.
    """

    line_integrals: Float[np.ndarray, "rows columns"]
    camera: AnyCamera
    origin: str
    isocentre_mm: np.ndarray | None = None
    resolved: tuple[tuple[str, str, str], ...] = ()


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of this image lies."""
    return path.with_name(f"{stem(path)}.json")


def describe(camera: AnyCamera) -> dict[str, str]:
    """The camera's quantities as a person checks them, for printing."""
    first, centre, _, _ = geometry.vectors(camera)
    lines = {
        "pixels": f"{camera.shape[0]} x {camera.shape[1]} (rows x columns)",
        "pixel pitch": "{:.4g} x {:.4g} mm".format(*geometry.pixel_mm(camera)),
        "detector centre": "({:.1f}, {:.1f}, {:.1f}) mm".format(*centre),
    }
    if isinstance(camera, ParallelCamera):
        along = np.round(first / np.linalg.norm(first), 4) + 0.0  # no -0
        return {**lines, "parallel rays": "along ({:.4f}, {:.4f}, {:.4f})".format(*along)}
    return {
        **lines,
        "source": "({:.1f}, {:.1f}, {:.1f}) mm".format(*first),
        "source to detector": f"{geometry.source_detector_mm(camera):.1f} mm",
    }


def table(radiograph: Radiograph) -> str:
    """Every resolved value and where it came from, a line each, for printing."""
    lines = [f"  {name:<20}{text:<36}{where}" for name, text, where in radiograph.resolved]
    return "\n".join([radiograph.origin, *lines])


def read(path: Path, given: Given = NOTHING_GIVEN) -> Radiograph:
    """Reads an X-ray with its camera from its sidecar, its tags or from flags, `given`.

    Nothing is guessed but the view, where nothing tells it and the file's name says one, as frontal.png.

    Args:
        path: DICOM, or one of `images.SUFFIXES`: one grey channel at its full bit depth.

    Raises:
        InputError: the file or its sidecar is missing, damaged or too large; no camera, intensity
            or i0 is told; the camera has another size; a pixel is no possible line integral; image,
            sidecar and camera cannot belong together.
    """
    path = Path(path)
    named = suffix(path) in DICOM_SUFFIXES
    dicom = None
    if path.is_file() and (named or is_dicom(path)):
        dicom = read_dicom_xray(path, given.frame)
    image, arrays = (dicom.stored, {}) if dicom else read_pixels(path)
    said: Said = dict(dicom.said) if dicom else {}
    for names in _CAMERA_ARRAYS:
        if set(names) <= set(arrays):
            vectors = {name: arrays[name].tolist() for name in names}
            said["camera"] = {**vectors, "shape": list(image.shape)}, path.name
    sidecar = sidecar_path(path)
    if sidecar.exists():
        told = {key: (value, sidecar.name) for key, value in _read_sidecar(sidecar).items()}
        kinds = [part.get("intensity", ("",))[0] for part in (said, told)]
        if dicom and kinds[0] and kinds[0] != kinds[1]:  # it was written for another image
            told = {k: v for k, v in told.items() if k not in (*OF_PIXELS, "intensity", "inverted")}
            kind, origin = said["intensity"]
            said["intensity"] = kind, f"{origin} ({sidecar.name} tells of other pixels)"
        said |= told
    flags = {key: value for key, value in given._asdict().items() if value is not None}
    said = _overridden(path, said, flags)

    isocentre = None
    if "isocentre_mm" in said:
        isocentre = finite(said["isocentre_mm"][0], 3, f"{path}: isocentre_mm")
    if "camera" in said and "view" not in flags:
        camera, lines = _whole_camera(path, said, flags)
    else:
        isocentre = np.zeros(3) if isocentre is None else isocentre
        camera, lines = _built_camera(path, image.shape, said, isocentre)
    if tuple(camera.shape) != image.shape:
        raise InputError(
            f"{path}: image has {image.shape[0]} x {image.shape[1]} pixels, expected the "
            f"{camera.shape[0]} x {camera.shape[1]} of its camera in {said['camera'][1]}"
        )
    xray_checks.check_sizes(camera, str(path))
    if "affine" in arrays:
        whole = "camera" in said and "view" not in flags
        xray_checks.check_affine(arrays["affine"], _detector_affine(camera), str(path), whole)
    if isocentre is not None:
        where = said.get("isocentre_mm", (None, "default"))[1]
        lines.append(("isocentre", "({:.1f}, {:.1f}, {:.1f}) mm".format(*isocentre), where))
    line_integrals, pixel_lines = line_integrals_of(path, image, said, dicom)
    return Radiograph(line_integrals, camera, str(path), isocentre, (*lines, *pixel_lines))


def _overridden(path: Path, said: Said, flags: dict[str, Any]) -> Said:
    """What files say, with what flags say in its place, and the view that the file's name says at last."""
    raw = {said.get("intensity", [None])[0] == "raw", flags.get("intensity") == "raw"}
    if "intensity" in flags and len(raw) > 1:  # they are of the other kind of pixels
        said = {key: one for key, one in said.items() if key not in OF_PIXELS}
    said = said | {key: (value, _FLAGS[key]) for key, value in flags.items()}
    if not {"view", "camera"} & set(said) and (view := named_view(stem(path))):
        said["view"] = view, f"the name {path.name}"
    return said


def write(path: Path, radiograph: Radiograph, **notes: Any) -> None:
    """Writes line integrals and their sidecar, each file whole or not at all.

    NIfTI and NPZ keep float32 exactly; PNG rounds to 65,536 levels between the image's extremes.
    The sidecar is the same whichever the format, so that one serves an image in several.

    Args:
        path: the image; its ending chooses the format.
        notes: more keys of the sidecar, such as source="...".

    Raises:
        InputError: the ending is unknown, the camera has another size, or the disk refuses.
    """
    path = Path(path)
    kind, sidecar = suffix(path), sidecar_path(path)
    if kind not in WRITTEN:
        raise InputError(f"{path}: cannot be written, expected one of {', '.join(WRITTEN)}")
    image, camera = np.asarray(radiograph.line_integrals, np.float32), radiograph.camera
    if image.shape != tuple(camera.shape):
        raise InputError(f"{path}: image is {image.shape}, expected the camera's {camera.shape}")
    offset = float(image.min())
    scale = (float(image.max()) - offset) / 65535 or 1.0
    sidecar_values = {
        "camera": camera.to_dict(),
        "intensity": "log",
        "units": "line integrals, dimensionless; lengths in mm, world RAS",
        "scale": scale,
        "offset": offset,
        "bits": 16,
    }
    if np.isfinite(image).all():
        mean = float(image.mean(dtype=np.float64))
        sidecar_values["range"] = [offset, mean, float(image.max())]
    if radiograph.isocentre_mm is not None:
        sidecar_values["isocentre_mm"] = np.asarray(radiograph.isocentre_mm, np.float64).tolist()
    if kind == ".png":
        content = png_bytes(np.rint((image.astype(np.float64) - offset) / scale))
    elif kind == ".npz":
        names = _CAMERA_ARRAYS[isinstance(camera, ParallelCamera)]
        vectors = {name: np.asarray(getattr(camera, name.removesuffix("_mm"))) for name in names}
        content = npz_bytes(image, vectors)
    else:
        content = nifti_bytes(image, _detector_affine(camera), zipped=kind == ".nii.gz")
    write_file(sidecar, (json.dumps(sidecar_values | notes, indent=1) + "\n").encode())
    write_file(path, content)


def _whole_camera(path: Path, said: Said, flags: dict[str, Any]) -> tuple[AnyCamera, Lines]:
    """The camera that a sidecar or an NPZ holds, and the lines to print."""
    values, where = said["camera"]
    if loose := [_FLAGS[part] for part in _DISTANCES if part in flags]:
        raise InputError(
            f"{path}: {', '.join(loose)} given but {where} holds the camera, "
            "expected --view too, to replace that camera, or none of them"
        )
    if not isinstance(values, dict):
        raise InputError(f"{path}: the camera in {where} is {shown(values)}, expected its numbers")
    camera = geometry.camera_from_dict(values, f"{path}: the camera in {where}")
    return camera, [(name, text, where) for name, text in describe(camera).items()]


def _built_camera(
    path: Path, shape: tuple[int, int], said: Said, isocentre: np.ndarray
) -> tuple[Camera, Lines]:
    """The camera that an angle and distances describe, and the lines to print."""
    if missing := [_FLAGS[part] for part in ("view", *_DISTANCES) if part not in said]:
        lacks = "nothing tells its camera" if len(missing) > 3 else "its camera is told in part"
        raise InputError(
            f"{path}: {lacks}, expected a sidecar {sidecar_path(path).name} "
            f"or the flags {', '.join(missing)}"
        )
    if lacks_orientation(said):
        raise InputError(
            f"{path}: {said['view'][1]}, but no PatientOrientation tells which way its picture lies, "
            "expected --patient-orientation, such as L,F, or --view"
        )
    view, axis, detector, pitch = (said[part] for part in ("view", *_DISTANCES))
    name = str(view[0])
    angle, elevation = view_angles(name, f"{path}: view")
    source_axis_mm = finite(axis[0], 1, f"{path}: source_axis_mm")[0]
    camera = camera_at(
        angle,
        elevation,
        source_axis_mm=source_axis_mm,
        source_detector_mm=finite(detector[0], 1, f"{path}: source_detector_mm")[0],
        shape=shape,
        pixel_mm=tuple(finite(pitch[0], 2, f"{path}: pixel_mm")),
        isocentre_mm=tuple(isocentre),
    )
    camera, lies = as_displayed(camera, name), f"{view[1]} {name}"
    if "patient_orientation" in said:
        letters, lies = said["patient_orientation"]
        camera = oriented(camera, letters, f"{path}: {lies}")
    origins = {"pixels": path.name, "pixel pitch": pitch[1], "source to detector": detector[1]}
    lines = [("view", f"{angle:g}, {elevation:g} degrees", view[1])]
    lines += [("rows and columns", f"run to {picture_of(camera)}", lies)]
    lines += [(name, text, origins.get(name, view[1])) for name, text in describe(camera).items()]
    lines += [("source to axis", f"{source_axis_mm:.1f} mm", axis[1])]
    return camera, lines


def _read_sidecar(path: Path) -> dict[str, Any]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: found {shown(values)}, expected a JSON object")
    return {key: value for key, value in values.items() if value is not None}


def _detector_affine(camera: AnyCamera) -> np.ndarray:
    """Index (column, row, 0) -> where that pixel stood in the world, mm."""
    _, centre, u, v = geometry.vectors(camera)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = u, v, geometry.unit_normal(camera)
    affine[:3, 3] = centre - (camera.shape[1] - 1) / 2 * u - (camera.shape[0] - 1) / 2 * v
    return affine
