"""The generator, discriminator, losses and Adam steps give X2CT-GAN's own numbers.

The oracles hold what the authors' code computed at size 64 in float64, for weights and inputs that are made
from their names. One forward pass in float32 and the discriminator run by default; everything else is slow.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxrecon.interop import weights as convert
from jxrecon.methods.volumes.x2ct.discriminator import Discriminator, condition
from jxrecon.methods.volumes.x2ct.layers import instance_norm, lengthen, norm_relu
from jxrecon.methods.volumes.x2ct.losses import discriminator_loss, generator_loss
from jxrecon.methods.volumes.x2ct.networks import FROM_COMMON, TO_COMMON, Architecture, Generator
from jxrecon.nn.optimise import descend

# Compile quickly: each function here runs once or twice.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# How far Adam (rate 2e-4, betas 0.5 and 0.99) can move a parameter in its first and in its second step,
# whatever the gradients g, h: the second is the largest of (g/3 + 2 h/3) / sqrt((0.99 g^2 + h^2) / 1.99).
LONGEST_STEPS = (2e-4, 2e-4 * (1.99 * (1 / 8.91 + 4 / 9)) ** 0.5)

SIZE = 64
VIEWS = {"single": 1, "multi": 2}
BOTH = pytest.mark.parametrize("name", VIEWS)


def normal(name, shape, offset, mult):
    """The oracle's rule: a tensor is a function of its name and shape."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return np.asarray(offset + mult * draw).astype(np.float32)


def uniform(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).random(shape).astype(np.float32)


def sample(array, count=512):
    flat = np.asarray(array).reshape(-1)
    return flat[:: max(1, flat.size // count) | 1]


def rows(oracles, name, net):
    """(key, shape, offset, mult or "") of one network, in the official order."""
    for line in (oracles / f"x2ct_{name}_keys.txt").read_text().splitlines()[1:]:
        owner, key, shape, offset, mult = line.split("\t")
        if owner == net:
            yield key, () if shape == "scalar" else tuple(map(int, shape.split("x"))), offset, mult


def table(name, net):
    return convert.x2ct_generator(VIEWS[name]) if net == "G" else convert.x2ct_discriminator()


def weights(oracles, name, net):
    """Official key -> tensor in the official layout, without buffers."""
    return {
        key: normal(key, shape, float(offset), float(mult))
        for key, shape, offset, mult in rows(oracles, name, net)
        if mult
    }


def ours(oracles, name, net, dtype):
    """Our variables with the oracle's weights."""
    tree = convert.from_torch(weights(oracles, name, net), table(name, net))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def inputs(name, dtype):
    """Views [1, S, S] and the true volume [1, D, H, W, 1]."""
    shape = (1, 1, SIZE, SIZE)
    views = [jnp.asarray(uniform(f"xray{k + 1}", shape)[:, 0], dtype) for k in range(VIEWS[name])]
    return views, jnp.asarray(uniform("ct", (1, SIZE, SIZE, SIZE))[..., None], dtype)


def networks(name, dtype):
    return Generator(Architecture(size=SIZE, views=VIEWS[name], dtype=dtype)), Discriminator(
        dtype=dtype
    )


@pytest.fixture(scope="module")
def oracle(oracles):
    @functools.cache
    def read(name):
        with np.load(oracles / f"x2ct_{name}.npz") as numbers:
            return {key: numbers[key] for key in numbers.files}

    return read


def first(x):
    """Channels last -> first."""
    return np.moveaxis(np.asarray(x), -1, 1)


def assert_close(got, expected, relative):
    """To a fraction of the largest value."""
    got = np.asarray(got)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=relative * np.abs(expected).max())


@BOTH
def test_tables_name_every_tensor_of_the_official_state_dict(oracles, name):
    for net, count in (("G", {"single": 338, "multi": 708}[name]), ("D", 7)):
        parameters = [row for row in table(name, net) if isinstance(row, convert.Parameter)]
        norms = [row.torch for row in table(name, net) if isinstance(row, convert.Buffer)]
        buffers = {f"{norm}.{b}" for norm in norms for b in convert.BUFFERS}
        official = list(rows(oracles, name, net))
        assert {row.torch for row in parameters} == {key for key, _, _, mult in official if mult}
        assert buffers == {key for key, _, _, mult in official if not mult}
        assert len(parameters) == len({row.path for row in parameters}) == count


@pytest.mark.parametrize("name", ["single", pytest.param("multi", marks=pytest.mark.slow)])
def test_our_shapes_are_the_official_ones_and_the_buffers_too(oracles, name):
    views, volume = inputs(name, jnp.float32)
    g, d = networks(name, jnp.float32)
    for net, module, arguments in (("G", g, (views,)), ("D", d, (volume, views))):
        tree = jax.eval_shape(lambda *x, m=module: m.init(jax.random.key(0), *x), *arguments)
        # Arrays without memory: one number with strides of zero.
        tree = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), tree)
        state = convert.to_torch(tree, table(name, net), copy=False)
        assert {key: value.shape for key, value in state.items()} == {
            key: shape for key, shape, _, _ in rows(oracles, name, net)
        }


