"""Layers, network and losses give Pixel2Mesh's own numbers, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.geometry import Camera
from jxrecon.mesh import Mesh, template
from jxrecon.mesh.aggregation import normalised
from jxrecon.mesh.laplacian import uniform_laplacian
from jxrecon.mesh.subdivision import unpool
from jxrecon.methods.base.surface_regression import totalled
from jxrecon.methods.surfaces.pixel2mesh import losses
from jxrecon.methods.surfaces.pixel2mesh.networks import Level, Pixel2Mesh, centres
from jxrecon.nn.blocks import Conv
from jxrecon.nn.graph import GraphConvolution, GraphNetwork
from jxrecon.nn.perceptual_pooling import bilinear, floor_ceil_bilinear

# Compile quickly: each function here runs once or twice.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# How the official codes sample features at places on the image.


def aligned(features, place, image):
    """First and last pixel centres of a level lie on the image's: the PyTorch code under PyTorch 1.1."""
    scale = [(n - 1) / (m - 1) for n, m in zip(features.shape[1:3], image)]
    return bilinear(features, place * jnp.array(scale, place.dtype)[None, None])


def unaligned(features, place, image):
    """The PyTorch code under a current PyTorch: a place is first clamped, then stretched past the border.

    Outside the level there are zeros.
    """
    scale = [n / (m - 1) for n, m in zip(features.shape[1:3], image)]
    last = jnp.array([m - 1 for m in image], place.dtype)[None, None]
    place = jnp.clip(place, 0.0, last) * jnp.array(scale, place.dtype)[None, None] - 0.5
    padded = jnp.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return bilinear(padded, place + 1.0)


def tensorflow(features, place, image):
    """The authors' TensorFlow code: places times the ratio of sizes, and zero at integers."""
    scale = [n / m for n, m in zip(features.shape[1:3], image)]
    return floor_ceil_bilinear(features, place * jnp.array(scale, place.dtype)[None, None])


def tensorflow_down(features, taps, stride, name):
    """A strided convolution that puts its odd zero last, as TensorFlow does."""
    half = taps // 2
    return Conv(features, taps, stride, ((half - 1, half),) * 2, name=name)


OFFICIAL = {
    aligned: "align_corners_true",
    unaligned: "align_corners_false",
    tensorflow: "tensorflow_compatible",
}


