"""Line integrals for a camera that is traced: fast along whichever axis it looks along at run time.

A traced camera has no values while a program is compiled, so the program holds a branch for every axis
and for a few sizes of the virtual detector, fixed from the volume's shape and the detector's, and takes
the one that fits: the shear-warp, by the rules that known cameras follow. Joseph's method takes the
rest. Nothing is compiled again when a pose crosses an axis; under vmap over cameras views go one by one,
each through its own branch, where a batched switch would compute all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from jxrecon.drr import shear_warp
from jxrecon.drr.joseph import joseph
from jxrecon.drr.rays import STEEPEST, Rays, image_axis
from jxrecon.drr.separable import Comb
from jxrecon.drr.shear_warp import MARGIN, Plan, others_of, whole_fours

ROOM = ((0.97, 1.15, 1.5), (0.97, 1.15, 1.5), (1.5,))
"""Sizes of the virtual detector for every axis, relative to one that shows the volume face to face.

The first is for frontal and lateral views, the last for views along a space diagonal.
"""

MAGNIFIED = 1.2
"""How much larger than the volume its shadow on its own middle slice is taken to be."""


def plan_any_pose(shape: tuple[int, ...], detector: tuple[int, int], spacing: Any) -> Plan:
    """The plan for a traced camera: a branch for every axis and size, for a detector that covers the volume.

    Args:
        shape: voxels along x, y, z.
        detector: rows and columns.
        spacing: edge lengths of a voxel, in any unit.
    """
    step = MAGNIFIED * (np.asarray(shape) * spacing).max() / max(detector)
    pitch = np.clip(step / spacing, shear_warp.FINEST_PITCH, shear_warp.COARSEST_PITCH)
    shadow = MAGNIFIED * np.asarray(shape) / pitch
    taps = np.ceil(2.0 * MAGNIFIED * shear_warp.SLACK / pitch).astype(int)
    plans = []
    for axis, rooms in enumerate(ROOM):
        others = others_of(axis)
        for room in rooms:
            pixels = tuple(whole_fours(room * shadow[n] + 1 + 2 * MARGIN) for n in others)
            mine = (tuple(float(pitch[n]) for n in others), tuple(int(taps[n]) for n in others))
            plans.append(Plan("shear_warp", axis, True, pixels, *mine))
    return Plan("auto", branches=tuple(plans))


class Choice(NamedTuple):
    """What is decided at run time.

    Attributes:
        branch: place among the plans; beyond the last one: Joseph.
        axis: index axis of the slices.
        first: the first virtual pixel on the middle slice along both other axes, in voxels.
        pitch: of the virtual pixels, likewise.
    """

    branch: Int[Any, ""]
    axis: Int[Any, ""]
    first: Float[Any, "2"]
    pitch: Float[Any, "2"]


def choice_of(rays: Rays, shape: tuple[int, ...], branches: tuple[Plan, ...]) -> Choice:
    """The branch that these rays take: the rules of `plan_shear_warp`, known or traced."""
    xp = rays.xp
    axis, worst = image_axis(rays)
    turned, sizes = _axis_first(rays, axis, shape)
    dtype = turned.direction.corner.dtype
    taps, room = (
        xp.asarray([getattr(plan, name) for plan in branches], dtype) for name in ("taps", "pixels")
    )
    of_axis = xp.asarray([plan.axis for plan in branches]) == axis
    mine = of_axis.argmax()
    pitch, needs = [], []
    for n, (low, high, step) in enumerate(shear_warp.shadow(turned, 0, sizes)):
        sparsest = 2.0 / (taps[mine, n] * shear_warp.least_scale(turned, 0, sizes))
        fine = shear_warp.pitch_for(xp, step)
        pitch.append(xp.maximum(fine, shear_warp.snapped(xp, sparsest, xp.ceil)))
        needs.append(shear_warp.pixels_for(xp, low, high, pitch[n]))
    fits = of_axis & (room >= xp.stack(needs)[None]).all(1)
    branch = fits.argmax()
    through = (worst <= STEEPEST) & shear_warp.crosses(turned, 0, sizes[0])
    through = through & fits.any() & (xp.stack(pitch) <= shear_warp.COARSEST_PITCH).all()
    plan = Plan("shear_warp", 0, True, tuple(room[branch]), tuple(pitch), tuple(taps[mine]))
    first, widened = shear_warp.virtual_pixels(turned, 0, sizes, plan)
    choice = Choice(xp.where(through, branch, len(branches)), axis, first, widened)
    return jax.tree.map(lax.stop_gradient, choice) if xp is jnp else choice


def _axis_first(rays: Rays, axis: Any, shape: tuple[int, ...]) -> tuple[Rays, Any]:
    """The rays in a volume whose slices' axis comes first, the others in order, and its shape."""
    xp, dtype = rays.xp, rays.direction.corner.dtype
    order = xp.asarray([(n, *others_of(n)) for n in range(3)])[axis]
    origin, direction = jax.tree.map(lambda vector: vector[order], (rays.origin, rays.direction))
    return replace(rays, origin=origin, direction=direction), xp.asarray(shape, dtype)[order]


