"""Convolutions of images and volumes, channels last: one call, the form that XLA compiles best per platform.

XLA's own 3-D convolutions are 4 to 80 times slower than need be on CPU, above all their gradients. All
strides here become convolutions of stride 1 (space to depth, depth to space), and these are a pair of
bilinear maps, `_correlate` and `_kernel_gradient`, each of which is the other's derivative: so they can
be differentiated (in reverse) as often as one likes. On CPU a volume's depth goes into the batch and its
depth taps into the channels, elsewhere XLA's own form is taken. Equal to `jax.lax` to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

FEW = 8  # times fewer channels out than in: the form for the kernel of a network's last layer

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
    if stride == 1:
        return _correlate(x, kernel, pads)
    out = [(n + sum(p) - k) // stride + 1 for n, p, k in zip(space, pads, taps)]
    blocks = [-(-k // stride) for k in taps]  # taps in units of the stride, rounded up
    after = [(o + q - 1) * stride - n - p[0] for o, q, n, p in zip(out, blocks, space, pads)]
    x = _pad(x, tuple((p[0], a) for p, a in zip(pads, after)))
    return _correlate(space_to_depth(x, stride), _phases(kernel, stride, -1), _none(len(taps)))


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
    phases = jnp.flip(_phases(kernel, stride, -2), range(len(taps)))
    around = tuple((q - 1, q - 1) for q in phases.shape[:-2])
    y = depth_to_space(_correlate(x, phases, around), stride)
    ends = [stride * (n - 1) + k - p[1] for n, k, p in zip(space, taps, pads)]
    return y[:, *(slice(p[0], e) for p, e in zip(pads, ends))]


def _phases(kernel: Float[Array, "*k i o"], stride: int, kept: int) -> Float[Array, "*q i o"]:
    """Taps in whole strides; those within one become channels, beside the axis that is kept."""
    missing = [(0, -k % stride, 0) for k in kernel.shape[:-2]]
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*missing, (0, 0, 0), (0, 0, 0)])
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


Pads = tuple[tuple[int, int], ...]


def _pairs(padding: Padding, taps: Sequence[int]) -> Pads:
    if padding is None:
        return tuple((k // 2, k // 2) for k in taps)
    if isinstance(padding, int):
        return ((padding, padding),) * len(taps)
    return tuple((before, after) for before, after in padding)


def _none(axes: int) -> Pads:
    return ((0, 0),) * axes


def _pad(x: Float[Array, "b *space i"], pads: Pads) -> Float[Array, "b *padded i"]:
    """Zeros before and after each axis of space; a negative number cuts."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)])


# The pair of bilinear maps, of x with zeros around: y = x * w, and dw = x * dy. The zeros belong to the
# maps: so neither is the gradient by them computed, nor is a padded copy kept for the backward pass.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate(
    x: Float[Array, "b *space i"], w: Float[Array, "*k i o"], pads: Pads
) -> Float[Array, "b *out o"]:
    native, folded = partial(_correlate_native, pads), partial(_correlate_folded, pads)
    if x.ndim == 4 or _pointwise(w):
        return native(x, w)
    return lax.platform_dependent(x, w, cpu=folded, default=native)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(
    x: Float[Array, "b *space i"], g: Float[Array, "b *out o"], pads: Pads
) -> Float[Array, "*k i o"]:
    native, planes = partial(_kernel_gradient_native, pads), partial(_kernel_gradient_planes, pads)
    if all(k == 1 for k in _taps(pads, x, g)):
        return native(x, g)
    return lax.platform_dependent(x, g, cpu=planes, default=native)


def _input_gradient(
    g: Float[Array, "b *out o"], w: Float[Array, "*k i o"], pads: Pads
) -> Float[Array, "b *space i"]:
    taps = w.shape[:-2]
    return _correlate(g, jnp.flip(w, range(len(taps))).swapaxes(-1, -2), _mirrored(pads, taps))


_correlate.defvjp(
    lambda x, w, pads: (_correlate(x, w, pads), (x, w)),
    lambda pads, xw, g: (_input_gradient(g, xw[1], pads), _kernel_gradient(xw[0], g, pads)),
)
_kernel_gradient.defvjp(
    lambda x, g, pads: (_kernel_gradient(x, g, pads), (x, g)),
    lambda pads, xg, w: (_input_gradient(xg[1], w, pads), _correlate(xg[0], w, pads)),
)


def _pointwise(w: Float[Array, "*k i o"]) -> bool:
    return all(k == 1 for k in w.shape[:-2])


def _taps(pads: Pads, x: Float[Array, "b *space i"], g: Float[Array, "b *out o"]) -> list[int]:
    """Of the kernel that gives `g` of `x`."""
    return [n + sum(p) - m + 1 for n, p, m in zip(x.shape[1:-1], pads, g.shape[1:-1])]


def _mirrored(pads: Pads, taps: Sequence[int]) -> Pads:
    """The zeros that the result needs around it to give the input's shape back."""
    return tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(taps, pads))


