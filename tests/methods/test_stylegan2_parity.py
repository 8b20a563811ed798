"""In two dimensions the layers and networks give StyleGAN2-ADA's own numbers (float64, 1e-9).

The oracle holds outputs of the official implementation; weights and inputs are made from their names.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.methods.volumes.x2vision.layers import (
    Conv,
    StyledConv,
    ToImage,
    bias_act,
    conv_down2,
    conv_up2,
    leaky_relu,
    minibatch_deviation,
    modulated_conv,
)
from jxrecon.methods.volumes.x2vision.networks import (
    Discriminator,
    DiscriminatorBlock,
    DiscriminatorHead,
    Mapping,
    Synthesis,
    SynthesisBlock,
)
from jxrecon.nn.conv import conv
from jxrecon.nn.resample import downsample2, upfirdn, upfirdn_axis, upsample2

# Compile quickly: each function here runs once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

F1331 = (0.125, 0.375, 0.375, 0.125)
F1241 = (0.125, 0.25, 0.5, 0.125)
LEVELS = {"b4": 0, "b8": 1, "b16": 2, "b32": 3}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def expected(oracles):
    with np.load(oracles / "stylegan2_ada.npz") as numbers:
        return {name: numbers[name] for name in numbers.files}


@pytest.fixture(scope="module")
def keys(oracles):
    lines = (oracles / "stylegan2_ada_keys.txt").read_text().splitlines()[1:]
    return [line.split("\t") for line in lines]


def normal(name, shape, offset=0.0, mult=1.0):
    """The oracle's rule: a tensor is a function of its name and shape, rounded to float32."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return np.asarray(offset + mult * draw).astype(np.float32).astype(np.float64)


def uniform(name, shape, low, high):
    draw = np.random.default_rng(zlib.crc32(name.encode())).random(shape)
    return (low + (high - low) * draw).astype(np.float32).astype(np.float64)


def generated(keys, net):
    """Official name -> tensor in the official layout, buffers included."""
    return {
        name: normal(
            name, () if shape == "scalar" else tuple(map(int, shape.split("x"))), float(o), float(m)
        )
        for owner, name, shape, o, m in (row for row in keys if row[4])
        if owner == net
    }


def our_path(name):
    """Official name -> path in our parameter tree; None for buffers."""
    *parents, leaf = name.removeprefix("synthesis.").split(".")
    if leaf in ("w_avg", "noise_const", "resample_filter"):
        return None
    path = []
    for part in parents:
        path.append(f"level{LEVELS[part]}" if part in LEVELS else part)
    if path[1:2] == ["torgb"]:
        path[:2] = [f"output{path[0][-1]}"]
    elif path[1:2] == ["fromrgb"]:
        path[:2] = ["input"]
    elif path[-1:] in (["fc"], ["out"]):
        path[-1] = {"fc": "dense", "out": "logit"}[path[-1]]
    elif path[:1] == ["mapping"]:
        path = [path[1].replace("fc", "dense")]
    elif leaf == "const":
        path = []
    return (*path, "kernel" if leaf == "weight" else leaf)


