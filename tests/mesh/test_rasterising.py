"""Voxels and silhouettes of spheres and boxes against closed forms, to the voxel and the pixel."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from jxrecon.geometry import Grid, camera_at, centred_grid, parallel_at
from jxrecon.mesh import Mesh
from jxrecon.mesh.quality import enclosed_volume
from jxrecon.mesh.rasterising import is_closed, outline, rasterise, silhouette
from jxrecon.types import InputError


def box(low: list[float], high: list[float]) -> Mesh:
    mesh = trimesh.creation.box(bounds=[low, high])
    return Mesh(np.array(mesh.vertices), np.array(mesh.faces))


def ball(radius_mm: float, centre_mm: tuple[float, float, float], subdivisions: int = 4) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions, radius_mm)
    return Mesh(np.array(mesh.vertices) + np.array(centre_mm), np.array(mesh.faces))


def centres(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def test_a_box_fills_its_voxels_on_an_anisotropic_grid() -> None:
    grid = centred_grid((9, 12, 15), (2.0, 1.5, 0.7), (3.0, -4.0, 5.0))
    low, high = [-1.3, -9.9, 2.3], [7.2, 0.1, 8.8]
    inside = ((centres(grid) > low) & (centres(grid) < high)).all(-1)
    np.testing.assert_array_equal(rasterise(box(low, high), grid), inside)
    assert inside.any()


def test_rays_through_edges_corners_and_faces_count_once() -> None:
    grid = Grid((8, 8, 8), np.eye(4))
    filled = np.zeros((8, 8, 8), bool)
    filled[2:5, 1:6, 3:7] = True  # half open: every edge of the box runs through voxel centres
    np.testing.assert_array_equal(rasterise(box([2, 1, 3], [5, 6, 7]), grid), filled)
    octahedron = Mesh(  # corners on centres, slanted faces through centres
        np.array([[7, 4, 4], [1, 4, 4], [4, 7, 4], [4, 1, 4], [4, 4, 7], [4, 4, 1]], float),
        np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4],
                  [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]),
    )  # fmt: skip
    found, distance = rasterise(octahedron, grid), np.abs(centres(grid) - 4).sum(-1)
    assert found[distance < 3].all()
    assert not found[distance > 3].any()


def test_pieces_that_share_faces_fill_every_voxel_once() -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    whole = rasterise(box([1, 1, 1], [8, 8, 8]), grid)
    left, right = box([1, 1, 1], [4, 8, 8]), box([4, 1, 1], [8, 8, 8])
    assert not (rasterise(left, grid) & rasterise(right, grid)).any()
    np.testing.assert_array_equal(rasterise(left, grid) | rasterise(right, grid), whole)
    assert whole.sum() == 7**3


def test_a_sphere_on_an_oblique_grid_is_exact_and_has_its_volume() -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("zyx", [0.4, -0.3, 0.2]).as_matrix() * [1.5, 2.0, -1.0]
    turn[:3, 3] = np.array([5.0, 8.0, 3.0]) - turn[:3, :3] @ [19.3, 14.6, 29.9]
    grid, mesh = Grid((40, 30, 60), turn), ball(18.0, (5.0, 8.0, 3.0))
    found = rasterise(mesh, grid)
    distance = np.linalg.norm(centres(grid) - [5.0, 8.0, 3.0], axis=-1)
    facet = 18.0 * (1 - 0.99)  # an icosphere of 5,120 faces stays above 0.99 of its radius
    assert found[distance < 18.0 - facet].all()
    assert not found[distance > 18.0].any()
    assert found.sum() * 3.0 == pytest.approx(enclosed_volume(*mesh), rel=0.01)


def test_axes_are_not_mixed_up() -> None:
    grid = centred_grid((20, 24, 28), (2.0, 2.0, 2.0))
    found = rasterise(ball(5.0, (12.0, -14.0, 20.0), 2), grid)
    middle = np.argwhere(found).mean(0) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    np.testing.assert_allclose(middle, [12.0, -14.0, 20.0], atol=0.3)


def test_the_grid_may_cut_the_surface_and_faces_may_look_inwards() -> None:
    grid = centred_grid((12, 12, 12), (2.0, 2.0, 2.0), (15.0, 0.0, 15.0))
    mesh = ball(14.0, (0.0, 0.0, 0.0))
    found = rasterise(mesh, grid)
    distance = np.linalg.norm(centres(grid), axis=-1)
    sure = np.abs(distance - 14) > 0.15  # but for the facets
    np.testing.assert_array_equal(found[sure], (distance < 14)[sure])
    assert 0 < found.sum() < found.size
    np.testing.assert_array_equal(rasterise(Mesh(mesh.vertices, mesh.faces[:, ::-1]), grid), found)


def test_holes_change_few_voxels() -> None:
    grid = centred_grid((40, 40, 40), (1.0, 1.0, 1.0))
    mesh = ball(15.0, (0.2, 0.1, 0.3), 3)
    whole = rasterise(mesh, grid)
    rng = np.random.default_rng(0)
    torn = Mesh(mesh.vertices, mesh.faces[rng.permutation(len(mesh.faces))[40:]])
    assert not is_closed(torn.faces)
    changed = rasterise(torn, grid) != whole
    assert changed.sum() < 0.01 * whole.sum()
    capless = mesh.vertices[mesh.faces].mean(1)[:, 2] < 13.0  # a hole of 14 mm
    changed = rasterise(Mesh(mesh.vertices, mesh.faces[capless]), grid) != whole
    assert changed.sum() < 0.02 * whole.sum()


def test_silhouette_of_a_sphere_is_the_disc_of_its_cone() -> None:
    camera = camera_at(20.0, 5.0, shape=(90, 120), pixel_mm=(2.0, 1.5))
    found = silhouette(ball(40.0, (0.0, 0.0, 0.0)), camera)
    pixels = np.asarray(camera.pixels(), np.float64)
    along = pixels - np.asarray(camera.source)
    nearest = np.linalg.norm(np.cross(along, np.asarray(camera.source)), axis=-1)
    nearest /= np.linalg.norm(along, axis=-1)
    assert found[nearest < 39.8].all()
    assert not found[nearest > 40.0].any()


def test_silhouette_of_a_box_is_its_shadow_to_the_pixel() -> None:
    camera = parallel_at(0.0, shape=(20, 30), pixel_mm=2.0)
    found = silhouette(box([-10.1, -5.0, -6.1], [3.9, 5.0, 14.2]), camera)
    pixels = np.asarray(camera.pixels())
    x, z = pixels[..., 0], pixels[..., 2]
    np.testing.assert_array_equal(found, (x > -10.1) & (x < 3.9) & (z > -6.1) & (z < 14.2))


def test_out_of_sight_is_empty_and_behind_the_source_is_refused() -> None:
    camera = camera_at(0.0, shape=(16, 16), pixel_mm=10.0)
    assert not silhouette(ball(5.0, (400.0, 0.0, 0.0), 1), camera).any()
    with pytest.raises(InputError, match="behind the X-ray source"):
        silhouette(ball(50.0, (0.0, 990.0, 0.0), 1), camera)
    with pytest.raises(InputError, match="vertex 0 is"):
        rasterise(Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]])), Grid((2, 2, 2), np.eye(4)))


def test_outline_runs_half_a_pixel_around() -> None:
    mask = np.zeros((8, 10), bool)
    mask[2:5, 6:] = True
    (line,) = outline(mask)
    np.testing.assert_allclose(line.min(0), [1.5, 5.5])
    np.testing.assert_allclose(line.max(0), [4.5, 9.5])
    np.testing.assert_allclose(line[0], line[-1])
    assert outline(np.zeros((4, 4), bool)) == []


def test_thousands_of_faces_fill_their_ball() -> None:
    mesh, camera = ball(70.0, (0.0, 0.0, 0.0)), camera_at(0.0, shape=(640, 640), pixel_mm=0.5)
    assert 0.3 < silhouette(mesh, camera).mean() < 0.4
    filled = rasterise(mesh, centred_grid((128, 128, 128), (1.5, 1.5, 1.5)))
    np.testing.assert_allclose(1.5**3 * filled.sum(), 4 / 3 * np.pi * 70**3, rtol=0.01)
