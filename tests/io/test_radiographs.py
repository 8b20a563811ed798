"""X-ray files: what is written comes back, and bad files are told in one line."""

import io
import json
import struct
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jxrecon.geometry import ParallelCamera, camera_at, parallel_at
from jxrecon.io import radiographs
from jxrecon.io.radiographs import Given, Radiograph, read, write
from jxrecon.io.xray_views import view_angles
from jxrecon.types import InputError

FLAGS = Given("lateral", 900.0, 1400.0, (2.0, 3.0), intensity="log")


def _camera(shape=(5, 7)):
    return camera_at(
        33.0, 12.0, shape=shape, pixel_mm=(2.5, 1.5), isocentre_mm=(10.25, -20.5, -731.125)
    )


def _image(shape=(5, 7)):
    return np.random.default_rng(0).uniform(-0.01, 9.0, shape).astype(np.float32)


def _radiograph():
    return Radiograph(_image(), _camera(), "test", np.array([10.25, -20.5, -731.125]))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".npz", ".png"])
def test_every_format_brings_back_image_camera_and_isocentre(tmp_path, ending):
    path = tmp_path / f"x.ray{ending}"
    write(path, _radiograph(), source="a test")
    back = read(path)
    step = 0.0 if ending != ".png" else float(np.ptp(_image())) / 65535 / 2 * 1.001
    np.testing.assert_allclose(back.line_integrals, _image(), rtol=0, atol=step + 1e-7)
    assert back.line_integrals.dtype == np.float32
    for name in ("source", "centre", "u", "v"):
        np.testing.assert_allclose(
            getattr(back.camera, name), getattr(_camera(), name), rtol=0, atol=1e-6
        )
    assert back.camera.shape == (5, 7)
    np.testing.assert_array_equal(back.isocentre_mm, [10.25, -20.5, -731.125])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["x.ray.json", path.name])
    assert json.loads((tmp_path / "x.ray.json").read_text())["source"] == "a test"


def test_nifti_is_column_row_and_places_every_pixel_where_it_stood(tmp_path):
    write(tmp_path / "x.nii.gz", _radiograph())
    picture = nib.load(tmp_path / "x.nii.gz")
    assert picture.shape == (7, 5, 1)
    assert float(picture.get_fdata()[6, 2, 0]) == float(_image()[2, 6])
    placed = picture.affine @ np.array([6.0, 2.0, 0.0, 1.0])
    np.testing.assert_allclose(placed[:3], _camera().pixels()[2, 6], rtol=0, atol=2e-4)


def test_plain_2d_nifti_with_a_slope_is_read_as_line_integrals(tmp_path):
    picture = nib.Nifti1Image((_image() * 1000).T.astype(np.int16), np.eye(4))
    picture.header.set_slope_inter(0.001, 0.0)
    content = bytearray(picture.to_bytes())
    content[112:120] = struct.pack("<ff", 0.001, 0.0)  # nibabel writes the slope only on save
    (tmp_path / "x.nii").write_bytes(content)
    back = read(tmp_path / "x.nii", FLAGS)
    np.testing.assert_allclose(back.line_integrals, _image(), rtol=0, atol=1.01e-3)


def test_png_of_16_bits_keeps_more_than_60000_levels(tmp_path):
    image = np.linspace(0, 8, 65536, dtype=np.float32).reshape(256, 256)
    write(tmp_path / "x.png", Radiograph(image, _camera((256, 256)), "test"))
    assert len(np.unique(read(tmp_path / "x.png").line_integrals)) > 60_000


def test_8_bit_png_is_scaled_by_its_sidecar(tmp_path):
    levels = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
    Image.fromarray(levels).save(tmp_path / "x.png")
    scale = {"intensity": "display", "scale": 0.02, "offset": 0.5}
    (tmp_path / "x.json").write_text(json.dumps({"camera": _camera().to_dict(), **scale}))
    np.testing.assert_allclose(
        read(tmp_path / "x.png").line_integrals, levels * 0.02 + 0.5, rtol=1e-6
    )


