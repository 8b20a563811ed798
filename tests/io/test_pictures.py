"""X-rays in the formats of detectors and other codes: exactly as stored, or refused in one line."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from jxrecon.geometry import vectors
from jxrecon.io.images import read_pixels
from jxrecon.io.radiographs import Given, read
from jxrecon.types import InputError

GREY = (np.arange(20 * 30).reshape(20, 30) % 251).astype(np.uint8)


def png(path, mode, image=GREY):
    picture = Image.fromarray(image)
    if mode == "P":
        picture = picture.convert("P")
        picture.putpalette([level for level in range(256) for _ in range(3)])
    else:
        picture = picture.convert(mode)
    picture.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_a_grey_png_of_any_mode_is_its_grey_levels(mode, tmp_path):
    np.testing.assert_array_equal(read_pixels(png(tmp_path / "a.png", mode))[0], GREY)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize(
    "how", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"rowsperstrip": 7}]
)
def test_a_tiff_is_read_exactly_as_stored(dtype, how, tmp_path):
    image = (GREY.astype(dtype) * (1 if dtype == "u1" else 97)).astype(dtype)
    image = image / np.float32(7) if dtype[0] == "f" else image
    tifffile.imwrite(tmp_path / "a.tif", image, **how)
    found, _ = read_pixels(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, image)
    assert found.dtype.newbyteorder("=") == image.dtype


def test_what_a_tiff_says_of_black_and_channels_counts(tmp_path):
    tifffile.imwrite(tmp_path / "w.tif", GREY.astype("u2"), photometric="miniswhite")
    np.testing.assert_array_equal(read_pixels(tmp_path / "w.tif")[0], 65535 - GREY.astype("u2"))
    for planes in ("contig", "separate"):
        rgb = np.stack([GREY] * 3, -1 if planes == "contig" else 0)
        tifffile.imwrite(tmp_path / "c.tif", rgb, photometric="rgb", planarconfig=planes)
        np.testing.assert_array_equal(read_pixels(tmp_path / "c.tif")[0], GREY)
    Image.fromarray(GREY).save(tmp_path / "l.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_pixels(tmp_path / "l.tif")[0], GREY)


def test_an_array_alone_needs_no_name(tmp_path):
    image = GREY.astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    np.savez(tmp_path / "b.npz", image)
    np.savez(tmp_path / "c.npz", whatever=image)
    for name in ("a.npy", "b.npz", "c.npz"):
        np.testing.assert_array_equal(read_pixels(tmp_path / name)[0], image)


def _cut(path):
    tifffile.imwrite(path, GREY.astype("u2"))
    path.write_bytes(path.read_bytes()[:-100])


def _transparent(path):
    image = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    image[3, 4, 3] = 254
    Image.fromarray(image).save(path)


def _exif(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("a.png", lambda p: Image.fromarray(np.dstack([GREY, GREY, GREY // 2])).save(p), "channels differ"),
        ("a.png", _transparent, "transparent"),
        ("a.png", lambda p: Image.fromarray(GREY > 99).save(p), "mode 1 and 1 bits"),
        ("a.png", lambda p: Image.fromarray(GREY // 16).convert("P").save(p, bits=4), "4 bits"),
        ("a.tif", _cut, "cut short"),
        ("a.tif", lambda p: tifffile.imwrite(p, np.stack([GREY] * 2), photometric="minisblack"), "2 pages"),
        ("a.tif", lambda p: p.write_bytes(b"II*\0" + b"\0" * 20), "damaged or cut short|pages"),
        ("a.tif", lambda p: tifffile.imwrite(p, GREY, extratags=[(274, "H", 1, 3, 1)]), "Orientation is 3"),
        ("a.png", lambda p: Image.fromarray(GREY).save(p, exif=_exif(6)), "Orientation is 6"),
        ("a.png", lambda p: Image.fromarray(GREY).save(p, save_all=True, append_images=[Image.fromarray(
            255 - GREY)]), "animation of 2"),
        ("a.npy", lambda p: np.save(p, GREY[None]), "expected real"),
        ("a.npy", lambda p: np.save(p, np.array([[{}]], object), allow_pickle=True), "expected real"),
        ("a.jpg", lambda p: Image.fromarray(GREY).save(p), "lossy"),
        ("a.dcm", lambda p: p.write_text("no DICOM"), "mark DICM"),
    ],
)  # fmt: skip
def test_what_is_no_grey_picture_is_refused(name, spoil, reason, tmp_path):
    spoil(tmp_path / name)
    with pytest.raises(InputError, match=reason) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


RAW = Given("frontal", 1000.0, 1500.0, (2.0, 2.0), intensity="raw", i0=1000.0)


def counts(path, lines, i0=1000.0):
    np.save(path, np.rint(i0 * np.exp(-lines)))
    return path


def test_dead_pixels_are_filled_and_counted_and_counts_above_i0_refused(tmp_path, capsys):
    y, x = np.indices((20, 30))
    lines = 2.0 * np.sqrt(np.maximum(0, 1 - ((x - 15) / 8) ** 2 - ((y - 10) / 7) ** 2))
    whole = np.rint(1000 * np.exp(-lines))
    dead = whole.copy()
    dead[10, 14:16] = dead[3, 3] = 0
    np.save(tmp_path / "a.npy", dead)
    found = read(tmp_path / "a.npy", RAW)
    np.testing.assert_allclose(found.line_integrals, -np.log(whole / 1000), atol=0.05)
    assert ("dead pixels", "3 of intensity 0, filled from around", "a.npy") in found.resolved
    np.save(tmp_path / "b.npy", np.where(lines > 1, 0, whole))
    with pytest.raises(InputError, match=r"have the intensity 0.*--inverted"):
        read(tmp_path / "b.npy", RAW)
    np.save(tmp_path / "c.npy", whole + 20)  # dark counts
    with pytest.raises(InputError, match=r"air has the intensity 1020, above i0 1000.*--i0"):
        read(tmp_path / "c.npy", RAW)
    noisy = np.random.default_rng(0).poisson(whole)
    np.save(tmp_path / "d.npy", noisy)
    read(tmp_path / "d.npy", RAW)
    assert "attenuate alike" not in capsys.readouterr().err
    read(tmp_path / "d.npy", RAW._replace(i0=2000.0))
    assert re.search(
        r"attenuate alike, by 0.\d\d: if that is air, i0 is (9|10)\d\d", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("view", "source", "columns"),
    [
        ("ap", (0, 1000, 0), (-2, 0, 0)),
        ("pa", (0, -1000, 0), (-2, 0, 0)),
        ("PA", (0, -1000, 0), (-2, 0, 0)),
        ("180", (0, -1000, 0), (2, 0, 0)),
        ("rl", (-1000, 0, 0), (0, -2, 0)),
        ("ll", (1000, 0, 0), (0, -2, 0)),
    ],
)
def test_named_views_lie_as_a_clinic_displays_them(view, source, columns, tmp_path):
    """The patient's right, or the face, on the picture's left; a number is the sight from the source."""
    y, x = np.indices((20, 30))
    path = counts(tmp_path / "a.npy", np.maximum(0, 2 - np.hypot(x - 15, y - 10) / 4))
    found, _, u, v = vectors(read(path, RAW._replace(view=view)).camera)
    np.testing.assert_allclose(found, source, atol=1e-3)
    np.testing.assert_allclose(u, columns, atol=1e-5)
    np.testing.assert_allclose(v, (0, 0, -2), atol=1e-5)
