"""A liver in a body: real tissue on both sides of its surface, and it moves."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from jxrecon.data.breathing_body import (
    FIELD_MM,
    breathed,
    breathing_field,
    field_of,
    patient,
    sample_body,
    volume_and_centroid,
)
from jxrecon.data.sample import chest_ct, chest_ct_liver
from jxrecon.deformation.breathing import draw_motion
from jxrecon.deformation.warp import at_places, lattice, pulled_back
from jxrecon.mesh.quality import vertex_normals
from jxrecon.phantom.liver import liver, liver_template

FACES = liver_template().faces


@pytest.fixture(scope="module")
def body():
    return sample_body()


@pytest.fixture(scope="module")
def grid(body):
    return field_of(body, 6.0)


@pytest.fixture(scope="module")
def who(body, grid):
    return patient(body, liver(0, 1), FACES, grid)


@pytest.fixture(scope="module")
def motion(who):
    return draw_motion(np.random.default_rng(0), who.reference, (22.0, 22.0))


def test_the_labels_of_the_sample_are_its_liver():
    (hu, affine), (labels, frame) = chest_ct(), chest_ct_liver()
    assert labels.shape == hu.shape
    np.testing.assert_allclose(affine, frame, atol=1e-4)
    assert set(np.unique(labels)) == {0, 1, 2}
    ml = (labels == 1).sum() * np.prod(np.diag(affine)[:3]) / 1000
    np.testing.assert_allclose(ml, 1023, atol=5)  # 1,022.6 ml at 0.7 x 0.7 x 2.5 mm
    assert 60 < np.median(hu[labels == 1]) < 160  # enhanced liver
    assert (hu[labels == 2] < -600).mean() > 0.5  # the lungs
    beside = ndimage.binary_dilation(labels == 1) & (labels != 1)
    assert np.median(hu[beside]) < np.median(hu[labels == 1]) - 30


def test_the_worlds_origin_is_the_liver_and_the_body_ends_beyond_it(body):
    np.testing.assert_allclose(body.surface.min(0), [-149, -80, -82], atol=6)
    np.testing.assert_allclose(body.surface.max(0), [66, 71, 63], atol=6)
    np.testing.assert_allclose(body.liver_ml, 1022, atol=5)
    assert (body.hu[..., 0] > -300).mean() > 0.4  # tissue down to the first slice
    assert body.moving.min() == 0
    assert body.moving.max() == 1


def test_the_field_is_as_wide_as_it_says_and_in_the_middle_of_the_bodys_depth(body):
    field = field_of(body, 8.0)
    np.testing.assert_allclose(field.extent_mm, FIELD_MM)  # three multiples of 8
    np.testing.assert_allclose(field.spacing_mm, 8.0)
    np.testing.assert_allclose(field.centre_mm, [0.0, body.grid.centre_mm[1], 0.0], atol=1e-9)


def test_volume_and_centroid_of_a_box():
    corners = np.array([[x, y, z] for x in (0, 30) for y in (0, 20) for z in (0, 10)], float)
    hull = ConvexHull(corners + 5)
    faces = hull.simplices.copy()
    a, b, c = (hull.points[faces[:, n]] for n in range(3))
    inward = np.einsum("fc,fc->f", np.cross(b - a, c - a), a - [20, 15, 10]) < 0
    faces[inward] = faces[inward][:, ::-1]
    ml, centroid = volume_and_centroid(hull.points, faces)
    np.testing.assert_allclose(ml, 6.0)
    np.testing.assert_allclose(centroid, [20, 15, 10])


def test_the_reference_is_the_liver_moved_to_the_origin(body, grid):
    vertices = liver(0, 1)
    who = patient(body, vertices + 100.0, FACES, grid, offset_mm=(1.0, -2.0, 3.0))
    np.testing.assert_allclose(
        volume_and_centroid(who.reference, FACES)[1], [1.0, -2.0, 3.0], atol=1e-2
    )
    np.testing.assert_allclose(np.ptp(who.reference, axis=0), np.ptp(vertices, axis=0), atol=1e-2)
    assert who.body.spacing_mm[0] > 4.0  # a larger liver, a larger body


@pytest.mark.parametrize("inhaled", [0.0, 1.0])
def test_liver_lies_within_the_surface_and_other_tissue_around(body, who, grid, motion, inhaled):
    hu, target = breathed(body, who, grid, motion, inhaled)
    out = vertex_normals(target, FACES)
    inner, outer = (at_places(hu, grid, target + d * out) for d in (-8.0, 8.0))
    assert np.mean((inner > 40) & (inner < 200)) > 0.85  # liver
    right, height = target[:, 0], target[:, 2]
    dome = (out[:, 2] > 0.8) & (right > 0) & (height > np.quantile(height, 0.85))
    assert dome.sum() > 10
    assert np.median(at_places(hu, grid, target + 14 * out)[dome]) < -500  # lung
    assert np.median(outer) < np.median(inner) - 40


def test_the_labels_follow_the_surface(body, who, grid, motion):
    labels, _ = chest_ct_liver()
    first = labels.shape[2] - body.hu.shape[2]
    own = np.pad(labels[..., first:] == 1, ((1, 1), (1, 1), (0, 0))).astype(np.float32)
    ml = []
    for inhaled in (0.0, 1.0):
        field = breathing_field(who, motion, inhaled)
        there = pulled_back(own, who.body, grid, field) > 0.5
        ml.append(there.sum() * 0.216)
        _, target = breathed(body, who, grid, motion, inhaled)
        centroid = grid.affine[:3, :3] @ np.argwhere(there).mean(0) + grid.affine[:3, 3]
        volume, wanted = volume_and_centroid(target, FACES)
        np.testing.assert_allclose(centroid, wanted, atol=2.5)
        np.testing.assert_allclose(ml[-1], volume, rtol=0.06)


def test_the_diaphragm_moves_and_spine_and_skin_stay(body, who, grid, motion):
    exhaled, _ = breathed(body, who, grid, motion, 0.0)
    inhaled, _ = breathed(body, who, grid, motion, 1.0)
    change = np.abs(inhaled - exhaled)
    spine = exhaled > 250
    spine[:, grid.shape[1] // 3 :] = False
    assert spine.sum() > 100
    assert np.median(change[spine]) < 20
    assert (change > 300).sum() > 500  # lung where liver was
    outlines = [(hu > -300).any(2) for hu in (exhaled, inhaled)]
    assert np.mean(outlines[0] != outlines[1]) < 0.005


def test_breathing_folds_no_space_beyond_what_the_placing_does(who, grid, motion, jacobian):
    nodes = lattice(grid)
    placed = jacobian(who.place, nodes) <= 0
    moved = jacobian(breathing_field(who, motion, 1.0), nodes) <= 0
    assert placed.mean() < 0.002
    assert moved.mean() < 0.002
