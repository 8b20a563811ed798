"""Line integrals against the DiffDRR oracle, closed forms and independent float64 NumPy."""

import zlib

import jax
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from jxrecon import drr
from jxrecon.geometry import Camera, camera_at, centred_grid
from jxrecon.types import InputError

SHAPE = (13, 12, 14)
DETECTOR = (10, 11)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("zxy", [25, -10, 15], degrees=True).as_matrix() * [-2, 3, 2.5]
OBLIQUE[:3, 3] = [12.0, -18.0, -16.0]


def narrow_camera(angle=0.0, elevation=0.0, pixel=3.0, roll=0.0):
    """A camera about the origin in float64."""
    camera = camera_at(angle, elevation, shape=DETECTOR, pixel_mm=pixel)
    s, centre, u, v = (np.float64(x) for x in (camera.source, camera.centre, camera.u, camera.v))
    c, n = np.cos(np.deg2rad(roll)), np.sin(np.deg2rad(roll))
    return Camera(s, centre, c * u + n * v, c * v - n * u, DETECTOR)


def centred_on(affine, shape=SHAPE):
    """The affine shifted so that the volume's middle is the origin."""
    shifted = np.array(affine, np.float64)
    shifted[:3, 3] = -shifted[:3, :3] @ ((np.array(shape) - 1) / 2)
    return shifted


