"""What X2CT-GAN's networks promise beside the authors' numbers: shortcuts, variants, axes, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import drr
from jxrecon.geometry import biplanar, centred_grid
from jxrecon.methods.volumes.x2ct import reorient
from jxrecon.methods.volumes.x2ct.discriminator import Discriminator, condition
from jxrecon.methods.volumes.x2ct.layers import (
    INIT_STD,
    Compress,
    DenseBlock,
    Link,
    instance_norm,
    lengthen,
    norm_relu,
)
from jxrecon.methods.volumes.x2ct.losses import (
    X2CT_CNN,
    discriminator_loss,
    generator_loss,
    projection,
)
from jxrecon.methods.volumes.x2ct.networks import Architecture, Generator, tiny
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.conv import conv
from jxrecon.types import InputError

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def smallest(**settings):
    """Two stages of one layer at 8^3, bottleneck 2^3."""
    fields = {"size": 8, "stem": 4, "growth": 2, "layers": (1, 1), "decoder": (2, 3, 4)}
    return Architecture(**{**fields, **settings})


def one_stage(**settings):
    """The smallest network there is: 4^3, one view."""
    return smallest(**{"size": 4, "views": 1, "layers": (1,), "decoder": (2, 3), **settings})


def random_params(module, *inputs):
    """Parameters large enough to tell networks apart, biases too, without compiling a random generator."""
    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x), *inputs)
    leaves, structure = jax.tree.flatten(shapes)
    values = [0.3 * draw(seed, *leaf.shape) for seed, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


VIEWS = [abs(draw(k, 2, 8, 8))[jnp.array(n)] for k, n in ((100, (0, 1, 0)), (101, (0, 1, 1)))]
"""The third sample has the first one's frontal and the second one's lateral view."""

SMALL = [abs(draw(102, 2, 4, 4))]


def run(arch, views=VIEWS):
    views = views[: arch.views]
    g = Generator(arch)
    params = random_params(g, views)
    return params, jit(g.apply)(params, views)


@pytest.mark.parametrize("size", [pytest.param(4, marks=pytest.mark.slow), 8])
def test_connection_b_from_its_different_planes_is_the_whole_extruded_volumes(size):
    """Values and gradients of three and five planes against the convolution of every plane."""
    image, x = draw(0, 2, size, size, 3), draw(1, 2, size, size, size, 4)
    link, compress = Link(2), Compress(3, extruded=True)
    params = {"link": random_params(link, image)}
    params["compress"] = random_params(compress, x, link.apply(params["link"], image))

    def by_planes(params, image, x):
        return compress.apply(params["compress"], x, link.apply(params["link"], image))

    def plainly(params, image, x):
        reduce, three = params["link"]["params"]["reduce"], params["link"]["params"]["conv"]
        y = norm_relu(conv(image, reduce["kernel"]) + reduce["bias"].reshape(1, 1, 1, -1))
        y = jnp.broadcast_to(y[:, None], (2, size, size, size, 2))
        y = norm_relu(conv(y, three["kernel"]))
        joined = jnp.concatenate([jax.nn.relu(x), y], -1)
        return instance_norm(conv(joined, params["compress"]["params"]["kernel"]))

    def both(params, image, x):
        weight = jnp.cos(jnp.arange(2 * size**3 * 3, dtype=x.dtype)).reshape(2, *(size,) * 3, 3)
        for function in (by_planes, plainly):
            y, back = jax.vjp(function, params, image, x)
            yield y, back(weight)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (params, image, x))
        ours, naive = jit(lambda *a: tuple(both(*a)))(*wide)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(naive)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_a_dense_block_norms_once_what_every_layer_would_norm_anew():
    x = draw(2, 2, 4, 4, 3)
    block, pooled_block = DenseBlock(3, 2), DenseBlock(3, 2, pooled=True)

    def plainly(params):
        y = x
        for j in range(3):
            layer = {k: params["params"][f"{k}_{j}"]["kernel"] for k in ("reduce", "grow")}
            z = norm_relu(conv(norm_relu(y), layer["reduce"]))
            y = jnp.concatenate([y, conv(z, layer["grow"])], -1)
        return norm_relu(y)

    params = random_params(block, x)
    normed, pooled, expected = jit(
        lambda p: (block.apply(p, x), pooled_block.apply(p, x), plainly(p))
    )(params)
    np.testing.assert_allclose(normed, expected, atol=1e-5)
    assert pooled.shape == (2, 9)
    np.testing.assert_allclose(pooled[:, :3], x.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("weights", [(), (1.0, 4.0, 1.0)])
def test_instance_norm_and_its_gradient_are_those_of_its_formula(weights):
    x = np.random.default_rng(3).normal(2.0, 3.0, (2, 3, 4, 5, 2))

    def formula(x):
        repeated = jnp.repeat(x, np.array(weights or (1, 1, 1), int), axis=1)
        centred = x - repeated.mean((1, 2, 3), keepdims=True)
        return centred / jnp.sqrt(repeated.var((1, 2, 3), keepdims=True) + 1e-5)

    def both(x, g):
        for f in (lambda x: instance_norm(x, weights), formula):
            y, back = jax.vjp(f, x)
            yield y, back(g)[0]

    with jax.enable_x64(True):
        g = np.sin(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        (y, dx), (z, dx_plain) = jit(lambda x, g: tuple(both(x, g)))(jnp.asarray(x), jnp.asarray(g))
        np.testing.assert_allclose(y, z, atol=1e-12)
        np.testing.assert_allclose(dx, dx_plain, atol=1e-12)


def test_lengthen_repeats_or_drops_the_middle():
    planes = jnp.arange(3.0).reshape(1, 3, 1, 1, 1)
    assert lengthen(planes, 5).ravel().tolist() == [0, 1, 1, 1, 2]
    assert lengthen(planes, 2).ravel().tolist() == [0, 2]


VARIANTS = {
    "biplanar": {},
    "single": {"views": 1},
    "without B": {"connection_b": False},
    "without C": {"fusion": False},
    "neither": {"connection_b": False, "fusion": False},
    "no write-back": {"write_back": False},
}


@functools.cache
def variant(name):
    return run(smallest(**VARIANTS[name]))


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("biplanar", "single") else pytest.param(name, marks=pytest.mark.slow)
        for name in VARIANTS
    ],
)
def test_each_variant_gives_one_volume_and_one_a_view_that_differ_between_samples(name):
    _, volumes = variant(name)
    assert volumes.volume.shape == (3, 8, 8, 8, 1)
    assert len(volumes.views) == smallest(**VARIANTS[name]).views
    assert float(volumes.volume.min()) >= 0
    first, second, mixed = volumes.volume
    assert float(jnp.abs(first - second).max()) > 1e-3
    if len(volumes.views) == 2:  # both of them matter
        assert float(jnp.abs(first - mixed).max()) > 1e-3
        assert float(jnp.abs(second - mixed).max()) > 1e-3


def test_variants_have_the_parts_that_they_name():
    trees = {}
    for name in ("biplanar", "single", "without B", "without C"):
        g = Generator(smallest(**VARIANTS[name]))
        views = VIEWS[: g.arch.views]
        trees[name] = jax.eval_shape(lambda v, g=g: g.init(jax.random.key(0), v), views)["params"]
    assert {name for name, tree in trees.items() if "fused" not in tree} == {
        "single",
        "without C",
    }
    assert {name for name, tree in trees.items() if "link_0" not in tree["decoder_0"]} == {
        "without B"
    }
    assert {name for name, tree in trees.items() if "decoder_1" not in tree} == {"single"}


@pytest.mark.slow
def test_write_back_and_fusion_change_the_volume():
    volume = variant("biplanar")[1].volume
    assert float(jnp.abs(variant("no write-back")[1].volume - volume).max()) > 1e-3
    _, apart = variant("without C")
    mean = (apart.views[0].transpose(0, 2, 1, 3, 4) + apart.views[1].transpose(0, 2, 3, 1, 4)) / 2
    np.testing.assert_allclose(apart.volume, mean, rtol=1e-6)


@pytest.mark.slow
def test_remat_changes_no_number_and_no_name():
    kept, recomputed = one_stage(), one_stage(remat=True)
    params = random_params(Generator(kept), SMALL)

    def gradient(arch):
        return jax.grad(lambda p: jnp.sum(Generator(arch).apply(p, SMALL).volume ** 2))

    both = jit(lambda p: (gradient(kept)(p), gradient(recomputed)(p)))(params)
    for a, b in zip(*map(jax.tree.leaves, both)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1.0, float(jnp.abs(a).max())))


def test_remat_does_no_convolution_again():
    def convolutions(arch):
        g = Generator(arch)
        shapes = jax.eval_shape(g.init, jax.random.key(0), SMALL)
        gradient = jax.grad(lambda params: jnp.sum(g.apply(params, SMALL).volume ** 2))
        return str(jax.make_jaxpr(gradient)(shapes)).count("conv_general_dilated[")

    assert convolutions(one_stage(remat=True)) == convolutions(one_stage()) > 0


def test_bfloat16_computes_near_float32_with_the_same_parameters():
    params, exact = run(smallest(views=1))
    g = Generator(smallest(views=1, dtype=jnp.bfloat16))
    rough = jit(g.apply)(params, VIEWS[:1]).volume
    assert rough.dtype == jnp.bfloat16
    difference = jnp.abs(rough.astype(jnp.float32) - exact.volume)
    assert float(difference.mean()) < 0.05 * float(exact.volume.std())


def test_dropout_is_there_in_training_alone():
    g = Generator(one_stage())
    params = random_params(g, SMALL)
    apply = jit(lambda key: g.apply(params, SMALL, False, rngs={"dropout": key}).volume)
    a, b, again = (apply(jax.random.key(seed)) for seed in (0, 1, 0))
    np.testing.assert_array_equal(a, again)
    assert float(jnp.abs(a - b).max()) > 1e-3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 32}, "multiple of 32 of at least 64"),
        ({"size": 100}, "multiple of 32"),
        ({"views": 3}, "expected 1 or 2"),
        ({"layers": (6, 6)}, "one more than the stages"),
    ],
)
def test_architectures_that_cannot_be_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Architecture(**{"size": 64, **settings})


def test_views_of_another_size_are_refused():
    g = Generator(tiny())
    with pytest.raises(InputError, match=r"expected 2 of \(32, 32\)"):
        jax.eval_shape(g.init, jax.random.key(0), [jnp.zeros((1, 64, 64))] * 2)


def test_tiny_is_a_network_for_32_and_scaled_scales_channels():
    views = [jax.ShapeDtypeStruct((1, 32, 32), jnp.float32)] * 2
    g = Generator(tiny())
    volumes, params = jax.eval_shape(lambda v: g.init_with_output(jax.random.key(0), v), views)
    assert volumes.volume.shape == (1, 32, 32, 32, 1)
    assert params["params"]["encoder_0"]["code"]["kernel"].shape == (116, 64 * 4**3)
    half = Architecture().scaled(0.5)
    assert (half.stem, half.growth, half.decoder) == (32, 16, (8, 8, 16, 32, 64, 128))


def test_init_draws_kernels_of_the_papers_deviation_and_zero_biases():
    views = VIEWS[:1]
    g = Generator(smallest(views=1, stem=16, growth=8, decoder=(8, 8, 16)))
    params = init_variables(g, jax.random.key(3), views, std=INIT_STD)
    shapes = jax.eval_shape(lambda v: g.init(jax.random.key(0), v), views)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    leaves = jax.tree.leaves_with_path(params)
    kernels = np.concatenate([np.ravel(x) for path, x in leaves if path[-1].key == "kernel"])
    assert kernels.std() == pytest.approx(0.02, rel=0.03)
    assert not any(np.any(x) for path, x in leaves if path[-1].key == "bias")


def test_reorienting_a_volume_lines_it_up_with_the_cameras_views():
    """A bead's shadow in each view lies at the bead's (D, W) and (D, H); twice is the volume again."""
    n = 16
    grid = centred_grid((n, n, n), (4.0, 4.0, 4.0))
    cameras = biplanar(source_axis_mm=5000, source_detector_mm=5050, shape=(n, n), pixel_mm=4.0)
    volume = jnp.zeros((n, n, n)).at[3, 5, 12].set(1.0)
    frontal, lateral = drr.project(volume, jnp.asarray(grid.affine, jnp.float32), cameras)
    ours = reorient(volume[None, ..., None])
    _, d, h, w, _ = np.unravel_index(int(jnp.argmax(ours)), ours.shape)
    assert np.unravel_index(int(jnp.argmax(frontal)), (n, n)) == (d, w)
    assert np.unravel_index(int(jnp.argmax(lateral)), (n, n)) == (d, h)
    np.testing.assert_array_equal(reorient(ours)[0, ..., 0], volume)


def test_each_view_is_smeared_along_its_own_axis():
    views = [draw(4, 1, 3, 3), draw(5, 1, 3, 3)]
    volume = condition(views)
    assert volume.shape == (1, 3, 3, 3, 2)
    assert volume[0, 2, 0, 1, 0] == volume[0, 2, 2, 1, 0] == views[0][0, 2, 1]
    assert volume[0, 2, 1, 0, 1] == volume[0, 2, 1, 2, 1] == views[1][0, 2, 1]


def test_scores_have_the_papers_sizes():
    volume, view = jnp.zeros((1, 128, 128, 128, 1)), jnp.zeros((1, 128, 128))
    d = Discriminator()
    scores, _ = jax.eval_shape(lambda *x: d.init_with_output(jax.random.key(0), *x), volume, [view])
    assert scores.shape == (1, 19, 19, 19, 1)


def test_losses_by_hand():
    fake, real = jnp.zeros((1, 2, 2, 2, 1)), jnp.zeros((1, 2, 2, 2, 1)).at[0, 0, 0, 0].set(0.8)
    # Each projection differs by 0.4 in one of four pixels.
    assert float(projection(fake, real)) == pytest.approx(0.1)
    scores = jnp.full((1, 1, 1, 1, 1), 0.5)
    total, terms = generator_loss(scores, fake, real)
    assert {k: round(float(v), 6) for k, v in terms.items()} == {
        "L_LSGAN(G)": 0.025,
        "L_re": 0.8,
        "L_pl": 1.0,
        "L_G": 1.825,
    }
    assert float(total) == pytest.approx(1.825)
    assert float(discriminator_loss(scores, 3 * scores)[0]) == pytest.approx(0.1 * (0.25 + 2.25))
    total, terms = generator_loss(None, fake, real, X2CT_CNN)
    assert set(terms) == {"L_re", "L_G"}
    assert float(total) == pytest.approx(0.8)
    assert "L_pl" in generator_loss(None, fake, real, X2CT_CNN._replace(projection=10.0))[1]


def test_one_step_down_the_gradient_lowers_the_loss():
    g, real = Generator(one_stage()), abs(draw(6, 2, 4, 4, 4, 1))
    params = random_params(g, SMALL)

    @jit
    def before_and_after(params):
        def loss(params):
            return generator_loss(None, g.apply(params, SMALL).volume, real)[0]

        value, gradient = jax.value_and_grad(loss)(params)
        step = 1e-3 / jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(gradient)))
        return value, loss(jax.tree.map(lambda p, d: p - step * d, params, gradient))

    before, after = before_and_after(params)
    assert float(after) < float(before)
