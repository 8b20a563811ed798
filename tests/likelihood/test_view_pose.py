"""The pose of the second X-ray on SYNTHETIC subjects, and the gradient that finds it."""

import numpy as np
import pytest

from jxrecon.drr import line_integrals
from jxrecon.geometry import biplanar, centred_grid, parallel_at
from jxrecon.likelihood.model import log_likelihood, of_rows
from jxrecon.likelihood.pose import BELIEVED, PRIOR, move, search_of
from jxrecon.types import InputError

CAMERAS = biplanar(shape=(48, 48), pixel_mm=8.0)


@pytest.fixture(scope="module")
def search(patients):
    return search_of(patients, CAMERAS)


def test_motions_mean_what_they_are_called():
    angle = move(CAMERAS[1], np.array([90.0, 0, 0, 0, 0]))
    np.testing.assert_allclose(angle.source, [0, -1000, 0], atol=1e-2)  # further round the patient
    tilt = move(CAMERAS[1], np.array([0, 90.0, 0, 0, 0]))
    np.testing.assert_allclose(np.abs(tilt.source), [0, 0, 1000], atol=1e-2)
    turn = move(CAMERAS[1], np.array([0, 0, 90.0, 0, 0]))
    np.testing.assert_allclose(turn.source, CAMERAS[1].source, atol=1e-2)
    np.testing.assert_allclose(turn.u, CAMERAS[1].v, atol=1e-4)
    shift = move(CAMERAS[1], np.array([0, 0, 0, 0, 7.0]))
    np.testing.assert_allclose(shift.source - CAMERAS[1].source, [0, 0, -7], atol=1e-2)


def test_the_likelihoods_gradient_is_that_of_differences(search):
    near = search.near[0]
    mean = near.first[0], near.parts[0, 0]
    seen = near.products_with(*(m + row for m, row in zip(mean, (near.first[2], near.parts[0, 3]))))

    def at(t):
        return near.log_likelihood(seen, t)

    t = np.array([0.2, -0.3, 0.1, 0.4, -0.2])
    slope = [(at(t + d)[0] - at(t - d)[0]) / 2e-4 for d in np.eye(5) * 1e-4]
    np.testing.assert_allclose(at(t)[1], slope, rtol=1e-4, atol=1e-4)


MOTIONS = [[4.0, 0, 0, 0, 0], [0, -5.0, 0, 0, 0], [0, 0, 5.0, 0, 0], [0, 0, 0, 6.0, -8.0]]


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_pose_of_a_patient_who_is_known_is_found_exactly(search, patients, motion):
    near, n = search.near[0], 5
    first = patients.xrays(CAMERAS[0])[n].ravel()
    second = patients.xrays(move(CAMERAS[1], np.array(motion)), near=CAMERAS[1])[n].ravel()
    np.testing.assert_allclose(near.find(first, second), motion, atol=1.0)


def test_a_patients_likelihood_is_that_of_the_components_at_the_pose(search, patients):
    near, t = search.near[0], np.array([0.3, -0.2, 0.1, 0.0, 0.4])
    powers = np.concatenate([[1.0], t, t * t])
    rows = np.concatenate([near.first, np.tensordot(powers, near.parts, 1)], 1)
    y = rows[0] + np.random.default_rng(0).normal(size=rows.shape[1])
    pixels = near.first.shape[1]
    found, _ = near.log_likelihood(near.products_with(y[:pixels], y[pixels:]), t)
    model = of_rows(rows, near.residual)
    assert found == pytest.approx(float(log_likelihood(model, y)), rel=1e-9)


def test_x_rays_come_back_as_the_camera_would_have_taken_them_where_it_is_told(search, taken):
    off = []
    for number in (16, 17, 18):
        right = [taken(number, camera) for camera in CAMERAS]
        for motion in ([6.0, 0, 0, 0, 0], [0, -6.0, 0, 0, 0]):
            seen = taken(number, move(CAMERAS[1], np.array(motion)))
            found = search.refine([right[0], seen]).images
            np.testing.assert_array_equal(found[0], right[0])
            off.append([np.square(y - right[1]).mean() for y in (seen, found[1])])
    before, after = np.mean(off, axis=0)
    assert after < before


def test_the_fields_share_is_turned_as_a_scene_of_the_components_is(search):
    grid = centred_grid((6, 6, 6), (30.0, 32.0, 28.0))
    stood = (CAMERAS[0], move(CAMERAS[1], np.array([4.0, -3.0, 0, 0, 0])))
    weights = np.random.default_rng(0).normal(size=len(search.modes.volumes) - 1)
    field = search.modes.cut(grid)(search.modes.scene(weights).astype(np.float32))
    told, there = (
        [np.asarray(line_integrals(field, grid.affine, c, "joseph")) for c in cameras]
        for cameras in (CAMERAS, stood)
    )
    found = search.refine(told)._replace(cameras=stood, weights=weights[None])
    turned = search.turning(grid)(found, tuple(told))
    np.testing.assert_array_equal(turned[0], told[0])
    apart = [np.linalg.norm(y - there[1]) for y in (told[1], turned[1])]
    assert apart[1] < 1e-3 * apart[0]


def test_the_deviation_covers_what_is_missed_on_new_patients(search, taken):
    motion = np.array([0, 5.0, 0, 0, 0])
    stood = move(CAMERAS[1], motion)
    missed = []
    for number in (16, 17, 18):
        found = search.refine([taken(number, CAMERAS[0]), taken(number, stood)])
        missed.append((found.motion[0] - motion[:BELIEVED]) / found.deviation[0])
        assert found.cameras[0] is CAMERAS[0]
        np.testing.assert_array_equal(
            found.cameras[1].source, move(CAMERAS[1], found.motion[0]).source
        )
    assert np.sqrt(np.mean(np.square(missed))) < 2.5
    assert (found.deviation[0] <= PRIOR[:BELIEVED]).all()


def test_one_x_ray_parallel_rays_and_few_patients_are_refused(patients):
    with pytest.raises(InputError, match="1 X-ray, expected two"):
        search_of(patients, CAMERAS[:1])
    rays = [CAMERAS[0], parallel_at(90.0, shape=(48, 48), pixel_mm=8.0)]
    with pytest.raises(InputError, match="parallel rays"):
        search_of(patients, rays)
    with pytest.raises(InputError, match="3 training patients, expected at least 8"):
        search_of(patients._replace(mu=patients.mu[:3]), CAMERAS)
