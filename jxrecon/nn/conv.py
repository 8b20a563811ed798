"""Convolutions of images and volumes, channels last: one call, the form that XLA compiles best per platform.

XLA's own 3-D convolutions are 4 to 80 times slower than need be on CPU, above all their gradients. All
strides here become convolutions of stride 1 (space to depth, depth to space), and these are a pair of
bilinear maps, `_correlate` and `_kernel_gradient`, each of which is the other's derivative: so they can
be differentiated (in reverse) as often as one likes. On CPU a volume's depth goes into the batch and its
depth taps into the channels, elsewhere XLA's own form is taken. Equal to `jax.lax` to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

FEW = 8  # times fewer channels out than in: the forms for a network's last layer

Padding = int | Sequence[tuple[int, int]] | None


def conv(
    x: Float[Array, "b *space i"],
    kernel: Float[Array, "*k i o"],
    stride: int = 1,
    padding: Padding = None,
) -> Float[Array, "b *out o"]:
    """Correlation with zero padding (what deep learning calls a convolution), 2-D or 3-D.

    Args:
        x: [batch, *space, channels in].
        kernel: [*taps, channels in, channels out], of the same dtype as `x`.
        stride: the same along all axes.
        padding: zeros before and after: one number, or a pair an axis; None is half the kernel.

    Returns:
        [batch, *out, channels out] with out = (n + before + after - taps) // stride + 1.
    """
    taps, space = kernel.shape[:-2], x.shape[1:-1]
    pads = _pairs(padding, taps)
    out = [(n + sum(p) - k) // stride + 1 for n, p, k in zip(space, pads, taps)]
    blocks = [-(-k // stride) for k in taps]  # taps in units of the stride, rounded up
    after = [(o + q - 1) * stride - n - p[0] for o, q, n, p in zip(out, blocks, space, pads)]
    x = _pad(x, [(0, 0), *((p[0], a) for p, a in zip(pads, after)), (0, 0)])
    if stride > 1:
        x, kernel = space_to_depth(x, stride), _phases(kernel, stride, -1)
    return _correlate(x, kernel)


def conv_transpose(
    x: Float[Array, "b *space i"],
    kernel: Float[Array, "*k i o"],
    stride: int = 2,
    padding: Padding = 0,
) -> Float[Array, "b *out o"]:
    """Transposed convolution: y[stride m + t] = sum over m, t of x[m] kernel[t] (not flipped).

    All sub-pixel phases are channels of one small convolution of `x`; no zeros are inserted.

    Args:
        x, kernel, stride: as `conv`.
        padding: how much of the whole result is cut off before and after: one number or a pair an axis.

    Returns:
        [batch, *out, channels out] with out = stride (n - 1) + taps - before - after.
    """
    taps, space = kernel.shape[:-2], x.shape[1:-1]
    pads = _pairs(padding, taps)
    phases = _phases(kernel, stride, -2)
    x = _pad(x, [(0, 0), *((q - 1, q - 1) for q in phases.shape[:-2]), (0, 0)])
    y = depth_to_space(_correlate(x, jnp.flip(phases, range(len(taps)))), stride)
    ends = [stride * (n - 1) + k - p[1] for n, k, p in zip(space, taps, pads)]
    return y[:, *(slice(p[0], e) for p, e in zip(pads, ends))]


def _phases(kernel: Float[Array, "*k i o"], stride: int, kept: int) -> Float[Array, "*q i o"]:
    """Taps in whole strides; those within one become channels, beside the axis that is kept."""
    kernel = _pad(kernel, [*((0, -k % stride) for k in kernel.shape[:-2]), (0, 0), (0, 0)])
    return jnp.moveaxis(space_to_depth(jnp.moveaxis(kernel, kept, 0), stride), 0, kept)


def space_to_depth(x: Float[Array, "b *space c"], factor: int) -> Float[Array, "b *coarse d"]:
    """Blocks of factor^ndim positions become channels: [b, *(n / factor), factor^ndim * c]."""
    axes = x.ndim - 2
    split = [size for n in x.shape[1:-1] for size in (n // factor, factor)]
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    blocks = x.reshape(x.shape[0], *split, x.shape[-1]).transpose(order)
    return blocks.reshape(x.shape[0], *split[::2], -1)


def depth_to_space(x: Float[Array, "b *coarse d"], factor: int) -> Float[Array, "b *space c"]:
    """Inverse of `space_to_depth`."""
    axes = x.ndim - 2
    x = x.reshape(*x.shape[:-1], *[factor] * axes, -1)
    order = [0, *(a for d in range(axes) for a in (1 + d, 1 + axes + d)), 2 * axes + 1]
    fine = (n * factor for n in x.shape[1 : 1 + axes])
    return x.transpose(order).reshape(x.shape[0], *fine, -1)


def _pairs(padding: Padding, taps: Sequence[int]) -> list[tuple[int, int]]:
    if padding is None:
        return [(k // 2, k // 2) for k in taps]
    if isinstance(padding, int):
        return [(padding, padding)] * len(taps)
    return list(padding)


def _pad(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    """Zeros before and after each axis; a negative number cuts."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) for before, after in pads])


# The pair of bilinear maps: y = x * w without padding, and dw = x * dy.


@jax.custom_vjp
def _correlate(
    x: Float[Array, "b *space i"], w: Float[Array, "*k i o"]
) -> Float[Array, "b *out o"]:
    if x.ndim == 4 or all(k == 1 for k in w.shape[:-2]):
        return _correlate_native(x, w)
    return lax.platform_dependent(x, w, cpu=_correlate_folded, default=_correlate_native)


