"""The chest CT that ships with the package."""

import nibabel as nib
import numpy as np
from scipy import ndimage

from jxrecon.data.body import body_mask
from jxrecon.data.sample import chest_ct, chest_ct_path


def test_the_chest_has_lungs_bone_and_air_around_it():
    hu, affine = chest_ct()
    assert hu.dtype == np.int16
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    np.testing.assert_allclose(np.abs(np.diag(affine)[:3]), 4.0)
    litres = np.abs(np.linalg.det(affine[:3, :3])) * 1e-6
    body = body_mask(hu, affine)
    lungs = body & (hu > -950) & (hu < -600)
    assert 2.0 < lungs.sum() * litres < 8.0
    assert 0.5 < (hu > 250).sum() * litres < 4.0
    np.testing.assert_allclose(body.sum() * litres, 19.2, atol=0.6)  # 19.2 l at 0.7 x 0.7 x 2.5 mm
    beside = hu[~ndimage.binary_dilation(body, iterations=2)]
    assert beside.max() < -300  # no table; a little cloth and foam
    assert np.mean(beside == -1000) > 0.99


def test_the_lungs_lie_above_the_liver():
    hu, _ = chest_ct()
    height = np.arange(hu.shape[2])
    lungs = ((hu > -950) & (hu < -600)).sum((0, 1))
    soft = ((hu > 0) & (hu < 100)).sum((0, 1))
    assert (lungs @ height) / lungs.sum() > (soft @ height) / soft.sum()


def test_the_chest_is_small():
    assert chest_ct_path().stat().st_size <= 600_000
