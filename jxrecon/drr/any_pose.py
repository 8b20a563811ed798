"""Line integrals for a camera that is traced: fast along whichever axis it looks along at run time.

A traced camera has no values while a program is compiled, so the program holds a branch for every axis
and for a few sizes of the virtual detector, made from the volume's shape and the detector's, and takes
at run time the smallest that fits. The virtual pixels are those of a known camera: as fine as the rule
of `shear_warp` has them, never wider. A camera that no branch holds is left to Joseph's method. Nothing
is compiled again when a pose crosses an axis; under vmap over cameras views go one by one, each through
its own branch, where a batched switch would compute all branches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Bool, Float, Int

from jxrecon.drr.joseph import joseph
from jxrecon.drr.rays import ORDERS, Fan, Rays, axis_first
from jxrecon.drr.separable import Comb, by_slopes, opened, sum_and_slopes, sum_of_slices
from jxrecon.drr.shear_warp import (
    COARSEST_PITCH,
    FINEST_PITCH,
    MARGIN,
    Need,
    Plan,
    combs_of,
    crossed_axis,
    fine,
    needs,
    sum_along,
    to_detector,
    virtual_pixels,
    whole_fours,
)

UPRIGHT = (1.03, 1.25)
"""Virtual pixels per detector pixel for cameras whose rows lie level: face to face, and oblique ones."""

ROLLED = 1.8
"""Per pixel of the detector's longer side, for cameras rolled at will and those that look along z."""

NEAREST = 1.2
"""How much larger than on its middle slice the volume's nearest face may look at no further taps."""


def plan_any_pose(shape: tuple[int, ...], detector: tuple[int, int]) -> Plan:
    """The plan for a traced camera: a branch for every axis and size.

    Args:
        shape: voxels along x, y, z.
        detector: rows and columns.
    """
    branches = []
    for axis, (_, *others) in enumerate(ORDERS):
        upright = [] if axis == 2 else [(x, detector[::-1]) for x in UPRIGHT]
        for room, pixels in [*upright, (ROLLED, (max(detector),) * 2)]:
            voxels = np.array([shape[n] for n in others])
            across = np.clip(pixels, voxels / COARSEST_PITCH, voxels / FINEST_PITCH)
            sizes = tuple(whole_fours(room * n + 2 * MARGIN + 1) for n in across)
            taps = tuple(int(n) for n in np.ceil(2.0 * NEAREST * across / voxels))
            branches.append(Plan("shear_warp", axis, True, sizes, (FINEST_PITCH,) * 2, taps))
    return Plan("auto", branches=tuple(branches))


class Choice(NamedTuple):
    """What is decided at run time.

    Attributes:
        branch: place among the plans; beyond the last one: Joseph.
        axis: index axis of the slices.
        through: whether the rays cross the slices as the shear-warp needs it.
        needed: of the virtual detector.
    """

    branch: Int[Any, ""]
    axis: Int[Any, ""]
    through: Bool[Any, ""]
    needed: list[Need]


def choice_of(rays: Rays, shape: tuple[int, ...], branches: Sequence[Plan]) -> Choice:
    """The branch that these rays take: the rules of `plan_shear_warp`, known or traced."""
    xp = rays.xp
    axis, through = crossed_axis(rays, shape)
    needed = needs(*_facing(through, *axis_first(axis, rays, shape)))
    pixels = xp.stack([each.pixels for each in needed])
    room = xp.asarray([plan.pixels for plan in branches], pixels.dtype)
    fits = (room >= pixels[None]).all(1) & through & fine(needed)
    fits = fits & (xp.asarray([plan.axis for plan in branches], axis.dtype) == axis)
    branch = xp.where(fits.any(), fits.argmax(), len(branches))
    choice = Choice(branch, axis, through, needed)
    return choice if rays.concrete else lax.stop_gradient(choice)


def _facing(through: Any, rays: Rays, sizes: Any) -> tuple[Rays, Any]:
    """The rays, or where they do not cross the slices, some that do: nothing is divided by zero."""
    xp, size, none = rays.xp, sizes[0], 0.0 * sizes[0]
    still = xp.zeros(3, rays.direction.corner.dtype)
    source, ray = xp.stack([-size, none, none]), xp.stack([3.0 * size, none, none])
    facing = Fan(source, still, still), Fan(ray, still, still)
    origin, direction = jax.tree.map(
        lambda mine, other: xp.where(through, mine, other), (rays.origin, rays.direction), facing
    )
    return dataclasses.replace(rays, origin=origin, direction=direction), sizes


