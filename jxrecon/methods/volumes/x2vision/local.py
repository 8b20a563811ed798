"""Codes that vary from place to place, for the linear part of a generator of principal codes.

    w_k(p) = w_k + D_k sum_j phi_j(p) u_kj        u ~ N(0, I),    sum_j phi_j(p)^2 = 1

phi_j are Gaussian bumps about the cells of a lattice, of width 1/sqrt 2 cells. If C(p, q) is the covariance
of volumes that w spans, that of volumes becomes C(p, q) (1 + rho(p, q)) with rho about
exp(-|p - q|^2 / 2 L^2), L the edge of a cell.

A weighting of 76 patients that comes near a new patient everywhere does not exist; near one place it does.
Ensemble Kalman filters call this localisation of the covariance (Houtekamer & Mitchell, Monthly Weather
Review 2001); latents with axes in space are those of StyleMapGAN (Kim et al., CVPR 2021). X2Vision has
neither: this is ours.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.geometry import Grid


def cells(grid: Grid, length_mm: float) -> tuple[int, int, int]:
    """Cells of the lattice along each axis, about `length_mm` wide."""
    x, y, z = (
        max(round(float(n * mm / length_mm)), 1) for n, mm in zip(grid.shape, grid.spacing_mm)
    )
    return x, y, z


def bumps(voxels: int, cells: int) -> Float[Array, "voxels cells"]:
    """phi along one axis, at the centres of voxels that fill the same extent as the cells."""
    place = (np.arange(voxels) + 0.5) * (cells / voxels)
    far = place[:, None] - (np.arange(cells) + 0.5)[None]
    phi = np.exp(-(far**2))
    return jnp.asarray(phi / np.linalg.norm(phi, axis=1, keepdims=True), jnp.float32)


def spread_out(u: Float[Array, "b d i j k"], shape: tuple[int, ...]) -> Float[Array, "b d x y z"]:
    """sum_j phi_j u_j at every voxel of a grid of this shape."""
    for axis, voxels in enumerate(shape, start=2):
        phi = bumps(voxels, u.shape[axis])
        u = jnp.moveaxis(jnp.tensordot(u, phi, ((axis,), (1,)), precision="highest"), -1, axis)
    return u
