"""A SIMULATED earlier scan: nothing asked, nothing done; what is asked is what is there."""

import functools

import jax
import numpy as np
import pytest

from jxrecon.data.earlier_scans import Changes, simulated_earlier_scan, smooth_displacement
from jxrecon.deformation.warp import places
from jxrecon.geometry import centred_grid
from jxrecon.types import InputError

# Compile quickly: what runs once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

GRID = centred_grid((24, 20, 16), (8.0, 10.0, 12.0))
SPACING = (8.0, 10.0, 12.0)
KEYS = jax.random.split(jax.random.key(0), 8)
NOTHING = {
    "displacement_mm": 0.0,
    "rotation_deg": 0.0,
    "translation_mm": 0.0,
    "gain": 0.0,
    "noise_hu": 0.0,
}
X, Y, Z = np.moveaxis(places(GRID), -1, 0)
HU = np.random.default_rng(0).uniform(-900, 1500, GRID.shape).astype(np.float32)


@functools.cache
def scan(**options):
    """(hu, key) -> the scan, with these options and no others."""
    changes = Changes(**{**NOTHING, **options})
    return jit(lambda hu, key: simulated_earlier_scan(hu, SPACING, key, changes))


def seen_motion(**options):
    """Where what is in the middle of the field comes from, mm: the scan of three ramps."""
    of = scan(**options)
    return [
        np.stack([of(ramp, key) - ramp for ramp in (X, Y, Z)], -1)[4:-4, 4:-4, 4:-4]
        for key in KEYS[:3]
    ]


@pytest.fixture(scope="module")
def fields():
    """d for eight keys, 4 mm and 40 mm."""
    make = jit(jax.vmap(lambda key: smooth_displacement(places(GRID), key, 4.0, 40.0)))
    return np.asarray(make(KEYS))


def test_with_every_amplitude_zero_the_scan_is_the_present_one():
    np.testing.assert_array_equal(scan()(HU, KEYS[0]), HU)


def test_the_same_key_gives_the_same_scan_and_another_another():
    of = jit(lambda hu, key: simulated_earlier_scan(hu, SPACING, key))
    one, again, other = (np.asarray(of(HU, KEYS[n])) for n in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.isfinite(one).all()
    assert np.abs(one - other).mean() > 50


def test_the_displacement_has_the_root_mean_square_asked_for(fields):
    rms = np.sqrt((fields**2).sum(-1).mean((1, 2, 3)))
    np.testing.assert_allclose(rms, 4.0, rtol=1e-5)


def test_the_displacement_correlates_as_a_gaussian_of_the_length_asked_for(fields):
    # 5 voxels of 8 mm are one correlation length: exp(-1/2); 10 are two: exp(-2). Not about the mean,
    # which is random too.
    power = (fields**2).mean()
    for step, expected in ((5, 0.61), (10, 0.14)):
        found = (fields[:, step:] * fields[:, :-step]).mean() / power
        assert found == pytest.approx(expected, abs=0.12)


def test_space_does_not_fold(fields, jacobian):
    assert min(jacobian(d, GRID).min() for d in fields) > 0.5


def test_the_scan_moves_by_the_displacement():
    for moved in seen_motion(displacement_mm=4.0):
        assert 1.5 < np.sqrt((moved**2).sum(-1).mean()) < 7
        assert moved.std((0, 1, 2)).max() > 0.5  # no mere shift


def test_the_scan_is_shifted_by_the_length_asked_for():
    for moved in seen_motion(translation_mm=3.0):
        np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), 3.0, atol=1e-3)


def test_the_scan_is_turned_by_the_angle_asked_for():
    points = places(GRID)[4:-4, 4:-4, 4:-4].reshape(-1, 3)
    for moved in seen_motion(rotation_deg=3.0):
        matrix = np.linalg.lstsq(points, points + moved.reshape(-1, 3))[0].T
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-4)
        assert np.rad2deg(np.arccos((np.trace(matrix) - 1) / 2)) == pytest.approx(3.0, abs=0.01)


def test_noise_is_as_strong_as_asked_for():
    noise = np.asarray(scan(noise_hu=15.0)(HU, KEYS[0])) - HU
    assert noise.std() == pytest.approx(15.0, rel=0.05)
    assert abs(noise.mean()) < 1


def test_gain_scales_what_is_above_air():
    hu = HU.copy()
    hu[:4] = -1000
    found = [np.asarray(scan(gain=0.02)(hu, key)) for key in KEYS]
    gains = [(one[4:] + 1000) / (hu[4:] + 1000) - 1 for one in found]
    assert max(one.std() for one in gains) < 1e-4
    assert 0.005 < np.std([one.mean() for one in gains]) < 0.05
    assert all((one[:4] == -1000).all() for one in found)


@pytest.mark.parametrize(
    "wrong", [{"noise_hu": -1.0}, {"correlation_mm": 0.0}, {"displacement_mm": float("nan")}]
)
def test_bad_amplitudes_are_refused_in_one_line(wrong):
    with pytest.raises(InputError, match="expected amplitudes") as refused:
        simulated_earlier_scan(HU, SPACING, KEYS[0], Changes(**wrong))
    assert "\n" not in str(refused.value)
