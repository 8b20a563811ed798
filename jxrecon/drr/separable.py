"""Sums over a volume's slices, each resampled by hat weights that factor into rows and columns.

image[p, r] = sum_k sum_q sum_z hat(q_k(p) - q) hat(z_k(r) - z) V[k, q, z],   hat(x) = max(0, 1 - |x|)

On CPUs forward, adjoint and slopes only gather: each voxel collects the few pixels whose hats cover
it, so nothing scatters, and extra memory is a few slices. Elsewhere the hats are small dense matrices,
the form of tensor units. Differentiable in the volume and in the pixels' rays to any order.

A pixel's ray is straight: it crosses slice k at at_k = at_middle + (k - middle) slope. Positions are
differentiated by the slopes alone: a ray turns about the place where it crosses the middle slice, which
is where a virtual detector stands still.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import CustomVJPPrimal
from jaxtyping import Array, Bool, Float

from jxrecon.types import AnyArray

T = TypeVar("T")

Slopes: TypeAlias = tuple[Float[Array, "p r"], Float[Array, "p r"]]
"""Derivatives of an image by the slopes of its pixels' rays along q and along z."""


class Comb(NamedTuple):
    """Where the pixels lie along one volume axis in every slice, in voxels: `start + step p`.

    `at` is what counts; start and step only find the pixels near a voxel. `slope` is what first
    derivatives come by, and `at` what higher ones do.
    """

    at: Float[AnyArray, "slices pixels"]
    slope: Float[AnyArray, " pixels"]
    start: Float[AnyArray, " slices"]
    step: Float[AnyArray, " slices"]


_NONE: Any = Comb(*[None] * 4)  # type: ignore[arg-type]
"""The gradient by a comb whose every part counts nothing."""


class Form(NamedTuple):
    """What is fixed when a program is compiled.

    Attributes:
        axis: volume axis of the slices, 0 or 1; z is the last axis, q the other one.
        shape: voxels along the volume's axes.
        taps: pixels within a voxel of a voxel, along q and along z; a loop takes any further ones.
    """

    axis: int
    shape: tuple[int, ...]
    taps: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """Voxels along q and z."""
        return self.shape[1 - self.axis], self.shape[2]


def comb(start: Any, step: Any, pixels: int) -> Comb:
    """The comb of that many pixels, each position rounded once.

    A compiler that computes a traced position twice, for a voxel and for its weight, may round it to
    either side of an integer.
    """
    known = isinstance(start, np.ndarray)
    index = (np if known else jnp).arange(pixels, dtype=start.dtype)
    at = start[:, None] + step[:, None] * index[None]
    at = at if known else made(at, jnp.isnan(start[0]))
    return Comb(at, (at[-1] - at[0]) / max(len(at) - 1, 1), start, step)


@jax.custom_vjp
def made(x: Float[Array, "..."], never: Bool[Array, ""]) -> Float[Array, "..."]:
    """x, made once: a compiler that may not see that this loop never runs does not fuse x into its uses.

    XLA:CPU else computes what costs much anew for every use of it.
    """
    return lax.while_loop(lambda c: c[0], lambda c: (~c[0], -c[1]), (never, x))[1]


