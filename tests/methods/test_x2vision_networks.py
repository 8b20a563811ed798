"""The 3-D generator and discriminator: shapes, modulation, noise, precision, gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve

from jxrecon.methods.volumes.x2vision.layers import (
    conv_down2,
    conv_up2,
    minibatch_deviation,
    modulated_conv,
)
from jxrecon.methods.volumes.x2vision.networks import Discriminator, Mapping, Synthesis, draw_noise
from jxrecon.nn.conv import conv
from jxrecon.nn.resample import BINOMIAL, upfirdn

# Compile quickly: each function here runs once or twice.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

BASE, CHANNELS, W, BATCH = (2, 3, 2), (6, 4), 5, 3


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(module, *inputs, seed=0):
    """Variables of this module, all of them normal: without compiling its initialisation."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    leaves, structure = jax.tree.flatten(shapes)
    return jax.tree.unflatten(structure, [draw(seed + i, *s.shape) for i, s in enumerate(leaves)])


@pytest.fixture(scope="module")
def generator():
    g = Synthesis(BASE, CHANNELS, W)
    ws = draw(1, BATCH, g.num_ws, W)
    noise = tuple(draw(2, BATCH, *shape, 1) for shape in g.noise_shapes)
    return g, drawn(g, ws, noise), ws, noise


def test_the_layout_of_five_levels_is_that_of_the_3d_stylegan():
    g = Synthesis((5, 6, 7), (96,) * 5, 96)
    assert g.num_ws == 10
    assert len(g.noise_shapes) == 9
    assert g.noise_shapes[:3] == ((5, 6, 7), (10, 12, 14), (10, 12, 14))
    assert g.shape == g.noise_shapes[-1] == (80, 96, 112)


def test_a_volume_has_the_promised_shape_and_one_logit(generator):
    g, variables, ws, noise = generator
    volume = jax.eval_shape(g.apply, variables, ws, noise)
    assert volume.shape == (BATCH, 4, 6, 4, 1)
    assert volume.dtype == jnp.float32
    logits, _ = jax.eval_shape(
        Discriminator(BASE, CHANNELS).init_with_output, jax.random.key(0), volume
    )
    assert logits.shape == (BATCH, 1)


def test_mapping_forgets_the_length_of_z():
    z = draw(3, BATCH, 7)
    mapping = Mapping(W, layers=2)
    variables = drawn(mapping, z)
    np.testing.assert_allclose(
        mapping.apply(variables, z), mapping.apply(variables, 10 * z), rtol=1e-4
    )


def test_the_initial_styles_are_one_and_the_initial_noise_has_no_strength():
    g = Synthesis(BASE, (2,), W)
    params = jit(g.init)(jax.random.key(0), jnp.zeros((1, g.num_ws, W)))["params"]
    np.testing.assert_array_equal(params["level0"]["conv1"]["affine"]["bias"], 1.0)
    assert params["level0"]["conv1"]["noise_strength"] == 0.0
    assert params["const"].std() > 0.5


