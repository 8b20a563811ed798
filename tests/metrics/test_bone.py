"""Bones against distances worked out by hand and by brute force, and what is said where there are none."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jxrecon.metrics.bone import case_metrics, dice, surface, surface_distances

SPACING = (1.0, 2.0, 5.0)


def hu(mask):
    return np.where(mask, np.float32(700), np.float32(-1000))


def blob(seed, shape=(7, 8, 6)):
    """A random mask with holes."""
    return np.random.default_rng(seed).random(shape) < 0.3


def one(*place):
    mask = np.zeros((4, 5, 6), bool)
    mask[place] = True
    return mask


def test_the_surface_of_a_full_cube_is_its_shell_and_the_border_of_the_volume_bounds_it():
    mask = np.zeros((7, 7, 7), bool)
    mask[1:6, 1:6, 1:6] = True
    assert surface(mask).sum() == 5**3 - 3**3
    assert not surface(mask)[2:5, 2:5, 2:5].any()
    assert surface(np.ones((4, 4, 4), bool)).sum() == 4**3 - 2**3


def test_a_missing_edge_neighbour_alone_does_not_make_a_surface():
    mask = np.ones((5, 5, 5), bool)
    mask[1, 1, 2] = False  # of (2, 2, 2) the edge, of (1, 2, 2) the face
    assert not surface(mask)[2, 2, 2]
    assert surface(mask)[1, 2, 2]


@pytest.mark.parametrize(("axis", "expected"), [(0, 3.0), (1, 6.0), (2, 15.0)])
def test_two_single_voxels_are_as_far_apart_as_their_centres_in_mm(axis, expected):
    moved = tuple(3 if i == axis else 0 for i in range(3))
    found = surface_distances(one(0, 0, 0), one(*moved), SPACING)
    assert found == pytest.approx((expected, expected))


def test_distances_equal_those_of_all_pairs_of_surface_voxels():
    a, b = blob(0), blob(1)
    b[:3] = False  # the volume's corner is empty in one of them: the two ways differ
    pairs = cdist(*(np.argwhere(surface(mask)) * SPACING for mask in (a, b)))
    there, back = pairs.min(1), pairs.min(0)
    assert there.mean() != pytest.approx(back.mean(), rel=0.1)
    assd, hd95 = surface_distances(a, b, np.array(SPACING))
    assert assd == pytest.approx((there.mean() + back.mean()) / 2)
    assert hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert surface_distances(b, a, SPACING) == pytest.approx((assd, hd95))


def test_air_around_the_volumes_moves_no_bone_metric():
    a, b = hu(blob(2)), hu(blob(3))
    wide = [np.pad(volume, 4, constant_values=-1000) for volume in (a, b)]
    assert case_metrics(*wide, SPACING) == pytest.approx(case_metrics(a, b, SPACING))


def test_bone_begins_at_200_hu_in_both_volumes():
    truth, recon = np.full((2, 4, 4, 4), 199.0, np.float32)
    truth[1, 1, 1:3] = 200.0
    recon[1, 1, 2:] = 3000.0
    found = case_metrics(truth, recon, (1.0, 1.0, 2.0))
    assert found["bone_dice"] == pytest.approx(0.5)
    assert found["bone_assd_mm"] == pytest.approx(1.0)  # one of two voxels each is 2 mm off
    assert found["bone_hd95_mm"] == pytest.approx(1.9)  # NumPy's linear percentile of (0, 2)


def test_equal_bones_are_at_distance_zero():
    volume = hu(blob(4))
    assert case_metrics(volume, volume, SPACING) == {
        "bone_dice": 1.0,
        "bone_assd_mm": 0.0,
        "bone_hd95_mm": 0.0,
    }


def test_where_a_volume_has_no_bone_distances_are_nan_and_dice_counts_the_miss():
    some, none = hu(blob(5)), hu(np.zeros((7, 8, 6), bool))
    for pair in ((some, none), (none, some)):
        found = case_metrics(*pair, SPACING)
        assert found["bone_dice"] == 0.0
        assert np.isnan([found["bone_assd_mm"], found["bone_hd95_mm"]]).all()
    assert np.isnan(list(case_metrics(none, none, SPACING).values())).all()
    assert np.isnan(dice(none > 0, none > 0))