def test_npz_carries_its_own_camera(tmp_path):
    write(tmp_path / "x.npz", _radiograph())
    (tmp_path / "x.json").unlink()
    back = read(tmp_path / "x.npz", Given(intensity="log"))
    np.testing.assert_array_equal(back.camera.source, _camera().source)


def _parallel():
    return parallel_at(
        33.0, 12.0, shape=(5, 7), pixel_mm=(2.5, 1.5), isocentre_mm=(10.25, -20.5, -731.125)
    )


@pytest.mark.parametrize("ending", [".nii.gz", ".npz", ".png"])
def test_every_format_brings_back_parallel_rays(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    write(path, _radiograph()._replace(camera=_parallel()))
    sidecar = json.loads((tmp_path / "x.json").read_text())["camera"]
    assert "direction" in sidecar
    assert "source_mm" not in sidecar
    back = read(path)
    assert isinstance(back.camera, ParallelCamera)
    for name in ("direction", "centre", "u", "v"):
        np.testing.assert_allclose(
            getattr(back.camera, name), getattr(_parallel(), name), rtol=0, atol=1e-6
        )
    np.testing.assert_allclose(back.line_integrals, _image(), rtol=0, atol=1e-4)


def test_npz_carries_its_own_parallel_rays(tmp_path):
    write(tmp_path / "x.npz", _radiograph()._replace(camera=_parallel()))
    (tmp_path / "x.json").unlink()
    back = read(tmp_path / "x.npz", Given(intensity="log"))
    np.testing.assert_array_equal(back.camera.direction, _parallel().direction)


def test_what_is_printed_tells_the_source_or_the_direction_of_parallel_rays(tmp_path):
    cone = radiographs.describe(camera_at(90.0, shape=(5, 7), pixel_mm=(2.5, 1.5)))
    assert cone == {
        "pixels": "5 x 7 (rows x columns)",
        "pixel pitch": "2.5 x 1.5 mm",
        "detector centre": "(500.0, 0.0, 0.0) mm",
        "source": "(-1000.0, 0.0, 0.0) mm",
        "source to detector": "1500.0 mm",
    }
    rays = radiographs.describe(parallel_at(90.0, shape=(5, 7), isocentre_mm=(1.0, 2.0, 3.0)))
    assert rays["parallel rays"] == "along (1.0000, 0.0000, 0.0000)"
    assert rays["detector centre"] == "(1.0, 2.0, 3.0) mm"
    assert not {"source", "source to detector"} & set(rays)
    write(tmp_path / "x.npz", _radiograph()._replace(camera=_parallel()))
    assert "parallel rays" in radiographs.table(read(tmp_path / "x.npz"))


def test_raw_intensities_become_line_integrals_of_beer_and_lambert(tmp_path):
    counts = np.round(5000.0 * np.exp(-_image())).astype(np.uint16) + 1
    np.savez(tmp_path / "x.npz", image=counts)
    back = read(tmp_path / "x.npz", FLAGS._replace(intensity="raw", i0=5000.0))
    np.testing.assert_allclose(back.line_integrals, -np.log(counts / 5000.0), rtol=0, atol=1e-6)


def test_flags_build_the_camera_and_every_value_says_where_it_came_from(tmp_path):
    np.savez(tmp_path / "x.npz", image=_image())
    (tmp_path / "x.json").write_text('{"source_detector_mm": 1234, "isocentre_mm": [1, 2, 3]}')
    back = read(tmp_path / "x.npz", FLAGS._replace(source_detector_mm=None))
    expected = camera_at(
        90.0,
        source_axis_mm=900.0,
        source_detector_mm=1234.0,
        shape=(5, 7),
        pixel_mm=(2.0, 3.0),
        isocentre_mm=(1.0, 2.0, 3.0),
    )
    np.testing.assert_allclose(back.camera.source, expected.source, atol=1e-4)
    np.testing.assert_allclose(back.camera.centre, expected.centre, atol=1e-4)
    origins = {name: where for name, _, where in back.resolved}
    assert origins["source to axis"] == "--sad"
    assert origins["source to detector"] == "x.json"
    assert origins["pixel pitch"] == "--pixel-mm"
    assert origins["intensity"] == "--intensity"
    assert "--view" in radiographs.table(back)


def test_flag_view_replaces_the_camera_of_the_sidecar(tmp_path):
    write(tmp_path / "x.npz", _radiograph())
    back = read(tmp_path / "x.npz", FLAGS._replace(isocentre_mm=(0.0, 0.0, 0.0)))
    np.testing.assert_allclose(back.camera.source, [-900.0, 0.0, 0.0], atol=1e-4)


def test_view_is_a_name_or_angles():
    assert view_angles("frontal") == (0.0, 0.0)
    assert view_angles("lateral") == (90.0, 0.0)
    assert view_angles("-30.5") == (-30.5, 0.0)
    assert view_angles("30,-10") == (30.0, -10.0)


@pytest.mark.parametrize("text", ["front", "1,2,3", "", "nan", "1e999", "30;10"])
def test_any_other_view_is_refused(text):
    with pytest.raises(InputError, match="expected frontal, lateral, ap"):
        view_angles(text)


def _png_claiming(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def _sidecar(folder, **changes):
    values = json.loads((folder / "x.json").read_text()) | changes
    (folder / "x.json").write_text(json.dumps(values))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def _npz_claiming(path, shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", stream.getvalue())


def _with_pixel(path, value):
    image = _image()
    image[1, 2] = value
    write(path, Radiograph(image, _camera(), "test"))


FAULTS = {
    "no sidecar": (
        ".npz",
        lambda p, d: (np.savez(p, image=_image()), (d / "x.json").unlink()),
        "--view",
    ),
    "no intensity": (".nii", lambda p, d: _sidecar(d, intensity=None), "expected --intensity"),
    "odd intensity": (".nii", lambda p, d: _sidecar(d, intensity=["x"]), "expected log, raw"),
    "display": (".nii", lambda p, d: _sidecar(d, intensity="display"), "unknown scale"),
    "display png": (
        ".png",
        lambda p, d: _sidecar(d, intensity="display", scale=None),
        "unknown sc",
    ),
    "png without scale": (".png", lambda p, d: _sidecar(d, scale=None), "unknown scale"),
    "words for a scale": (".png", lambda p, d: _sidecar(d, scale="big"), "scale is 'big'"),
    "raw without i0": (".nii", lambda p, d: _sidecar(d, intensity="raw"), "expected --i0"),
    "raw of zero": (
        ".nii",
        lambda p, d: (_with_pixel(p, 0.0), _sidecar(d, intensity="raw", i0=9)),
        "have the intensity 0",
    ),
    "i0 of zero": (".nii", lambda p, d: _sidecar(d, intensity="raw", i0=0), "i0 0, least"),
    "camera of another size": (
        ".npz",
        lambda p, d: np.savez(p, image=_image((4, 7))),
        "4 x 7 pixels, expected the 5 x 7 of its camera in x.json",
    ),
    "camera without source": (
        ".nii",
        lambda p, d: _sidecar(d, camera={"shape": [5, 7]}),
        "source_mm is None",
    ),
    "rays along the detector": (
        ".nii",
        lambda p, d: _sidecar(
            d,
            camera={
                "direction": [1, 0, 0],
                "centre_mm": [0, 0, 0],
                "u_mm": [1, 0, 0],
                "v_mm": [0, 1, 0],
                "shape": [5, 7],
            },
        ),
        "within the detector's plane",
    ),
    "camera no object": (".nii", lambda p, d: _sidecar(d, camera=[1]), "expected its numbers"),
    "isocentre of two": (".nii", lambda p, d: _sidecar(d, isocentre_mm=[1, 2]), "isocentre_mm is"),
    "nan": (".nii", lambda p, d: _with_pixel(p, np.nan), "1 pixels are not finite"),
    "infinite": (".npz", lambda p, d: _with_pixel(p, np.inf), "1 pixels are not finite"),
    "negative": (".npz", lambda p, d: _with_pixel(p, -0.5), "line integrals from -0.5 to"),
    "grey levels": (".npz", lambda p, d: _with_pixel(p, 255.0), "to 255, expected them between"),
    "cut png": (".png", lambda p, d: _cut(p), "damaged or cut short"),
    "png flipped": (".png", lambda p, d: _flip(p, -30), "damaged or cut short"),
    "cut nii": (".nii", lambda p, d: _cut(p), "cut short, 120 of 140 bytes"),
    "cut nii.gz": (".nii.gz", lambda p, d: _cut(p), "damaged or cut short"),
    "flipped nii.gz": (".nii.gz", lambda p, d: _flip(p, -60), "damaged or cut short"),
    "cut npz": (".npz", lambda p, d: _cut(p), "damaged or cut short"),
    "unit": (".nii", lambda p, d: _flip(p, 123), "its unit has the code 253, expected mm"),
    "empty": (".nii", lambda p, d: p.write_bytes(b""), "damaged or cut short"),
    "text": (".png", lambda p, d: p.write_text("hello"), "damaged or cut short"),
    "3-D": (
        ".nii",
        lambda p, d: nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), p),
        r"axes \(3, 3, 3\), expected \[column, row\]",
    ),
    "png bomb": (".png", lambda p, d: p.write_bytes(_png_claiming(60000, 60000)), "bomb|declares"),
    "large png": (".png", lambda p, d: p.write_bytes(_png_claiming(9000, 9000)), "9000 x 9000 pix"),
    "npz bomb": (".npz", lambda p, d: _npz_claiming(p, (10**9, 10**9)), "declares 1000000000 x"),
    "npz of 3-D": (".npz", lambda p, d: np.savez(p, image=np.zeros((2, 2, 2))), "expected real"),
    "colour": (".png", lambda p, d: Image.new("RGB", (7, 5), (1, 2, 3)).save(p), "channels differ"),
    "no key image": (
        ".npz",
        lambda p, d: np.savez(p, a=_image(), b=_image()),
        "expected the key image",
    ),
    "pickle": (".npz", lambda p, d: np.savez(p, image=np.array([["a"]], object)), "expected real"),
    "complex": (".npz", lambda p, d: np.savez(p, image=_image() * 1j), "is complex64"),
    "broken json": (
        ".nii",
        lambda p, d: (d / "x.json").write_text('{"camera": '),
        "cannot be read as JSON",
    ),
    "binary json": (
        ".nii",
        lambda p, d: (d / "x.json").write_bytes(b"\xff\xfe\x00"),
        "cannot be read as JSON",
    ),
    "list json": (".nii", lambda p, d: (d / "x.json").write_text("[]"), "expected a JSON object"),
    "absent": (".nii", lambda p, d: p.unlink(), "no such file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_file_is_told_in_one_line_that_names_it(tmp_path, fault):
    ending, spoil, expected = FAULTS[fault]
    path = tmp_path / f"x{ending}"
    write(path, _radiograph())
    spoil(path, tmp_path)
    with pytest.raises(InputError, match=expected) as caught:
        read(path)
    assert "\n" not in str(caught.value).strip()
    assert str(tmp_path / "x") in str(caught.value)


def test_distances_do_not_silently_change_the_camera_of_a_sidecar(tmp_path):
    write(tmp_path / "x.npz", _radiograph())
    with pytest.raises(InputError, match=r"--sad, --sid given but x\.json holds the camera"):
        read(tmp_path / "x.npz", Given(source_axis_mm=900.0, source_detector_mm=1400.0))


def test_unknown_ending_is_refused_by_reading_and_writing(tmp_path):
    for act in (read, lambda path: write(path, _radiograph())):
        with pytest.raises(InputError, match=r"one of \.nii\.gz"):
            act(tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())


def test_image_of_another_size_than_its_camera_is_not_written(tmp_path):
    with pytest.raises(InputError, match="expected the camera's"):
        write(tmp_path / "x.nii", _radiograph()._replace(line_integrals=_image((7, 5))))
    assert not list(tmp_path.iterdir())


def test_unwritable_folder_is_told_in_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "x.nii", _radiograph())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
