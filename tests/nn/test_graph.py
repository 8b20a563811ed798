"""Graph convolution: the formula, Pixel2Mesh's numbers, and one layer over both aggregations."""

from __future__ import annotations

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from jxrecon.mesh import Mesh, Template, template
from jxrecon.mesh.aggregation import mean_graph, normalised, segment_sum
from jxrecon.nn.graph import GraphConvolution


def numbers(name: str, *shape: int, scale: float = 1.0) -> jax.Array:
    """The oracles' rule: normal numbers from a name."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return jnp.asarray(scale * drawn, jnp.float32)


@pytest.fixture(scope="module")
def official(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "pixel2mesh.npz") as arrays:
        return {key: arrays[key] for key in ("mesh/verts1", "mesh/faces1", "gconv/out")}


@pytest.fixture(scope="module")
def mesh(official: dict[str, np.ndarray]) -> Template:
    return template(Mesh(official["mesh/verts1"], official["mesh/faces1"]))


def test_layer_equals_pixel2meshs(official: dict[str, np.ndarray], mesh: Template) -> None:
    variables = {
        "params": {
            "kernel": numbers("weight", 10, 6, scale=10**-0.5),
            "self_kernel": numbers("loop_weight", 10, 6, scale=10**-0.5),
            "bias": numbers("bias", 6, scale=0.1),
        }
    }
    layer = GraphConvolution(6, self_weight=True, precision="highest")
    out = layer.apply(variables, numbers("p2m/x", 2, 42, 10), normalised(mesh, self_loop=False))
    np.testing.assert_allclose(out, official["gconv/out"], atol=2e-6)


def test_operator_equals_igcns(oracles: Path) -> None:
    with np.load(oracles / "igcn.npz") as arrays:
        edges, support, places = arrays["edges"], arrays["support_values"], arrays["features"]
    count = len(places)
    matrix = np.eye(count)
    matrix[edges[:, 0], edges[:, 1]] = matrix[edges[:, 1], edges[:, 0]] = 1
    matrix /= matrix.sum(1, keepdims=True)
    pairs = np.unique(np.sort(edges, 1), axis=0).astype(np.int32)
    mesh = Template(places, np.zeros((0, 3), np.int32), pairs, (matrix > 0).sum(1) - 1)
    dense = normalised(mesh).dense()
    np.testing.assert_allclose(dense, matrix, atol=1e-7)
    np.testing.assert_allclose(dense[dense > 0], support, atol=1e-7)


@pytest.mark.parametrize("features", [3, 9])
def test_layer_is_its_formula_on_either_side_of_the_matrix(mesh: Template, features: int) -> None:
    x, operator = numbers("x", 2, 42, 5), normalised(mesh)
    layer = GraphConvolution(features, self_weight=True, activation=jax.nn.relu)
    variables = layer.init(jax.random.key(0), x, operator)
    weights = variables["params"] = {**variables["params"], "bias": numbers("bias", features)}
    assert {name: value.shape for name, value in weights.items()} == {
        "kernel": (5, features),
        "self_kernel": (5, features),
        "bias": (features,),
    }
    own = np.asarray(x) @ np.asarray(weights["self_kernel"])
    expected = operator.dense() @ np.asarray(x) @ np.asarray(weights["kernel"]) + own
    expected = np.maximum(expected + np.asarray(weights["bias"]), 0)
    np.testing.assert_allclose(layer.apply(variables, x, operator), expected, atol=5e-6)


def test_table_and_segment_sum_agree_through_a_network_in_all_gradients(mesh: Template) -> None:
    x, target = numbers("x", 2, 42, 6), numbers("target", 2, 42, 3)
    layers = [GraphConvolution(8, activation=jnp.tanh), GraphConvolution(3, self_weight=True)]
    keys = jax.random.split(jax.random.key(1), 2)
    operators = normalised(mesh), segment_sum(mean_graph(mesh))
    first = layers[0].init(keys[0], x, operators[0])
    hidden = layers[0].apply(first, x, operators[0])
    weights = [first, layers[1].init(keys[1], hidden, operators[0])]

    def loss(weights, x, aggregate):
        for layer, variables in zip(layers, weights):
            x = layer.apply(variables, x, aggregate)
        return jnp.mean((x - target) ** 2)

    one, other = (
        jax.jit(jax.value_and_grad(lambda w, x, a=a: loss(w, x, a), (0, 1)))(weights, x)
        for a in operators
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(one[1]))


def test_padded_batch_of_meshes_gives_each_what_it_gets_alone(mesh: Template) -> None:
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    meshes = [mesh, template(Mesh(np.eye(4, 3), faces))]
    layer = GraphConvolution(4, self_weight=True, activation=jax.nn.relu)
    x = [numbers("one", 42, 6), numbers("two", 4, 6)]
    variables = layer.init(jax.random.key(0), x[0], normalised(mesh))
    graphs = [mean_graph(m)._replace(nodes=n) for m, n in zip(meshes, x)]
    padded = jraph.pad_with_graphs(jraph.batch(graphs), 50, 400, 3)
    out = jax.jit(lambda g: layer.apply(variables, g.nodes, segment_sum(g)))(padded)
    for rows, m, n in ((slice(42), mesh, x[0]), (slice(42, 46), meshes[1], x[1])):
        np.testing.assert_allclose(out[rows], layer.apply(variables, n, normalised(m)), atol=1e-6)
    assert int(jraph.get_node_padding_mask(padded).sum()) == 46


def test_half_precision_inside_keeps_parameters_in_full(mesh: Template) -> None:
    layer = GraphConvolution(8, dtype=jnp.bfloat16)
    x, operator = numbers("x", 42, 6), normalised(mesh)
    variables = layer.init(jax.random.key(0), x, operator)
    assert variables["params"]["kernel"].dtype == jnp.float32
    out = layer.apply(variables, x, operator)
    assert out.dtype == jnp.bfloat16
    full = GraphConvolution(8).apply(variables, x, operator)
    np.testing.assert_allclose(out.astype(jnp.float32), full, atol=0.05)