def our_layout(name, value, pixels=None):
    """Official tensor -> ours: channels last; the dense layer behind an image reads [y, x, c]."""
    if name.endswith("const"):
        return value.transpose(1, 2, 0)
    if name.endswith("fc.weight") and pixels:
        return (
            value.reshape(-1, value.shape[1] // pixels, pixels)
            .transpose(2, 1, 0)
            .reshape(-1, value.shape[0])
        )
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value


def tree(tensors, pixels=None):
    """Official tensors -> our variables."""
    params = {}
    for name, value in tensors.items():
        path = our_path(name)
        if path:
            node = params
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = jnp.asarray(our_layout(name, value, pixels))
    return {"params": params}


def noise_of(tensors, *names):
    return tuple(jnp.asarray(tensors[name + "noise_const"])[None, :, :, None] for name in names)


def last(x):
    """Channels first -> channels last."""
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def kernel_of(weight):
    return jnp.asarray(weight.transpose(2, 3, 1, 0))


def flipped(kernel):
    return kernel[::-1, ::-1]


def assert_same(ours, official, relative=1e-9):
    """Ours, channels last, against official, channels first, relative to the largest value."""
    ours = np.asarray(ours)
    ours = np.moveaxis(ours, -1, 1) if ours.ndim == 4 else ours
    assert ours.dtype == np.float64
    assert ours.shape == official.shape
    np.testing.assert_allclose(ours, official, rtol=0, atol=relative * np.abs(official).max())


@pytest.mark.parametrize("net", ["mapping", "generator", "discriminator"])
def test_weights_made_from_their_names_have_the_oracle_sums(keys, expected, net):
    values = list(generated(keys, net).values())
    sums = [sum(v.sum() for v in values), sum(np.abs(v).sum() for v in values)]
    np.testing.assert_allclose(sums, expected[f"check/{net}"], rtol=1e-6)


RESAMPLING = {
    "up1": lambda x: upfirdn(x, F1331, padding=(2, 1)),
    "up2": lambda x: upfirdn(x, F1331, up=2, padding=(2, 1), gain=4.0),
    "down2": lambda x: upfirdn(x, F1331, down=2, padding=(1, 1)),
    "asym_noflip": lambda x: upfirdn(x, F1241, padding=(2, 1)),
    "asym_flip": lambda x: upfirdn(x, F1241[::-1], padding=(2, 1)),
    "crop": lambda x: upfirdn_axis(
        upfirdn_axis(x, 1, F1241, 2, 3, (3, -2)), 2, F1241, 2, 3, (-1, 2)
    ),
    "nofilter": lambda x: upfirdn(x, (1.0,), up=2),
    "filter2d": lambda x: upfirdn(x, F1331, padding=(2, 1)),
    "upsample2d": lambda x: upsample2(x, F1331),
    "downsample2d": lambda x: downsample2(x, F1331),
    "upsample2d_asym": lambda x: upsample2(x, F1241),
    "downsample2d_asym": lambda x: downsample2(x, F1241),
}


def test_resampling_is_the_official_upfirdn(expected):
    x = last(normal("sg2/upfirdn/x", (2, 3, 9, 7)))
    results = jit(lambda x: {name: resample(x) for name, resample in RESAMPLING.items()})(x)
    for name, result in results.items():
        assert_same(result, expected[f"upfirdn/{name}"])


def test_a_filter_that_is_not_separable_is_a_sum_of_separable_ones(expected):
    x = last(normal("sg2/upfirdn/x", (2, 3, 9, 7)))
    u, s, v = np.linalg.svd(np.array([[1.0, 2, 0], [3, 1, 1]]) / 8, full_matrices=False)
    assert_same(
        sum(
            upfirdn_axis(
                upfirdn_axis(x, 1, tuple(s[i] * u[:, i]), 1, 2, (1, 2)),
                2,
                tuple(v[i]),
                2,
                1,
                (3, 0),
            )
            for i in range(2)
        ),
        expected["upfirdn/asym2d"],
    )


def test_bias_and_activation_are_the_official_ones(expected):
    x = last(normal("sg2/bias_act/x", (2, 4, 3, 5)))
    bias = jnp.asarray(normal("sg2/bias_act/b", (4,), mult=0.5))
    gain = 0.7 / np.sqrt(2)  # the official gain replaces that of the activation, ours multiplies it
    assert_same(bias_act(x, bias), expected["bias_act/linear"])
    assert_same(bias_act(x, bias, leaky_relu), expected["bias_act/lrelu"])
    clamped = bias_act(x, bias, leaky_relu, gain, 0.5 / gain)
    assert_same(clamped, expected["bias_act/lrelu_gain_clamp"])


def test_resampling_convolutions_are_the_official_ones(expected):
    x = last(normal("sg2/conv/x", (2, 5, 8, 6)))
    w3 = kernel_of(normal("sg2/conv/w3", (4, 5, 3, 3), mult=0.2))
    w1 = kernel_of(normal("sg2/conv/w1", (4, 5, 1, 1), mult=0.4))

    @jit
    def results(x, w3, w1):
        return {
            "k3": conv(x, w3),
            "k3_conv": conv(x, flipped(w3)),
            "k3_up2": conv_up2(x, w3),
            "k3_up2_flip": conv_up2(x, flipped(w3), F1241),
            "k3_down2": conv_down2(x, w3),
            "k3_down2_asym": conv_down2(x, w3, F1241),
            "k1_down2": conv_down2(x, w1),
            "k1_up2": conv_up2(x, w1),
        }

    for name, result in results(x, w3, w1).items():
        assert_same(result, expected[f"conv/{name}"])


def test_scaling_activations_is_the_official_modulated_convolution(expected):
    x = last(normal("sg2/mod/x", (2, 5, 8, 6)))
    kernel = kernel_of(normal("sg2/mod/weight", (4, 5, 3, 3)))
    kernel1 = kernel_of(normal("sg2/mod/weight1", (3, 5, 1, 1)))
    styles = jnp.asarray(normal("sg2/mod/styles", (2, 5), 1.0, 0.3))
    noise16x12 = last(normal("sg2/mod/noise16x12", (2, 1, 16, 12), mult=0.3))
    noise8x6 = last(normal("sg2/mod/noise8x6", (2, 1, 8, 6), mult=0.3))

    @jit
    def results(x, kernel, kernel1, styles):
        return {
            "demod": modulated_conv(x, kernel, styles),
            "nodemod": modulated_conv(x, kernel, styles, demodulate=False),
            "up2": modulated_conv(x, kernel, styles, conv_up2),
            "up2_noise": modulated_conv(x, kernel, styles, conv_up2) + noise16x12,
            "noise": modulated_conv(x, kernel, styles) + noise8x6,
            "down2": modulated_conv(x, kernel, styles, conv_down2),
            "rgb1x1_nodemod": modulated_conv(x, kernel1, styles, demodulate=False),
        }

    for name, result in results(x, kernel, kernel1, styles).items():
        assert_same(result, expected[f"mod/{name}_fused"])
        assert_same(result, expected[f"mod/{name}_plain"])


def test_minibatch_deviation_is_the_official_one(expected):
    x = last(normal("sg2/mbstd/x", (8, 6, 3, 4)))
    settings = {"g4c1": (4, 1), "gNonec1": (8, 1), "g4c2": (4, 2), "g2c3": (2, 3)}
    deviation = jit(minibatch_deviation, static_argnums=(1, 2))
    for name, (group, features) in settings.items():
        assert_same(deviation(x, group, features), expected[f"mbstd/{name}"])


def test_mapping_is_the_official_one(keys, expected):
    weights = generated(keys, "mapping")
    z = jnp.asarray(normal("sg2/mapping/z", (3, 16)))
    params = tree({f"mapping.{name}": value for name, value in weights.items()})
    w = Mapping(12).apply(params, z)
    assert_same(jnp.broadcast_to(w[:, None], (3, 4, 12)), expected["mapping/out"])


def test_synthesis_layers_are_the_official_ones(keys, expected):
    x = last(normal("sg2/syn/x", (2, 8, 8, 8)))
    w = jnp.asarray(normal("sg2/syn/ws", (2, 3, 12)))[:, 0]

    def styled(net, noisy=True, **settings):
        weights = generated(keys, net)
        noise = noise_of(weights, "")[0] if noisy else None
        return jit(StyledConv(6, **settings).apply)(tree(weights), x, w, noise)

    assert_same(styled("synlayer_up2", convolve=conv_up2), expected["synlayer_up2/const"])
    assert_same(
        styled("synlayer_up2", noisy=False, convolve=conv_up2), expected["synlayer_up2/none"]
    )
    assert_same(styled("synlayer"), expected["synlayer/const"])
    assert_same(styled("synlayer", gain=0.5), expected["synlayer/const_unfused_gain0.5"])
    image = ToImage(3).apply(tree(generated(keys, "torgb")), x, w)
    assert_same(image, expected["torgb/out"])


@pytest.mark.parametrize("architecture", ["orig", "skip"])
def test_a_synthesis_block_is_the_official_one(keys, expected, architecture):
    weights = generated(keys, f"synblock_{architecture}")
    ws = tuple(jnp.moveaxis(jnp.asarray(normal("sg2/syn/ws", (2, 3, 12))), 1, 0))
    params = tree(weights)["params"]
    noise = noise_of(weights, "conv0.", "conv1.")
    x = last(normal("sg2/syn/x", (2, 8, 8, 8)))
    x = jit(SynthesisBlock(6).apply)({"params": params}, x, ws[:2], noise)
    image = ToImage(3).apply({"params": params["torgb"]}, x, ws[2])
    if architecture == "skip":
        image = image + upsample2(last(normal("sg2/syn/img", (2, 3, 8, 8))))
    assert_same(x, expected[f"synblock_{architecture}/x"])
    assert_same(image, expected[f"synblock_{architecture}/img"])


def test_the_first_synthesis_block_is_the_official_one(keys, expected):
    weights = generated(keys, "synblock_first")
    params = tree({f"synthesis.b4.{name}": value for name, value in weights.items()})
    ws = jnp.asarray(normal("sg2/syn/ws", (2, 3, 12)))[:, :2]
    image = Synthesis((4, 4), (6,), 12, 3, dtype=jnp.float64).apply(
        params, ws, noise_of(weights, "conv1.")
    )
    assert_same(image, expected["synblock_first/img"])


def test_discriminator_blocks_are_the_official_ones(keys, expected):
    x = last(normal("sg2/dis/x", (4, 6, 16, 16)))
    y = jit(DiscriminatorBlock(8).apply)(tree(generated(keys, "disblock_mid")), x)
    assert_same(y, expected["disblock_mid/x"])
    weights = generated(keys, "disepilogue")
    params = tree(weights, pixels=16)
    x = last(normal("sg2/dis/xe", (4, 6, 4, 4)))
    assert_same(jit(DiscriminatorHead().apply)(params, x), expected["disepilogue/out"])


def test_a_discriminator_from_image_to_first_block_is_the_official_one(keys, expected):
    weights = generated(keys, "disblock_first")
    params = tree(weights)["params"]
    image = last(normal("sg2/dis/img", (4, 3, 16, 16)))
    x = Conv(6, 1).apply({"params": params["fromrgb"]}, image)
    assert_same(
        jit(DiscriminatorBlock(8).apply)({"params": params}, x), expected["disblock_first/x"]
    )


CHANNELS = (16, 16, 16, 8)


@pytest.fixture(scope="module")
def gan(keys):
    """Networks of 32 x 32 images with their weights: variables and pure functions of them."""
    with jax.enable_x64(True):
        weights = generated(keys, "generator")
        synthesis = {n: v for n, v in weights.items() if n.startswith("synthesis")}
        mapping = {n: v for n, v in weights.items() if n.startswith("mapping")}
        g = Synthesis((4, 4), CHANNELS, 12, 3, "skip", jnp.float64)
        d = Discriminator((4, 4), CHANNELS, dtype=jnp.float64)
        names = [n.removesuffix("noise_const") for n in weights if n.endswith("noise_const")]
        noise = noise_of(weights, *names)
        z = jnp.asarray(normal("sg2/gan/z", (4, 16)))
        variables = {"mapping": tree(mapping), "synthesis": tree(synthesis)}
        discriminator = tree(generated(keys, "discriminator"), pixels=16)

    def styles(variables):
        w = Mapping(12).apply(variables["mapping"], z)
        return jnp.broadcast_to(w[:, None], (4, g.num_ws, 12))

    return {
        "G": variables,
        "D": discriminator,
        "styles": styles,
        "image": lambda v, ws: g.apply(v["synthesis"], ws, noise),
        "logits": d.apply,
    }


def gradient_norms(gradients, names):
    """Norm of each tensor's gradient, in the official order."""
    norms = []
    for name in names:
        node = gradients
        if "mapping" in gradients:
            node = gradients["mapping" if name.startswith("mapping") else "synthesis"]
        node = node["params"]
        for part in our_path(str(name)):
            node = node[part]
        norms.append(float(jnp.linalg.norm(node)))
    return np.array(norms)


def assert_same_norms(ours, official):
    """Not a number marks a tensor that the official graph does not reach: no gradient here."""
    reached = np.isfinite(official)
    assert not ours[~reached].any()
    np.testing.assert_allclose(ours[reached], official[reached], rtol=1e-9, atol=1e-15)


def test_images_and_generator_gradients_are_the_official_ones(gan, expected):
    def loss(variables):
        ws = gan["styles"](variables)
        images = gan["image"](variables, ws)
        logits = gan["logits"](gan["D"], images)
        return jnp.mean(jax.nn.softplus(-logits)), (ws, images, logits)

    (value, (ws, images, logits)), gradients = jit(jax.value_and_grad(loss, has_aux=True))(gan["G"])
    assert_same(ws, expected["gan/ws"])
    assert_same(images, expected["gan/img"], relative=2e-7)  # stored in float32
    assert_same(logits, expected["gan/logits_fake"])
    np.testing.assert_allclose(value, expected["gan/loss_G"], rtol=1e-9)
    norms = gradient_norms(gradients, expected["gan/param_names_G"])
    assert_same_norms(norms, expected["gan/gradnorm_G"])


def test_discriminator_loss_gradients_and_r1_are_the_official_ones(gan, expected):
    real = last(uniform("sg2/gan/real", (4, 3, 32, 32), -1, 1))
    fake = jit(lambda v: gan["image"](v, gan["styles"](v)))(gan["G"])

    def loss(variables):
        on_fake, on_real = gan["logits"](variables, fake), gan["logits"](variables, real)
        return jnp.mean(jax.nn.softplus(on_fake)) + jnp.mean(jax.nn.softplus(-on_real)), on_real

    def penalty(variables):
        slope = jax.grad(lambda images: jnp.sum(gan["logits"](variables, images)))(real)
        each = jnp.sum(jnp.square(slope), axis=(1, 2, 3))
        return jnp.mean(each), each

    (value, logits), gradients = jit(jax.value_and_grad(loss, has_aux=True))(gan["D"])
    names = expected["gan/param_names_D"]
    np.testing.assert_allclose(value, expected["gan/loss_D"], rtol=1e-9)
    assert_same(logits, expected["gan/logits_real"])
    assert_same_norms(gradient_norms(gradients, names), expected["gan/gradnorm_D"])
    (_, each), gradients = jit(jax.value_and_grad(penalty, has_aux=True))(gan["D"])
    np.testing.assert_allclose(each, expected["gan/r1_penalty_per_sample"], rtol=1e-9)
    assert_same_norms(gradient_norms(gradients, names), expected["gan/gradnorm_r1_D"])


@pytest.mark.slow
def test_path_lengths_and_their_gradients_are_the_official_ones(gan, expected):
    probe = last(normal("sg2/gan/pl_noise", (4, 3, 32, 32))) / 32

    def penalty(variables):
        ws = gan["styles"](variables)
        slope = jax.grad(lambda ws: jnp.sum(gan["image"](variables, ws) * probe))(ws)
        lengths = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(slope), axis=2), axis=1))
        return jnp.mean(jnp.square(lengths - 0.5)), lengths

    (_, lengths), gradients = jit(jax.value_and_grad(penalty, has_aux=True))(gan["G"])
    np.testing.assert_allclose(lengths, expected["gan/pl_lengths"], rtol=1e-9)
    norms = gradient_norms(gradients, expected["gan/param_names_G"])
    assert_same_norms(norms, expected["gan/gradnorm_pl_G"])