PAPER = {("G", 2): 61_740_467, ("G", 1): 29_384_481, ("D", 2): 11_055_169, ("D", 1): 11_051_073}


@pytest.mark.parametrize("views", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_paper_size_has_the_papers_parameters(views):
    images = [jax.ShapeDtypeStruct((1, 128, 128), jnp.float32)] * views
    volume = jax.ShapeDtypeStruct((1, 128, 128, 128, 1), jnp.float32)
    g = Generator(Architecture(views=views))
    for net, module, arguments in (("G", g, (images,)), ("D", Discriminator(), (volume, images))):
        shapes = jax.eval_shape(lambda *x, m=module: m.init(jax.random.key(0), *x), *arguments)
        assert sum(np.prod(s.shape) for s in jax.tree.leaves(shapes)) == PAPER[net, views]


@BOTH
def test_the_condition_is_the_official_one(oracle, name):
    views, _ = inputs(name, jnp.float32)
    got = sample(first(condition(views)), 4096)
    np.testing.assert_array_equal(got, oracle(name)["out/condition_sample"])


def test_discriminator_of_the_true_volume_gives_the_official_scores(oracles, oracle):
    with jax.enable_x64(True):
        views, volume = inputs("single", jnp.float64)
        _, d = networks("single", jnp.float64)
        scores = jit(d.apply)(ours(oracles, "single", "D", jnp.float64), volume, views)
    assert_close(first(scores), oracle("single")["out/D_real"], 1e-9)


def test_single_view_generator_gives_the_official_volume_in_float32(oracles, oracle):
    views, _ = inputs("single", jnp.float32)
    g, _ = networks("single", jnp.float32)
    volume = jit(g.apply)(ours(oracles, "single", "G", jnp.float32), views).volume
    assert_close(volume[0, ..., 0], oracle("single")["out/G"], 2e-3)


def captured(tree, *path):
    """What a module gave, by its place in the tree of intermediates."""
    for part in path:
        tree = tree[part]
    return tree["__call__"][0]


def taps(tree, name):
    """Official name of a module -> what it gave, in our layout (channels last)."""
    found = {}
    for k in range(VIEWS[name]):
        prefix = f"view{k + 1}Model." if name == "multi" else ""
        encoder = functools.partial(captured, tree, f"encoder_{k}")
        decoder = functools.partial(captured, tree, f"decoder_{k}")
        found[f"{prefix}encoder_layer.1"] = encoder("stem")
        found[f"{prefix}encoder_layer.2"] = instance_norm(encoder("stem"))
        found[f"{prefix}encoder_layer"] = norm_relu(encoder("stem"))
        layers = Architecture().layers
        for i, count in enumerate(layers):
            stage = functools.partial(encoder, f"stage_{i}")
            grown = [stage("dense", f"grow_{j}") for j in range(count)]
            dense = jnp.concatenate([stage("down"), *grown], -1)
            found[f"{prefix}encoder_layer{i}.2"] = stage("down")
            found[f"{prefix}encoder_layer{i}.3"] = dense
            if i < 4:
                found[f"{prefix}encoder_layer{i}.6"] = stage("transition")
            pooled = i == 4  # by us inside the stage
            found[f"{prefix}encoder_layer{i}"] = stage()[:, None, None] if pooled else stage()
            link = norm_relu(decoder(f"link_{i}", "reduce"))
            found[f"{prefix}linker_layer{i}.0.compress_block"] = link
            found[f"{prefix}linker_layer{i}"] = lengthen(decoder(f"link_{i}"), SIZE // 2**i)
            found[f"{prefix}decoder_compress_layer{i - 1}"] = jax.nn.relu(decoder(f"compress_{i}"))
        code = encoder()[1]
        found[f"{prefix}decoder_compress_layer4"] = code
        found[f"{prefix}base_link"] = first(code).reshape(1, -1)
        for level in range(6):
            found[f"{prefix}decoder_layer{level - 1}"] = jax.nn.relu(decoder(f"layer_{level}"))
        found[f"{prefix}decoder_layer"] = jax.nn.relu(decoder("head"))
    if name == "multi":
        for k in range(6):
            pair = [found[f"view{v}Model.decoder_compress_layer{4 - k}"] for v in (1, 2)]
            found[f"transposed_layer#{k}"] = sum(
                x.transpose(order) for x, order in zip(pair, TO_COMMON)
            )
            found[f"decoder_layer{k - 1}"] = jax.nn.relu(captured(tree, "fused", f"layer_{k}"))
        found["decoder_layer"] = jax.nn.relu(captured(tree, "fused", "head"))
    return found


@pytest.fixture(scope="module")
def training(oracles):
    """(name, dtype) -> two iterations from the oracle's weights: all that they give."""

    @functools.cache
    def run(name, dtype):
        with jax.enable_x64(dtype == "float64"):
            g, d = networks(name, dtype)
            views, real = inputs(name, dtype)
            adam = optax.adam(2e-4, 0.5, 0.99)

            def generator_objective(generator, discriminator):
                volumes, tree = g.apply(
                    generator, views, capture_intermediates=True, mutable="intermediates"
                )
                scores = d.apply(discriminator, volumes.volume, views)
                total, terms = generator_loss(scores, volumes.volume, real)
                return total, (volumes, tree["intermediates"], scores, terms)

            def discriminator_objective(discriminator, fake):
                scores = [d.apply(discriminator, volume, views) for volume in (real, fake)]
                total, terms = discriminator_loss(*scores)
                return total, (scores[0], terms)

            @jit
            def iterate(state):
                generator, discriminator, of_g, of_d = state
                gradient = jax.value_and_grad(generator_objective, has_aux=True)
                (_, given), dg = gradient(generator, discriminator)
                volumes, tree, on_fake, terms_g = given
                gradient = jax.value_and_grad(discriminator_objective, has_aux=True)
                (_, (on_real, terms_d)), dd = gradient(discriminator, volumes.volume)
                generator, of_g = descend(adam, dg, of_g, generator)
                discriminator, of_d = descend(adam, dd, of_d, discriminator)
                state = (generator, discriminator, of_g, of_d)
                outputs = {"D_real": on_real, "D_fake": on_fake, "volumes": volumes}
                return state, outputs, tree, {**terms_g, **terms_d}, (dg, dd)

            trees = [ours(oracles, name, net, dtype) for net in "GD"]
            state = (*trees, *map(adam.init, trees))
            steps, outputs, modules = [], None, None
            for _ in range(2):
                state, given, tree, terms, gradients = iterate(state)
                if outputs is None:
                    outputs, modules = jax.tree.map(np.asarray, given), taps(tree, name)
                states = {
                    net: (
                        convert.to_torch(gradient, table(name, net)),
                        convert.to_torch(parameters, table(name, net)),
                    )
                    for net, gradient, parameters in zip("GD", gradients, state)
                }
                steps.append((terms, states))
            return outputs, modules, steps

    return run


LOSSES = {"G": "L_LSGAN(G)", "idt": "L_re", "map_m": "L_pl", "total_G": "L_G", "D": "L_LSGAN(D)"}
RUNS = pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in VIEWS for dtype in ("float64", "float32")]
)


