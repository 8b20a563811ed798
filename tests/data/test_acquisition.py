"""X-rays of a step: of whole patients or of fields, still or moved, clean or noisy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jxrecon import drr
from jxrecon.data.acquisition import AsStored, acquisition
from jxrecon.data.volumes import Scenes, VolumeSet
from jxrecon.experiment import Variety, Xrays
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.types import InputError, SceneBatch

GRID = centred_grid((8, 8, 8), (10.0, 10.0, 10.0))
AROUND = centred_grid((20, 18, 16), (9.0, 10.0, 10.0))
CAMERAS = biplanar(shape=(8, 8), pixel_mm=24.0)
CLEAN = Xrays(noisy=0.0)
KEY = jax.random.key(0)


def cases(n=3, scenes=True):
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(n, *AROUND.shape))
    whole = np.stack([ndimage.gaussian_filter(x, 2.0, mode="constant") for x in whole])
    whole = np.rint(-1000 + 9000 * np.abs(whole)).clip(-1000, 1500).astype(np.int16)
    hu = rng.integers(-1000, 1000, (n, *GRID.shape)).astype(np.int16)
    names, affines = tuple("abcdefgh"[:n]), np.stack([GRID.affine] * n)
    around = Scenes(whole, np.stack([AROUND.affine] * n), 0.5) if scenes else None
    return VolumeSet(names, hu, hu > 0, affines, around)


def observed(xrays, scenes=True, still=False, key=KEY):
    made = acquisition(cases(scenes=scenes), GRID, CAMERAS, xrays)
    batch = jax.tree.map(jnp.asarray, made.cases.batch(np.array([2, 0], np.int32)))
    return jax.jit(made.observe_still if still else made.observe)(batch, key)


def siddon(hu, affine):
    mu = drr.hu_to_mu(jnp.asarray(hu, jnp.float32))
    return [drr.line_integrals(mu, affine, camera, "siddon") for camera in CAMERAS]


def test_xrays_show_the_whole_patient_exactly():
    batch = observed(CLEAN)
    for place, case in enumerate((2, 0)):
        exact = siddon(cases().scenes.hu[case], AROUND.affine)
        for image, expected in zip(batch.images, exact):
            np.testing.assert_allclose(image[place], expected, atol=2e-4)
    np.testing.assert_array_equal(batch.hu, cases().hu[[2, 0]])
    np.testing.assert_array_equal(batch.index, [2, 0])


def test_without_scenes_they_show_the_field():
    batch = observed(CLEAN, scenes=False)
    expected = drr.project(
        drr.hu_to_mu(jnp.asarray(cases().hu[2], jnp.float32)), GRID.affine, CAMERAS
    )
    for image, one in zip(batch.images, expected):
        np.testing.assert_allclose(image[0], one, atol=1e-5)


def test_noise_is_in_the_share_of_cases_asked_for_and_new_at_every_step():
    clean = observed(CLEAN).images[0]
    spoilt = [observed(Xrays(photons=(1e3, 1e3)), key=jax.random.key(n)).images[0] for n in (0, 1)]
    assert all(np.abs(image - clean).max() > 0.01 for image in spoilt)
    assert np.abs(spoilt[0] - spoilt[1]).max() > 0.01
    some = [observed(replace(CLEAN, noisy=0.5), key=jax.random.key(n)).images[0] for n in range(8)]
    changed = [np.abs(a[k] - clean[k]).max() > 0.01 for a in some for k in (0, 1)]
    assert 2 < sum(changed) < 14


def test_a_moved_case_is_another_at_every_step_and_still_itself_when_looked_up():
    moving = replace(CLEAN, variety=Variety(amount=1.0))
    one, other = (observed(moving, key=jax.random.key(n)) for n in (0, 1))
    assert np.abs(one.hu - other.hu).max() > 10
    assert np.abs(one.images[0] - other.images[0]).max() > 0.01
    assert set(np.asarray(one.index) % 3) == {0, 2}
    mirrored = [
        int(i) // 3 for n in range(6) for i in observed(moving, key=jax.random.key(n)).index
    ]
    assert 0 < sum(mirrored) < 12
    still = observed(moving, still=True)
    np.testing.assert_array_equal(still.hu, cases().hu[[2, 0]])
    np.testing.assert_array_equal(still.images[0], observed(CLEAN).images[0])


def test_all_cases_come_with_their_mirror_images():
    made = acquisition(cases(), GRID, CAMERAS, CLEAN).everything()
    assert [view.shape for view in made.images] == [(6, 8, 8)] * 2
    mirrored = siddon(cases().scenes.hu[1][::-1], np.diag([1.0, 1, 1, 1]) @ AROUND.affine)
    for view, image in zip(made.images, mirrored):  # this scene lies symmetrically about x = 0
        np.testing.assert_allclose(view[4], image, atol=2e-4)


def test_the_surround_is_learnt_where_there_is_one():
    made = acquisition(cases(), GRID, CAMERAS, CLEAN)
    found = made.surround()
    assert [view.field.shape for view in found.views] == [(6, 8, 8)] * 2
    for view in found.views:  # pixels of 24 mm are 16 mm wide at the isocentre, 8 of them 128 mm
        np.testing.assert_allclose(view.reach, 40 / 128, rtol=1e-5)
    nothing = cases()._replace(scenes=cases().scenes._replace(beyond=0.0))
    assert acquisition(nothing, GRID, CAMERAS, CLEAN).surround() is None
    assert acquisition(cases(scenes=False), GRID, CAMERAS, CLEAN).surround() is None


@pytest.mark.parametrize(
    ("xrays", "scenes", "words"),
    [
        (Xrays(variety=Variety(amount=1.0)), False, "expected xrays.of=patient"),
        (Xrays(photons=(0.0, 1e4)), True, "expected 0 < fewest"),
        (Xrays(photons=(1e5, 1e4)), True, "expected 0 < fewest"),
        (Xrays(noisy=1.5), True, "a share from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_refused(xrays, scenes, words):
    with pytest.raises(InputError, match=words):
        acquisition(cases(scenes=scenes), GRID, CAMERAS, xrays)


def test_other_kinds_of_cases_hold_all_that_is_learnt_from():
    class Stored:
        names = ("a", "b")

        def batch(self, index):
            return SceneBatch(index, index, index, index)

    made = AsStored(Stored())
    assert made.observe("batch", KEY) == "batch"
    assert made.observe_still("batch", KEY) == "batch"
    np.testing.assert_array_equal(made.everything().index, [0, 1])
