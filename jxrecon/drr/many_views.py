"""Many views at once: one after the other in a scan, or spread over devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float

from jxrecon.drr.projection import line_integrals, plan, plan_for
from jxrecon.drr.rays import is_concrete
from jxrecon.drr.shear_warp import Plan
from jxrecon.geometry import AnyCamera

T = TypeVar("T")

MOST_UNROLLED = 4
"""Views up to which each gets a program of its own, with its positions known at compile time."""


def stacked(cameras: Sequence[T]) -> T:
    """One camera, or tuple of them, whose vectors are [views, 3]: for lax.map, vmap or over devices.

    In NumPy where all are known: constants of a program, not its arguments.
    """
    xp = np if is_concrete(None, cameras) else jnp
    return jax.tree.map(lambda *vectors: xp.stack([xp.asarray(v) for v in vectors]), *cameras)


def project(
    mu: Float[Array | np.ndarray, "x y z"],
    affine: Float[Array | np.ndarray, "4 4"],
    cameras: Sequence[AnyCamera],
    method: str = "auto",
    extent: str = "segment",
) -> tuple[Float[Array, "rows columns"], ...]:
    """`line_integrals` in every view, in the cameras' order; memory and program of a few views.

    Known cameras beyond `MOST_UNROLLED` are grouped by kind, detector and axis, and each group is
    scanned; traced ones are projected one by one. The adjoint is `jax.vjp` by `mu`.

    Args:
        mu: attenuation in 1/mm; vmap over more.
        affine: index -> world mm.
        cameras: the views.
        method: one of `METHODS`.
        extent: one of `EXTENTS`.

    Raises:
        InputError: as `line_integrals`.
    """
    mu = jnp.asarray(mu)
    if not is_concrete(affine, cameras):
        return tuple(line_integrals(mu, affine, camera, method, extent) for camera in cameras)
    plans = [plan_for(affine, camera, mu.shape, method, extent) for camera in cameras]
    images: dict[int, Array] = {}
    for members, way in _groups(cameras, plans):
        mine = [cameras[n] for n in members]
        images |= dict(zip(members, _in_turn(mu, affine, mine, way, extent)))
    return tuple(images[n] for n in range(len(cameras)))


def _in_turn(
    mu: Array, affine: Any, cameras: Sequence[AnyCamera], way: Plan, extent: str
) -> Sequence[Array] | Float[Array, "views rows columns"]:
    """The images of cameras of one kind: one as it is, several in a scan."""
    if len(cameras) == 1:
        return [line_integrals(mu, affine, cameras[0], way, extent)]
    return lax.map(lambda c: line_integrals(mu, affine, c, way, extent), stacked(cameras))


def _groups(cameras: Sequence[AnyCamera], plans: Sequence[Plan]) -> list[tuple[list[int], Plan]]:
    """(which cameras, the plan that serves them): each its own if few, else by kind and axis."""
    if len(cameras) <= MOST_UNROLLED:
        return [([n], way) for n, way in enumerate(plans)]
    groups: dict[Any, tuple[list[int], Plan]] = {}
    for n, (camera, way) in enumerate(zip(cameras, plans)):
        key = type(camera), camera.shape, way.method, way.axis, way.rows_along_z
        members, theirs = groups.get(key, ([], way))
        groups[key] = [*members, n], theirs.including(way)
    return list(groups.values())


def _for_strips(whole: Plan, strips: Sequence[Plan]) -> Plan:
    """The detector's plan with no more virtual pixels than one of its strips needs.

    The pitch stays, so that strips are warped from the virtual pixels that the whole is warped from.
    """
    if any(p[:2] != whole[:2] for p in strips):
        return whole
    sizes = [p.at_pitch(whole.pitch).pixels for p in strips]
    return whole._replace(pixels=(max(p for p, _ in sizes), max(p for _, p in sizes)))


def project_sharded(
    mu: Float[Array | np.ndarray, "x y z"],
    affine: Float[Array | np.ndarray, "4 4"],
    cameras: Sequence[AnyCamera],
    mesh: Mesh,
    method: str = "auto",
    extent: str = "segment",
) -> tuple[Float[Array, "rows columns"], ...]:
    """`project` with the rays spread over all devices of the mesh; the volume is on each of them.

    Every detector is cut into as many strips of rows as there are devices, and each device projects
    its strip of every view; the images come out sharded by rows. Gradients by `mu` are summed over
    the devices.

    Args:
        mesh: devices; all its axes are used.
        others: as `project`; the cameras must be known.

    Raises:
        InputError: a detector's rows cannot be shared out evenly.
    """
    mu = jnp.asarray(mu)
    axes = tuple(mesh.axis_names)
    mesh = Mesh(mesh.devices, axes, axis_types=(AxisType.Auto,) * len(axes))
    with jax.ensure_compile_time_eval():
        strips = [camera.strips(mesh.size) for camera in cameras]
    plans = []
    for camera, parts in zip(cameras, strips):
        whole = plan_for(affine, camera, mu.shape, method, extent)
        if whole.method == "shear_warp":
            of_parts = [plan(affine, part, mu.shape, extent=extent) for part in parts]
            whole = _for_strips(whole, of_parts)
        plans.append(whole)
    images: dict[int, Array] = {}
    for members, way in _groups(cameras, plans):
        per_device = [stacked([strips[n][d] for n in members]) for d in range(mesh.size)]

        def on_device(volume, parts, way=way):
            mine = jax.tree.map(lambda x: x[0], parts)
            return lax.map(lambda c: line_integrals(volume, affine, c, way, extent), mine)

        spread = jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(axes)),
            out_specs=PartitionSpec(None, axes),
            check_vma=False,  # the scans begin with zeros, which vary over no axis
        )
        images |= dict(zip(members, spread(mu, stacked(per_device))))
    return tuple(images[n] for n in range(len(cameras)))
