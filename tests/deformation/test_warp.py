"""A CT that follows an organ: occupancy, what stays, no folds; and correspondences for it."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull, Delaunay

from jxrecon.deformation.breathing import displacement, draw_motion
from jxrecon.deformation.matching import matched
from jxrecon.deformation.warp import (
    at_places,
    lattice,
    places,
    pulled_back,
    surface_field,
    upsampled,
)
from jxrecon.geometry import centred_grid
from jxrecon.phantom.liver import liver_template

GRID = centred_grid((48, 40, 48), (5.0, 5.0, 5.0))
RADII = np.array([70.0, 45.0, 50.0])


@pytest.fixture(scope="module")
def organ() -> tuple[np.ndarray, np.ndarray]:
    """(vertices, faces) of an ellipsoid."""
    faces = liver_template().faces
    sphere = liver_template().vertices  # of its topology: any closed surface will do
    directions = sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
    hull = ConvexHull(directions)
    assert len(hull.vertices) == len(directions)
    simplices = hull.simplices.copy()
    a, b, c = (directions[simplices[:, n]] for n in range(3))
    inward = np.einsum("fc,fc->f", np.cross(b - a, c - a), a) < 0
    simplices[inward] = simplices[inward][:, ::-1]
    assert simplices.shape == faces.shape
    return directions * RADII, simplices


def inside(vertices: np.ndarray) -> np.ndarray:
    """Voxels of GRID within a convex surface."""
    points, mask = places(GRID), np.zeros(GRID.shape, bool)
    near = ((points > vertices.min(0)) & (points < vertices.max(0))).all(-1)
    mask[near] = Delaunay(vertices).find_simplex(points[near]) >= 0
    return mask


def warp(volume, before, after, faces, reach_mm=60.0):
    """The volume on GRID with an organ's surface moved to another place."""
    field = surface_field(lattice(GRID), before, after, faces, reach_mm)
    return pulled_back(volume, GRID, GRID, field)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def moved(organ) -> np.ndarray:
    """The organ after a deep breath, narrower and turned a little: still convex."""
    vertices = organ[0] * [0.9, 1.05, 1.0] + [4.0, 0.0, 0.0]
    motion = draw_motion(np.random.default_rng(2), vertices, (20.0, 20.0))
    motion = motion._replace(shares=0 * motion.shares, tip=0.8)
    return vertices + displacement(vertices, motion, 1.0)


def test_the_warped_organ_fills_the_target_surface(organ, moved):
    vertices, faces = organ
    label = inside(vertices)
    assert dice(label, inside(moved)) < 0.85
    warped = warp(label.astype(np.float32), vertices, moved, faces)
    assert dice(warped > 0.5, inside(moved)) > 0.95


def test_a_surface_that_stays_leaves_the_volume_as_it_is(organ):
    vertices, faces = organ
    volume = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    np.testing.assert_allclose(warp(volume, vertices, vertices, faces), volume, atol=1e-3)


def test_far_from_the_organ_nothing_moves(organ, moved):
    vertices, faces = organ
    x, y, z = np.moveaxis(places(GRID), -1, 0)
    warped = warp(x + 2 * y + 3 * z, vertices, moved, faces, reach_mm=40.0)
    change = np.abs(warped - (x + 2 * y + 3 * z))
    reach = 40.0 + 8.0 + 1.0  # and a step of the lattice
    low, high = moved.min(0) - reach, moved.max(0) + reach
    points = places(GRID)
    beyond = ((points < low) | (points > high)).any(-1)
    assert beyond.mean() > 0.1
    assert change[beyond].max() < 1e-2
    assert change.max() > 20


def test_space_does_not_fold(organ, moved, jacobian):
    vertices, faces = organ
    nodes = lattice(GRID)
    assert jacobian(surface_field(nodes, vertices, moved, faces), nodes).min() > 0.1


def test_a_fold_is_seen(jacobian):
    nodes = lattice(GRID)
    field = np.zeros((*nodes.shape, 3))
    field[..., 2] = -1.5 * places(nodes)[..., 2]
    assert jacobian(field, nodes).max() < 0


def test_a_common_shift_moves_the_inside_by_just_that(organ):
    vertices, faces = organ
    x, _, z = np.moveaxis(places(GRID), -1, 0)
    shift = np.array([3.0, 0.0, -9.0])
    shifted = warp(z + x, vertices, vertices + shift, faces)
    deep = inside(0.75 * vertices + shift)
    np.testing.assert_allclose(shifted[deep], (z + x)[deep] + 6.0, atol=1e-2)


def test_linear_functions_survive_lattice_and_interpolation():
    nodes = lattice(GRID, 9.0)
    fine = np.moveaxis(upsampled(places(nodes), GRID.shape), 0, -1)
    np.testing.assert_allclose(fine, places(GRID), atol=1e-3)
    points = np.random.default_rng(0).uniform(-90, 90, (50, 3)).astype(np.float32)
    np.testing.assert_allclose(at_places(places(nodes), nodes, points), points, atol=1e-3)
    volume = places(GRID)[..., 1]
    other = centred_grid((10, 11, 12), (5.0, 6.0, 7.0))
    still = np.zeros((*lattice(other).shape, 3), np.float32)
    np.testing.assert_allclose(
        pulled_back(volume, GRID, other, still), places(other)[..., 1], atol=1e-3
    )


def test_matched_vertices_lie_on_the_other_surface_in_a_smooth_order(organ):
    vertices, _ = organ
    dense = np.random.default_rng(0).normal(size=(6000, 3))
    dense = dense / np.linalg.norm(dense, axis=1, keepdims=True) * [55.0, 60.0, 45.0] + 20.0
    found = matched(vertices, dense)
    onto = (found - 20.0) / [55.0, 60.0, 45.0]
    np.testing.assert_allclose(np.linalg.norm(onto, axis=1), 1.0, atol=0.03)
    direction = vertices / RADII
    along = np.einsum("vc,vc->v", direction, onto) / np.linalg.norm(onto, axis=1)
    assert np.degrees(np.arccos(along.clip(-1, 1))).max() < 25