def any_pose(mu: Float[Array, "x y z"], rays: Rays, plan: Plan) -> Float[Array, "rows columns"]:
    """Integral of `mu` (1/mm) from the source to each pixel, along whichever axis fits at run time."""
    return _any_pose(mu, rays, plan.branches)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _any_pose(mu, rays, branches):
    return _forward(mu, rays, branches)[0]


def _forward(mu, rays, branches):
    choice = choice_of(rays, mu.shape, branches)
    image, virtual = _one_by_one(partial(_images, branches))(mu, rays, choice)
    return image, (mu, rays, choice, virtual)


def _backward(branches, saved, image):
    mu, rays, choice, virtual = saved
    to_volume, to_camera = (
        _one_by_one(partial(back, branches)) for back in (_to_volume, _to_camera)
    )
    by_volume = to_volume(jnp.zeros_like(mu), rays, choice, image)
    return by_volume, to_camera(mu, rays, choice, virtual, image)


_any_pose.defvjp(_forward, _backward)


def _images(branches, mu, rays, choice):
    """The image and the virtual one that it was interpolated from."""

    def fast(mu, rays):
        q, z = _combs(branches, mu, rays, choice)
        virtual = _switch(choice, branches, _sum_of_branch, mu, q, z)
        return _seen(virtual, mu, rays, choice), virtual

    def slow(mu, rays):
        return joseph(mu, rays), jnp.zeros(_room(branches), mu.dtype)

    return lax.cond(choice.branch < len(branches), fast, slow, mu, rays)


def _to_volume(branches, mu, rays, choice, image):
    """The image's gradient by the volume, of which only the shape counts."""

    def fast(mu, rays, image):
        nothing = jnp.zeros(_room(branches), mu.dtype)
        (virtual,) = jax.vjp(lambda v: _seen(v, mu, rays, choice), nothing)[1](image)
        q, z = _combs(branches, mu, rays, choice)

        def back(plan, mu, q, z, virtual):
            return jax.vjp(lambda mu: _sum_of_branch(plan, mu, q, z), mu)[1](virtual)[0]

        return _switch(choice, branches, back, mu, q, z, virtual)

    def slow(mu, rays, image):
        return jax.vjp(lambda mu: joseph(mu, rays), mu)[1](image)[0]

    return lax.cond(choice.branch < len(branches), fast, slow, mu, rays, image)


def _to_camera(branches, mu, rays, choice, virtual, image):
    """The image's gradient by the rays."""

    def fast(mu, rays, virtual, image):
        seen = lambda virtual, rays: _seen(virtual, mu, rays, choice)  # noqa: E731
        by_virtual, by_places = jax.vjp(seen, virtual, rays)[1](image)
        _, back = jax.vjp(lambda rays: _slopes(branches, mu, rays, choice), rays)
        q, z = _combs(branches, mu, rays, choice)
        found = _switch(choice, branches, _slope_gradient_of_branch, mu, q, z, by_virtual)
        return jax.tree.map(jnp.add, by_places, *back(found))

    def slow(mu, rays, virtual, image):
        return jax.vjp(lambda rays: joseph(mu, rays), rays)[1](image)[0]

    return lax.cond(choice.branch < len(branches), fast, slow, mu, rays, virtual, image)


