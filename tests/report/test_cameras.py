"""What the drawings show."""

import numpy as np
from matplotlib.figure import Figure

from jxrecon.geometry import camera_at, centred_grid, parallel_at
from jxrecon.report.cameras import draw_geometry


def test_the_drawing_spans_from_source_to_detector_in_millimetres():
    axes = Figure().add_subplot(projection="3d")
    grid = centred_grid((10, 12, 14), (5.0, 5.0, 5.0), (10.0, 0.0, 0.0))
    draw_geometry(axes, grid, [camera_at(0.0), camera_at(90.0)])
    points = np.concatenate([np.stack(line.get_data_3d(), 1) for line in axes.lines])
    low, high = points.min(0), points.max(0)
    np.testing.assert_allclose([low[0], high[1]], [-1000, 1000], atol=1e-3)  # the sources
    np.testing.assert_allclose([high[0], low[1]], [500, -500], atol=1e-3)  # the detectors
    assert len(axes.lines) == 12 + 2 * 5  # edges of the box; outline and four rays a camera


def test_parallel_rays_are_arrows_along_their_direction():
    axes = Figure().add_subplot(projection="3d")
    draw_geometry(axes, centred_grid((4, 4, 4), (10.0, 10.0, 10.0)), [parallel_at(30.0)])
    assert len(axes.collections) == 4
