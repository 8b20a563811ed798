"""What ships of training patients, of SYNTHETIC subjects: small, no patient in it, and it checks X-rays."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.scene_xrays import field_of
from jxrecon.drr import hu_to_mu, project
from jxrecon.geometry import biplanar, centred_grid, parallel_at
from jxrecon.likelihood.check import judge
from jxrecon.likelihood.hypotheses import stances
from jxrecon.likelihood.known import known_from, known_of
from jxrecon.likelihood.modes import AIR, modes_of, packed, unpacked
from jxrecon.likelihood.pose import move
from jxrecon.types import InputError

GRID = centred_grid((8, 8, 8), (28.0, 30.0, 25.0))
CAMERAS = biplanar(shape=(48, 48), pixel_mm=8.0)
RANK = 12


@pytest.fixture(scope="module")
def known(patients):
    """As it is read from a file."""
    found = known_of(patients, CAMERAS, RANK)
    facts = json.loads(json.dumps(found.facts()))
    return known_from(unpacked(packed(found.modes)), facts, "a test")


def test_all_components_have_mean_and_covariance_of_patients_and_mirror_images(patients):
    modes = modes_of(patients, 1000)
    both = np.concatenate([patients.mu, patients.mu[:, ::-1]]).reshape(2 * len(patients.mu), -1)
    np.testing.assert_allclose(modes.volumes[0].ravel(), both.mean(0), atol=1e-6)
    rng = np.random.default_rng(0)
    for y in rng.normal(size=(3, both.shape[1])):
        expected = np.square((both - both.mean(0)) @ y).mean()
        found = np.square(modes.volumes[1:].reshape(len(modes.volumes) - 1, -1) @ y).sum()
        assert found == pytest.approx(expected, rel=1e-4)


def test_x_rays_of_components_are_those_of_their_volumes(patients):
    modes, few = modes_of(patients, RANK), modes_of(patients, 2)
    rows = modes.xrays(CAMERAS[1])
    np.testing.assert_allclose(few.xrays(CAMERAS[1]), rows[:3], atol=1e-4)
    everybody = patients.xrays(CAMERAS[1])
    clear = everybody.max(0).ravel() < 8.0  # nothing was clipped there
    mean = everybody.reshape(len(everybody), -1).mean(0)
    np.testing.assert_allclose(rows[0][clear], mean[clear], atol=1e-2)


def test_packed_components_come_back_but_for_the_last_bits(patients):
    modes = modes_of(patients, RANK)
    small = packed(modes)
    assert small.steps.dtype == np.int8
    assert small.steps.size < 0.5 * modes.volumes[1:].size
    again = unpacked(small)
    np.testing.assert_allclose(again.grid.affine, modes.grid.affine)
    steps = np.concatenate([[0.0], small.unit])
    for a, b, step in zip(again.volumes, modes.volumes, steps):
        assert np.abs(a - b).max() < max(0.51 * step, 1.01 * AIR)


def test_components_on_a_fields_voxels_are_what_they_are_there(patients):
    modes = modes_of(patients, 3)
    x, y, z = modes.grid.shape
    grid = centred_grid((x - 4, y - 6, z - 8), modes.grid.spacing_mm, modes.grid.centre_mm)
    expected = modes.volumes[:, 2:-2, 3:-3, 4:-4]
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(modes.within(grid), expected, atol=1e-6)


def test_a_new_patients_share_of_the_field_is_found_from_components(
    patients, known, scenes, new_pairs
):
    surround = known.modes.surround(GRID, CAMERAS)
    off = []
    for n, images in enumerate(new_pairs, len(patients.mu)):
        field = field_of(
            jnp.asarray(scenes.hu[n]), jnp.asarray(scenes.affines[n]), GRID, samples=(5, 5, 5)
        )
        truth = [np.asarray(y) for y in project(hu_to_mu(field), GRID.affine, CAMERAS)]
        shares, weights = surround.share(images)
        guesses = (shares, [view.field_mean for view in surround.views], images)
        off.append([np.linalg.norm(np.subtract(g, truth)) / np.linalg.norm(truth) for g in guesses])
        assert [w.shape for w in weights] == [y.shape for y in images]
    share, mean, untouched = np.mean(off, 0)
    assert share < 0.4 * mean
    assert share < 0.1 * untouched


DONE = {
    "frontal and lateral exchanged": lambda p: p[::-1],
    "all X-rays upside down": lambda p: [y[::-1] for y in p],
    "all X-rays turned by 90 degrees clockwise": lambda p: [np.rot90(y, -1) for y in p],
    "intensities inverted": lambda p: [y.max() - y for y in p],
    "raw intensities, not their logarithm": lambda p: [np.exp(-y) for y in p],
}


def test_what_was_done_to_x_rays_is_named_and_right_ones_are_not_doubted(known, new_pairs):
    check = known.check(CAMERAS)
    for pair in new_pairs:
        assert not judge(check, pair).doubted
        for name, done in DONE.items():
            found = judge(check, done(pair))
            assert found.doubted
            assert name in (found.best, *found.as_likely)


def test_other_cameras_one_view_and_another_order_are_checked_too(known, taken):
    other = biplanar(shape=(40, 40), pixel_mm=9.0, source_axis_mm=900.0)
    pair = [taken(17, camera) for camera in other]
    assert not judge(known.check(other), pair).doubted
    assert judge(known.check(other[::-1]), pair).best == "lateral and frontal exchanged"
    alone = known.check(other[1:])
    assert not judge(alone, pair[1:]).doubted
    assert judge(alone, [pair[1][::-1]]).best == "lateral upside down"
    wrong = [taken(17, stances(camera)["magnified 1.15 times"]) for camera in other]
    assert judge(known.check(other), wrong).doubted


def test_the_pose_of_a_new_patients_x_ray_is_found(known, taken):
    motion, off = np.array([0, 6.0, 0, 0, 0]), []
    search = known.search(CAMERAS)
    for number in (16, 17, 18):
        pair = [taken(number, CAMERAS[0]), taken(number, move(CAMERAS[1], motion))]
        off.append(search.refine(pair).motion[0] - motion[:2])  # angle and tilt
    told = np.sqrt(np.square(motion[:2]).mean())  # the error of who believes the cameras: 4.2
    assert np.sqrt(np.square(off).mean()) < 0.85 * told
    assert known.search(CAMERAS[::-1]).missed[0].errors.shape[1] == 5


def test_views_of_which_nothing_is_known_are_refused(known):
    with pytest.raises(InputError, match="X-ray 2 looks in a direction that the training"):
        known.check([CAMERAS[0], move(CAMERAS[1], np.array([45.0, 0, 0, 0, 0]))])
    with pytest.raises(InputError, match="expected each of another view"):
        known.check([CAMERAS[0], CAMERAS[0]])
    with pytest.raises(InputError, match="parallel rays"):
        known.search([CAMERAS[0], parallel_at(90.0, shape=(48, 48), pixel_mm=8.0)])
