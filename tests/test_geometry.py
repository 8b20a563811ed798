"""Frames and cameras: where sources and pixels lie, and that bad numbers are told in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import geometry
from jxrecon.io.views import nearest_to_lines
from jxrecon.types import InputError


def test_frontal_source_is_in_front_and_shows_right_on_the_left_head_up():
    camera = geometry.frontal(
        source_axis_mm=800, source_detector_mm=1100, shape=(4, 6), pixel_mm=(2.0, 3.0)
    )
    np.testing.assert_allclose(camera.source, [0, 800, 0], atol=1e-4)
    np.testing.assert_allclose(camera.centre, [0, -300, 0], atol=1e-4)
    pixels = np.asarray(camera.pixels())
    assert pixels.shape == (4, 6, 3)
    np.testing.assert_allclose(pixels[0, 0], [7.5, -300, 3.0], atol=1e-4)  # right, head
    np.testing.assert_allclose(pixels[-1, -1], [-7.5, -300, -3.0], atol=1e-4)  # left, foot


def test_lateral_source_is_at_the_left_and_shows_the_face_on_the_left():
    camera = geometry.lateral(shape=(2, 2), pixel_mm=2.0)
    np.testing.assert_allclose(camera.source, [-1000, 0, 0], atol=1e-3)
    np.testing.assert_allclose(camera.pixels()[0, 0], [500, 1, 1], atol=1e-3)  # front, head


def test_two_evenly_spaced_views_are_the_biplanar_pair():
    for one, other in zip(geometry.evenly_spaced(2), geometry.biplanar()):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), one, other)


POSES = ("ap", "lateral", "oblique1", "oblique2")


@pytest.mark.parametrize("pose", range(4), ids=POSES)
def test_moved_cameras_equal_the_oracles_geometry(oracles, pose):
    with np.load(oracles / "drr.npz") as oracle:
        assert tuple(oracle["pose_names"]) == POSES
        a0, a1, a2 = oracle["pose/rot_zxy_rad"][pose]
        offset = oracle["pose/xyz_mm"][pose]
        x0, y0 = oracle["pose/x0_y0_mm"][pose]
        names = ("source", "detector_centre", "u_step_per_column", "v_step_per_row")
        expected = [oracle[f"geom/{name}"][pose] for name in names]
    unmoved = geometry.Camera(
        source=jnp.asarray(offset, jnp.float32),
        centre=jnp.asarray(offset + np.array([x0, -1100.0, y0]), jnp.float32),
        u=jnp.asarray([-3.0, 0.0, 0.0]),
        v=jnp.asarray([0.0, 0.0, -2.5]),
        shape=(48, 64),
    )
    turn, tilt, roll = map(geometry.rotation_about, "zxy", (a0, a1, a2))
    rotation = jnp.asarray(turn @ tilt @ roll, jnp.float32)
    moved = unmoved.moved(rotation, jnp.zeros(3))
    for found, wanted in zip((moved.source, moved.centre, moved.u, moved.v), expected):
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_orbit_equals_the_oracles_frontal_and_lateral_cameras(oracles):
    with np.load(oracles / "drr.npz") as oracle:
        for pose, angle in enumerate((0.0, 90.0)):
            camera = geometry.camera_at(
                angle,
                source_axis_mm=850,
                source_detector_mm=1100,
                shape=(48, 64),
                pixel_mm=(2.5, 3.0),
            )
            np.testing.assert_allclose(camera.source, oracle["geom/source"][pose], atol=1e-3)
            centre = oracle["geom/detector_centre"][pose]
            np.testing.assert_allclose(camera.centre, centre, atol=1e-3)
            np.testing.assert_allclose(camera.u, oracle["geom/u_step_per_column"][pose], atol=1e-6)
            np.testing.assert_allclose(camera.v, oracle["geom/v_step_per_row"][pose], atol=1e-6)


def test_a_camera_is_a_pytree_of_four_vectors_with_a_static_shape():
    camera = geometry.frontal(shape=(3, 5))
    assert len(jax.tree.leaves(camera)) == 4
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), camera, geometry.lateral(shape=(3, 5)))
    assert jax.vmap(lambda c: c.pixels())(stacked).shape == (2, 3, 5, 3)


def test_cameras_are_the_same_by_their_values_kind_and_order_under_jit_too():
    pair, again = geometry.biplanar(), geometry.biplanar()
    parallel = geometry.parallel_at(0.0)
    others = (again[::-1], again[:1], (again[0], parallel), (again[0], again[1].resized((64, 64))))

    @jax.jit
    def same(x):
        assert geometry.same_cameras(pair, again)
        assert not any(geometry.same_cameras(pair, other) for other in others)
        return x

    same(0.0)
    moved = again[0].replace(source=again[0].source + 1e-3)
    assert not geometry.same_cameras(pair, (moved, again[1]))
    assert geometry.same_cameras((parallel,), [geometry.parallel_at(0.0)])


def test_moving_a_camera_moves_its_pixels():
    camera = geometry.camera_at(20.0, 10.0, shape=(3, 4))
    rotation = jnp.asarray([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shift = jnp.asarray([1.0, 2.0, 3.0])
    moved = camera.moved(rotation, shift).pixels()
    expected = np.asarray(camera.pixels()) @ np.asarray(rotation).T + np.asarray(shift)
    np.testing.assert_allclose(moved, expected, atol=1e-3)


def test_resizing_keeps_the_detectors_outline():
    camera = geometry.camera_at(33.0, shape=(12, 8), pixel_mm=(2.0, 3.0))
    small = camera.resized((6, 2))
    np.testing.assert_allclose(small.u * 2, camera.u * 8, rtol=1e-6)
    np.testing.assert_allclose(small.v * 6, camera.v * 12, rtol=1e-6)


def test_a_camera_survives_its_sidecar():
    camera = geometry.camera_at(70.0, -12.0, shape=(5, 7), isocentre_mm=(3.0, -4.0, 5.0))
    again = geometry.camera_from_dict(camera.to_dict())
    assert again.shape == camera.shape
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, camera)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"source_mm": [1.0, 2.0]}, "source_mm"),
        ({"u_mm": [1.0, float("nan"), 0.0]}, "u_mm"),
        ({"v_mm": "up"}, "v_mm"),
        ({"shape": [3]}, "shape"),
        ({"shape": [3, -1]}, "shape"),
        ({"u_mm": [0.0, 0.0, 1.0]}, "parallel"),
        ({"source_mm": [0.0, -500.0, 30.0]}, "plane"),
    ],
)
def test_a_bad_sidecar_is_told_in_one_line(change, word):
    numbers = {**geometry.frontal(shape=(3, 4)).to_dict(), **change}
    with pytest.raises(InputError, match=word) as caught:
        geometry.camera_from_dict(numbers, "view.json")
    assert "\n" not in str(caught.value)
    assert "view.json" in str(caught.value)


@pytest.mark.parametrize(
    "geometry_flags",
    [
        {"source_axis_mm": 0.0},
        {"source_detector_mm": 900.0},
        {"pixel_mm": 0.0},
        {"pixel_mm": (1.0, -1.0)},
        {"source_axis_mm": float("nan")},
    ],
)
def test_impossible_distances_are_refused(geometry_flags):
    with pytest.raises(InputError, match="expected"):
        geometry.camera_at(0.0, **geometry_flags)


def test_parallel_rays_come_from_where_the_orbit_has_its_source():
    for angle, elevation in ((0.0, 0.0), (90.0, 0.0), (35.0, -20.0)):
        view = {"shape": (3, 4), "pixel_mm": (2.0, 3.0), "isocentre_mm": (5.0, -6.0, 7.0)}
        cone = geometry.camera_at(angle, elevation, **view)
        rays = geometry.parallel_at(angle, elevation, **view)
        along = np.asarray(cone.centre - cone.source) / 1500
        np.testing.assert_allclose(rays.direction, along, atol=1e-6)
        np.testing.assert_array_equal(rays.centre, [5, -6, 7])
        np.testing.assert_array_equal(rays.u, cone.u)
        np.testing.assert_array_equal(rays.v, cone.v)
    with pytest.raises(InputError, match="pixel pitch is 0"):
        geometry.parallel_at(0.0, pixel_mm=0)


def test_a_parallel_camera_is_a_pytree_of_four_vectors_too():
    rays = geometry.parallel_at(20.0, 10.0, shape=(3, 5))
    assert len(jax.tree.leaves(rays)) == 4
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), rays)
    assert jax.vmap(lambda c: c.pixels())(stacked).shape == (2, 3, 5, 3)


def test_moving_parallel_rays_turns_their_direction_and_shifts_only_the_detector():
    rays = geometry.parallel_at(20.0, 10.0, shape=(3, 4))
    rotation = jnp.asarray([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shift = jnp.asarray([1.0, 2.0, 3.0])
    moved = rays.moved(rotation, shift)
    turn = np.asarray(rotation)
    np.testing.assert_allclose(moved.direction, turn @ rays.direction, atol=1e-6)
    expected = np.asarray(rays.pixels()) @ turn.T + np.asarray(shift)
    np.testing.assert_allclose(moved.pixels(), expected, atol=1e-5)


@pytest.mark.parametrize("build", [geometry.camera_at, geometry.parallel_at])
def test_strips_are_the_detectors_rows_in_order_seen_by_the_same_rays(build):
    camera = build(33.0, 8.0, shape=(6, 4), pixel_mm=(2.0, 3.0))
    strips = camera.strips(3)
    assert [strip.shape for strip in strips] == [(2, 4)] * 3
    rows = np.concatenate([strip.pixels() for strip in strips])
    np.testing.assert_allclose(rows, camera.pixels(), atol=2e-4)
    ray = "source" if build is geometry.camera_at else "direction"
    for strip in strips:
        np.testing.assert_array_equal(getattr(strip, ray), getattr(camera, ray))
    (whole,) = camera.strips(1)
    np.testing.assert_array_equal(whole.centre, camera.centre)


@pytest.mark.parametrize("count", [0, -1, 4, 7])
def test_strips_of_unequal_height_are_refused(count):
    with pytest.raises(InputError, match=f"6 rows cannot be cut into {count}"):
        geometry.frontal(shape=(6, 4)).strips(count)


def test_parallel_rays_survive_their_sidecar_and_stay_parallel():
    rays = geometry.parallel_at(70.0, -12.0, shape=(5, 7), isocentre_mm=(3.0, -4.0, 5.0))
    numbers = rays.to_dict()
    assert set(numbers) == {"direction", "centre_mm", "u_mm", "v_mm", "shape"}
    again = geometry.camera_from_dict(numbers)
    assert isinstance(again, geometry.ParallelCamera)
    assert again.shape == rays.shape
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, rays)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"direction": [1.0, 2.0]}, "direction is"),
        ({"direction": [float("inf"), 0.0, 0.0]}, "direction is"),
        ({"direction": [0.0, 0.0, 0.0]}, "within the detector's plane"),
        ({"direction": [1.0, 0.0, 2.0]}, "within the detector's plane"),
        ({"centre_mm": None}, "centre_mm is None"),
        ({"u_mm": [0.0, 0.0, 1.0]}, "parallel"),
        ({"shape": [3.5, 4]}, "shape"),
    ],
)
def test_bad_parallel_rays_are_told_in_one_line(change, word):
    numbers = {**geometry.parallel_at(0.0, shape=(3, 4)).to_dict(), **change}
    with pytest.raises(InputError, match=word) as caught:
        geometry.camera_from_dict(numbers, "view.json")
    assert "\n" not in str(caught.value)
    assert "view.json" in str(caught.value)


def test_a_grids_middle_spacing_and_extent_follow_from_its_affine():
    grid = geometry.centred_grid((4, 5, 6), (2.0, 3.0, 4.0), (1.0, -1.0, 7.0))
    np.testing.assert_allclose(grid.centre_mm, [1.0, -1.0, 7.0])
    np.testing.assert_allclose(grid.spacing_mm, [2.0, 3.0, 4.0])
    np.testing.assert_allclose(grid.extent_mm, [8.0, 15.0, 24.0])
    corners = grid.corners_mm
    np.testing.assert_allclose(corners[[0, 1, -1]], [[-3, -8.5, -5], [-3, -8.5, 19], [5, 6.5, 19]])


@pytest.mark.parametrize("make", [geometry.camera_at, geometry.parallel_at])
def test_points_on_a_ray_fall_on_its_pixel(make):
    camera = make(30.0, 20.0, shape=(6, 9), pixel_mm=(2.0, 3.0), isocentre_mm=(4.0, -7.0, 11.0))
    camera = camera.replace(u=camera.u + 0.2 * camera.v)  # rows and columns need not be orthogonal
    pixels = camera.pixels()
    source = getattr(camera, "source", None)
    towards = -camera.direction if source is None else source[None, None] - pixels
    points = pixels + 0.4 * jnp.broadcast_to(towards, pixels.shape)
    rows, columns = np.meshgrid(np.arange(6.0), np.arange(9.0), indexing="ij")
    for places in (camera.place_of(points), geometry.places_of(camera, points)):
        np.testing.assert_allclose(places, np.stack([rows, columns], -1), rtol=0, atol=1e-3)
    depth = geometry.depth_of(camera, np.asarray(points, np.float64))
    np.testing.assert_allclose(depth, 1.0 if source is None else 0.6, rtol=0, atol=1e-6)


def test_pixels_shrink_to_where_rays_pass_and_a_source_behind_a_point_is_told():
    camera = geometry.camera_at(30.0, 20.0, pixel_mm=(3.0, 6.0), isocentre_mm=(10.0, 20.0, 30.0))
    middle = np.array([10.0, 20.0, 30.0])
    np.testing.assert_allclose(geometry.pixel_mm(camera), (3.0, 6.0), rtol=1e-6)
    np.testing.assert_allclose(geometry.pitch_at(camera, middle), [2.0, 4.0], rtol=1e-6)
    assert geometry.source_detector_mm(camera) == pytest.approx(1500.0, rel=1e-6)
    behind = 2 * np.asarray(camera.source, np.float64) - middle
    assert geometry.depth_of(camera, behind) == pytest.approx(-1000 / 1500, rel=1e-5)
    rays = geometry.parallel_at(30.0, pixel_mm=(3.0, 6.0))
    np.testing.assert_allclose(geometry.pitch_at(rays, middle), [3.0, 6.0], rtol=1e-6)


@pytest.mark.parametrize("kind", [geometry.camera_at, geometry.parallel_at])
def test_binned_cameras_keep_every_pixel_where_it_stood(kind):
    camera = kind(30.0, 10.0, shape=(11, 14), pixel_mm=2.0)
    small = camera.binned((2, 3))
    assert small.shape == (5, 4)
    blocks = np.asarray(camera.pixels())[:10, :12].reshape(5, 2, 4, 3, 3).mean((1, 3))
    np.testing.assert_allclose(small.pixels(), blocks, atol=1e-3)


def test_lines_through_one_point_fix_it_and_parallel_ones_none():
    point = np.array([3.0, -4.0, 5.0])
    directions = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    starts = point - np.array([[100.0], [7.0], [-50.0]]) * directions
    np.testing.assert_allclose(nearest_to_lines(starts, directions), point, atol=1e-9)
    assert nearest_to_lines(starts, directions[[0, 0, 0]]) is None


def test_the_detectors_corners_are_half_a_pixel_beyond_its_pixels():
    camera = geometry.frontal(shape=(4, 6), pixel_mm=(2.0, 3.0))
    corners = geometry.detector_corners_mm(camera)
    np.testing.assert_allclose(corners[:, [0, 2]], [[9, 4], [-9, 4], [-9, -4], [9, -4]], atol=1e-4)
    np.testing.assert_allclose(geometry.unit_normal(camera), [0, -1, 0], atol=1e-7)


def test_the_place_of_a_point_follows_it_as_finite_differences_do():
    camera = geometry.camera_at(40.0, -10.0, shape=(64, 48), pixel_mm=2.5)
    point, step = jnp.array([20.0, -30.0, 15.0]), 1.0
    jacobian = jax.jacfwd(camera.place_of)(point)
    for axis in range(3):
        move = step * jnp.eye(3)[axis]
        difference = (camera.place_of(point + move) - camera.place_of(point - move)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, axis], difference, rtol=0, atol=1e-4)
