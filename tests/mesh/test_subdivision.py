"""Edge-midpoint subdivision and unpooling against Pixel2Mesh's own meshes and outputs."""

from __future__ import annotations

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from jxrecon.mesh import Mesh, enclosed_volume, template
from jxrecon.mesh.subdivision import subdivided, unpool

SEMIAXES = np.array([0.2, 0.16, 0.12], np.float32)


@pytest.fixture(scope="module")
def official(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "pixel2mesh.npz") as arrays:
        names = [name for name in arrays if name.startswith(("mesh/", "gunpooling/"))]
        return {name: arrays[name] for name in names}


def same_faces(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether both list the same triangles, each facing either way and from any corner on."""
    return {frozenset(f) for f in one.tolist()} == {frozenset(f) for f in two.tolist()}


def test_icosahedron_grows_as_pixel2mesh_has_it(official: dict[str, np.ndarray]) -> None:
    mesh = template(Mesh(official["mesh/verts0"], official["mesh/faces0"]))
    for level in (1, 2):
        mesh, _ = subdivided(mesh)
        assert len(mesh.vertices) == (12, 42, 162)[level]
        # theirs is an ellipsoid, onto which they have pushed the new vertices
        pushed = mesh.vertices / np.linalg.norm(mesh.vertices / SEMIAXES, axis=1, keepdims=True)
        np.testing.assert_allclose(pushed, official[f"mesh/verts{level}"], atol=1e-6)
        mesh = mesh._replace(vertices=pushed)
        assert same_faces(mesh.faces, official[f"mesh/faces{level}"])
        edges = np.unique(np.sort(official[f"mesh/edges{level}"], axis=1), axis=0)
        np.testing.assert_array_equal(mesh.edges, edges)


def test_unpooling_equals_pixel2mesh(official: dict[str, np.ndarray]) -> None:
    seed = np.random.default_rng(zlib.crc32(b"p2m/x"))
    x = seed.standard_normal((2, 42, 10)).astype(np.float32)
    mesh = template(Mesh(official["mesh/verts1"], official["mesh/faces1"]))
    finer, edges = subdivided(mesh)
    out = unpool(jnp.asarray(x), edges)
    np.testing.assert_allclose(out, official["gunpooling/out"], atol=1e-6)
    np.testing.assert_allclose(unpool(jnp.asarray(x[1]), edges), out[1], atol=0)
    np.testing.assert_allclose(unpool(mesh.vertices, edges), finer.vertices, atol=1e-7)


def test_faces_keep_their_side_and_the_rim_of_a_hole_is_cut_too() -> None:
    ball = trimesh.creation.icosphere(1, 10.0)
    open_ball = template(Mesh(np.array(ball.vertices), np.array(ball.faces)[2:]))
    finer, _ = subdivided(open_ball)
    assert len(finer.faces) == 4 * len(open_ball.faces)
    assert enclosed_volume(finer.vertices, finer.faces) == pytest.approx(
        enclosed_volume(open_ball.vertices, open_ball.faces), rel=1e-2
    )


def test_gradient_of_unpooling_shares_out_what_arrives() -> None:
    edges = np.array([[0, 1], [1, 2]], np.int32)
    weights = jnp.asarray([[1.0], [2.0], [3.0], [10.0], [100.0]])
    gradient = jax.grad(lambda x: jnp.sum(unpool(x, edges) * weights))(jnp.zeros((3, 1)))
    np.testing.assert_allclose(gradient[:, 0], [6.0, 57.0, 53.0])
