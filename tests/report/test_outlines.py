"""Drawings of surfaces: outlines lie where rays touch, sides are named rightly, broken ones do no harm."""

import numpy as np
import trimesh

from jxrecon.geometry import camera_at
from jxrecon.mesh import Mesh, template
from jxrecon.report.outlines import (
    VIEWS,
    letter,
    outlines,
    overlay_figure,
    overlay_png,
    still_figure,
)

RADIUS = 60.0
SPHERE = trimesh.creation.icosphere(subdivisions=2, radius=RADIUS)
TEMPLATE = template(Mesh(SPHERE.vertices, SPHERE.faces))
CAMERA = camera_at(0.0, shape=(48, 40), pixel_mm=8.0)
IMAGE = np.linspace(0, 3, 48 * 40, dtype=np.float32).reshape(48, 40)


def test_the_outline_of_a_sphere_is_the_circle_of_its_tangents():
    (curve,) = outlines(TEMPLATE.vertices, CAMERA, TEMPLATE)
    radius = 1500.0 * RADIUS / np.sqrt(1000.0**2 - RADIUS**2) / 8.0
    found = np.linalg.norm(curve - np.array([23.5, 19.5]), axis=1)
    # chords of a subdivided icosahedron run up to 2.5 % inside the sphere
    assert found.max() < radius + 0.1
    assert found.min() > 0.965 * radius


def test_a_surface_out_of_sight_or_broken_has_no_outline():
    far = TEMPLATE.vertices + np.float32([1e5, 0, 0])
    behind = TEMPLATE.vertices + np.float32([0, 2e3, 0])
    broken = TEMPLATE.vertices.copy()
    broken[3] = np.nan
    for lost in (far, behind, broken):
        assert outlines(lost, CAMERA, TEMPLATE) == []
    half = TEMPLATE.vertices + np.float32([100, 0, 0])
    assert len(outlines(half, CAMERA, TEMPLATE)) == 1
    assert overlay_png(IMAGE, CAMERA, TEMPLATE, {"found": broken}).startswith(b"\x89PNG")


def test_letters_name_the_side_of_the_patient_and_views_are_right_handed():
    sides = [letter(sign * axis) for axis in np.eye(3) for sign in (1, -1)]
    assert sides == ["R", "L", "A", "P", "H", "F"]
    for view in VIEWS:
        np.testing.assert_array_equal(np.cross(view.right, view.up), view.front)


def test_the_reference_is_dashed_and_a_bar_is_as_long_as_its_millimetres():
    shapes = {"reference": TEMPLATE.vertices, "found": TEMPLATE.vertices + np.float32([0, 0, 9])}
    axes = overlay_figure(IMAGE, CAMERA, TEMPLATE, shapes).axes
    assert len(axes) == 2  # whole and near
    reference, found, bar = axes[0].lines
    assert reference.is_dashed()
    assert not found.is_dashed()
    # towards the head is upwards: 9 mm, magnified by 1.5, on pixels of 8 mm
    rise = np.mean(reference.get_ydata()) - np.mean(found.get_ydata())
    np.testing.assert_allclose(rise, 9 * 1.5 / 8, rtol=0.02)
    np.testing.assert_allclose(np.ptp(bar.get_xdata()), 50 * 1.5 / 8, rtol=1e-3)


def test_a_surface_beside_the_detector_leaves_the_whole_image_alone():
    shapes = {"found": TEMPLATE.vertices + np.float32([400, 0, 0])}
    assert len(overlay_figure(IMAGE, CAMERA, TEMPLATE, shapes).axes) == 1


def test_every_view_paints_the_nearest_face_last():
    rough = TEMPLATE.vertices + np.random.default_rng(0).normal(size=TEMPLATE.vertices.shape)
    figure = still_figure(rough, TEMPLATE, np.zeros(len(rough)), 1.0)
    centroids = rough[TEMPLATE.faces].mean(1)
    for axes, view in zip(figure.axes, VIEWS):
        (painted,) = axes.collections
        last = painted.get_paths()[-1].vertices[:3].mean(0)
        nearest = centroids[np.argmax(centroids @ view.front)]
        np.testing.assert_allclose(last, [nearest @ view.right, nearest @ view.up], atol=1e-3)


def test_faces_that_are_not_finite_are_left_out_of_the_drawing():
    broken = TEMPLATE.vertices.copy()
    broken[0] = np.nan
    figure = still_figure(broken, TEMPLATE, np.zeros(len(broken)), 1.0)
    lost = (TEMPLATE.faces == 0).any(1).sum()
    assert len(figure.axes[0].collections[0].get_paths()) == len(TEMPLATE.faces) - lost
