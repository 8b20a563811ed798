"""IGCN+ gives the numbers of its authors' code, faults included: layers, losses and gradients in float32.

The graph network and the loss run by default; the U-Net at 640 x 640 is slow.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.mesh.aggregation import normalised
from jxrecon.mesh.laplacian import uniform_laplacian
from jxrecon.mesh.topology import Template
from jxrecon.methods.surfaces.igcn import losses
from jxrecon.methods.surfaces.igcn.networks import Igcn, IgcnPlus
from jxrecon.nn.graph import GraphNetwork
from jxrecon.nn.perceptual_pooling import bilinear, floor_ceil_bilinear

# Compile quickly: each function here runs once or twice.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SIZE = 640
LEVELS = 6


@pytest.fixture(scope="module")
def oracle(oracles):
    with np.load(oracles / "igcn.npz") as numbers:
        return {key: numbers[key] for key in numbers.files}


@pytest.fixture(scope="module")
def topology(oracle):
    """The oracle's graph as a template: it has no faces."""
    faces, edges = np.zeros((0, 3), np.int32), oracle["edges"]
    return Template(oracle["features"], faces, edges, np.bincount(edges.ravel()))


def official_names():
    """Path in our parameters -> official name without ending."""
    names = {("unet", "norm"): "BatchNormalization"}
    for level in range(LEVELS):
        for half in range(2):
            number = 2 * level + half
            official = f"Conv2D_{number}" if number else "Conv2D"
            names["unet", f"down_{level}{'ab'[half]}"] = official
    for level in range(LEVELS - 1):
        names["unet", f"double_{level}"] = f"upsample_{LEVELS - 1 - level}"
        for half in "ab":
            names["unet", f"up_{level}{half}"] = f"conv{10 - level}_1" + "_1" * (half == "b")
    names["unet", "head"] = "Conv2D_12"
    layers = ["first", *(f"pair_{pair}{half}" for pair in range(4) for half in "ab"), "head"]
    for number, layer in enumerate(layers, 1):
        names["graph", layer] = f"graphconvolution_{number}_vars"
    return names


def endings(official):
    """Our leaf -> the official one's ending."""
    if official.startswith("BatchNorm"):
        return {"scale": "gamma", "bias": "beta"}
    if official.startswith("graph"):
        return {"kernel": "weights_0", "bias": "bias"}
    return {"kernel": "W", "bias": "b"}


def ours(official):
    """Official key -> array, as our parameters."""
    tree = {"unet": {}, "graph": {}}
    for (part, layer), name in official_names().items():
        leaves = {leaf: official[f"gcn/{name}/{end}"] for leaf, end in endings(name).items()}
        if name.startswith("upsample"):
            leaves["kernel"] = leaves["kernel"].swapaxes(2, 3)
        tree[part][layer] = leaves
    return tree


@pytest.fixture(scope="module")
def params(rule):
    return ours(rule.weights("igcn", "igcn"))


def test_parameters_are_as_many_as_the_authors(params, rule):
    official = rule.weights("igcn", "igcn")
    count = {part: sum(x.size for x in jax.tree.leaves(params[part])) for part in params}
    assert count == {"unet": 12_148_189, "graph": 528_899}
    assert sum(count.values()) == sum(x.size for x in official.values())
    shapes = jax.eval_shape(
        lambda: IgcnPlus().init(
            jax.random.key(0),
            jnp.zeros((1, 32, 32, 3)),
            jnp.zeros((1, 5, 2)),
            jnp.zeros((1, 5, 3)),
            lambda x: x,
        )
    )["params"]
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, params)


def test_graph_network_is_the_official_one(oracle, topology, params, rule):
    network = GraphNetwork(256, 4, 3)

    def run(params, x):
        return network.apply(
            {"params": params},
            x,
            normalised(topology),
            capture_intermediates=True,
            mutable=["intermediates"],
        )

    x = jnp.asarray(oracle["act1_projection"])[None]
    (displacement, hidden), seen = jit(run)(params["graph"], x)
    np.testing.assert_allclose(displacement[0], oracle["displacement"], rtol=0, atol=1e-6)
    layers = seen["intermediates"]
    state = layers["first"]["__call__"][0]
    found = {2: state}
    for pair in range(4):
        found[3 + 2 * pair] = layers[f"pair_{pair}a"]["__call__"][0]
        state = (state + layers[f"pair_{pair}b"]["__call__"][0]) / 2
        found[4 + 2 * pair] = state
    np.testing.assert_array_equal(state, hidden)
    for number, value in found.items():
        expected = oracle[f"act{number}_sample"]
        np.testing.assert_allclose(rule.sample(value), expected, rtol=0, atol=1e-6)


def test_mesh_loss_is_the_official_one(oracle, topology):
    found = oracle["features"] + oracle["displacement"]
    terms = losses.plus_mesh(
        jnp.asarray(found)[None], jnp.asarray(oracle["labels"])[None], uniform_laplacian(topology)
    )
    loss = terms["L_pos"] + 0.1 * terms["L_laplacian"]
    np.testing.assert_allclose(loss, oracle["loss_mesh"], rtol=2e-6)


