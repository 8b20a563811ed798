"""Perturbations: each does what it says, in mm and HU, and nothing else."""

import numpy as np
import pytest

from jxrecon.metrics import perturbations
from jxrecon.metrics.perturbations import PERTURBATIONS, Pair
from jxrecon.types import InputError

SPACING = np.array([4.0, 3.0, 5.0])


def patient():
    """A box of soft tissue in air, a layer of fat, bone in the middle, lung on the left."""
    hu = np.full((24, 26, 20), -1000.0, np.float32)
    hu[3:21, 3:23, 2:18] = -100.0
    hu[5:19, 6:20, 2:18] = 50.0
    hu[11:13, 12:14, 2:18] = 700.0
    body = hu > -300
    hu[5:11, 7:19, 4:16] = -850.0
    return hu, body


def centre_mm(hu):
    """Centre of mass of what is above air."""
    weight = hu.astype(np.float64) + 1000.0
    places = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(hu.shape, SPACING)), indexing="ij")
    return np.array([np.sum(weight * place) for place in places]) / weight.sum()


def test_blur_keeps_the_mean_and_spreads_by_its_width_in_mm():
    point = np.zeros((41, 41, 41), np.float32)
    point[20, 20, 20] = 1000.0
    spread = perturbations.gaussian_blur(point, SPACING, 10.0)
    assert spread.sum() == pytest.approx(1000.0, rel=1e-5)
    for axis, mm in enumerate(SPACING):
        profile = spread.sum(tuple({0, 1, 2} - {axis}))
        width = np.sqrt(np.sum(profile * ((np.arange(41) - 20) * mm) ** 2) / profile.sum())
        assert width == pytest.approx(10.0, rel=0.01)
    hu, _ = patient()
    assert perturbations.gaussian_blur(hu, SPACING).mean() == pytest.approx(hu.mean(), abs=0.01)


def test_noise_has_its_standard_deviation_and_is_the_same_each_time():
    hu, _ = patient()
    off = perturbations.noise(hu, 50.0) - hu
    assert off.std() == pytest.approx(50.0, rel=0.03)
    assert abs(off.mean()) < 2.0
    np.testing.assert_array_equal(perturbations.noise(hu), perturbations.noise(hu))
    assert (perturbations.noise(hu, seed=1) != perturbations.noise(hu)).any()


@pytest.mark.parametrize("offset_mm", [(-5.0, 0.0, 0.0), (0.0, 5.0, 0.0), (3.0, 0.0, -4.0)])
def test_shift_moves_by_millimetres_between_voxels_too(offset_mm):
    hu, _ = patient()
    moved = centre_mm(perturbations.shift(hu, SPACING, offset_mm)) - centre_mm(hu)
    np.testing.assert_allclose(moved, offset_mm, atol=1e-3)


def test_bone_alone_is_offset():
    hu, _ = patient()
    fainter = perturbations.bone_offset(hu, -200.0)
    np.testing.assert_array_equal(fainter[hu >= 200], 500.0)
    np.testing.assert_array_equal(fainter[hu < 200], hu[hu < 200])


def test_flip_exchanges_left_and_right_alone():
    hu, _ = patient()
    flipped = perturbations.flip(hu)
    np.testing.assert_array_equal(flipped[3], hu[-4])
    np.testing.assert_array_equal(perturbations.flip(flipped), hu)


