"""Uniform and cotangent Laplacian against closed forms and dense matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from jxrecon.mesh import Mesh, Template, template
from jxrecon.mesh.laplacian import cotangent_laplacian, uniform_laplacian


def ball(subdivisions: int = 2, radius_mm: float = 10.0) -> Template:
    mesh = trimesh.creation.icosphere(subdivisions, radius_mm)
    return template(Mesh(np.array(mesh.vertices), np.array(mesh.faces)))


def sheet(count: int, shear: float = 0.0) -> Template:
    """A flat regular grid of count x count vertices, tilted in space."""
    i, j = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    a = (i * count + j)[:-1, :-1].ravel()
    faces = [[a, a + count, a + count + 1], [a, a + count + 1, a + 1]]
    x, y = 2.0 * i.ravel() + shear * j.ravel(), 3.0 * j.ravel()
    vertices = np.stack([x, y, 0.5 * x - 0.25 * y], axis=1)
    return template(Mesh(vertices, np.concatenate([np.stack(face, 1) for face in faces])))


def interior(mesh: Template, count: int) -> np.ndarray:
    return np.arange(count**2).reshape(count, count)[1:-1, 1:-1].ravel()


def test_flat_regular_grid_has_no_laplacian_inside() -> None:
    mesh = sheet(5, shear=0.7)
    for laplacian in (uniform_laplacian(mesh), cotangent_laplacian(mesh)):
        inside = np.asarray(laplacian(jnp.asarray(mesh.vertices)))[interior(mesh, 5)]
        np.testing.assert_allclose(inside, 0, atol=2e-6)


def test_flat_irregular_mesh_has_no_cotangent_laplacian_inside_but_a_uniform_one() -> None:
    mesh = sheet(5, shear=-1.0)  # acute angles, which no clamp touches
    moved = mesh.vertices.astype(np.float64)
    moved[12] += 0.15 * (moved[13] - moved[12])  # the middle, within the plane
    x = jnp.asarray(moved, jnp.float32)
    np.testing.assert_allclose(cotangent_laplacian(mesh, moved)(x)[12], 0, atol=2e-6)
    assert np.linalg.norm(uniform_laplacian(mesh)(x)[12]) > 0.5


def test_on_a_sphere_it_is_along_the_normal_and_as_high_as_the_cap() -> None:
    # the uniform one only where all edges at a vertex are alike, as in an icosahedron
    for mesh, kind, slack in (
        (ball(0), uniform_laplacian, 1e-6),
        (ball(3), cotangent_laplacian, 0.03),
    ):
        normal = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
        value = np.asarray(kind(mesh)(jnp.asarray(mesh.vertices)), np.float64)
        outwards = np.sum(value * normal, 1)
        along = np.linalg.norm(value - outwards[:, None] * normal, axis=1)
        assert along.max() < slack * outwards.min()
        # a neighbour at distance d lies d^2 / 2R below the tangent plane
        ends = mesh.vertices[mesh.edges]
        square = np.sum((ends[:, 0] - ends[:, 1]) ** 2, 1).mean()
        assert outwards.mean() == pytest.approx(square / 20, rel=0.03)


@pytest.mark.parametrize("kind", [uniform_laplacian, cotangent_laplacian])
def test_equals_its_dense_matrix_forward_and_back_with_and_without_batch(kind) -> None:
    mesh = ball(1)
    laplacian, matrix = kind(mesh), kind(mesh).dense()
    np.testing.assert_allclose(matrix.sum(1), 0, atol=1e-6)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, len(mesh.vertices), 3)), jnp.float32)
    expected = np.einsum("vw,bwc->bvc", matrix, x)
    np.testing.assert_allclose(jax.jit(lambda x: laplacian(x))(x), expected, atol=1e-6)
    np.testing.assert_allclose(laplacian(x[1]), expected[1], atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(laplacian(x) ** 2) / 2)(x)
    np.testing.assert_allclose(gradient, np.einsum("vw,bvc->bwc", matrix, expected), atol=2e-6)


def test_cotangent_weights_are_those_of_the_formula_on_one_fan() -> None:
    angles = np.deg2rad([0, 70, 130, 200, 290])
    rim = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) * [
        [1.0],
        [1.3],
        [0.9],
        [1.1],
        [1],
    ]
    vertices = np.concatenate([[[0.1, 0.0, 0.4]], rim])
    faces = np.array([[0, n + 1, (n + 1) % 5 + 1] for n in range(5)])
    matrix = cotangent_laplacian(template(Mesh(vertices, faces))).dense()

    def cotangent(at: int, one: int, two: int) -> float:
        p, q = vertices[one] - vertices[at], vertices[two] - vertices[at]
        return float(p @ q / np.linalg.norm(np.cross(p, q)))

    spokes = np.array(
        [
            cotangent((n - 1) % 5 + 1, 0, n + 1) + cotangent((n + 1) % 5 + 1, 0, n + 1)
            for n in range(5)
        ]
    )
    assert spokes.min() > 0.05
    np.testing.assert_allclose(-matrix[0, 1:], spokes / spokes.sum(), rtol=1e-5)


def test_slivers_and_obtuse_triangles_keep_weights_positive_and_finite() -> None:
    mesh = sheet(4)
    vertices = mesh.vertices.copy()
    vertices[5] = vertices[6] + [1e-6, 0, 0]
    matrix = cotangent_laplacian(mesh, vertices).dense()
    assert np.isfinite(matrix).all()
    beside = -matrix[mesh.edges[:, 0], mesh.edges[:, 1]]
    assert beside.min() > 0
    assert beside.max() < 1
