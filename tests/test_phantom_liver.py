"""SYNTHETIC livers: closed, of one topology, plausible in size and side."""

import numpy as np

from jxrecon.mesh.quality import enclosed_volume, self_intersecting_faces
from jxrecon.phantom.liver import liver, liver_template


def test_livers_are_closed_surfaces_of_one_topology_without_crossings():
    template = liver_template()
    assert template.vertices.shape == (642, 3)
    assert template.faces.shape == (1280, 3)
    assert len(template.edges) == 1920  # V - E + F = 2
    for subject in range(4):
        vertices = liver(0, subject)
        assert vertices.shape == (642, 3)
        assert vertices.dtype == np.float32
        assert not np.any(self_intersecting_faces(vertices, template.faces))


def test_livers_have_the_size_of_livers():
    faces = liver_template().faces
    livers = [liver(1, n) for n in range(20)]
    ml = np.array([enclosed_volume(v, faces) for v in livers]) / 1000
    assert ml.min() > 600
    assert ml.max() < 2200
    assert ml.std() > 50
    extent = np.mean([np.ptp(v, axis=0) for v in livers], axis=0)
    np.testing.assert_allclose(extent, [200, 140, 125], atol=15)


def test_the_right_lobe_is_the_large_one():
    for subject in range(10):
        x, _, z = liver(2, subject).T
        assert np.ptp(z[x > 20]) > 2 * np.ptp(z[x < -60])
        assert x[z.argmin()] > 20  # the tip reaches down on the right
        assert np.all(np.abs(liver(2, subject).mean(0)) < 1e-3)


def test_a_liver_is_a_function_of_its_numbers():
    assert np.array_equal(liver(0, 5), liver(0, 5))
    assert np.abs(liver(0, 5) - liver(0, 6)).max() > 3
    assert np.abs(liver(0, 5) - liver(1, 5)).max() > 3
