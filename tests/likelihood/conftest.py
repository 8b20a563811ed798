"""A small SYNTHETIC population, as patients to be projected and as X-rays by the exact projector."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.data.scenes import painted
from jxrecon.data.volumes import Scenes, VolumeSet
from jxrecon.drr import hu_to_mu, line_integrals
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.likelihood.patients import patients_of

GRID = centred_grid((8, 8, 8), (28.0, 30.0, 25.0))
CAMERAS = biplanar(shape=(48, 48), pixel_mm=8.0)
KNOWN, NEW = 16, 3


@pytest.fixture(scope="session")
def scenes():
    """Of the known subjects, then of the new ones."""
    return painted(range(KNOWN + NEW), 0, GRID)


@pytest.fixture(scope="session")
def patients(scenes):
    known = Scenes(scenes.hu[:KNOWN], scenes.affines[:KNOWN], scenes.beyond)
    nothing = np.zeros((KNOWN, *GRID.shape), np.int16)
    names = tuple(map(str, range(KNOWN)))
    affines = np.tile(GRID.affine, (KNOWN, 1, 1))
    return patients_of(VolumeSet(names, nothing, nothing > 0, affines, known), GRID)


@pytest.fixture(scope="session")
def taken(scenes):
    """(number of a subject, camera) -> an X-ray of the whole scene by Siddon's projector."""

    def xray(number, camera):
        mu = hu_to_mu(jnp.asarray(scenes.hu[number], jnp.float32))
        return np.asarray(line_integrals(mu, scenes.affines[number], camera, "siddon"))

    return xray


@pytest.fixture(scope="session")
def new_pairs(taken):
    """The new subjects' X-rays from where the cameras are told to stand."""
    return [[taken(n, camera) for camera in CAMERAS] for n in range(KNOWN, KNOWN + NEW)]
