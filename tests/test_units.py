"""The window and its inverse."""

import jax.numpy as jnp
import numpy as np

from jxrecon.units import Window


def test_window_maps_its_ends_to_minus_one_and_one_and_clips():
    window = Window()
    hu = jnp.asarray([-3000.0, -1024.0, 488.0, 2000.0, 4000.0])
    np.testing.assert_allclose(window.to_unit(hu), [-1, -1, 0, 1, 1], atol=1e-6)


def test_to_hu_inverts_to_unit_inside_the_window():
    window = Window(-1000.0, 500.0)
    hu = jnp.linspace(-1000.0, 500.0, 11)
    np.testing.assert_allclose(window.to_hu(window.to_unit(hu)), hu, atol=1e-3)
    assert window.range == 1500.0
