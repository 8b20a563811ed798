"""Normals, areas, flipped and self-intersecting faces against shapes that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from jxrecon.mesh import Mesh, template
from jxrecon.mesh.quality import (
    enclosed_volume,
    face_areas,
    face_normals,
    flipped_faces,
    self_intersecting_faces,
    vertex_normals,
)


def sphere(subdivisions: int = 2, radius_mm: float = 50.0) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions, radius_mm)
    return Mesh(np.array(ball.vertices), np.array(ball.faces))


def sheet(count: int = 7) -> Mesh:
    """A flat square of count x count vertices, 1 mm apart, looking up."""
    i, j = np.meshgrid(np.arange(count - 1), np.arange(count - 1), indexing="ij")
    a = (i * count + j).ravel()
    faces = np.concatenate(
        [
            np.stack([a, a + count, a + count + 1], 1),
            np.stack([a, a + count + 1, a + 1], 1),
        ]
    )
    x, y = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    return Mesh(np.stack([x.ravel(), y.ravel(), 0.0 * x.ravel()], 1), faces)


def test_normals_of_a_sphere_point_outwards_and_its_area_and_volume_are_known() -> None:
    ball = sphere(4)
    radial = ball.vertices / np.linalg.norm(ball.vertices, axis=1, keepdims=True)
    assert np.sum(vertex_normals(*ball) * radial, axis=1).min() > 0.9999
    centres = ball.vertices[ball.faces].mean(1)
    assert np.sum(face_normals(*ball) * centres, axis=1).min() > 0
    assert face_areas(*ball).sum() == pytest.approx(4 * np.pi * 50**2, rel=3e-3)
    assert enclosed_volume(*ball) == pytest.approx(4 / 3 * np.pi * 50**3, rel=5e-3)
    assert enclosed_volume(ball.vertices + 1000, ball.faces[:, ::-1]) < 0


def test_motion_and_bending_flip_no_face() -> None:
    ball = sphere()
    turn = Rotation.from_rotvec([2.0, -1.0, 0.5]).as_matrix()
    assert not flipped_faces(ball, ball.vertices @ turn.T * 1.5 + [400, 0, 0]).any()
    flat = sheet(13)
    angle = flat.vertices[:, 0] / 12 * 1.2 * np.pi  # rolled up by 216 degrees: normals turn over
    rolled = np.stack([12 * np.sin(angle), flat.vertices[:, 1], 12 - 12 * np.cos(angle)], 1)
    assert not flipped_faces(flat, rolled).any()


def test_a_vertex_pulled_over_an_edge_flips_the_faces_behind_it() -> None:
    flat = sheet()
    centre = 3 * 7 + 3
    moved = flat.vertices.copy()
    moved[centre] += [1.6, 0.0, 0.0]
    downwards = face_normals(moved, flat.faces)[:, 2] < 0
    assert 0 < downwards.sum() <= 3
    turn = Rotation.from_rotvec([0.3, 2.0, 0.1]).as_matrix()
    np.testing.assert_array_equal(flipped_faces(template(flat), moved @ turn.T), downwards)


def test_a_surface_turned_inside_out_is_flipped_everywhere() -> None:
    ball = sphere()
    assert flipped_faces(ball, ball.vertices * [-1, 1, 1]).all()


def test_a_sphere_does_not_cut_itself() -> None:
    ball = sphere(3)
    assert not self_intersecting_faces(*ball).any()
    turn = Rotation.from_rotvec([0.3, 0.2, 0.1]).as_matrix()
    box = trimesh.creation.box((3, 4, 5)).subdivide().subdivide()  # neighbours within one plane
    assert not self_intersecting_faces(box.vertices @ turn.T, np.array(box.faces)).any()


def test_two_spheres_cut_each_other_where_a_slow_test_says_so() -> None:
    one, two = sphere(1, 20.0), sphere(1, 20.0)
    turn = Rotation.from_rotvec([0.3, 0.2, 0.1]).as_matrix()  # no edges parallel to faces
    vertices = np.concatenate([one.vertices, two.vertices @ turn.T + np.array([13.0, 7.0, 3.0])])
    faces = np.concatenate([one.faces, two.faces + len(one.vertices)])
    count, corners = len(one.faces), vertices[faces]
    expected = np.zeros(len(faces), bool)
    for i in range(count):
        for j in range(count, 2 * count):
            if _cut(corners[i], corners[j]):
                expected[[i, j]] = True
    found = self_intersecting_faces(vertices, faces)
    assert 10 < expected.sum() < 80
    np.testing.assert_array_equal(found, expected)


def _cut(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two triangles share a point, by Moeller and Trumbore's rays along all six edges."""
    for first, second in ((one, two), (two, one)):
        a, ab, ac = first[0], first[1] - first[0], first[2] - first[0]
        for n in range(3):
            start, along = second[n], second[(n + 1) % 3] - second[n]
            t, u, v = np.linalg.solve(np.stack([-along, ab, ac], 1), start - a)
            if 0 <= t <= 1 and u >= 0 and v >= 0 and u + v <= 1:
                return True
    return False


def test_a_fold_that_shares_a_vertex_is_found() -> None:
    ball = sphere(2, 10.0)
    moved = ball.vertices.copy()
    moved[0] *= -1.3  # one vertex pulled through the far side
    found = self_intersecting_faces(moved, ball.faces)
    spikes = (ball.faces == 0).any(1)
    assert found[spikes].all()
    assert spikes.sum() < found.sum() < 40


def test_stretched_faces_among_thousands_are_found() -> None:
    ball = sphere(4)  # 5,120 faces
    moved = ball.vertices + np.random.default_rng(0).normal(0, 1.0, ball.vertices.shape)
    moved[7] *= 20  # stretched faces
    found = self_intersecting_faces(moved, ball.faces)
    assert found.any()