def wide(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def mesh(p2m, level):
    return template(Mesh(p2m[f"mesh/verts{level}"], p2m[f"mesh/faces{level}"]))


def convolution(weights, name):
    return {
        "kernel": weights[f"{name}weight"],
        "self_kernel": weights[f"{name}loop_weight"],
        "bias": weights[f"{name}bias"],
    }


def bottleneck(weights, name, pairs):
    """Official names -> a GraphNetwork's parameters."""
    tree = {
        "first": convolution(weights, f"{name}conv1."),
        "head": convolution(weights, f"{name}conv2."),
    }
    for pair in range(pairs):
        for half, conv in ("a", "conv1."), ("b", "conv2."):
            tree[f"pair_{pair}{half}"] = convolution(weights, f"{name}blocks.{pair}.{conv}")
    return tree


def camera(shape, focal, offset=0.75):
    """The official pinhole (x right, y up, looking along -z), its objects at z = -offset."""
    return Camera(
        source=jnp.array([0.0, 0.0, offset]),
        centre=jnp.array([0.0, 0.0, offset - 1.0]),
        u=jnp.array([1.0 / focal[0], 0.0, 0.0]),
        v=jnp.array([0.0, -1.0 / focal[1], 0.0]),
        shape=shape,
    )


def channels_last(x):
    return jnp.moveaxis(jnp.asarray(x, jnp.float64), 1, -1)


@pytest.fixture(scope="module")
def x(rule):
    return rule.normal("p2m/x", (2, 42, 10))


def test_graph_convolution_is_the_official_one(p2m, rule, x):
    with jax.enable_x64(True):
        module = GraphConvolution(6, self_weight=True, precision="highest")
        params = wide(convolution(rule.weights("pixel2mesh", "gconv"), ""))
        out = module.apply({"params": params}, wide(x), normalised(mesh(p2m, 1), self_loop=False))
        np.testing.assert_allclose(out, p2m["gconv/out"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["act", "noact"])
def test_residual_blocks_are_the_official_ones(p2m, rule, x, name):
    with jax.enable_x64(True):
        activation = jax.nn.relu if name == "act" else lambda x: x
        module = GraphNetwork(16, 3, 3, self_weight=True, activation=activation)
        weights = rule.weights("pixel2mesh", f"gbottleneck_{name}")
        params = wide(bottleneck(weights, "", 3))
        mean = normalised(mesh(p2m, 1), self_loop=False)
        out, hidden = jit(module.apply)({"params": params}, wide(x), mean)
        expected = p2m[f"gbottleneck_{name}/out"], p2m[f"gbottleneck_{name}/hidden"]
        np.testing.assert_allclose(out, expected[0], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(hidden, expected[1], rtol=1e-9, atol=1e-11)


def test_unpooling_is_the_official_one(p2m, x):
    with jax.enable_x64(True):
        out = unpool(wide(x), p2m["mesh/edges1"])
        np.testing.assert_allclose(out, p2m["gunpooling/out"], rtol=1e-12)


@pytest.mark.parametrize("pooling", OFFICIAL)
def test_features_at_projected_vertices_are_the_official_ones(p2m, rule, pooling):
    with jax.enable_x64(True):
        points = wide(p2m["gproj/points"])
        place = jit(wide(camera((224, 224), (248.0, 248.0))).place_of)(points)
        maps = [rule.normal(f"p2m/map{n}", (2, k, n, n)) for n, k in ((28, 4), (14, 5), (7, 6))]
        pool = jit(lambda m: pooling(m, place, (224, 224)))
        found = [pool(channels_last(m)) for m in maps]
        found = jnp.concatenate([points, *found], axis=-1)
        np.testing.assert_allclose(found, p2m[f"gproj/{OFFICIAL[pooling]}"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("pooling", [aligned, unaligned])
def test_features_on_an_image_that_is_not_square_are_the_official_ones(p2m, rule, pooling):
    with jax.enable_x64(True):
        points = wide(p2m["gproj/points"])
        place = jit(wide(camera((96, 160), (150.0, 130.0))).place_of)(points)
        features = channels_last(rule.normal("p2m/map12x20", (2, 4, 12, 20)))
        found = jit(lambda *x: pooling(*x, (96, 160)))(features, place)
        expected = p2m[f"gproj/nonsquare_{OFFICIAL[pooling]}"][..., 3:]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_a_level_whose_features_are_their_places_on_the_image_gives_the_places_of_vertices():
    rows, columns = (4 * np.arange(n) + 1.5 for n in (4, 6))  # the middles of 4 x 4 pixels
    level = jnp.asarray(np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)[None], jnp.float32)
    place = jnp.array([[[1.5, 1.5], [7.25, 3.0], [12.0, 21.5]]])
    np.testing.assert_allclose(centres(level, place, (16, 24)), place, rtol=1e-6)


FULL = {"ac0": unaligned, "ac1": aligned, "tf": tensorflow}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_the_whole_network_is_the_official_one(p2m, rule, name):
    y, x = np.meshgrid(np.arange(224), np.arange(224), indexing="ij")
    waves = ((1, 2), (3, -1), (-2, 4))
    image = [2 * np.sin(2 * np.pi * (a * x + b * y) / 224 + c) for c, (a, b) in enumerate(waves)]
    image = np.stack(image).astype(np.float32)
    np.testing.assert_allclose(rule.sample(image, 256), p2m["full/img_sample"], atol=1e-6)
    weights = rule.weights("pixel2mesh", "p2m_full")
    encoder = {
        key.split(".")[1]: {
            "kernel": weights[key].transpose(2, 3, 1, 0),
            "bias": weights[key.replace("weight", "bias")],
        }
        for key in weights
        if key.startswith("nn_encoder") and key.endswith("weight")
    }
    blocks = {f"gcn_{n}": bottleneck(weights, f"gcns.{n}.", 6) for n in range(3)}
    params = {"encoder": encoder, **blocks, "head": convolution(weights, "gconv.")}
    with jax.enable_x64(True):
        view = wide(camera((224, 224), (248.0, 248.0)))
        down = tensorflow_down if name == "tf" else Conv
        network = Pixel2Mesh(view, hidden=192, pooling=FULL[name], down=down)
        levels = [
            Level(
                normalised(mesh(p2m, n), self_loop=False),
                p2m[f"mesh/edges{n - 1}"] if n else None,
            )
            for n in range(3)
        ]
        first = wide(p2m["mesh/verts0"][None])
        image = wide(np.moveaxis(image, 0, -1)[None])
        given, seen = jit(
            lambda params, image, first: network.apply(
                {"params": params},
                image,
                first,
                levels,
                capture_intermediates=lambda module, _: module.name == "encoder",
                mutable=["intermediates"],
            )
        )(wide(params), image, first)
        maps = seen["intermediates"]["encoder"]["__call__"][0]
        for n in range(3):
            np.testing.assert_allclose(
                given.after[n], p2m[f"full_{name}/coord{n + 1}"], rtol=0, atol=1e-6
            )
            if n:
                before = p2m[f"full_{name}/before_deform{n + 1}"]
                np.testing.assert_allclose(given.before[n], before, rtol=0, atol=1e-6)
        if name == "ac1":
            return  # its encoder is that of ac0
        for n, features in enumerate(maps):
            got = rule.sample(np.moveaxis(np.asarray(features), -1, 1), 256)
            expected = p2m[f"full_{name}/enc_sample{n}"]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_losses_are_the_official_ones(p2m, rule):
    with jax.enable_x64(True):
        points = wide(rule.uniform("p2m/gt_points", (1, 300, 3), -0.2, 0.2))
        after = [wide(p2m[f"full_ac1/coord{n}"]) for n in (1, 2, 3)]
        before = [
            wide(p2m["mesh/verts0"][None]),
            *(wide(p2m[f"full_ac1/before_deform{n}"]) for n in (2, 3)),
        ]
        meshes = [
            losses.Mesh(p2m[f"mesh/edges{n}"], uniform_laplacian(mesh(p2m, n))) for n in range(3)
        ]
        weights = losses.Weights(1.0, 1.0, 1.6e-4, 0.3, 0.5, 0.1, (0.2, 1.0, 1.0))
        normals = wide(p2m["loss/gt_normals"])
        terms = jit(lambda *x: totalled(losses.terms(*x, meshes, weights)))(
            before, after, points, normals
        )
        official = {"L_laplacian": "loss_laplace", "L_total": "loss"}
        for name, value in terms.items():
            key = official.get(name, f"loss_{name[2:]}")
            weight = getattr(weights, name[2:], 1.0)  # theirs are listed without
            expected = weight * p2m[f"loss/{key}"]
            np.testing.assert_allclose(value, expected, rtol=1e-7, err_msg=name)