def _fast(pads: Pads, w: Float[Array, "*k i o"]) -> bool:
    """Whether XLA's convolution on CPU is fast with these zeros inside; else, in float64, a thousandth."""
    most = [(k - 1) // 2 if w.dtype == jnp.float64 else k - 1 for k in w.shape]
    return all(min(p) >= 0 and max(p) <= m for p, m in zip(pads, most))


def _correlate_native(pads: Pads, x: Array, w: Array) -> Array:
    if _pointwise(w):
        return _pad(x, pads) @ w.reshape(w.shape[-2:])
    if not _fast(pads, w):
        x, pads = _pad(x, pads), _none(len(pads))
        x = lax.optimization_barrier(x)  # else XLA puts the zeros back inside
    space = "XYZ"[: x.ndim - 2]
    axes = f"N{space}C", f"{space}IO", f"N{space}C"
    return lax.conv_general_dilated(x, w, (1,) * len(space), pads, dimension_numbers=axes)


def _kernel_gradient_native(pads: Pads, x: Array, g: Array) -> Array:
    shape = (*_taps(pads, x, g), x.shape[-1], g.shape[-1])
    w = jax.ShapeDtypeStruct(shape, x.dtype)
    (dw,) = jax.linear_transpose(lambda w: _correlate_native(pads, x, w), w)(g)
    return dw


def _correlate_folded(
    pads: Pads, x: Float[Array, "b x y z i"], w: Float[Array, "k l m i o"]
) -> Array:
    """One 2-D convolution with depth in the batch and the taps along depth in the channels.

    In those of the output, whose parts are then shifted along depth and added up, or, where the input has
    fewer, of the input: so `x` is copied for each tap only where that is less than the results.
    """
    around, (taps, *plane, i, o) = pads[1:], w.shape
    depth = x.shape[1] + sum(pads[0]) - taps + 1

    def shifted(planes: Array, tap: int) -> Array:
        before = pads[0][0] - tap
        return _pad(planes, ((before, depth - before - x.shape[1]), (0, 0), (0, 0)))

    def flat(x: Array, kernel: Array) -> Array:
        y = _correlate_native(around, x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    if i < o:
        gathered = jnp.concatenate([shifted(x, k) for k in range(taps)], -1)
        return flat(gathered, w.transpose(1, 2, 0, 3, 4).reshape(*plane, -1, o))
    y = flat(x, w.transpose(1, 2, 3, 0, 4).reshape(*plane, i, -1))
    y, *others = [shifted(y[..., k * o : (k + 1) * o], k) for k in range(taps)]
    # Of a sum that is not held together XLA keeps all terms, as late as for gradients. No loop: devices
    # would send each other sums within it, which processes on CPUs then get in different orders.
    return lax.optimization_barrier(sum(others, y)) if others else y


def _kernel_gradient_planes(pads: Pads, x: Array, g: Array) -> Array:
    """One matrix product a depth plane of `x`: its taps within the plane against the planes of `g` around.

    XLA's own form is 160 times slower in `scan` or `cond` on CPU.
    """
    if x.ndim == 4:
        return _kernel_gradient_planes(((0, 0), *pads), x[:, None], g[:, None])[0]
    k, m, n = taps = _taps(pads, x, g)
    if m * n > 1 and FEW * g.shape[-1] <= x.shape[-1]:
        # The shifted copies are then made of `g`: dw[t] = sum_j g[j + p - t] x[j], p zeros before x.
        mirrored = _kernel_gradient_planes(_mirrored(pads, taps), g, x)
        return jnp.flip(mirrored, (0, 1, 2)).swapaxes(-1, -2)
    rows, columns = g.shape[2:4]
    wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    g = _pad(g, (_mirrored(pads, taps)[0], (0, 0), (0, 0)))

    def product(depth: Array | int) -> Array:
        plane = _pad(lax.dynamic_index_in_dim(x, depth, axis=1, keepdims=False), pads[1:])
        slab = lax.dynamic_slice_in_dim(g, depth, k, axis=1)
        around = jnp.concatenate([slab[:, k - 1 - t] for t in range(k)], -1)
        around = around.reshape(-1, around.shape[-1])
        shifts = [plane[:, p : p + rows, q : q + columns] for p in range(m) for q in range(n)]
        shifted = jnp.concatenate(shifts, -1).reshape(-1, m * n * x.shape[-1])
        first = ((0,), (0,)), ((), ())  # sums over the first axis of both
        return lax.dot_general(around, shifted, first, preferred_element_type=wide)

    if x.shape[1] == 1:
        total = product(0)
    else:
        start = jnp.zeros((k * g.shape[-1], m * n * x.shape[-1]), wide)
        total = lax.fori_loop(0, x.shape[1], lambda depth, total: total + product(depth), start)
    each = total.reshape(k, g.shape[-1], m, n, x.shape[-1])
    return each.transpose(0, 2, 3, 4, 1).astype(x.dtype)
