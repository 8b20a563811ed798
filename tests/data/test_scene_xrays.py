"""X-rays of scenes: exact on the file's voxels, anew for every pose, the field moving with them."""

import functools
from dataclasses import astuple, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jxrecon import drr
from jxrecon.data import scene_xrays
from jxrecon.data.machine import noisy
from jxrecon.data.openkbp import FULL_SHAPE, field_centres
from jxrecon.data.scene_xrays import (
    axes_of,
    field_of,
    misplaced,
    motion,
    varied,
    warped,
    xrays_of,
)
from jxrecon.experiment import Variety
from jxrecon.geometry import biplanar, camera_at, centred_grid
from jxrecon.io.nifti import read_volume, resample
from jxrecon.units import HU_AIR

CAMERAS = biplanar(shape=(24, 24), pixel_mm=12.0)
SCENE = centred_grid((24, 22, 20), (7.0, 7.0, 6.0), (5.0, -4.0, 3.0))
GRID = centred_grid((16, 18, 16), (6.0, 6.0, 5.0))
WHOLE = centred_grid((44, 40, 34), (4.0, 4.0, 4.0), (5.0, -4.0, 3.0))  # holds all of the scene
KEY = jax.random.key(0)
STILL = Variety(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def smooth_hu(seed=0, shape=SCENE.shape):
    """Soft blobs in air, nothing near the border."""
    noise = np.random.default_rng(seed).normal(size=shape)
    blobs = ndimage.gaussian_filter(noise, 2.5)
    window = np.prod(np.meshgrid(*(np.hanning(n) for n in shape), indexing="ij"), 0)
    return np.rint(-1000 + 2500 * window * (0.5 + blobs / np.abs(blobs).max())).astype(np.int16)


def siddon(hu, affine, cameras=CAMERAS):
    mu = drr.hu_to_mu(jnp.asarray(hu, jnp.float32))
    return [np.asarray(drr.line_integrals(mu, affine, c, "siddon")) for c in cameras]


def off(a, b):
    return np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(b)


@pytest.mark.parametrize("known", [True, False])
def test_traced_affines_give_siddons_line_integrals(known):
    axes = axes_of([SCENE.affine], CAMERAS)
    assert axes == (1, 0)
    hu = smooth_hu()
    run = jax.jit(lambda hu, a: xrays_of(hu, a, CAMERAS, axes if known else (None, None)))
    found = run(jnp.asarray(hu), jnp.asarray(SCENE.affine, jnp.float32))
    for image, exact in zip(found, siddon(hu, SCENE.affine)):
        np.testing.assert_allclose(image, exact, atol=2e-4)


def test_a_batch_has_an_affine_and_cameras_for_each_case():
    axes = axes_of([SCENE.affine], CAMERAS)
    affines = np.stack([SCENE.affine, SCENE.affine @ np.diag([1.1, 0.9, 1.0, 1.0])])
    cameras = [
        tuple(camera_at(a + t, shape=(24, 24), pixel_mm=12.0) for a in (0, 90)) for t in (0, 3)
    ]
    hus = np.stack([smooth_hu(0), smooth_hu(1)])
    found = jax.jit(jax.vmap(lambda h, a, c: xrays_of(h, a, c, axes)))(
        jnp.asarray(hus), jnp.asarray(affines, jnp.float32), drr.stacked(cameras)
    )
    for n in range(2):
        for image, exact in zip(found, siddon(hus[n], affines[n], cameras[n])):
            assert off(image[n], exact) < 1e-4


def test_rays_that_are_too_slanted_are_walked_one_by_one():
    thin = centred_grid((20, 20, 60), (10.0, 10.0, 1.0))
    assert axes_of([thin.affine], CAMERAS) == (None, None)
    assert axes_of([SCENE.affine, thin.affine], CAMERAS) == (None, None)
    assert axes_of([SCENE.affine], [camera_at(45.0)]) == (None,)


def test_the_field_is_cut_as_scipy_cuts_it():
    hu = smooth_hu()
    found = field_of(jnp.asarray(hu), jnp.asarray(SCENE.affine, jnp.float32), GRID)
    np.testing.assert_allclose(
        found, resample(hu, SCENE.affine, GRID, HU_AIR, (1, 1, 1)), atol=0.05
    )


@functools.cache
def program(shape):
    """One compiled program for all varieties, which are traced, and one grid."""
    grid = {GRID.shape: GRID, WHOLE.shape: WHOLE}[shape]
    axes = axes_of([SCENE.affine], CAMERAS)
    affine = jnp.asarray(SCENE.affine, jnp.float32)
    cut = functools.partial(field_of, grid=grid)
    take = functools.partial(xrays_of, axes=axes)
    return jax.jit(lambda hu, key, v: varied(hu, affine, key, CAMERAS, take, Variety(*v), cut))


def vary(hu, variety, key=KEY, grid=GRID):
    numbers = [jnp.asarray(x, jnp.float32) for x in astuple(variety)]
    return program(grid.shape)(jnp.asarray(hu), key, numbers)


def test_without_variety_a_case_is_as_it_is_or_mirrored():
    hu, seen = smooth_hu(), set()
    plain = field_of(jnp.asarray(hu), jnp.asarray(SCENE.affine, jnp.float32), GRID)
    exact = siddon(hu, SCENE.affine)
    for n in range(6):
        case = vary(hu, STILL, jax.random.key(n))
        mirrored = bool(case.mirrored)
        seen.add(mirrored)
        step = -1 if mirrored else 1
        np.testing.assert_allclose(case.hu[::step], plain, atol=0.1)
        np.testing.assert_allclose(case.images[0][:, ::step], exact[0], atol=1e-3)
        if mirrored:  # a cone from the left is none from the right
            assert off(case.images[1], exact[1]) > 1e-3
    assert seen == {True, False}


@pytest.mark.parametrize(
    "variety",
    [
        replace(STILL, rotation_deg=6.0, shift_mm=8.0, scale=0.05),
        replace(STILL, warp_mm=20.0, warped=1.0),
    ],
    ids=["moved", "warped"],
)
def test_field_and_xrays_move_together(variety):
    hu = smooth_hu()
    case = vary(hu, variety, jax.random.key(2), WHOLE)
    assert not case.mirrored
    exact = siddon(hu, SCENE.affine)
    for image, alone, before in zip(case.images, siddon(case.hu, WHOLE.affine), exact):
        assert off(alone, image) < 0.07  # 0.06 where nothing moves: constant voxels of 7 mm
        assert off(before, image) > 0.15


def test_patients_move_and_cameras_stand_off_by_the_deviations_of_their_variety():
    variety = Variety(0.5, 4.0, 8.0, 0.06, 0.0, 0.0, 3.0, 30.0)
    half, keys = jnp.float32(variety.amount), jax.random.split(KEY, 1500)
    moved, mirrors = jax.jit(jax.vmap(lambda key: motion(variety, half, key)))(keys)
    moved = np.asarray(moved, np.float64)
    assert abs(np.mean(mirrors) - 0.5) < 0.05
    np.testing.assert_allclose(moved[:, :3, 3].std(0), 0.5 * 8.0, rtol=0.08)
    sizes = np.linalg.norm(moved[:, :3, :3], axis=1)
    np.testing.assert_allclose(np.log(sizes).std(0), 0.5 * 0.06 * 2**0.5, rtol=0.08)
    np.testing.assert_array_equal(np.linalg.det(moved) < 0, np.asarray(mirrors) == 1)
    turned = (
        moved[:, :3, :3] / sizes[:, None] * np.where(mirrors, -1, 1)[:, None, None] ** [1, 0, 0]
    )
    angles = Rotation.from_matrix(turned).as_rotvec(degrees=True)
    np.testing.assert_allclose(angles.std(0), 0.5 * 4.0, rtol=0.08)
    camera = CAMERAS[0]
    stand = jax.jit(jax.vmap(lambda key: misplaced(variety, half, camera, key).source))
    sources = np.asarray(stand(keys), np.float64)
    lengths = np.linalg.norm(sources, axis=1)
    assert lengths.mean() == pytest.approx(float(jnp.linalg.norm(camera.source)), abs=2.0)
    assert lengths.std() == pytest.approx(0.5 * 30.0, rel=0.08)
    off_axis = np.degrees(np.arcsin(sources[:, [0, 2]] / lengths[:, None]))  # it lies on y
    np.testing.assert_allclose(off_axis.std(0), 0.5 * 3.0, rtol=0.08)


def test_a_warp_of_equal_nodes_is_a_shift():
    hu = smooth_hu()
    warp = jnp.broadcast_to(
        jnp.asarray([1.0, 0.0, -2.0], jnp.float32)[:, None, None, None], (3, 4, 4, 4)
    )
    moved = np.asarray(warped(jnp.asarray(hu), warp))
    np.testing.assert_allclose(moved[:-1, :, 2:], hu[1:, :, :-2], atol=0.01)
    there = field_of(jnp.asarray(hu), jnp.asarray(SCENE.affine, jnp.float32), GRID, warp)
    twice = field_of(jnp.asarray(moved), jnp.asarray(SCENE.affine, jnp.float32), GRID)
    np.testing.assert_allclose(there, twice, atol=0.5)


def test_misplaced_cameras_change_the_xrays_and_not_the_field():
    hu = smooth_hu()
    case = vary(hu, replace(STILL, pose_error_deg=3.0, distance_mm=30.0), jax.random.key(1))
    same = vary(hu, STILL, jax.random.key(1))
    np.testing.assert_array_equal(case.hu, same.hu)
    assert off(case.images[0], same.images[0]) > 0.005


def test_noise_is_that_of_counted_photons():
    image = jnp.full((200, 200), 2.0)
    found = np.asarray(noisy(image, 1000.0, KEY))
    counts = 1000 * np.exp(-2.0)
    assert abs(found.std() - counts**-0.5) < 0.02 * counts**-0.5 + 0.002
    assert abs(found.mean() - 2.0) < 0.01
    starved = np.asarray(noisy(jnp.full((50, 50), 20.0), 1000.0, KEY))
    np.testing.assert_allclose(starved, np.log(2000.0), rtol=1e-5)


def test_a_coarse_field_is_the_mean_of_the_fine_one():
    hu, affine = jnp.asarray(smooth_hu()), jnp.asarray(SCENE.affine, jnp.float32)
    coarse = centred_grid((8, 9, 8), (12.0, 12.0, 10.0))
    found = field_of(hu, affine, coarse, None, (2, 2, 2))
    fine = np.asarray(field_of(hu, affine, GRID)).reshape(8, 2, 9, 2, 8, 2).mean((1, 3, 5))
    np.testing.assert_allclose(found, fine, atol=0.05)
    np.testing.assert_allclose(
        found, resample(np.asarray(hu), SCENE.affine, coarse, HU_AIR, (2, 2, 2)), atol=0.05
    )


def test_real_scenes_are_projected_exactly_from_the_files_voxels(real_data):
    folder = real_data / "openkbp_hn"
    if not folder.is_dir():
        pytest.skip(f"no openkbp_hn in {real_data}")
    centres = field_centres(folder, "validation")
    name = sorted(centres)[0]
    hu, affine = read_volume(folder / "validation" / f"{name}_ct.nii.gz")
    affine[:3, 3] -= centres[name]
    cameras = biplanar(shape=(32, 32), pixel_mm=12.0)
    axes = axes_of([affine], cameras)
    found = jax.jit(lambda h, a: scene_xrays.xrays_of(h, a, cameras, axes))(
        jnp.asarray(hu), jnp.asarray(affine, jnp.float32)
    )
    for image, exact in zip(found, siddon(hu, affine, cameras)):
        assert off(image, exact) < 1e-4
    assert FULL_SHAPE == (80, 96, 112)
