"""Breathing: the equation, what it leaves in place, and one patient's 4D-CT."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from jxrecon.deformation.breathing import displacement, draw_motion, lujan
from jxrecon.deformation.warp import places
from jxrecon.geometry import centred_grid
from jxrecon.io.dicom import read_folder
from jxrecon.phantom.liver import liver_template
from jxrecon.types import InputError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "diaphragm.py"
SPEC = importlib.util.spec_from_file_location("diaphragm", TOOL)
diaphragm = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(diaphragm)


@pytest.fixture(scope="module")
def vertices() -> np.ndarray:
    return liver_template().vertices


def plain(vertices, amplitude_mm=20.0):
    """A motion without bending of its own."""
    motion = draw_motion(np.random.default_rng(0), vertices)
    return motion._replace(amplitude_mm=amplitude_mm, shares=np.zeros_like(motion.shares))


def test_lujan_is_his_cosine():
    phase = np.linspace(-1, 2, 31)
    for power in (1, 2, 3):
        np.testing.assert_allclose(lujan(phase, power), np.cos(np.pi * phase) ** (2 * power))
    np.testing.assert_allclose(lujan(np.array([0.1, 0.6, 1.1]), 0.9, 0.1), [1, 0, 1], atol=1e-12)


def test_the_resting_share_grows_with_the_power():
    rest = [np.mean(lujan(np.linspace(0, 1, 200), power) < 0.1) for power in (0.8, 1.0, 2.0, 3.0)]
    assert rest == sorted(rest)
    assert rest[-1] > 1.3 * rest[0]


def test_the_dome_descends_by_the_amplitude_and_goes_forward_by_its_share(vertices):
    motion = plain(vertices)
    moved = displacement(vertices, motion, 1.0)
    dome, tip = vertices[:, 2].argmax(), vertices[:, 2].argmin()
    np.testing.assert_allclose(moved[dome], [0, 20 * motion.forward, -20], atol=1e-4)
    np.testing.assert_allclose(moved[tip], motion.tip * moved[dome], atol=1e-4)
    assert motion.tip < 1
    np.testing.assert_allclose(displacement(vertices, motion, 0.25), moved / 4, atol=1e-5)


def test_nothing_moves_at_the_end_of_exhalation(vertices):
    motion = draw_motion(np.random.default_rng(4), vertices)
    assert not displacement(vertices, motion, 0.0).any()


def test_every_patient_breathes_in_an_own_way(vertices):
    def moved(seed):
        motion = draw_motion(np.random.default_rng(seed), vertices, (15.0, 15.0))
        return displacement(vertices, motion, 1.0)

    assert np.array_equal(moved(1), moved(1))
    assert np.abs(moved(1) - moved(2)).max() > 1
    for seed in range(10):  # but mainly downwards
        side, forward, down = np.abs(moved(seed)).mean(0)
        assert down > 1.5 * max(side, forward)


def test_breathing_never_folds_space(jacobian):
    grid = centred_grid((24, 20, 24), (12.0, 12.0, 12.0))
    vertices = liver_template().vertices
    for seed in range(8):
        motion = draw_motion(np.random.default_rng(seed), vertices, (25.0, 25.0))
        moved = displacement(places(grid), motion, 1.0)
        assert jacobian(moved, grid).min() > 0.3


def dome(down_mm: float, forward_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Tissue under a paraboloid's top in lung, HU."""
    x, y, z = (s * (np.arange(n) - n / 2) for s, n in zip(spacing_mm, (24, 28, 24)))
    top = 10 - (x[:, None] ** 2 + (y[None] - forward_mm) ** 2) / 160 - down_mm
    return -800 + 850 / (1 + np.exp((z - top[..., None]) / 3))


def test_a_known_motion_of_a_dome_is_measured():
    spacing = np.array([5.0, 5.0, 6.0])
    region = (slice(4, 20), slice(5, 23), slice(5, 17))
    before = dome(0.0, 0.0, spacing)
    for down, forward in ((0.0, 0.0), (7.3, 1.7), (14.1, 3.4)):
        after = ndimage.gaussian_filter(dome(down, forward, spacing), 0.3)
        found = diaphragm.moved_mm(before, after, spacing, region)
        np.testing.assert_allclose(found, [forward, -down], atol=0.6)


def test_lujans_model_is_found_again():
    phase = np.arange(10) / 10
    breath = diaphragm.fit_lujan(13.0 * lujan(phase, 1.3, 0.12))
    np.testing.assert_allclose(breath, [13.0, 1.3, 0.12, 0.0], atol=1e-3)


def test_phases_of_different_shapes_are_refused():
    region = (slice(None),) * 3
    with pytest.raises(InputError, match="two or more of one"):
        diaphragm.motion_of([np.zeros((4, 4, 4)), np.zeros((4, 4, 5))], np.eye(4), region)


@pytest.mark.slow
def test_the_measured_patient_breathes_as_the_docstring_says(real_data):
    folder = real_data / "ct4d_lung_dicom"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    phases = [read_folder(folder / f"{percent:02d}") for percent in range(0, 100, 10)]
    region = (slice(55, 82), slice(38, 66), slice(0, 14))  # the right dome and lung above it
    moved = diaphragm.motion_of([hu for hu, _ in phases], phases[0][1], region)
    np.testing.assert_allclose(-moved[:, 1].min(), 11.0, atol=0.3)
    np.testing.assert_allclose(moved[:, 0].max(), 2.0, atol=0.3)
    assert moved[:, 1].argmax() == 6  # exhaled
    breath = diaphragm.fit_lujan(-moved[:, 1])
    np.testing.assert_allclose(breath.amplitude_mm, 11.4, atol=0.3)
    np.testing.assert_allclose(breath.power, 0.9, atol=0.1)
    assert breath.misfit_mm < 0.6