@pytest.mark.slow
@RUNS
def test_volumes_and_scores_are_the_official_ones(training, oracle, name, dtype):
    outputs, _, _ = training(name, dtype)
    expected, relative = oracle(name), 1e-5 if dtype == "float64" else 2e-3
    volumes = outputs["volumes"]
    assert_close(volumes.volume[0, ..., 0], expected["out/G"], relative)
    for key in ("D_real", "D_fake"):
        assert_close(first(outputs[key]), expected[f"out/{key}"], relative)
    if name == "single":
        raw = np.asarray(volumes.volume).transpose(FROM_COMMON[0])
        assert_close(sample(raw, 4096), expected["out/G_raw_sample"], relative)
        return
    for view, volume in enumerate(volumes.views, 1):
        stat = [np.mean(volume), np.std(volume)]
        assert_close(sample(volume, 4096), expected[f"out/G_view{view}_sample"], relative)
        assert_close(stat, expected[f"out/G_view{view}_stat"], relative)


@pytest.mark.slow
@RUNS
def test_every_module_gives_what_the_official_one_does(training, oracle, name, dtype):
    _, modules, _ = training(name, dtype)
    expected, relative = oracle(name), 1e-6 if dtype == "float64" else 2e-3
    assert len(expected["tap_names"]) == {"single": 26, "multi": 77}[name]
    for tap in map(str, expected["tap_names"]):
        got = modules[tap]
        got = np.asarray(got) if got.ndim == 2 else first(got)
        assert got.shape == tuple(expected[f"tap/{tap}/shape"]), tap
        stat = [got.mean(), got.std()]
        np.testing.assert_allclose(
            stat,
            expected[f"tap/{tap}/stat"],
            rtol=0,
            atol=relative * np.abs(got).max(),
            err_msg=tap,
        )
        assert_close(sample(got), expected[f"tap/{tap}/sample"], relative)