@jax.custom_vjp
def _kernel_gradient(
    x: Float[Array, "b *space i"], g: Float[Array, "b *out o"]
) -> Float[Array, "*k i o"]:
    if x.shape[1:-1] == g.shape[1:-1]:
        return _kernel_gradient_native(x, g)
    return lax.platform_dependent(
        x, g, cpu=_kernel_gradient_planes, default=_kernel_gradient_native
    )


def _input_gradient(
    g: Float[Array, "b *out o"], w: Float[Array, "*k i o"]
) -> Float[Array, "b *space i"]:
    taps = w.shape[:-2]
    g = _pad(g, [(0, 0), *((k - 1, k - 1) for k in taps), (0, 0)])
    return _correlate(g, jnp.flip(w, range(len(taps))).swapaxes(-1, -2))


_correlate.defvjp(
    lambda x, w: (_correlate(x, w), (x, w)),
    lambda xw, g: (_input_gradient(g, xw[1]), _kernel_gradient(xw[0], g)),
)
_kernel_gradient.defvjp(
    lambda x, g: (_kernel_gradient(x, g), (x, g)),
    lambda xg, w: (_input_gradient(xg[1], w), _correlate(xg[0], w)),
)


def _correlate_native(x: Array, w: Array) -> Array:
    if all(k == 1 for k in w.shape[:-2]):
        return x @ w.reshape(w.shape[-2:])
    space = "XYZ"[: x.ndim - 2]
    axes = f"N{space}C", f"{space}IO", f"N{space}C"
    return lax.conv_general_dilated(x, w, (1,) * len(space), "VALID", dimension_numbers=axes)


def _kernel_gradient_native(x: Array, g: Array) -> Array:
    taps = [n - m + 1 for n, m in zip(x.shape[1:-1], g.shape[1:-1])]
    w = jax.ShapeDtypeStruct((*taps, x.shape[-1], g.shape[-1]), x.dtype)
    (dw,) = jax.linear_transpose(lambda w: _correlate_native(x, w), w)(g)
    return dw


def _correlate_folded(x: Float[Array, "b x y z i"], w: Float[Array, "k l m i o"]) -> Array:
    """One 2-D convolution: depth in the batch, the k taps along depth in the channels.

    Those of the input, or, where the output has few, of the output, which are then summed.
    """
    depth = x.shape[1] - w.shape[0] + 1
    if FEW * w.shape[-1] <= w.shape[-2]:
        kernel = w.transpose(1, 2, 3, 0, 4).reshape(*w.shape[1:4], -1)
        y = _correlate_native(x.reshape(-1, *x.shape[2:]), kernel)
        y = y.reshape(*x.shape[:2], *y.shape[1:3], w.shape[0], w.shape[-1])
        terms = [y[:, k : k + depth, :, :, k] for k in range(w.shape[0])]
        return sum(terms[1:], terms[0])
    planes = jnp.concatenate([x[:, k : k + depth] for k in range(w.shape[0])], -1)
    kernel = w.transpose(1, 2, 0, 3, 4).reshape(*w.shape[1:3], -1, w.shape[-1])
    y = _correlate_native(planes.reshape(-1, *planes.shape[2:]), kernel)
    return y.reshape(x.shape[0], depth, *y.shape[1:])


def _kernel_gradient_planes(x: Array, g: Array) -> Array:
    """One matrix product a depth plane of `x`: its taps within the plane against the planes of `g` around.

    XLA's own form is 160 times slower in `scan` or `cond` on CPU.
    """
    if x.ndim == 4:
        return _kernel_gradient_planes(x[:, None], g[:, None])[0]
    k, m, n = (a - b + 1 for a, b in zip(x.shape[1:-1], g.shape[1:-1]))
    if m * n > 1 and FEW * g.shape[-1] <= x.shape[-1]:
        # The shifted copies are then made of `g`: dw[t] = sum_m g'[m + k - 1 - t] x[m], g' with zeros around.
        padded = _pad(g, [(0, 0), *((q - 1, q - 1) for q in (k, m, n)), (0, 0)])
        return jnp.flip(_kernel_gradient_planes(padded, x), (0, 1, 2)).swapaxes(-1, -2)
    rows, columns = g.shape[2:4]
    wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    g = _pad(g, [(0, 0), (k - 1, k - 1), *((0, 0),) * 3])

    def product(depth: Array | int) -> Array:
        plane = lax.dynamic_index_in_dim(x, depth, axis=1, keepdims=False)
        slab = lax.dynamic_slice_in_dim(g, depth, k, axis=1)
        around = jnp.concatenate([slab[:, k - 1 - t] for t in range(k)], -1)
        around = around.reshape(-1, around.shape[-1])
        taps = [plane[:, p : p + rows, q : q + columns] for p in range(m) for q in range(n)]
        shifted = jnp.concatenate(taps, -1).reshape(-1, m * n * x.shape[-1])
        first = ((0,), (0,)), ((), ())  # sums over the first axis of both
        return lax.dot_general(around, shifted, first, preferred_element_type=wide)

    if x.shape[1] == 1:
        total = product(0)
    else:
        start = jnp.zeros((k * g.shape[-1], m * n * x.shape[-1]), wide)
        total = lax.fori_loop(0, x.shape[1], lambda depth, total: total + product(depth), start)
    taps = total.reshape(k, g.shape[-1], m, n, x.shape[-1])
    return taps.transpose(0, 2, 3, 4, 1).astype(x.dtype)
