"""Convolutions equal jax.lax in values and in first and second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxrecon.nn import conv as forms
from jxrecon.nn.conv import conv, conv_transpose, depth_to_space, space_to_depth


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def lax_conv(x, kernel, stride, padding, dilation=1):
    axes = x.ndim - 2
    names = ("NXYZC", "XYZIO", "NXYZC") if axes == 3 else ("NXYC", "XYIO", "NXYC")
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * axes,
        padding,
        lhs_dilation=(dilation,) * axes,
        dimension_numbers=names,
    )


def lax_transpose(x, kernel, stride, padding):
    taps = kernel.shape[:-2]
    pads = [(k - 1 - padding, k - 1 - padding) for k in taps]
    return lax_conv(x, jnp.flip(kernel, range(len(taps))), 1, pads, dilation=stride)


def derivatives(function, x, kernel):
    """Value, both gradients of a nonlinear loss, and the gradients of a gradient's square."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(function(x, kernel)))

    def slope(x, kernel):
        return jnp.sum(jnp.square(jax.grad(loss)(x, kernel)))

    first, second = jax.grad(loss, (0, 1)), jax.grad(slope, (0, 1))
    return function(x, kernel), first(x, kernel), second(x, kernel)


def assert_same(function, reference, x, kernel):
    quickly = {"xla_backend_optimization_level": 0}  # to compile: it runs once
    both = jax.jit(
        lambda x, k: (derivatives(function, x, k), derivatives(reference, x, k)),
        compiler_options=quickly,
    )
    ours, theirs = both(x, kernel)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def assert_equal_to_a_millionth(function, reference, x, kernel):
    """Value and both gradients, relative to the largest entry, in float64."""

    def both(x, kernel):
        y, back = jax.vjp(function, x, kernel)
        z, reference_back = jax.vjp(reference, x, kernel)
        g = jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return (y, *back(g)), (z, *reference_back(g))

    with jax.enable_x64(True):
        arrays = (np.asarray(x, np.float64), np.asarray(kernel, np.float64))
        ours, theirs = jax.jit(both)(*map(jnp.asarray, arrays))
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize(
    ("space", "taps", "stride", "padding"),
    [((4, 3, 5), 3, 1, 1), ((4, 6, 4), 4, 2, 1), ((5, 4, 6), 3, 2, 0), ((4, 5), 3, 1, 1)],
)
def test_conv_equals_lax_in_values_and_two_derivatives(space, taps, stride, padding):
    x, kernel = draw(0, 2, *space, 3), 0.3 * draw(1, *(taps,) * len(space), 3, 2)
    assert_same(
        lambda x, k: conv(x, k, stride, padding),
        lambda x, k: lax_conv(x, k, stride, [(padding, padding)] * len(space)),
        x,
        kernel,
    )


@pytest.mark.parametrize(("space", "taps", "padding"), [((3, 2, 4), 4, 1), ((2, 3, 2), 3, 0)])
def test_conv_transpose_equals_lax_in_values_and_two_derivatives(space, taps, padding):
    x, kernel = draw(2, 2, *space, 3), 0.3 * draw(3, taps, taps, taps, 3, 2)
    assert_same(
        lambda x, k: conv_transpose(x, k, 2, padding),
        lambda x, k: lax_transpose(x, k, 2, padding),
        x,
        kernel,
    )


@pytest.mark.parametrize(("taps", "padding"), [(3, 1), (4, 2)])
def test_conv_to_few_channels_equals_lax_in_values_and_two_derivatives(taps, padding):
    x, kernel = draw(15, 2, 4, 3, 5, 8), 0.3 * draw(16, *(taps,) * 3, 8, 1)
    assert_same(
        lambda x, k: conv(x, k, 1, padding),
        lambda x, k: lax_conv(x, k, 1, [(padding, padding)] * 3),
        x,
        kernel,
    )