def _switch(choice, branches, of_branch, *arrays):
    branch = jnp.minimum(choice.branch, len(branches) - 1)
    return lax.switch(branch, [partial(of_branch, plan) for plan in branches], *arrays)


def _room(branches: tuple[Plan, ...]) -> tuple[int, int]:
    """The virtual detector that holds those of all branches."""
    q, z = (max(sizes) for sizes in zip(*(plan.pixels for plan in branches)))
    return q, z


def _combs(branches, mu, rays, choice):
    turned, sizes = _axis_first(rays, choice.axis, mu.shape)
    lattice = choice.first, choice.pitch
    return shear_warp.combs_of(turned, 0, sizes, lattice, _room(branches), max(mu.shape))


def _slopes(branches, mu, rays, choice):
    """Slopes of the rays through the virtual pixels, along both other axes."""
    turned, sizes = _axis_first(rays, choice.axis, mu.shape)
    lattice = choice.first, choice.pitch
    return shear_warp.slopes_of(turned, 0, sizes, lattice, _room(branches))


def _cut(plan, mu, q, z):
    """The combs of one branch, from those in the room of all."""
    slices = mu.shape[plan.axis]
    return tuple(
        Comb(comb.at[:slices, :pixels], comb.start[:slices], comb.step[:slices])
        for comb, pixels in zip((q, z), plan.pixels)
    )


def _sum_of_branch(plan, mu, q, z):
    """The virtual image by one branch, in the room of all."""
    room = q.at.shape[1], z.at.shape[1]
    image = shear_warp.sum_along(mu, _cut(plan, mu, q, z), plan)
    return jnp.pad(image, [(0, all_of - mine) for all_of, mine in zip(room, plan.pixels)])


def _slope_gradient_of_branch(plan, mu, q, z, virtual):
    """Gradients by `_slopes`, given that by the virtual image."""
    image = virtual[: plan.pixels[0], : plan.pixels[1]]
    found = shear_warp.slope_gradient_along(mu, _cut(plan, mu, q, z), image, plan)
    return tuple(
        jnp.pad(x, (0, len(y) - len(x))) for x, y in zip(found, (virtual[:, 0], virtual[0]))
    )


def _seen(virtual, mu, rays, choice):
    turned, sizes = _axis_first(rays, choice.axis, mu.shape)
    return shear_warp.to_detector(virtual, turned, 0, sizes, (choice.first, choice.pitch))


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(mu, rays, choice, ...)`, under vmap view by view where rays differ.

    Differentiated as if it were not there.
    """
    mapped = custom_vmap(function)

    @mapped.def_vmap
    def rule(size, batched, *arrays):
        leaves, tree = jax.tree.flatten(arrays)
        mine = jax.tree.leaves(batched)
        apart = any(jax.tree.leaves(batched[1:3]))
        each = mapped if apart else function  # which an outer vmap may batch once more

        def one(some):
            some = iter(some)
            all_of = [next(some) if own else leaf for own, leaf in zip(mine, leaves)]
            return each(*jax.tree.unflatten(tree, all_of))

        several = partial(lax.map, one) if apart else jax.vmap(one)
        found = several([leaf for own, leaf in zip(mine, leaves) if own])
        return found, jax.tree.map(lambda _: True, found)

    @jax.custom_vjp
    def call(*arrays):
        return mapped(*arrays)

    def backward(arrays, cotangents):
        return jax.vjp(function, *arrays)[1](cotangents)

    call.defvjp(lambda *arrays: (mapped(*arrays), arrays), backward)
    return call