def test_the_released_sampling_gives_zero_at_integers_and_ours_the_pixel(oracle):
    place = jnp.asarray(oracle["ipos"])[None]
    features = jnp.broadcast_to(jnp.arange(1.0, 641.0)[None, :, None, None], (1, 640, 640, 1))
    whole = np.isclose(oracle["ipos"] % 1, 0).any(1)
    assert whole[5:7].all()
    ours, released = (
        bilinear(features, place)[0, :, 0],
        floor_ceil_bilinear(features, place)[0, :, 0],
    )
    np.testing.assert_allclose(ours, oracle["ipos"][:, 0] + 1, rtol=1e-6)
    np.testing.assert_allclose(released[~whole], ours[~whole], rtol=1e-4)
    assert not released[whole].any()
    # Which is what the oracle holds: displacement (0 - 122) / 6800.
    np.testing.assert_allclose(oracle["act1_projection"][whole, :3], -122 / 6800, rtol=1e-3)


def test_the_map_of_igcn_is_read_where_vertices_are_seen_on_an_image_that_is_not_square():
    triangle = np.array([[0, 1], [0, 2], [1, 2]], np.int32)
    mean = normalised(Template(np.eye(3), np.zeros((0, 3), np.int32), triangle, np.full(3, 2)))
    network, random = Igcn(2, (1, 1, 1), 4, 1), np.random.default_rng(0)
    image, vertices = random.normal(size=(1, 16, 24, 1)), random.normal(size=(1, 3, 3))
    seen = np.array([[0, 0], [3, 1], [2, 5]])  # pixels of the map, a quarter as fine
    inputs = [jnp.asarray(x, jnp.float32) for x in (image, (4 * seen + 1.5)[None], vertices)]
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, mean))
    drawn = jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape), jnp.float32), shapes)
    watch = {"capture_intermediates": True, "mutable": "intermediates"}
    (moved, mapping), inside = jit(lambda p: network.apply(p, *inputs, mean, **watch))(drawn)
    dense = inside["intermediates"]["map_head"]["__call__"][0]
    assert (dense.shape, moved.shape) == ((1, 4, 6, 2), (1, 3, 3))
    np.testing.assert_allclose(mapping[0], dense[0][tuple(seen.T)], rtol=1e-5)


def waves(mean, height, pairs):
    y, x = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    planes = [
        mean + height(2 * np.pi * (a * x + b * y) / SIZE + c) for c, (a, b) in enumerate(pairs)
    ]
    return np.stack(planes, -1).astype(np.float32)


@pytest.mark.slow
def test_the_whole_network_its_losses_and_gradients_are_the_official_ones(
    oracle, topology, params, rule
):
    image = waves(127.5, lambda t: 100 * np.sin(t), ((2, 3), (0, 0), (5, -4)))
    image[..., 1] = 122
    label = waves(122, lambda t: 40 * np.cos(t), ((1, 1), (2, -1), (0, 3)))
    np.testing.assert_allclose(rule.sample(image, 256), oracle["img_sample"], atol=1e-4)
    np.testing.assert_allclose(rule.sample(label, 256), oracle["img_label_sample"], atol=1e-4)
    network = IgcnPlus(faults=True)
    first = jnp.asarray(oracle["features"])[None]
    shape = first - jnp.mean(first, axis=1, keepdims=True)
    place, labels = (jnp.asarray(oracle[key])[None] for key in ("ipos", "labels"))

    def objective(params):
        (moved, dense), seen = network.apply(
            {"params": params},
            jnp.asarray(image)[None],
            place,
            shape,
            normalised(topology),
            capture_intermediates=lambda module, _: module.name in ("up_0b", "up_1b", "up_2b"),
            mutable=["intermediates"],
        )
        terms = losses.plus_mesh(first + moved, labels, uniform_laplacian(topology))
        mesh = terms["L_pos"] + 0.1 * terms["L_laplacian"]
        total = mesh + losses.plus_map(dense, jnp.asarray(label)[None], 6800.0)
        return total, (mesh, moved, dense, seen["intermediates"]["unet"])

    run = jit(jax.value_and_grad(objective, has_aux=True))
    (total, (mesh, moved, dense, seen)), slope = run(params)
    scale = np.abs(oracle["unet/fc_sample"]).max()
    got = rule.sample(dense[0], 2048)
    np.testing.assert_allclose(got, oracle["unet/fc_sample"], rtol=0, atol=2e-6 * scale)
    for level in range(3):
        got = np.asarray(seen[f"up_{level}b"]["__call__"][0][0], np.float64).clip(0)
        expected = oracle[f"unet/x{10 - level}_stat"]
        np.testing.assert_allclose([np.mean(got), np.std(got)], expected, rtol=1e-5)
    np.testing.assert_allclose(moved[0], oracle["displacement"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(mesh, oracle["loss_mesh"], rtol=2e-6)
    np.testing.assert_allclose(total, oracle["loss_total"], rtol=2e-6)
    expected = dict(zip(map(str, oracle["param_names"]), oracle["gradnorm"]))
    compared = 0
    for (part, layer), name in official_names().items():
        for leaf, end in endings(name).items():
            norm = np.linalg.norm(np.asarray(slope[part][layer][leaf], np.float64))
            np.testing.assert_allclose(norm, expected[f"gcn/{name}/{end}"], rtol=2e-5)
            compared += 1
    assert compared == len(expected) == 78
