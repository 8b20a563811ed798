"""The check on SYNTHETIC subjects: what is done to right X-rays is named, right X-rays are not doubted."""

import numpy as np
import pytest

from jxrecon.geometry import biplanar
from jxrecon.likelihood.check import (
    check_of,
    judge,
    read_shadows,
    shadows_of,
    write_shadows,
)
from jxrecon.likelihood.hypotheses import AS_GIVEN, hypotheses, stances
from jxrecon.likelihood.patients import PIXELS, averaged
from jxrecon.types import InputError

CAMERAS = biplanar(shape=(48, 48), pixel_mm=8.0)


@pytest.fixture(scope="module")
def shadows(patients):
    return shadows_of(patients, CAMERAS)


@pytest.fixture(scope="module")
def check(shadows):
    return check_of(shadows)


def test_coarse_patients_cast_the_x_rays_of_exact_projection(patients, taken):
    for place, camera in stances(CAMERAS[1]).items():
        if place not in (AS_GIVEN, "source-axis distance +10%", "isocentre 20 mm towards the feet"):
            continue
        found = patients.xrays(camera, near=CAMERAS[1])
        exact = averaged(taken(2, camera))
        error = np.linalg.norm(found[2] - exact) / np.linalg.norm(exact)
        assert error < 0.06, place
        assert np.linalg.norm(found[3] - exact) / np.linalg.norm(exact) > 2 * error  # another one's


def test_a_mirrored_patient_is_the_frontal_view_mirrored(patients):
    both = patients.xrays(CAMERAS[0])
    n = len(both) // 2
    np.testing.assert_allclose(both[n:], both[:n, :, ::-1], atol=2e-2)


def test_right_x_rays_are_not_doubted(check, new_pairs):
    for pair in new_pairs:
        found = judge(check, pair)
        assert not found.doubted, found
        assert dict(zip(found.names, found.ahead))[AS_GIVEN] == 0.0


DONE = {
    "frontal and lateral exchanged": lambda p: p[::-1],
    "lateral mirrored left-right": lambda p: [p[0], p[1][:, ::-1]],
    "all X-rays upside down": lambda p: [y[::-1] for y in p],
    "frontal upside down": lambda p: [p[0][::-1], p[1]],
    "all X-rays turned by 90 degrees clockwise": lambda p: [np.rot90(y, -1) for y in p],
    "all X-rays with rows and columns exchanged": lambda p: [y.T for y in p],
    "intensities inverted": lambda p: [y.max() - y for y in p],
    "raw intensities, not their logarithm": lambda p: [np.exp(-y) for y in p],
    "logarithms to the base 10": lambda p: [y / np.log(10.0) for y in p],
}


@pytest.mark.parametrize("name", DONE)
def test_what_was_done_to_x_rays_is_named(check, new_pairs, name):
    for pair in new_pairs:
        found = judge(check, DONE[name](pair))
        assert found.doubted
        assert name in (found.best, *found.as_likely)


def test_x_rays_from_elsewhere_are_named_by_true_projection(check, taken):
    wrong = stances(CAMERAS[0])["magnified 1.15 times"], stances(CAMERAS[1])["magnified 1.15 times"]
    found = judge(check, [taken(17, camera) for camera in wrong])
    assert found.best in (
        "magnified 1.15 times",
        "magnified 1.07 times",
        "source-axis distance -10%",
    )


def test_a_frontal_mirrored_is_never_named_for_it_cannot_be_told(check, new_pairs):
    for pair in new_pairs:
        found = judge(check, [pair[0][:, ::-1], pair[1]])
        assert not found.doubted
        assert found.told[found.names.index("frontal mirrored left-right")] is False


def test_a_ball_is_unlike_the_training(check):
    y, x = np.mgrid[-24:24, -24:24] / 18.0
    ball = 8.0 * np.sqrt(np.maximum(1.0 - x**2 - y**2, 0.0))
    assert judge(check, [ball, ball]).strange


def test_undoing_every_arrangement_gives_the_right_images_back():
    rng = np.random.default_rng(0)
    right = rng.normal(size=(2, PIXELS, PIXELS))
    asked = {h.name: h for h in hypotheses(CAMERAS)}
    for name, done in DONE.items():
        if name.startswith(("all", "frontal", "lateral")):
            spoilt = np.stack(done(list(right)))
            np.testing.assert_array_equal(asked[name].arrange(spoilt), right, err_msg=name)


def test_one_view_of_two_other_pixels_and_the_file(shadows, new_pairs, tmp_path):
    write_shadows(tmp_path / "check.npz", shadows)
    read = read_shadows(tmp_path / "check.npz")
    np.testing.assert_array_equal(read.images, shadows.images)
    lateral = CAMERAS[1].resized((96, 96))
    alone = check_of(read.of([lateral]))
    image = np.kron(new_pairs[0][1], np.ones((2, 2)))
    assert not judge(alone, [image]).doubted
    assert judge(alone, [image[::-1]]).best == "lateral upside down"
    assert read.of([biplanar(shape=(48, 48), pixel_mm=8.4)[0]]) is None
    content = (tmp_path / "check.npz").read_bytes()
    middle = len(content) // 2
    for damaged in (b"PK no more", content[:middle] + bytes(64) + content[middle + 64 :]):
        (tmp_path / "check.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"check\.npz: cannot be read"):
            read_shadows(tmp_path / "check.npz")


def test_averaging_keeps_the_mean_of_any_size():
    rng = np.random.default_rng(0)
    for shape in ((50, 70), (20, 33)):
        image = rng.uniform(0, 8, shape)
        assert averaged(image).mean() == pytest.approx(image.mean(), rel=1e-9)