made.defvjp(lambda x, never: (made(x, never), None), lambda _, cotangent: (cotangent, None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sum_of_slices(
    volume: Float[Array, "a b z"], q: Comb, z: Comb, form: Form
) -> Float[Array, "p r"]:
    """The image: the sum over slices of their resampled pixels."""
    return _project(volume, q, z, axis=form.axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def spread_to_slices(
    image: Float[Array, "p r"], q: Comb, z: Comb, form: Form
) -> Float[Array, "a b z"]:
    """The adjoint of `sum_of_slices` in the volume: every slice collects the image's pixels."""
    return _backproject(image, q, z, form=form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sum_and_slopes(
    volume: Float[Array, "a b z"], q: Comb, z: Comb, form: Form
) -> tuple[Float[Array, "p r"], Slopes]:
    """The image and its slopes, which come at less than the price of another image."""
    return _slopes(volume, q, z, axis=form.axis)


def by_slopes(slopes: Slopes, image: Float[Array, "p r"]) -> tuple[Comb, Comb]:
    """Gradients of <image, sum_of_slices(volume)> by q and z, given the slopes of the sum."""
    of_q, of_z = (image * slopes[0]).sum(1), (image * slopes[1]).sum(0)
    return _NONE._replace(slope=of_q), _NONE._replace(slope=of_z)


# <V, A' y> = <A V, y> is one bilinear form: A and A' are each other's gradients, and by the positions
# they have one and the same. It is computed only where a position is differentiated.


def _sum_forward(volume, q, z, form):
    moved, (volume, q, z) = opened((volume, q, z), by=(q, z))
    if not moved:
        return sum_of_slices(volume, q, z, form), (None, q, z)
    image, slopes = sum_and_slopes(volume, q, z, form)
    return image, (slopes, q, z)


def _sum_backward(form, saved, image):
    slopes, q, z = saved
    moved = by_slopes(slopes, image) if slopes else (None, None)
    return spread_to_slices(image, q, z, form), *moved


def _spread_forward(image, q, z, form):
    moved, (image, q, z) = opened((image, q, z), by=(q, z))
    return spread_to_slices(image, q, z, form), (image if moved else None, q, z)


def _spread_backward(form, saved, volume):
    image, q, z = saved
    if image is None:
        return sum_of_slices(volume, q, z, form), None, None
    gradient, slopes = sum_and_slopes(volume, q, z, form)
    return gradient, *by_slopes(slopes, image)


def _slopes_backward(form, saved, cotangents):
    """Second derivatives, by the matrices' form, which JAX differentiates: dense, on CPUs slow."""
    volume, q, z = saved

    def dense(volume, at_q, at_z):
        return slopes_by_matrices(volume, at_q, at_z, form.axis)

    of_volume, at_q, at_z = jax.vjp(dense, volume, q.at, z.at)[1](cotangents)
    return of_volume, _NONE._replace(at=at_q), _NONE._replace(at=at_z)


def opened(arrays: T, by: Sequence[Comb]) -> tuple[bool, T]:
    """Whether these combs are differentiated, and the values of what a rule with symbolic zeros is given."""
    moved = any(comb.slope.perturbed for comb in by)  # type: ignore[union-attr]
    is_leaf = lambda x: isinstance(x, CustomVJPPrimal)  # noqa: E731
    return moved, jax.tree.map(lambda leaf: leaf.value, arrays, is_leaf=is_leaf)


sum_of_slices.defvjp(_sum_forward, _sum_backward, symbolic_zeros=True)
spread_to_slices.defvjp(_spread_forward, _spread_backward, symbolic_zeros=True)
sum_and_slopes.defvjp(
    lambda volume, q, z, form: (sum_and_slopes(volume, q, z, form), (volume, q, z)),
    _slopes_backward,
)


def _by_platform(by_gathers, by_matrices, *arrays, **fixed):
    # Known positions are constants: the barrier keeps XLA from folding what is made of them.
    first, *positions = arrays
    positions = lax.optimization_barrier(positions)
    gathers, matrices = (functools.partial(form, **fixed) for form in (by_gathers, by_matrices))
    return lax.platform_dependent(first, *positions, cpu=gathers, default=matrices)


@functools.partial(jax.jit, static_argnames="axis")
def _project(volume, q, z, axis):
    return _by_platform(project_by_gathers, project_by_matrices, volume, q.at, z.at, axis=axis)


@functools.partial(jax.jit, static_argnames="axis")
def _slopes(volume, q, z, axis):
    return _by_platform(slopes_by_gathers, slopes_by_matrices, volume, q.at, z.at, axis=axis)


@functools.partial(jax.jit, static_argnames="form")
def _backproject(image, q, z, form):
    return _by_platform(backproject_by_gathers, backproject_by_matrices, image, q, z, form=form)


def _pairs(at, size):
    """The two of `size` voxels about each position, their hat weights, and the weights' slopes.

    Voxels outside are read at the edge with weight and slope 0.
    """
    below = jnp.floor(at)
    inside = (below >= 0) & (below < size), (below >= -1) & (below < size - 1)
    voxels = (jnp.clip(below + n, 0, size - 1).astype(jnp.int32) for n in (0, 1))
    first = jnp.where(inside[0], 1.0 - (at - below), 0.0)
    second = jnp.where(inside[1], at - below, 0.0)
    falling = jnp.where(inside[0], -1.0, 0.0).astype(at.dtype)
    rising = jnp.where(inside[1], 1.0, 0.0).astype(at.dtype)
    return *voxels, first, second, falling, rising


def _line_pairs(at_q, axis, shape):
    """`_pairs` along q, counted among all lines of the volume along z below each other."""
    slice_stride, q_stride = (shape[1], 1) if axis == 0 else (1, shape[1])
    i0, i1, *weights = _pairs(at_q, shape[1 - axis])
    first_row = (jnp.arange(len(at_q), dtype=jnp.int32) * slice_stride)[:, None]
    return i0 * q_stride + first_row, i1 * q_stride + first_row, *weights


def _from_middle(slices, dtype):
    return (jnp.arange(slices, dtype=dtype) - (slices - 1) / 2)[:, None]


def _take(rows, index):
    return rows.at[index].get(mode="promise_in_bounds")


def _between(lines, first, second, weight, other):
    """Each pixel between two of the lines."""
    return weight[:, None] * _take(lines, first) + other[:, None] * _take(lines, second)


def project_by_gathers(volume, at_q, at_z, axis):
    """`sum_of_slices` for CPUs."""
    flat = volume.reshape(-1, volume.shape[2])
    lines_of_q = _line_pairs(at_q, axis, volume.shape)[:4]

    def add_slice(total, step):
        of_q, pairs_z = step
        turned = made(_between(flat, *of_q).T, of_q[0][0] < 0)
        return total + _between(turned, *pairs_z), None

    nothing = jnp.zeros((at_z.shape[1], at_q.shape[1]), volume.dtype)
    total, _ = lax.scan(add_slice, nothing, (lines_of_q, _pairs(at_z, volume.shape[2])[:4]))
    return total.T


def slopes_by_gathers(volume, at_q, at_z, axis):
    """`sum_and_slopes` for CPUs: the image's lines and their slopes along q side by side."""
    flat, columns = volume.reshape(-1, volume.shape[2]), at_q.shape[1]
    from_middle = _from_middle(len(at_q), volume.dtype)
    r0, r1, a0, a1, d0, d1 = _line_pairs(at_q, axis, volume.shape)
    sides = (r0, r0), (r1, r1), (a0, d0 * from_middle), (a1, d1 * from_middle)
    lines_of_q = tuple(jnp.concatenate(both, 1) for both in sides)
    j0, j1, b0, b1, e0, e1 = _pairs(at_z, volume.shape[2])

    def add_slice(total, step):
        of_q, pairs_z, slope_pairs_z = step
        turned = made(_between(flat, *of_q).T, of_q[0][0] < 0)
        both, of_z = total
        both += _between(turned, *pairs_z)
        return (both, of_z + _between(turned[:, :columns], *slope_pairs_z)), None

    steps = lines_of_q, (j0, j1, b0, b1), (j0, j1, e0 * from_middle, e1 * from_middle)
    nothing = jnp.zeros((at_z.shape[1], 2 * columns), volume.dtype)
    (both, of_z), _ = lax.scan(add_slice, (nothing, nothing[:, :columns]), steps)
    return both[:, :columns].T, (both[:, columns:].T, of_z.T)


def _covers(comb, size, taps):
    """The pixels within a voxel of each of `size` voxels, slice by slice, as `_collect` takes them."""
    voxel = jnp.arange(size, dtype=comb.at.dtype)
    start, step = comb.start[:, None], comb.step[:, None]
    ends = (voxel[None] - 1 - start) / step, (voxel[None] + 1 - start) / step
    first = (jnp.floor(jnp.minimum(*ends)) + 1).astype(jnp.int32)
    tap = jnp.arange(taps, dtype=jnp.int32)[:, None]
    known = jax.vmap(lambda at, first: _cover(at, first[None] + tap))(comb.at, first)
    count = jnp.ceil(2.0 / jnp.abs(comb.step)).astype(jnp.int32)
    return known, (comb.at, first, jnp.maximum(count, taps))


def _cover(at, pixel):
    """The pixels for each voxel, brought within bounds, and their weights, [taps, voxels]."""
    voxel = jnp.arange(pixel.shape[1], dtype=at.dtype)
    inside = (pixel >= 0) & (pixel < len(at))
    pixel = jnp.clip(pixel, 0, len(at) - 1)
    weight = jnp.maximum(1.0 - jnp.abs(_take(at, pixel) - voxel[None]), 0.0)
    return pixel, jnp.where(inside, weight, 0.0)


def _collect(lines, covers, turned=False):
    """Weighted sum over the taps of the lines at their pixels.

    The loop over further taps, which most cameras do not need, also does what `made` is for.
    """
    (pixels, weights), (at, first, count) = covers

    def of(pixel, weight):
        weighted = weight[:, None] * _take(lines, pixel)
        return weighted.T if turned else weighted

    def add(tap, total):
        pixel, weight = _cover(at, first[None] + tap)
        return total + of(pixel[0], weight[0])

    return lax.fori_loop(len(pixels), count, add, sum(map(of, pixels, weights)))


def backproject_by_gathers(image, q, z, form):
    """`spread_to_slices` for CPUs."""
    by_rows, slices = image.T, len(q.at)
    covers = (_covers(comb, *of) for comb, *of in zip((q, z), form.sizes, form.taps))

    def put_slice(volume, step):
        k, of_q, of_z = step
        made = _collect(_collect(by_rows, of_z, turned=True), of_q)
        return lax.dynamic_update_index_in_dim(volume, made, k, form.axis), None

    nothing = jnp.zeros(form.shape, image.dtype)
    volume, _ = lax.scan(put_slice, nothing, (jnp.arange(slices, dtype=jnp.int32), *covers))
    return volume


def _hats(at, size):
    """hat(at - voxel), [slices, pixels, size]."""
    voxel = jnp.arange(size, dtype=at.dtype)
    return jnp.maximum(1.0 - jnp.abs(at[..., None] - voxel[None, None]), 0.0)


def _hat_slopes(at, size):
    """The derivatives of `_hats` by at, at a voxel those to its right; times slices from the middle."""
    off = at[..., None] - jnp.arange(size, dtype=at.dtype)[None, None]
    falling, rising = (off >= 0) & (off < 1), (off >= -1) & (off < 0)
    slope = rising.astype(at.dtype) - falling.astype(at.dtype)
    return slope * _from_middle(len(at), at.dtype)[..., None]


def project_by_matrices(volume, at_q, at_z, axis):
    """`sum_of_slices` for tensor units: two batches of small matrix products."""
    slices = jnp.moveaxis(volume, axis, 0)
    hats_q, hats_z = _hats(at_q, slices.shape[1]), _hats(at_z, slices.shape[2])
    return _product(hats_q, slices, hats_z)


def _product(hats_q, slices, hats_z):
    lines = jnp.einsum("kpq,kqz->kpz", hats_q, slices, precision="highest")
    return jnp.einsum("kpz,krz->pr", lines, hats_z, precision="highest")


def slopes_by_matrices(volume, at_q, at_z, axis):
    """`sum_and_slopes` for tensor units."""
    slices = jnp.moveaxis(volume, axis, 0)
    (hats_q, slopes_q), (hats_z, slopes_z) = (
        (_hats(at, size), _hat_slopes(at, size)) for at, size in zip((at_q, at_z), slices.shape[1:])
    )
    image = _product(hats_q, slices, hats_z)
    return image, (_product(slopes_q, slices, hats_z), _product(hats_q, slices, slopes_z))


def backproject_by_matrices(image, q, z, form):
    """`spread_to_slices` for tensor units."""
    hats_q, hats_z = _hats(q.at, form.sizes[0]), _hats(z.at, form.sizes[1])
    lines = jnp.einsum("pr,krz->kpz", image, hats_z, precision="highest")
    slices = jnp.einsum("kpq,kpz->kqz", hats_q, lines, precision="highest")
    return jnp.moveaxis(slices, 0, form.axis)
