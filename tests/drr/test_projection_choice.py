"""Which method "auto" takes."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jxrecon import drr
from jxrecon.geometry import biplanar, camera_at, centred_grid

SHAPE = (40, 48, 56)
GRID = centred_grid(SHAPE, (5.0, 5.0, 5.0))


@pytest.mark.parametrize("camera", biplanar(), ids=["frontal", "lateral"])
def test_standard_views_of_a_canonical_volume_are_aligned(camera):
    assert drr.choose(GRID.affine, camera, SHAPE) == "aligned"


def test_an_axial_view_is_aligned():
    assert drr.choose(GRID.affine, camera_at(0.0, 90.0), SHAPE) == "aligned"


def test_a_detector_rolled_by_a_right_angle_is_aligned():
    camera = camera_at(0.0)
    assert drr.choose(GRID.affine, camera.replace(u=camera.v, v=camera.u), SHAPE) == "aligned"


@pytest.mark.parametrize(("angle", "elevation"), [(1, 0), (45, 0), (0, 20), (110, -30)])
def test_other_views_through_the_volume_are_warped(angle, elevation):
    camera = camera_at(angle, elevation, shape=(64, 64), pixel_mm=5.0)
    assert drr.choose(GRID.affine, camera, SHAPE) == "shear_warp"


def test_a_tilted_volume_is_warped():
    affine = GRID.affine.copy()
    tilt = Rotation.from_euler("xyz", [5, 3, 4], degrees=True).as_matrix()
    affine[:3] = tilt @ affine[:3]
    assert drr.choose(affine, camera_at(0.0, shape=(64, 64)), SHAPE) == "shear_warp"


@pytest.mark.parametrize(
    "place",
    [
        {"source": np.array([0.0, 50.0, 0.0])},
        {"centre": np.array([0.0, -60.0, 0.0])},
        {"source": np.array([0.0, 119.0, 0.0])},
        {"centre": np.array([0.0, 500.0, 0.0])},
    ],
    ids=["source inside", "detector inside", "source in the last slice", "volume behind"],
)
def test_segments_that_do_not_cross_the_volume_are_left_to_joseph(place):
    camera = camera_at(0.0, shape=(16, 16)).replace(**place)
    assert drr.choose(GRID.affine, camera, SHAPE) == "joseph"
    assert np.isfinite(drr.line_integrals(np.ones(SHAPE), GRID.affine, camera)).all()


def test_a_very_wide_cone_is_left_to_joseph():
    camera = camera_at(0.0, source_axis_mm=200.0, source_detector_mm=400.0, pixel_mm=12.0)
    assert drr.choose(GRID.affine, camera, SHAPE) == "joseph"


def test_traced_cameras_are_warped():
    chosen = []

    def trace(camera):
        chosen.append(drr.choose(GRID.affine, camera, SHAPE))
        return camera.source

    jax.eval_shape(trace, camera_at(0.0))
    assert chosen == ["shear_warp"]


def test_volumes_may_be_traced_and_the_choice_remains():
    camera = camera_at(0.0, shape=(16, 16), pixel_mm=20.0)
    program = jax.make_jaxpr(lambda mu: drr.line_integrals(mu, GRID.affine, camera))(
        np.ones(SHAPE, np.float32)
    )
    assert "custom_vjp_call" in str(program)
