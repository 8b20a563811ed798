"""Grey TIFF images of 8 to 64 bits, exactly as stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from jxrecon.types import InputError

ORIENTATION = 274
"""The tag that tells how viewers turn a picture, in TIFF and in EXIF."""


def check_upright(orientation: int, path: Path) -> None:
    """Raises InputError where a viewer shows a picture turned or mirrored: it is not what one sees."""
    if orientation not in (0, 1):  # 0 is none
        raise InputError(
            f"{path}: its Orientation is {orientation}: viewers turn or mirror it, expected 1, saved as shown"
        )


def read_tiff(path: Path, most_pixels: int) -> Shaped[np.ndarray, "rows columns"]:
    """The one page of a TIFF; bright where the file says that 0 is white, dark for bright.

    Raises:
        InputError: it has several pages, other channels than grey or equal ones, or fewer than 8 bits.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise InputError(f"{path}: {len(file.pages)} pages, expected one picture")
        page: Any = file.pages[0]
        rows, columns, samples = page.imagelength, page.imagewidth, page.samplesperpixel
        if not 0 < rows * columns * max(1, page.imagedepth) <= most_pixels or page.imagedepth > 1:
            raise InputError(
                f"{path}: declares {rows} x {columns} pixels, expected 1 to {most_pixels}"
            )
        check_upright(page.tags.valueof(ORIENTATION, 1), path)
        kind = page.dtype
        if kind is None or page.bitspersample % 8 or kind.kind not in "iuf":
            raise InputError(f"{path}: {page.bitspersample} bits a pixel, expected 8, 16, 32 or 64")
        name = page.photometric.name
        if name not in ("MINISBLACK", "MINISWHITE", "RGB") or samples > 4:
            raise InputError(f"{path}: pixels are {name} of {samples} samples, expected grey")
        ends = np.array(page.dataoffsets, np.int64) + np.array(page.databytecounts, np.int64)
        if not ends.size or ends.max() > path.stat().st_size:
            raise InputError(
                f"{path}: cut short, its pixels end {ends.max(initial=0)} bytes from its start"
            )
        try:
            stored = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            stored = _by_pillow(path)
        if page.planarconfig == 2 and stored.ndim == 3:
            stored = np.moveaxis(stored, 0, -1)
        grey = one_channel(stored, path)
    if grey.shape != (rows, columns):
        raise InputError(f"{path}: pixels of shape {grey.shape}, expected {(rows, columns)}")
    if name != "MINISWHITE":
        return grey
    if kind.kind != "u":
        raise InputError(f"{path}: {kind} pixels whose 0 is white, expected 0 for black")
    return np.iinfo(kind).max - grey


def _by_pillow(path: Path) -> np.ndarray:
    """Pixels of a compression that tifffile alone does not read, such as LZW."""
    with Image.open(path, formats=["TIFF"]) as picture:
        if picture.mode not in ("L", "I;16", "I;16B", "F", "RGB"):
            raise InputError(
                f"{path}: compressed pixels of mode {picture.mode}, expected no compression"
            )
        return np.array(picture)


def one_channel(
    pixels: Shaped[np.ndarray, "..."], path: Path
) -> Shaped[np.ndarray, "rows columns"]:
    """Grey pixels, of one channel or of several that agree; a last one of 2 or 4 is opacity.

    Raises:
        InputError: channels differ, or a pixel is transparent.
    """
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise InputError(f"{path}: pixels of shape {pixels.shape}, expected [rows, columns]")
    colours, opaque = pixels[..., : 1 + (pixels.shape[2] > 2) * 2], pixels.shape[2] in (1, 3)
    if not opaque:
        least = pixels[..., -1].min()
        if least != (np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1.0):
            raise InputError(f"{path}: has transparent pixels (opacity {least}), expected none")
    apart = np.ptp(colours.astype(np.float64), axis=2).max()
    if apart > 0:
        raise InputError(
            f"{path}: its colour channels differ by up to {apart:g}, expected a grey picture"
        )
    return np.ascontiguousarray(colours[..., 0])
