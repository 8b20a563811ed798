"""Registration: poses are found again, from a phantom in seconds and from the chest CT in minutes."""

import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.sample import chest_ct_path
from jxrecon.drr import beam, hu_to_mu, line_integrals
from jxrecon.geometry import Grid, camera_at, centred_grid, parallel_at
from jxrecon.io.nifti import read_volume
from jxrecon.pose import Pose, pose_error
from jxrecon.registration import (
    Scale,
    Settings,
    cameras_at_rest,
    coarser_volume,
    random_poses,
    register,
    settings_of,
)
from jxrecon.registration.truncation import FAINT, beyond, visible
from jxrecon.types import InputError

MIDDLE = np.array([30.0, -20.0, -600.0])
GRID = centred_grid((64, 64, 64), (3.0, 3.0, 3.0), tuple(MIDDLE))
ONE_SCALE = Settings((Scale(3.0, 80, 1.2, 100),), levels=3)


def phantom() -> np.ndarray:
    """Ellipsoids of differing density without any symmetry, 1/mm."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij"), -1)
    world = index @ GRID.affine[:3, :3].T + GRID.affine[:3, 3] - MIDDLE
    mu = np.zeros(GRID.shape, np.float32)
    for centre, radii, value in [
        ((0, 0, 0), (65, 50, 75), 0.006),
        ((25, 10, 30), (15, 20, 12), 0.03),
        ((-30, -15, -20), (20, 12, 25), -0.004),
        ((10, -20, -40), (8, 10, 14), 0.04),
        ((-40, 20, 15), (8, 8, 20), 0.04),
        ((35, -25, 5), (7, 9, 12), 0.04),
        ((-5, 35, -25), (14, 6, 8), 0.04),
    ]:
        radius = np.linalg.norm((world - centre) / radii, axis=-1)
        mu += value * np.clip((1 - radius) * np.mean(radii) / 3 + 0.5, 0, 1).astype(np.float32)
    return mu


def at(pose: Pose, n: int) -> Pose:
    return jax.tree.map(lambda x: x[n], pose)


def cameras():
    return [
        camera_at(a, shape=(80, 72), pixel_mm=4.5, isocentre_mm=tuple(MIDDLE)) for a in (0.0, 90.0)
    ]


@pytest.fixture(scope="module")
def found():
    """(registration from a hopeless start and another, true pose)."""
    true = Pose(jnp.array([0.08, -0.06, 0.1]), jnp.array([8.0, -6.0, 10.0]))
    starts = Pose(
        jnp.array([[0.0, 2.5, 0.0], [0.0, 0.0, 0.0]]),
        jnp.array([[-60.0, 50.0, 40.0], [0.0, 0.0, 0.0]]),
    )
    mu, views = phantom(), cameras()
    images = [
        0.5 * np.asarray(line_integrals(mu, GRID.affine, camera, "siddon")) + 2.0
        for camera in cameras_at_rest(views, true, MIDDLE)
    ]
    return register(mu, GRID.affine, images, views, starts, ONE_SCALE), true


def test_a_small_perturbation_is_found_again(found) -> None:
    registration, true = found
    error = pose_error(registration.pose, true, MIDDLE)
    assert float(error.rotation_deg) < 0.3
    assert float(error.translation_mm) < 0.5
    np.testing.assert_allclose(registration.about_mm, MIDDLE)
    assert registration.objective > 0.98


def test_the_best_start_wins_where_another_fails(found) -> None:
    registration, true = found
    poses, values = registration.starts[0]
    lost = pose_error(at(poses, 0), true, MIDDLE)
    assert float(lost.rotation_deg) > 20.0
    assert values[0] < values[1:].min() - 0.1
    assert registration.objective == pytest.approx(values.max())
    assert registration.trace.shape == (80,)
    assert registration.trace[-1] > registration.trace[0]


def test_cameras_at_rest_see_the_volume_at_rest_as_cameras_see_it_moved() -> None:
    """Shifting the volume's affine is the pose's translation."""
    pose, (camera, _) = Pose(jnp.zeros(3), jnp.array([6.0, -12.0, 18.0])), cameras()
    moved = GRID.affine.copy()
    moved[:3, 3] += np.array(pose.translation_mm)
    (rest,) = cameras_at_rest([camera], pose, MIDDLE)
    a = line_integrals(phantom(), moved, camera, "joseph")
    b = line_integrals(phantom(), GRID.affine, rest, "joseph")
    np.testing.assert_allclose(a, b, atol=2e-4)


def test_coarser_volumes_stay_in_place_and_lose_nothing() -> None:
    """Blocks of one value, the last ones of air: their middle of mass is kept exactly."""
    blocks = np.random.default_rng(0).random((4, 5, 6))
    blocks[-1] = 0.0
    mu = np.kron(blocks, np.ones((4, 4, 4)))[:-2]
    small, affine = coarser_volume(mu, GRID.affine, 12.5)
    np.testing.assert_allclose(small, blocks)

    def middle_of_mass(values, affine):
        places = np.stack(np.meshgrid(*[np.arange(n) for n in values.shape], indexing="ij"), -1)
        middle = (places * values[..., None]).sum((0, 1, 2)) / values.sum()
        return affine[:3, :3] @ middle + affine[:3, 3]

    np.testing.assert_allclose(middle_of_mass(small, affine), middle_of_mass(mu, GRID.affine))


@pytest.mark.parametrize("kind", [camera_at, parallel_at])
def test_rays_through_the_cut_end_of_a_body_hardly_count(kind) -> None:
    mu = np.zeros((10, 10, 10), np.float32)
    mu[3:7, 3:7, :8] = 0.02  # cut off below, ends in air above
    grid = centred_grid(mu.shape, (10.0, 10.0, 10.0))
    camera = kind(0.0, shape=(21, 21), pixel_mm=12.0)
    weight = np.asarray(visible(camera, jnp.asarray(beyond(mu)), jnp.linalg.inv(grid.affine)))
    assert set(np.unique(weight)) == {np.float32(FAINT), np.float32(1.0)}
    assert (weight[:14] == 1.0).all()  # the head up
    assert (weight[17:20, 10] < 1.0).all()
    assert (weight[:, [0, -1]] == 1.0).all()  # beside the body there is air


def test_random_poses_fill_their_range() -> None:
    poses = random_poses(jax.random.key(0), 500, 10.0, 20.0)
    angles = np.rad2deg(np.linalg.norm(poses.rotation, axis=1))
    assert 9.5 < angles.max() <= 10.001
    assert angles.min() < 0.5
    assert 19.0 < np.abs(poses.translation_mm).max() <= 20.0
    np.testing.assert_allclose(np.mean(poses.rotation, axis=0), 0.0, atol=0.02)


def test_bad_images_are_refused() -> None:
    view, still = cameras()[:1], Pose(jnp.zeros((1, 3)), jnp.zeros((1, 3)))
    for images in ([], [np.zeros((3, 4))], [np.zeros((80, 72))]):
        with pytest.raises(InputError, match="expected"):
            register(phantom(), GRID.affine, images, view, still, ONE_SCALE)


CASES = {
    "two views": ((0.0, 90.0), None),
    "two views, 10000 photons": ((0.0, 90.0), 1e4),
    "one view": ((0.0,), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ct", ["sample", "full"])
def test_perturbations_of_the_chest_ct_are_found_again(ct, case, request, capsys) -> None:
    """Angle uniform to 10 degrees about a random axis, every shift uniform to +-20 mm; 8 starts.

    The first JXRECON_POSES (8) of 20 hidden poses; the tables of experiments/projector.md take all.
    X-rays: Siddon through the CT's own voxels, 300 x 300 pixels of 1.5 mm on the detector, their
    contrast and brightness changed. Registration: voxels and pixels of 10 and 3.5 mm (4 mm for the
    sample), another projector. The CT is the same: what differs between a CT and X-rays of another
    day is not in these figures.
    """
    path = chest_ct_path()
    if ct == "full":
        path = Path(request.getfixturevalue("real_data")) / "chest_ct" / "ct.nii.gz"
    angles, dose = CASES[case]
    hu, affine = read_volume(path)
    mu = np.asarray(hu_to_mu(np.asarray(hu, np.float32)))
    about = Grid(mu.shape, affine).centre_mm
    views = [camera_at(a, shape=(300, 300), pixel_mm=1.5, isocentre_mm=about) for a in angles]
    count = int(os.environ.get("JXRECON_POSES", "8"))
    true = random_poses(jax.random.key(7), 20, 10.0, 20.0)
    starts = random_poses(jax.random.key(1), 7, 10.0, 20.0)
    starts = jax.tree.map(lambda x: jnp.concatenate([jnp.zeros((1, 3)), x]), starts)
    settings = beam.Settings(dose=dose, floor=0.5 / (dose or 1e6))
    expose = jax.jit(
        lambda mu, camera, key: beam.radiograph(
            line_integrals(mu, affine, camera, "siddon"), key, settings
        )
    )
    on_device, rows = jnp.asarray(mu), []
    for n in range(count):
        key = jax.random.key(100 + n)
        images = [
            0.7 * np.asarray(expose(on_device, camera, jax.random.fold_in(key, v))) + 0.3
            for v, camera in enumerate(cameras_at_rest(views, at(true, n), about))
        ]
        began = time.monotonic()
        registration = register(mu, affine, images, views, starts, settings_of())
        error = pose_error(registration.pose, at(true, n), about)
        seconds = time.monotonic() - began
        rows.append([float(error.rotation_deg), float(error.translation_mm), seconds])
    degrees, mm, seconds = np.array(rows).T
    failures = int(((degrees > 1.0) | (mm > 2.0)).sum())
    with capsys.disabled():
        print(
            f"\n{ct} CT, {case}: median {np.median(degrees):.3f} degrees {np.median(mm):.3f} mm, "
            f"largest {degrees.max():.3f} degrees {mm.max():.3f} mm, failures {failures} of {count}, "
            f"median {np.median(seconds):.1f} s, the first {seconds[0]:.0f} s"
        )
    assert np.median(degrees) < 0.3
    assert np.median(mm) < 0.5
    assert failures <= (count // 10 if len(angles) == 1 else 0)