FORMS = {  # those of X2CT-GAN: space, taps, channels, stride, padding
    "3^3": ((5, 4, 6), 3, (4, 3), 1, 1),
    "3^3 of many channels": ((3, 2, 3), 3, (24, 4), 1, 1),
    "4^3 stride 2 padding 2": ((6, 4, 5), 4, (2, 3), 2, 2),
    "4^3 padding 2": ((4, 3, 5), 4, (3, 4), 1, 2),
    "7^3 head": ((5, 4, 6), 7, (8, 1), 1, 3),
    "3^2 stride 2": ((6, 4), 3, (3, 2), 2, 1),
    "7^2 stem": ((9, 8), 7, (1, 3), 1, 0),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_equal_lax_to_a_millionth_in_values_and_gradients(name):
    space, taps, (i, o), stride, padding = FORMS[name]
    pads = [(padding, padding)] * len(space)
    assert_equal_to_a_millionth(
        lambda x, k: conv(x, k, stride, padding),
        lambda x, k: lax_conv(x, k, stride, pads),
        draw(17, 2, *space, i),
        draw(18, *(taps,) * len(space), i, o),
    )


def test_doubling_transposed_conv_equals_lax_to_a_millionth_in_values_and_gradients():
    assert_equal_to_a_millionth(
        lambda x, k: conv_transpose(x, k, 2, [(1, 0)] * 3),
        # padding 1 and output padding 1 of PyTorch
        lambda x, k: lax_conv(x, jnp.flip(k, (0, 1, 2)), 1, [(1, 2)] * 3, dilation=2),
        draw(19, 2, 3, 4, 2, 3),
        draw(20, 3, 3, 3, 3, 4),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_conv_is_a_matrix_product(stride):
    x, kernel = draw(4, 2, 4, 6, 4, 3), draw(5, 1, 1, 1, 3, 2)
    expected = np.asarray(x)[:, ::stride, ::stride, ::stride] @ np.asarray(kernel)[0, 0, 0]
    np.testing.assert_allclose(conv(x, kernel, stride), expected, atol=1e-5)


def test_unequal_padding_is_per_axis():
    x, kernel, pads = draw(6, 1, 4, 3, 5, 2), draw(7, 3, 3, 3, 2, 2), [(0, 2), (1, 1), (2, 0)]
    np.testing.assert_allclose(
        conv(x, kernel, 1, pads), lax_conv(x, kernel, 1, pads), rtol=1e-5, atol=1e-5
    )


def test_conv_transpose_is_the_adjoint_of_the_strided_conv():
    x, y, kernel = draw(8, 2, 6, 4, 8, 3), draw(9, 2, 3, 2, 4, 2), draw(10, 4, 4, 4, 3, 2)
    there = jnp.vdot(jax.jit(conv, static_argnums=(2, 3))(x, kernel, 2, 1), y)
    transpose = jax.jit(conv_transpose, static_argnums=(2, 3))
    back = jnp.vdot(x, transpose(y, kernel.swapaxes(-1, -2), 2, 1))
    np.testing.assert_allclose(there, back, rtol=1e-4)


def test_depth_to_space_undoes_space_to_depth():
    x = draw(11, 2, 4, 6, 2, 3)
    assert space_to_depth(x, 2).shape == (2, 2, 3, 1, 24)
    np.testing.assert_array_equal(depth_to_space(space_to_depth(x, 2), 2), x)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a form for CPU")
@pytest.mark.parametrize("space", [(4, 3, 5), (3, 5)])
def test_kernel_gradients_hold_no_convolution_on_cpu(space):
    """XLA runs those a hundred times slower inside scan and cond, which training is full of."""
    x, kernel, g = (
        draw(12, 2, *space, 3),
        draw(13, *(3,) * len(space), 3, 2),
        draw(14, 2, *space, 2),
    )

    def holds_convolution(function):
        gradient = jax.jit(lambda x, k, g: jax.vjp(lambda k: function(x, k), k)[1](g))
        return "convolution(" in gradient.lower(x, kernel, g).compile().as_text()

    assert holds_convolution(lambda x, k: lax_conv(x, k, 1, "SAME"))
    assert not holds_convolution(conv)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("channels", [(3, 5), (9, 1)])
def test_the_forms_for_accelerators_compute_what_those_for_cpus_do(channels, dtype):
    few, many = channels
    x, g = draw(0, 2, 6, 5, 7, few).astype(dtype), draw(1, 2, 4, 3, 5, many).astype(dtype)
    kernel = draw(2, 3, 3, 3, few, many).astype(dtype)
    none = ((0, 0),) * 3
    pairs = [
        (forms._correlate_folded(none, x, kernel), forms._correlate_native(none, x, kernel)),
        (forms._kernel_gradient_planes(none, x, g), forms._kernel_gradient_native(none, x, g)),
    ]
    for folded, native in pairs:
        assert folded.dtype == native.dtype == dtype
        a, b = (np.asarray(y, np.float32) for y in (folded, native))
        near = 1e-5 if dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(a, b, rtol=0, atol=near * np.abs(b).max())
