"""An image that cannot belong to its sidecar or camera is refused; what a flag states is put right."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jxrecon.geometry import camera_at, parallel_at
from jxrecon.io.radiographs import Given, Radiograph, read, write
from jxrecon.types import InputError

FLAGS = Given("lateral", 900.0, 1400.0, (2.0, 3.0), intensity="log")
PLACE = {"pixel_mm": (2.5, 1.5), "isocentre_mm": (10.25, -20.5, -731.125)}


def _camera(shape=(24, 28)):
    return camera_at(33.0, 12.0, shape=shape, **PLACE)


def _parallel(shape=(24, 28)):
    return parallel_at(33.0, 12.0, shape=shape, **PLACE)


def _sidecar(folder, **changes):
    values = json.loads((folder / "x.json").read_text()) | changes
    (folder / "x.json").write_text(json.dumps(values))


def _chest(shape=(24, 28)):
    """Line integrals of a body in air, off the middle."""
    y, x = np.indices(shape)
    inside = 1 - ((x - 15) / 8) ** 2 - ((y - 12) / 11) ** 2
    return (6.0 * np.sqrt(np.clip(inside, 0, None))).astype(np.float32)


def _taken(folder, ending, image):
    """The file of an X-ray of `_chest`, and then another image in its place."""
    path, camera = folder / f"x{ending}", _camera()
    write(path, Radiograph(_chest(), camera, "test"))
    if ending == ".png":
        Image.fromarray(image).save(path)
    else:
        sidecar = (folder / "x.json").read_bytes()
        write(path, Radiograph(np.asarray(image, np.float32), camera, "test"))
        (folder / "x.json").write_bytes(sidecar)
    return path


_FULL = np.rint(_chest() / _chest().max() * 65535)

CHANGED = {
    "8 bits": (
        ".png",
        (_FULL / 257).astype(np.uint8),
        "tells of 16 bits a pixel but the image has 8",
    ),
    "cropped": (".npz", np.minimum(_chest(), 4.0), "its sidecar tells of 0 to 6"),
    "brightened": (".png", (65535 * (_FULL / 65535) ** 0.7).astype(np.uint16), r"\(mean"),
    "smoothed": (".png", (_FULL * 0.97).astype(np.uint16), "its sidecar tells of 0 to 6"),
    "inverted": (".png", (65535 - _FULL).astype(np.uint16), "air seems bright"),
    "inverted numbers": (".nii.gz", _chest().max() - _chest(), "air seems bright"),
}


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("old", [False, True], ids=["", "old sidecar"])
def test_an_image_changed_beside_its_sidecar_is_refused(tmp_path, change, old):
    ending, image, expected = CHANGED[change]
    path = _taken(tmp_path, ending, image)
    if old:  # as they were before they told of bits and range
        _sidecar(tmp_path, bits=None, range=None)
        expected = {
            "8 bits": "no patient is so thin",
            "cropped": None,
            "smoothed": None,
            "brightened": None,
        }.get(change, expected)
    if expected is None:
        read(path)  # nothing tells that it is another image
        return
    with pytest.raises(InputError, match=expected):
        read(path)


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".npz"])
def test_polarity_is_turned_round_when_told_and_only_then(tmp_path, ending):
    inverted = 65535 - _FULL if ending == ".png" else _chest().max() - _chest()
    path = _taken(tmp_path, ending, inverted.astype(np.uint16 if ending == ".png" else np.float32))
    back = read(path, Given(inverted=True))
    np.testing.assert_allclose(back.line_integrals, _chest(), atol=1e-4)
    assert ("inverted", "true", "--inverted") in back.resolved
    counts = np.rint(60000 * np.exp(-_chest()))
    np.savez(
        tmp_path / "raw.npz",
        image=(counts if ending == ".npz" else 65535 - counts).astype(np.uint16),
    )
    said = FLAGS._replace(intensity="raw", i0=60000.0)
    if ending == ".npz":
        assert read(tmp_path / "raw.npz", said).line_integrals.min() == pytest.approx(0, abs=1e-4)
    else:
        with pytest.raises(InputError, match="air seems bright"):
            read(tmp_path / "raw.npz", said._replace(i0=66000.0))


def test_views_of_the_body_alone_and_of_much_air_are_not_taken_for_inverted(tmp_path):
    y, x = np.indices((24, 28))
    body = 3 + np.sin(x / 3) + np.cos(y / 4)
    slab = 4 + np.hypot(x - 14, y - 12) / 80  # oblique rays are longer in it
    for image in (body, _chest(), np.flip(_chest()), 8 - 0.001 * body, slab):
        np.savez(tmp_path / "x.npz", image=image)
        read(tmp_path / "x.npz", FLAGS._replace(intensity="log"))


def _affine(change):
    def spoil(path):
        picture = nib.load(path)
        nib.save(nib.Nifti1Image(picture.get_fdata(dtype=np.float32), change(picture.affine)), path)

    return spoil


MOVED = {
    "other pixels": (lambda a: a @ np.diag([2.0, 2, 1, 1]), "expected the same"),
    "flipped": (lambda a: a @ np.diag([-1.0, 1, 1, 1]), "cosines"),
    "axes exchanged": (lambda a: a[:, [1, 0, 2, 3]] @ np.diag([0.6, 1 / 0.6, 1, 1]), "cosines"),
    "cropped": (lambda a: a + 4 * a[:, :1] @ np.eye(4)[3:], "puts the first pixel 6.0 mm"),
}


@pytest.mark.parametrize("change", MOVED)
def test_a_nifti_whose_affine_contradicts_its_camera_is_refused(tmp_path, change):
    change, expected = MOVED[change]
    write(tmp_path / "x.nii.gz", Radiograph(_chest(), _camera(), "test"))
    read(tmp_path / "x.nii.gz")
    _affine(change)(tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match=expected):
        read(tmp_path / "x.nii.gz")
    _affine(lambda a: np.eye(4))(tmp_path / "x.nii.gz")  # says nothing
    read(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("kind", [_camera, _parallel], ids=["cone", "parallel"])
def test_lengths_in_metres_are_refused(tmp_path, kind):
    write(tmp_path / "x.npz", Radiograph(_chest(), kind(), "test"))
    camera = {key: np.divide(value, 1000).tolist() for key, value in kind().to_dict().items()}
    _sidecar(tmp_path, camera={**camera, "shape": [24, 28]})
    with pytest.raises(InputError, match="lengths in metres"):
        read(tmp_path / "x.npz")