def test_modulation_by_activations_is_a_convolution_with_a_kernel_per_sample():
    x, kernel, styles = draw(4, 2, 3, 4, 3, 3), draw(5, 3, 3, 3, 3, 2), draw(6, 2, 3)
    for demodulate in (True, False):
        y = modulated_conv(x, kernel, styles, demodulate=demodulate)
        for sample in range(2):
            own = kernel * styles[sample][None, None, None, :, None]
            if demodulate:
                own = own / jnp.sqrt(jnp.sum(own**2, axis=(0, 1, 2, 3), keepdims=True) + 1e-8)
            np.testing.assert_allclose(
                y[sample], conv(x[sample][None], own)[0], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_styles_of_zero_silence_a_sample_with_or_without_demodulation(dtype):
    x, kernel, styles = draw(4, 2, 3, 4, 3, 3), draw(5, 3, 3, 3, 3, 2), draw(6, 2, 3)
    styles = styles.at[0].set(0.0)
    for demodulate in (True, False):
        y = modulated_conv(x.astype(dtype), kernel, styles, demodulate=demodulate)
        np.testing.assert_array_equal(y[0], 0.0)
        assert float(jnp.abs(y[1]).max()) > 0.1

    def total(kernel, styles):
        return jnp.sum(modulated_conv(x.astype(dtype), kernel, styles).astype(jnp.float32))

    silent = kernel.at[..., 0].set(0.0)  # as is a feature whose kernel is
    np.testing.assert_array_equal(modulated_conv(x.astype(dtype), silent, styles)[..., 0], 0.0)
    for slope in jax.grad(total, (0, 1))(silent, styles):
        assert jnp.isfinite(slope).all()


def test_the_upsampling_convolution_of_a_volume_is_zero_insertion_kernel_and_filter():
    x, kernel = draw(7, 1, 3, 2, 4, 2), draw(8, 3, 3, 3, 2, 1)
    taps = np.array(BINOMIAL)
    fir = 8 * taps[:, None, None] * taps[None, :, None] * taps[None, None, :]
    stretched = np.zeros((6, 4, 8, 2))
    stretched[::2, ::2, ::2] = x[0]
    expected = sum(convolve(convolve(stretched[..., i], kernel[..., i, 0]), fir) for i in range(2))
    expected = expected[2:8, 2:6, 2:10]  # of the full convolution
    np.testing.assert_allclose(conv_up2(x, kernel)[0, ..., 0], expected, rtol=1e-4, atol=1e-4)


def test_the_downsampling_convolution_of_a_volume_is_the_filtered_one_at_every_second_voxel():
    x, kernel = draw(9, 1, 6, 4, 8, 2), draw(10, 3, 3, 3, 2, 3)
    filtered = upfirdn(x, BINOMIAL, padding=(2, 2))
    expected = conv(filtered, kernel, padding=0)[:, ::2, ::2, ::2]
    np.testing.assert_allclose(conv_down2(x, kernel), expected, rtol=1e-4, atol=1e-5)


def test_minibatch_deviation_of_equal_samples_is_zero_and_of_a_pair_half_their_distance():
    x = jnp.ones((2, 2, 2, 2, 3))
    assert jnp.all(minibatch_deviation(x)[..., -1] < 2e-4)
    x = x.at[1].add(4.0)
    np.testing.assert_allclose(minibatch_deviation(x)[..., -1], 2.0, rtol=1e-5)


def test_groups_of_one_judge_each_volume_for_itself():
    d, volumes = Discriminator(BASE, CHANNELS, mbstd_group=1), draw(11, 2, 4, 6, 4, 1)
    variables = drawn(d, volumes)
    apply = jit(d.apply)
    changed = apply(variables, volumes.at[1].add(1.0))
    logits = apply(variables, volumes)
    np.testing.assert_allclose(changed[0], logits[0], rtol=1e-5)
    assert abs(changed[1, 0] - logits[1, 0]) > 1e-3


@pytest.mark.slow
def test_every_weight_style_and_noise_moves_the_volume_and_recomputing_changes_nothing(generator):
    g, variables, ws, noise = generator
    probe = draw(12, BATCH, *g.shape, 1)

    def gradients(network):
        def loss(variables, ws, noise):
            return jnp.sum(jnp.sin(network.apply(variables, ws, noise) * probe))

        return jit(jax.value_and_grad(loss, (0, 1, 2)))(variables, ws, noise)

    value, slopes = gradients(g)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert jnp.all(jnp.isfinite(slope)), path
        assert jnp.any(slope != 0), path
    assert jnp.all(jnp.any(slopes[1] != 0, axis=(0, 2)))  # each of the num_ws vectors
    again, recomputed = gradients(Synthesis(BASE, CHANNELS, W, remat=True))
    np.testing.assert_allclose(again, value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(recomputed), jax.tree.leaves(slopes)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def test_bfloat16_gives_nearly_the_same_volume_in_float32(generator):
    g, variables, ws, noise = generator
    coarse = Synthesis(BASE, CHANNELS, W, dtype=jnp.bfloat16)
    volume = jit(coarse.apply)(variables, ws, noise)
    exact = jit(g.apply)(variables, ws, noise)
    assert volume.dtype == jnp.float32
    assert jnp.sqrt(jnp.mean((volume - exact) ** 2)) < 0.03 * jnp.std(exact)
    assert jnp.any(volume != exact)


def test_noise_is_one_standard_normal_draw_cut_up():
    shapes = ((2, 3, 2), (4, 6, 4), (4, 6, 4))
    noise = draw_noise(jax.random.key(0), shapes, 40)
    assert [n.shape for n in noise] == [(40, *shape, 1) for shape in shapes]
    flat = np.concatenate([np.asarray(n).reshape(40, -1) for n in noise], 1)
    assert np.unique(flat).size > 0.99 * flat.size
    assert abs(flat.mean()) < 4 / math.sqrt(flat.size)
    assert abs(flat.std() - 1) < 4 / math.sqrt(2 * flat.size)