@pytest.mark.parametrize("shape", [(8, 6, 4), (7, 5, 9)])
def test_the_border_is_air_and_makes_eight_times_the_voxels(shape):
    truth = np.random.default_rng(0).uniform(-900, 900, shape).astype(np.float32)
    before = Pair(truth, truth + 7, truth > 0)
    after = perturbations.air_border(before)
    inner = tuple(slice(n // 2, n // 2 + n) for n in shape)
    for old, new, fill in zip(before, after, (-1000, -1000, False)):
        assert new.size == 8 * old.size
        np.testing.assert_array_equal(new[inner], old)
        outside = np.ones(new.shape, bool)
        outside[inner] = False
        assert (new[outside] == fill).all()


def test_the_sphere_has_the_volume_of_its_diameter():
    share = perturbations.sphere((24, 26, 20), SPACING, (9, 13, 10), 14.0)
    assert share.sum() * SPACING.prod() == pytest.approx(4 / 3 * np.pi * 7.0**3, rel=0.02)
    assert share.max() == 1.0
    middle = np.array([np.sum(share * i) for i in np.indices(share.shape)]) / share.sum()
    np.testing.assert_allclose(middle, (9, 13, 10), atol=1e-4)


def test_a_sphere_at_the_corner_is_cut_by_the_volume():
    whole = perturbations.sphere((9, 9, 9), SPACING, (4, 4, 4)).sum()
    assert 0 < perturbations.sphere((9, 9, 9), SPACING, (0, 0, 0)).sum() < whole / 2


def test_the_nodule_lies_wholly_in_lung_or_else_in_fat():
    hu, body = patient()
    place = perturbations.nodule_place(hu, body, SPACING)
    covered = perturbations.sphere(hu.shape, SPACING, place) > 0
    np.testing.assert_array_equal(hu[covered], -850.0)
    hu[hu == -850.0] = 50.0
    hu[3:10] = np.where(body[3:10], -100.0, hu[3:10])  # fat wide enough for it
    covered = perturbations.sphere(hu.shape, SPACING, perturbations.nodule_place(hu, body, SPACING))
    np.testing.assert_array_equal(hu[covered > 0], -100.0)


def test_the_nodule_takes_the_widest_place_where_none_is_wide_enough():
    hu, body = patient()
    hu[body & (hu < 0)] = 900.0
    hu[14:17, 8:11, 8:11] = 50.0
    hu[body & (hu == 50.0) & ~np.isin(np.arange(24), (14, 15, 16))[:, None, None]] = 900.0
    place = perturbations.nodule_place(hu, body, SPACING)
    assert hu[place] == 50.0
    assert body[place]


def test_no_place_for_a_nodule_is_told():
    hu = np.full((8, 8, 8), -1000.0, np.float32)
    with pytest.raises(InputError, match="nodule"):
        perturbations.nodule_place(hu, hu > -300, SPACING)


def test_the_nodule_is_soft_tissue_and_the_rest_stays():
    hu, _ = patient()
    ill = perturbations.add_nodule(hu, SPACING, (8, 13, 10))
    share = perturbations.sphere(hu.shape, SPACING, (8, 13, 10))
    np.testing.assert_array_equal(ill[share == 0], hu[share == 0])
    np.testing.assert_allclose(ill[share == 1], perturbations.NODULE_HU, atol=1e-3)


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: p.name)
def test_every_perturbation_keeps_the_pair_before_it_and_changes_what_it_says(perturbation):
    hu, body = patient()
    kept = hu.copy()
    change = perturbation.apply(hu, body, SPACING, lambda v: v + 10.0)
    np.testing.assert_array_equal(hu, kept)
    healthy = change.after if perturbation.name == "removed nodule" else change.before
    np.testing.assert_array_equal(healthy.recon_hu, hu + 10.0)
    if perturbation.name == "removed nodule":
        assert (change.before.truth_hu != hu)[change.focus]
    else:
        assert change.focus == tuple(n // 2 for n in change.after.truth_hu.shape)
    if perturbation.name == "8x air border":
        assert change.after.truth_hu.size == 8 * hu.size
        return
    np.testing.assert_array_equal(change.after.truth_hu, change.before.truth_hu)
    assert (change.after.recon_hu != change.before.recon_hu).any()


def test_the_missed_nodule_is_in_the_truth_and_in_the_reconstruction_before():
    hu, body = patient()
    (perturbation,) = (p for p in PERTURBATIONS if p.name == "removed nodule")
    change = perturbation.apply(hu, body, SPACING, lambda v: v - 10.0)
    ill = change.before.truth_hu
    np.testing.assert_array_equal(change.after.truth_hu, ill)
    share = perturbations.sphere(hu.shape, SPACING, change.focus)
    np.testing.assert_array_equal(ill != hu, share > 0)
    np.testing.assert_array_equal(change.before.recon_hu[share == 1], ill[share == 1])
    np.testing.assert_array_equal(change.before.recon_hu[share == 0], hu[share == 0] - 10.0)
    np.testing.assert_array_equal(change.after.recon_hu, hu - 10.0)