def random_volume(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def index_rays(affine, camera):
    """Source and pixels in voxels and lengths in mm, float64."""
    rows, columns = camera.shape
    r = (np.arange(rows) - (rows - 1) / 2)[:, None, None]
    c = (np.arange(columns) - (columns - 1) / 2)[None, :, None]
    source, centre, u, v = (
        np.asarray(x, np.float64) for x in (camera.source, camera.centre, camera.u, camera.v)
    )
    pixels = centre + c * u + r * v
    inverse = np.linalg.inv(affine)
    to_index = lambda x: x @ inverse[:3, :3].T + inverse[:3, 3]  # noqa: E731
    return to_index(source), to_index(pixels), np.linalg.norm(pixels - source, axis=-1)


def sorted_siddon(volume, affine, camera):
    """All crossings of all planes, sorted: Siddon as he wrote it."""
    source, pixels, length = index_rays(affine, camera)
    d = (pixels - source).reshape(-1, 3)
    alphas = [np.zeros((len(d), 1)), np.ones((len(d), 1))]
    for axis, size in enumerate(volume.shape):
        along = np.where(d[:, axis] == 0, 1e-300, d[:, axis])[:, None]
        with np.errstate(over="ignore"):
            alphas.append((np.arange(size + 1) - 0.5 - source[axis])[None] / along)
    alphas = np.sort(np.clip(np.concatenate(alphas, 1), 0, 1), 1)
    middle = (alphas[:, 1:] + alphas[:, :-1]) / 2
    cell = np.floor(source + middle[..., None] * d[:, None] + 0.5).astype(int)
    inside = ((cell >= 0) & (cell < volume.shape)).all(-1)
    cell = np.where(inside[..., None], cell, 0)
    values = volume[cell[..., 0], cell[..., 1], cell[..., 2]] * inside
    return (values * np.diff(alphas, axis=1)).sum(1).reshape(length.shape) * length


def sampled_joseph(volume, affine, camera, axis):
    """Bilinear samples where each ray meets each slice of `axis`, times mm per slice."""
    source, pixels, length = index_rays(affine, camera)
    d = pixels - source
    t = (np.arange(volume.shape[axis])[:, None, None] - source[axis]) / d[..., axis]
    points = np.moveaxis(source + t[..., None] * d, -1, 0)
    points[axis] = np.round(points[axis])
    padded = np.pad(volume.astype(np.float64), 1)
    samples = map_coordinates(padded, points + 1, order=1, mode="constant", cval=0.0)
    return samples.sum(0) * length / np.abs(d[..., axis])


@pytest.fixture(scope="module")
def diffdrr(oracles):
    return np.load(oracles / "drr.npz")


def oracle_camera(diffdrr, pose):
    row = diffdrr["pose_names"].tolist().index(pose)
    names = ("source", "detector_centre", "u_step_per_column", "v_step_per_row")
    return Camera(*(diffdrr[f"geom/{name}"][row] for name in names), shape=(48, 64))


@pytest.mark.parametrize("pose", ["ap", "lateral", "oblique1", "oblique2"])
def test_siddon_reproduces_diffdrr(diffdrr, pose):
    camera = oracle_camera(diffdrr, pose)
    image = drr.line_integrals(diffdrr["volume"], diffdrr["affine"], camera, "siddon")
    assert relative(image, diffdrr[f"img/{pose}"]) < 1e-5


def test_siddon_in_float64_reproduces_diffdrr_to_eight_digits(diffdrr):
    camera = oracle_camera(diffdrr, "oblique1")
    with jax.enable_x64(True):
        volume = diffdrr["volume"].astype(np.float64)
        image = drr.line_integrals(volume, diffdrr["affine"], camera, "siddon")
        assert image.dtype == np.float64
    assert relative(image, diffdrr["img/oblique1"]) < 1e-7


def test_siddon_backprojects_like_diffdrr(diffdrr):
    def weighted_sum(volume):
        total = 0.0
        for pose in diffdrr["pose_names"].tolist():
            seed = zlib.crc32(f"drr/adjoint_{pose}".encode())
            weight = np.random.default_rng(seed).standard_normal((48, 64)).astype(np.float32)
            camera = oracle_camera(diffdrr, pose)
            image = drr.line_integrals(volume, diffdrr["affine"], camera, "siddon")
            total += (weight * image).sum()
        return total

    adjoint = jax.jit(jax.grad(weighted_sum))(jax.numpy.asarray(diffdrr["volume"]))
    expected = np.float64(diffdrr["adjoint_volume"])
    assert relative(adjoint, expected) < 1e-4
    assert np.abs(adjoint - expected).max() < 2e-3


@pytest.mark.parametrize("angle", [0.0, 50.0, 130.0])
def test_siddon_equals_sorted_crossings_for_oblique_anisotropic_flipped_grids(angle):
    affine, camera = centred_on(OBLIQUE), narrow_camera(angle, 20.0, pixel=6.0)
    volume = random_volume()
    image = drr.line_integrals(volume, affine, camera, "siddon")
    assert relative(image, sorted_siddon(volume, affine, camera)) < 1e-5


def test_a_cube_of_ones_gives_path_lengths():
    grid = centred_grid(SHAPE, (2.0, 3.0, 2.5))
    camera = narrow_camera(33.0, 12.0, pixel=9.0)
    source, pixels, length = index_rays(grid.affine, camera)
    d = pixels - source
    ends = np.stack([(-0.5 - source) / d, (np.array(SHAPE) - 0.5 - source) / d])
    path = np.maximum(ends.max(0).min(-1) - ends.min(0).max(-1), 0) * length
    image = drr.line_integrals(np.ones(SHAPE, np.float32), grid.affine, camera, "siddon")
    assert (path > 10).any()
    assert (path == 0).any()
    np.testing.assert_allclose(image, path, atol=1e-5 * path.max())


@pytest.mark.parametrize(
    ("method", "angle", "axis"), [("joseph", 0, 1), ("joseph", 60, 0), ("aligned", 90, 0)]
)
def test_interpolating_methods_equal_bilinear_samples_of_each_slice(method, angle, axis):
    grid = centred_grid(SHAPE, (2.0, 3.0, 2.5))
    camera = narrow_camera(angle, pixel=4.0)
    volume = random_volume()
    image = drr.line_integrals(volume, grid.affine, camera, method)
    assert relative(image, sampled_joseph(volume, grid.affine, camera, axis)) < 1e-5


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("roll", [0, 90])
def test_aligned_equals_joseph_whichever_way_the_volume_lies(axis, roll):
    order = np.roll([0, 1, 2], axis)  # which world axis each index axis runs along
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * [2.0, -3.0, 2.5]
    affine = centred_on(affine)
    camera = narrow_camera(roll=roll)
    assert drr.choose(affine, camera, SHAPE) == "aligned"
    image = drr.line_integrals(random_volume(), affine, camera, "aligned")
    joseph = drr.line_integrals(random_volume(), affine, camera, "joseph")
    assert relative(image, np.float64(joseph)) < 5e-6


def ellipsoid_and_its_shadow(affine, shape, camera, falling):
    """An ellipsoid as voxel averages, and its line integrals in closed form.

    With rho the distance from its middle in semi-axes, attenuation is 0.02 /mm for rho < 1, or
    0.02 (1 - rho^2) if `falling`; a chord of half length h at distance rho0 gives 2 h, or
    4/3 (1 - rho0^2) h.
    """
    axes = np.array([40.0, 28.0, 34.0])
    to_unit = Rotation.from_euler("xz", [20, 35], degrees=True).as_matrix() / axes
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    volume = np.zeros(shape)
    for offset in np.stack(np.meshgrid(*[[-0.25, 0.25]] * 3), -1).reshape(-1, 3):
        x = (index + offset) @ affine[:3, :3].T + affine[:3, 3]
        inward = 1 - ((x @ to_unit) ** 2).sum(-1)
        volume += 0.02 / 8 * (np.maximum(inward, 0) if falling else inward > 0)
    source, pixels, length = index_rays(np.eye(4), camera)
    o, d = source @ to_unit, (pixels - source) @ to_unit
    a, b = (d * d).sum(-1), d @ o
    inward = np.maximum(1 - (o @ o - b * b / a), 0)
    half = np.sqrt(inward / a) * length
    return volume.astype(np.float32), 0.02 * (4 / 3 * inward * half if falling else 2 * half)


ELLIPSOID_GRID = centred_grid((48, 44, 40), (2.0, 2.0, 2.5))


def ellipsoid_camera(angle):
    """Frontal at 0, otherwise raised by ten degrees."""
    return camera_at(angle, 10.0 if angle else 0.0, shape=(30, 32), pixel_mm=4.0)


@pytest.mark.parametrize(("falling", "error"), [(False, 3.2e-2), (True, 7e-3)])
@pytest.mark.parametrize(
    ("method", "angle"),
    [("siddon", 25), ("joseph", 25), ("shear_warp", 25), ("aligned", 0)],
)
def test_an_ellipsoid_casts_its_closed_form_shadow(method, angle, falling, error):
    camera, (shape, affine) = ellipsoid_camera(angle), ELLIPSOID_GRID
    volume, shadow = ellipsoid_and_its_shadow(affine, shape, camera, falling)
    image = drr.line_integrals(volume, affine, camera, method)
    assert relative(image, shadow) < error


def test_interpolating_methods_stay_near_siddon_in_oblique_views():
    grid = centred_grid((90, 80, 84), (1.0, 1.0, 1.0))
    camera = camera_at(25.0, 10.0, shape=(60, 64), pixel_mm=2.0)
    volume, _ = ellipsoid_and_its_shadow(grid.affine, grid.shape, camera, falling=False)
    images = {
        method: np.float64(drr.line_integrals(volume, grid.affine, camera, method))
        for method in ("siddon", "joseph", "shear_warp")
    }
    finer = drr.plan(grid.affine, camera, grid.shape, "shear_warp", sampling=1.5)
    images["finer"] = np.float64(drr.line_integrals(volume, grid.affine, camera, finer))
    assert relative(images["shear_warp"], images["joseph"]) < 7e-3
    assert relative(images["finer"], images["joseph"]) < 4e-3
    assert relative(images["shear_warp"], images["siddon"]) < 1.2e-2
    assert relative(images["joseph"], images["siddon"]) < 1.2e-2


@pytest.mark.parametrize("method", ["siddon", "joseph", "shear_warp"])
def test_index_axes_may_be_permuted_and_flipped(method):
    affine, camera = centred_on(OBLIQUE), narrow_camera(20.0, 10.0)
    volume = random_volume()
    image = drr.line_integrals(volume, affine, camera, method)
    reorder = np.zeros((4, 4))  # new index -> old index: new axes are z, -x, y
    reorder[2, 0], reorder[0, 1], reorder[1, 2], reorder[3, 3] = 1, -1, 1, 1
    reorder[0, 3] = SHAPE[0] - 1
    permuted = volume.transpose(2, 0, 1)[:, ::-1]
    again = drr.line_integrals(permuted, affine @ reorder, camera, method)
    assert relative(again, np.float64(image)) < 1e-5


@pytest.mark.parametrize(
    ("method", "angle"), [("siddon", 20), ("joseph", 20), ("shear_warp", 20), ("aligned", 0)]
)
def test_moving_volume_and_camera_together_changes_nothing(method, angle):
    affine, camera = centred_grid(SHAPE, (2.0, 3.0, 2.5)).affine, narrow_camera(angle, angle / 2)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec([0.4, -0.7, 1.1]).as_matrix()
    motion[:3, 3] = [30.0, -20.0, 10.0]
    image = drr.line_integrals(random_volume(), affine, camera, method)
    moved = camera.moved(motion[:3, :3], motion[:3, 3])
    again = drr.line_integrals(random_volume(), motion @ affine, moved, method)
    assert relative(again, np.float64(image)) < 1e-5


@pytest.mark.parametrize("method", ["siddon", "joseph", "aligned", "shear_warp"])
def test_rays_that_miss_the_volume_give_zero(method):
    grid = centred_grid(SHAPE, (2.0, 3.0, 2.5))
    camera = narrow_camera()
    for offset in (-80.0, 80.0):
        beside = camera.replace(centre=camera.centre + np.array([offset, 0.0, 0.0]))
        image = drr.line_integrals(np.ones(SHAPE, np.float32), grid.affine, beside, method)
        assert not np.any(image)


@pytest.mark.parametrize("method", ["auto", "siddon", "joseph"])
@pytest.mark.parametrize("tilt", [0.0, 30.0])
def test_a_segment_inside_the_volume_gives_its_own_length(method, tilt):
    # rays leave the source up to 80 degrees apart from the normal, along all three axes
    turn = Rotation.from_euler("zx", [tilt, tilt], degrees=True).as_matrix()
    source, centre = np.array([0.1, -1.0, 0.3]), np.array([0.0, 1.0, 0.0])
    u, v = turn @ np.array([2.0, 0.0, 0.0]), turn @ np.array([0.0, 0.0, 1.8])
    camera = Camera(source, centre, u, v, DETECTOR)
    grid = centred_grid(SHAPE, (2.4, 2.6, 2.2))
    _, _, length = index_rays(grid.affine, camera)
    image = drr.line_integrals(np.ones(SHAPE, np.float32), grid.affine, camera, method)
    np.testing.assert_allclose(image, length, rtol=1e-5)


@pytest.mark.parametrize("inside", ["source", "detector"])
def test_siddon_clips_segments_that_begin_or_end_in_the_volume(inside):
    camera = narrow_camera(25.0, 15.0)
    places = {"source": {"source": np.array([3.0, 2.0, 1.0])}, "detector": {"centre": np.zeros(3)}}
    camera = camera.replace(**places[inside])
    affine, volume = centred_on(OBLIQUE), random_volume()
    assert drr.choose(affine, camera, SHAPE) == "joseph"
    exact = drr.line_integrals(volume, affine, camera, "siddon")
    assert relative(exact, sorted_siddon(volume, affine, camera)) < 1e-5
    smooth = drr.line_integrals(np.ones(SHAPE, np.float32), affine, camera, "joseph")
    boxes = drr.line_integrals(np.ones(SHAPE, np.float32), affine, camera, "siddon")
    middle = np.s_[3:7, 3:8]
    np.testing.assert_allclose(smooth[middle], boxes[middle], rtol=1e-4)


@pytest.mark.parametrize("method", ["siddon", "joseph", "aligned", "auto"])
def test_rays_along_a_grid_axis_sum_its_column(method):
    # one row and one column: a single ray parallel to y through voxel centres (4, :, 9)
    grid = centred_grid(SHAPE, (2.0, 3.0, 2.5))
    x, _, z, _ = grid.affine @ [4, 0, 9, 1]
    camera = Camera(
        np.array([x, 500.0, z]),
        np.array([x, -300.0, z]),
        np.array([-1.0, 0.0, 0.0]),
        np.array([0.0, 0.0, -1.0]),
        (1, 1),
    )
    volume = random_volume()
    image = drr.line_integrals(volume, grid.affine, camera, method)
    np.testing.assert_allclose(image, [[3.0 * volume[4, :, 9].sum()]], rtol=1e-5)


def test_a_ray_within_a_plane_between_voxels_takes_one_side():
    grid = centred_grid(SHAPE, (2.0, 3.0, 2.5))
    x, _, z, _ = grid.affine @ [4.5, 0, 9, 1]
    camera = Camera(
        np.array([x, 500.0, z]),
        np.array([x, -300.0, z]),
        np.array([-1.0, 0.0, 0.0]),
        np.array([0.0, 0.0, -1.0]),
        (1, 1),
    )
    volume = random_volume()
    sides = 3.0 * volume[4:6, :, 9].sum(1)
    exact = float(drr.line_integrals(volume, grid.affine, camera, "siddon")[0, 0])
    assert np.abs(exact - sides).min() < 1e-4
    smooth = float(drr.line_integrals(volume, grid.affine, camera, "joseph")[0, 0])
    np.testing.assert_allclose(smooth, sides.mean(), rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_told_in_one_line():
    grid, camera = centred_grid(SHAPE, (2.0, 3.0, 2.5)), narrow_camera(30.0)
    volume = random_volume()
    with pytest.raises(InputError, match=r"'raster', expected one of auto, siddon"):
        drr.line_integrals(volume, grid.affine, camera, "raster")
    with pytest.raises(InputError, match=r"\(13, 12\), expected three axes"):
        drr.line_integrals(volume[..., 0], grid.affine, camera)
    with pytest.raises(InputError, match=r"affine has shape \(3, 4\)"):
        drr.line_integrals(volume, grid.affine[:3], camera)
    with pytest.raises(InputError, match=r"'aligned' does not fit this camera"):
        drr.line_integrals(volume, grid.affine, camera, "aligned")