@pytest.mark.slow
@RUNS
def test_losses_of_two_iterations_are_the_official_ones(training, oracle, name, dtype):
    _, _, steps = training(name, dtype)
    # Adam's first step is the sign of the gradient; where that is nearly 0, rounding decides it: in float32
    # the second losses are off by 0.3 % on an AMD EPYC and by 0.51 % on an Intel Xeon, whatever our version.
    relative = (1e-9, 1e-8) if dtype == "float64" else (1e-5, 1e-2)
    for step, (terms, _) in enumerate(steps):
        for official, own in LOSSES.items():
            expected = oracle(name)[f"loss{step + 1}/{official}"]
            np.testing.assert_allclose(terms[own], expected, rtol=relative[step])


@pytest.mark.slow
@RUNS
def test_gradient_norms_are_the_official_ones(training, oracle, name, dtype):
    """Those of biases before a norm are zero; here exactly. Not a number marks what no gradient reaches."""
    _, _, steps = training(name, dtype)
    for step, (_, states) in enumerate(steps):
        for net in "GD":
            expected = oracle(name)[f"gradnorm{step + 1}/{net}"]
            keys = map(str, oracle(name)[f"param_names/{net}"])
            got = np.array([np.linalg.norm(states[net][0][key]) for key in keys])
            reached = expected > 1e-9
            assert not got[~reached].any()
            error = np.abs(got[reached] / expected[reached] - 1)
            if dtype == "float64":
                assert error.max() < (1e-7, 1e-6)[step]
            elif step == 0:
                # The official float32 run's own worst tensor is off by 1.7 %. Ours is off by less than 3 % on
                # an AMD EPYC; on an Intel Xeon one of the single view's by 3.15 %, the rest by less than 2.
                assert np.mean(error > 2e-2) <= 0.03
                assert error.max() < 4e-2
            else:  # the official float32 run is off by up to a half, 8 % in the median
                assert np.median(error) < 0.1


@pytest.mark.slow
@RUNS
def test_parameters_after_adam_steps_are_the_official_ones(training, oracle, name, dtype):
    _, _, steps = training(name, dtype)
    for step, (_, states) in enumerate(steps, 1):
        off = []
        for net in "GD":
            for key in map(str, oracle(name)[f"sampled/{net}"]):
                gradient, parameters = (state[key] for state in states[net])
                after = oracle(name)[f"after{step}/{net}/{key}"]
                atol = 1e-9 if dtype == "float64" else 2 * sum(LONGEST_STEPS[:step])
                got = sample(parameters, 256)
                np.testing.assert_allclose(got, after, rtol=1e-6, atol=atol)
                off += [np.abs(got - after)]
                if step == 1:
                    expected = oracle(name)[f"grad1/{net}/{key}"]
                    got = sample(gradient, 256)
                    if dtype == "float64":
                        assert_close(got, expected, 1e-6)
                    else:  # no figure is stated; single entries flip with a ReLU, the tensor does not
                        assert np.linalg.norm(got - expected) < 0.1 * np.linalg.norm(expected), key
        if (
            dtype == "float32"
        ):  # measured: 95 % of the first within 5e-9, half of the second within 4e-5
            part, bound = ((0.95, 1e-7), (0.5, 1e-4))[step - 1]
            assert np.quantile(np.concatenate(off), part) < bound
