"""Surface metrics against closed forms: spheres within spheres, boxes beside boxes."""

import numpy as np
import pytest

from jxrecon.correspondence.mean_template import geodesic_sphere
from jxrecon.mesh import Mesh
from jxrecon.metrics.surface import METRICS, dice, surface_distances, surface_metrics

BOX = Mesh(
    np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64),
    np.array(
        ["013", "032", "467", "475", "045", "051", "237", "276", "026", "064", "157", "173"], "S3"
    )
    .view("S1")
    .reshape(-1, 3)
    .astype(np.int32),
)


@pytest.fixture(scope="module")
def sphere():
    return geodesic_sphere(12)


def test_concentric_spheres_are_their_radii_apart(sphere):
    found = surface_metrics(50 * sphere.vertices, 45 * sphere.vertices, sphere)
    # Vertices lie on the spheres, faces up to 0.24 mm within.
    assert found["md_vertex_mm"] == pytest.approx(5, abs=1e-9)
    assert found["rmse_vertex_mm"] == pytest.approx(5, abs=1e-9)
    assert found["assd_mm"] == pytest.approx(5, abs=0.02)
    assert found["hd95_mm"] == pytest.approx(5, abs=0.05)
    ratio = 0.9**3
    assert found["dsc"] == pytest.approx(2 * ratio / (1 + ratio), abs=2e-3)
    assert found["flipped_faces"] == found["self_intersecting_faces"] == 0


def test_equal_surfaces_have_no_distance_and_the_same_inside(sphere):
    found = surface_metrics(40 * sphere.vertices, 40 * sphere.vertices, sphere)
    assert found.pop("dsc") == 1.0
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-9)
    assert found.keys() | {"dsc"} == METRICS.keys()
    assert [name for name, metric in METRICS.items() if metric.better > 0] == ["dsc"]


def test_rmse_weighs_the_vertex_that_is_far_off(sphere):
    truth = 40 * sphere.vertices
    found = truth.copy()
    found[0] *= 1.5
    metrics, count = surface_metrics(truth, found, sphere), len(truth)
    assert metrics["md_vertex_mm"] == pytest.approx(20 / count)
    assert metrics["rmse_vertex_mm"] == pytest.approx(20 / np.sqrt(count))


def test_sliding_within_the_surface_moves_vertices_but_not_the_surface(sphere):
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    found = surface_metrics(50 * sphere.vertices, 50 * sphere.vertices @ turn, sphere)
    assert found["md_vertex_mm"] > 20
    assert found["assd_mm"] < 0.1
    assert found["dsc"] > 0.995


def test_dice_of_a_shifted_box_is_the_closed_form():
    # Faces between voxel centres, so that the voxels of 2 mm count the volume exactly.
    box = Mesh(BOX.vertices * [40, 20, 30] + 1, BOX.faces)
    shifted = Mesh(box.vertices + np.array([8, 0, 0]), BOX.faces)
    assert dice(box, shifted) == pytest.approx(1 - 8 / 40)
    apart = Mesh(box.vertices + np.array([60, 0, 0]), BOX.faces)
    assert dice(box, apart) == 0.0


def test_distances_go_to_the_surface_and_not_to_its_vertices():
    plate = np.array([[0, 0, 0], [100, 0, 0], [0, 100, 0], [100, 100, 0]], np.float64)
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    assd, hd95 = surface_distances(
        Mesh(plate, faces), Mesh(plate + np.array([0, 0, 3]), faces), 500
    )
    assert (assd, hd95) == pytest.approx((3, 3), abs=1e-9)


def test_hd95_is_the_worse_of_both_ways():
    plate = np.array([[0, 0, 0], [100, 0, 0], [0, 100, 0], [100, 100, 0]], np.float64)
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    half = Mesh(plate * [0.5, 1, 1], faces)
    assd, hd95 = surface_distances(Mesh(plate, faces), half, 4000)
    # From the whole, half lies at 0 and half evenly up to 50 mm; from the half all at 0.
    assert hd95 == pytest.approx(45, abs=1)
    assert assd == pytest.approx(12.5 / 2, abs=0.1)


def test_a_face_turned_inside_out_is_counted(sphere):
    truth = 50 * sphere.vertices
    found = truth.copy()
    a, b, c = sphere.faces[0]
    found[a] += 2.5 * ((found[b] + found[c]) / 2 - found[a])
    assert surface_metrics(truth, found, sphere)["flipped_faces"] >= 1


def test_a_surface_that_is_not_finite_has_no_metrics(sphere):
    found = sphere.vertices.copy()
    found[3, 1] = np.nan
    metrics = surface_metrics(sphere.vertices, found, sphere)
    assert metrics.keys() == METRICS.keys()
    assert np.isnan(list(metrics.values())).all()
