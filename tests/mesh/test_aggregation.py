"""The table of neighbours against jraph's segment sum and against dense matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
import trimesh

from jxrecon.mesh import Mesh, Template, template
from jxrecon.mesh.aggregation import (
    chebyshev,
    chebyshev_graph,
    mean_graph,
    neighbours,
    normalised,
    segment_sum,
)


@pytest.fixture(scope="module")
def uneven() -> Template:
    """A sphere with a hole, some vertices of it with as few as three neighbours."""
    ball = trimesh.creation.icosphere(1, 20.0)
    return template(Mesh(np.array(ball.vertices), np.array(ball.faces)[:-3]))


def adjacency(mesh: Template) -> np.ndarray:
    matrix = np.zeros((len(mesh.vertices),) * 2)
    matrix[mesh.edges[:, 0], mesh.edges[:, 1]] = matrix[mesh.edges[:, 1], mesh.edges[:, 0]] = 1
    return matrix


def features(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_operators_are_the_matrices_of_their_formulas(uneven: Template) -> None:
    a = adjacency(uneven)
    degree, one = a.sum(1), np.eye(len(a))
    np.testing.assert_allclose(
        normalised(uneven).dense(), (a + one) / (degree + 1)[:, None], atol=1e-7
    )
    np.testing.assert_allclose(
        normalised(uneven, self_loop=False).dense(), a / degree[:, None], atol=1e-7
    )
    laplacian = one - a / np.sqrt(degree[:, None] * degree)
    expected = 2 * laplacian / np.linalg.eigvalsh(laplacian)[-1] - one
    np.testing.assert_allclose(chebyshev(uneven).dense(), expected, atol=1e-6)


def test_largest_eigenvalue_is_that_of_the_dense_matrix_on_large_meshes() -> None:
    ball = trimesh.creation.icosphere(2)
    mesh = template(Mesh(np.array(ball.vertices), np.array(ball.faces)))
    spectrum = np.linalg.eigvals(chebyshev(mesh).dense().astype(np.float64)).real
    assert spectrum.max() == pytest.approx(1, abs=1e-5)
    assert spectrum.min() == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("operator", [mean_graph, chebyshev_graph])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_table_equals_segment_sum_forward_and_in_gradients(uneven, operator, batch) -> None:
    graph = operator(uneven)
    fast, slow = neighbours(graph), segment_sum(graph)
    x, w = features(*batch, len(uneven.vertices), 5), features(len(uneven.vertices), 5) ** 2

    def loss(aggregate):
        return lambda x: jnp.sum(jnp.sin(aggregate(x)) * jnp.broadcast_to(w, x.shape))

    np.testing.assert_allclose(fast(x), slow(x), atol=1e-6)
    gradients = jax.grad(loss(fast))(x), jax.grad(loss(slow))(x)
    np.testing.assert_allclose(*gradients, atol=1e-6)
    assert np.abs(gradients[0]).max() > 0.1


def test_second_derivatives_agree(uneven: Template) -> None:
    x = features(len(uneven.vertices), 2)

    def curvature(aggregate):
        def inner(x):
            return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(aggregate(x))))(x) ** 2)

        return jax.grad(inner)(x)

    fast = curvature(normalised(uneven))
    np.testing.assert_allclose(fast, curvature(segment_sum(mean_graph(uneven))), atol=1e-6)
    assert np.abs(fast).max() > 0.01


def test_table_is_a_pytree_that_jit_takes_as_an_argument(uneven: Template) -> None:
    table, x = normalised(uneven), features(len(uneven.vertices), 2)
    passed = jax.jit(lambda table, x: table(x))(table, x)
    np.testing.assert_allclose(passed, table.dense() @ x, atol=1e-6)


def test_padded_batch_of_different_graphs_gives_each_graph_its_own(uneven: Template) -> None:
    tetrahedron = template(
        Mesh(np.eye(4, 3), np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]))
    )
    graphs = [mean_graph(uneven), mean_graph(tetrahedron, self_loop=False)]
    x = [features(len(uneven.vertices), 3), features(4, 3)]
    both = jraph.batch([g._replace(nodes=n) for g, n in zip(graphs, x)])
    padded = jraph.pad_with_graphs(both, 64, 512, 4)
    for aggregate in (segment_sum(padded), neighbours(padded)):
        y = aggregate(padded.nodes)
        count = len(uneven.vertices)
        np.testing.assert_allclose(y[:count], neighbours(graphs[0])(x[0]), atol=1e-6)
        np.testing.assert_allclose(y[count : count + 4], neighbours(graphs[1])(x[1]), atol=1e-6)
    traced = jax.jit(lambda graph: segment_sum(graph)(graph.nodes))(padded)
    np.testing.assert_allclose(traced, y, atol=1e-6)