def any_pose(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel, along whichever axis fits at run time."""
    branches = plan.branches
    choice = choice_of(rays, mu.shape, branches)
    turned, sizes = _facing(choice.through, *axis_first(choice.axis, rays, mu.shape))
    held = jnp.minimum(choice.branch, len(branches) - 1)
    pixels = jnp.asarray([plan.pixels for plan in branches], turned.direction.corner.dtype)[held]
    pitch = [each.pitch for each in choice.needed]
    lattice = virtual_pixels(turned, sizes, pitch, list(pixels))
    q, z = combs_of(turned, sizes, lattice, _room(branches), max(mu.shape))
    virtual, direct = _images(mu, q, z, rays, choice.branch, branches)
    image = to_detector(virtual, turned, sizes, lattice)
    return jnp.where(choice.branch < len(branches), image, direct)


def _room(branches: Sequence[Plan]) -> tuple[int, int]:
    """The virtual detector that holds those of all branches."""
    q, z = (max(sizes) for sizes in zip(*(plan.pixels for plan in branches)))
    return q, z


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _images(mu, q, z, rays, branch, branches):
    """The virtual image by the branch taken, or Joseph's image; the other one is nothing."""
    return switched(_ways(sum_of_slices, branches))(branch, mu, q, z, rays)


def _ways(kernel, branches):
    """For every branch, and for Joseph: (what the kernel makes, in the room of all branches; image)."""
    ways = [partial(_virtual, kernel, plan) for plan in branches]
    return [*ways, partial(_direct, kernel, branches[0])]


def _virtual(kernel, plan, mu, q, z, rays):
    """By one branch, from its share of the combs."""
    slices, room = mu.shape[plan.axis], (q.at.shape[1], z.at.shape[1])
    combs = (
        Comb(x.at[:slices, :n], x.slope[:n], x.start[:slices], x.step[:slices])
        for x, n in zip((q, z), plan.pixels)
    )
    made = sum_along(mu, combs, plan, kernel)
    wide = [(0, all_of - mine) for all_of, mine in zip(room, plan.pixels)]
    return jax.tree.map(lambda x: jnp.pad(x, wide), made), jnp.zeros(rays.shape, mu.dtype)


def _direct(kernel, plan, mu, q, z, rays):
    made = jax.eval_shape(partial(_virtual, kernel, plan), mu, q, z, rays)[0]
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made), joseph(mu, rays)


def _forward(mu, q, z, rays, branch, branches):
    moved, (mu, q, z, rays, branch) = opened((mu, q, z, rays, branch), by=(q, z))
    if not moved:
        return _images(mu, q, z, rays, branch, branches), (None, mu, q, z, rays, branch)
    ways = _ways(sum_and_slopes, branches)
    (virtual, slopes), direct = switched(ways)(branch, mu, q, z, rays)
    return (virtual, direct), (slopes, mu, q, z, rays, branch)


def _backward(branches, saved, images):
    slopes, mu, q, z, rays, branch = saved
    ways = [partial(_gradient, way) for way in _ways(sum_of_slices, branches)]
    by_volume = switched(ways)(branch, images, mu, q, z, rays)
    if slopes is None:
        return by_volume, None, None, None, None
    virtual, direct = images
    by_rays = switched(
        [
            lambda image, rays, mu: jax.tree.map(jnp.zeros_like, rays),
            partial(_gradient, lambda rays, mu: joseph(mu, rays)),
        ]
    )((branch == len(branches)).astype(jnp.int32), direct, rays, mu)
    return by_volume, *by_slopes(slopes, virtual), by_rays, None


_images.defvjp(_forward, _backward, symbolic_zeros=True)


def _gradient(function, cotangent, x, *others):
    """Of <cotangent, function(x, others)> by x."""
    return jax.vjp(lambda x: function(x, *others), x)[1](cotangent)[0]


def switched(functions: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """(index, arrays...) -> functions[index](arrays...), computing no other one, also under vmap.

    Differentiable to any order; a gradient computes the function anew as far as it needs it.
    """
    one_by_one = sequential_vmap(lambda index, *arrays: lax.switch(index, functions, *arrays))

    @jax.custom_vjp
    def call(index, *arrays):
        return one_by_one(index, *arrays)

    def backward(saved, cotangent):
        index, *arrays = saved

        def gradients(function, cotangent, *arrays):
            return jax.vjp(function, *arrays)[1](cotangent)

        ways = [partial(gradients, function) for function in functions]
        return None, *switched(ways)(index, cotangent, *arrays)

    call.defvjp(lambda *arrays: (call(*arrays), arrays), backward)
    return call
