"""The body mask: what lies beside the body goes, what lies within it stays."""

import numpy as np
import pytest

from jxrecon.data.body import body_mask, fill_cavities, without_surroundings
from jxrecon.geometry import centred_grid


def scene(spacing_mm=(4.0, 4.0, 3.0)):
    """A trunk with lungs, an open airway and a nose, on a table, under a shell, beside a tube."""
    shape = tuple(int(n / s) for n, s in zip((280, 240, 120), spacing_mm))
    grid = centred_grid(shape, spacing_mm)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ grid.affine[:3, :3].T + grid.affine[:3, 3], -1, 0)
    radius = np.hypot(x / 90, y / 70)
    trunk = radius < 1
    nose = (np.abs(x) < 8) & (y > 0) & (y < 84) & (np.abs(z) < 10)
    airway = np.hypot(x, y + 10) < 9
    lungs = np.hypot((np.abs(x) - 45) / 25, y / 35) < 1
    table = (np.abs(y + 78) < 3) & (np.abs(x) < 120)
    shell = (radius > 1.25) & (radius < 1.31) & (y > 0)
    tube = np.hypot(x - 110, y - 20) < 5
    hu = np.full(shape, -1000, np.int16)
    hu[trunk | nose] = 40
    hu[table | shell | tube] = 300
    hu[lungs] = -850
    hu[airway] = -1000
    return hu, grid.affine, trunk | nose, table | tube | shell


@pytest.mark.parametrize("spacing_mm", [(4.0, 4.0, 3.0), (5.2, 5.2, 2.5), (1.2, 1.2, 5.0)])
def test_table_tube_and_shell_vanish_and_cavities_stay(spacing_mm):
    hu, affine, body, beside = scene(spacing_mm)
    mask = body_mask(hu, affine)
    assert mask.shape == hu.shape
    assert not (mask & beside & ~body).any()
    np.testing.assert_array_equal(mask, body)


def test_air_surrounds_the_body_but_for_a_rim_of_one_voxel():
    hu, _, body, beside = scene()
    clean = without_surroundings(hu, body)
    assert clean.dtype == hu.dtype
    np.testing.assert_array_equal(clean[body], hu[body])
    assert (clean[beside & ~body] == -1000).mean() > 0.9


def test_an_airway_through_the_whole_volume_is_filled_slice_by_slice():
    mask = np.zeros((12, 12, 4), bool)
    mask[2:10, 2:10] = True
    expected = mask.copy()
    mask[5, 5] = False
    mask[2:4, 7] = False  # a bay, open to the side
    expected[2:4, 7] = False
    np.testing.assert_array_equal(fill_cavities(mask), expected)


def test_air_has_no_body():
    assert not body_mask(np.full((20, 20, 20), -1000, np.int16), np.diag([4.0, 4, 4, 1])).any()


def test_a_volume_full_of_tissue_is_body_to_its_border():
    assert body_mask(np.zeros((8, 8, 8), np.int16), np.diag([4.0, 4, 4, 1])).all()
