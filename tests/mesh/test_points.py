"""Points sampled on surfaces and the nearest ones, against closed forms and against every face."""

import numpy as np
import pytest

from jxrecon.mesh import face_areas
from jxrecon.mesh.points import nearest, nearest_in_triangles, placed, sampled

TRIANGLE = np.array([[0.0, 0, 0], [4, 0, 0], [0, 3, 0]])


def soup(count=300, seed=0):
    """Triangles anywhere, some of them long, some without area."""
    rng = np.random.default_rng(seed)
    corners = rng.normal(0, 10, (count, 1, 3)) + rng.normal(0, 1, (count, 3, 3))
    corners[:5] *= 8
    corners[5:8, 2] = corners[5:8, 1]
    corners[8] = corners[8, 0]
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


@pytest.mark.parametrize(
    ("point", "foot"),
    [
        ((1, 1, 5), (1, 1, 0)),  # above the inside
        ((2, -3, 1), (2, 0, 0)),  # off an edge
        ((-1, 1, 0), (0, 1, 0)),
        ((4, 3, 0), (2.56, 1.08, 0)),  # off the hypotenuse
        ((9, -1, 2), (4, 0, 0)),  # off the corners
        ((-2, -2, 0), (0, 0, 0)),
        ((-1, 8, 0), (0, 3, 0)),
    ],
)
def test_foot_in_each_region_of_a_triangle_is_that_worked_by_hand(point, foot):
    weights = nearest_in_triangles(np.array([point], float), TRIANGLE[None])
    np.testing.assert_allclose(weights @ TRIANGLE, [foot], atol=1e-12)
    assert weights.sum() == pytest.approx(1)


def test_nearest_is_the_minimum_over_all_faces():
    vertices, faces = soup()
    points = np.random.default_rng(1).normal(0, 15, (80, 3))
    found = nearest(points, vertices, faces)
    every = np.array(
        [
            np.linalg.norm(placed(vertices, faces, np.arange(len(faces)), w) - point, axis=1).min()
            for point in points
            for w in [
                nearest_in_triangles(np.broadcast_to(point, (len(faces), 3)), vertices[faces])
            ]
        ]
    )
    np.testing.assert_allclose(found.distances, every, atol=1e-12)
    feet = placed(vertices, faces, found.faces, found.weights)
    np.testing.assert_allclose(np.linalg.norm(feet - points, axis=1), every, atol=1e-12)


def test_samples_lie_in_their_faces_in_proportion_to_area():
    vertices, faces = soup(40)
    samples = sampled(vertices, faces, 20_000)
    assert (samples.weights >= 0).all()
    np.testing.assert_allclose(samples.weights.sum(1), 1)
    np.testing.assert_allclose(
        placed(vertices, faces, samples.faces, samples.weights), samples.points
    )
    areas = face_areas(vertices, faces)
    shares = np.bincount(samples.faces, minlength=len(faces)) / 20_000
    np.testing.assert_allclose(shares, areas / areas.sum(), atol=2 / 20_000)
    assert nearest(samples.points[:200], vertices, faces).distances.max() < 1e-9


def test_samples_fill_a_triangle_evenly_and_repeat_with_the_seed():
    faces = np.array([[0, 1, 2]])
    points = sampled(TRIANGLE, faces, 4000).points
    np.testing.assert_allclose(points.mean(0), TRIANGLE.mean(0), atol=0.06)
    assert (points == sampled(TRIANGLE, faces, 4000).points).all()
    assert not (points == sampled(TRIANGLE, faces, 4000, seed=1).points).all()
