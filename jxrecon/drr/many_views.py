"""Many views at once: one after the other in a scan, or spread over devices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
    scanned; traced ones by kind and detector. The adjoint is `jax.vjp` by `mu`.

    Args:
        mu: attenuation in 1/mm; vmap over more.
        cameras: the views.
        others: as `line_integrals`.

    Raises:
        InputError: as `line_integrals`.
    """
    mu = jnp.asarray(mu)
    if not is_concrete(affine, cameras):
        return _of_traced(mu, affine, cameras, method, extent)
    plans = [plan_for(affine, camera, mu.shape, method, extent) for camera in cameras]
    alone = [len(cameras) <= MOST_UNROLLED] * len(cameras)
    images: dict[int, Array] = {}
    for members, way in grouped(cameras, plans, alone):
        one = partial(line_integrals, mu, affine, method=way, extent=extent)
        mine = [cameras[n] for n in members]
        found = lax.map(one, stacked(mine)) if len(mine) > 1 else map(one, mine)
        images |= dict(zip(members, found))
    return tuple(images[n] for n in range(len(cameras)))


def _of_traced(mu, affine, cameras, method, extent):
    """Views of one kind and detector in one scan: a program for any pose is not small."""
    one = partial(line_integrals, mu, affine, method=method, extent=extent)
    images = {}
    for members in by_detector(cameras):
        mine = [cameras[n] for n in members]
        images |= dict(
            zip(members, lax.map(one, stacked(mine)) if len(mine) > 1 else map(one, mine))
        )
    return tuple(images[n] for n in range(len(cameras)))


def by_detector(cameras: Sequence[AnyCamera]) -> list[list[int]]:
    """The places of cameras of one kind and one detector shape, kind by kind."""
    kinds: dict[Any, list[int]] = {}
    for n, camera in enumerate(cameras):
        kinds.setdefault((type(camera), camera.shape), []).append(n)
    return list(kinds.values())


def grouped(
    cameras: Sequence[AnyCamera], plans: Sequence[Plan], alone: Sequence[bool]
) -> list[tuple[list[int], Plan]]:
    """(which cameras, the plan that serves them): each its own where `alone`, else by kind and axis."""
    groups: dict[Any, tuple[list[int], Plan]] = {}
    for n, (camera, way, lone) in enumerate(zip(cameras, plans, alone)):
        kind = type(camera), camera.shape, way.method, way.axis, way.rows_along_z
        key = kind, n if lone else None
        members, theirs = groups.get(key, ([], way))
        groups[key] = [*members, n], theirs.including(way)
    return list(groups.values())


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
            # No more virtual pixels than a strip needs, but of the whole's pitch: its very pixels.
            mine = [plan(affine, part, mu.shape, extent=extent) for part in parts]
            if all(part[:2] == whole[:2] for part in mine):
                sizes = zip(*(part.at_pitch(whole.pitch).pixels for part in mine))
                whole = whole._replace(pixels=tuple(map(max, sizes)))
        plans.append(whole)
    alone = [len(cameras) <= MOST_UNROLLED] * len(cameras)
    images: dict[int, Array] = {}
    for members, way in grouped(cameras, plans, alone):
        per_device = [stacked([strips[n][d] for n in members]) for d in range(mesh.size)]

        def on_device(volume, parts, way=way):
            one = partial(line_integrals, volume, affine, method=way, extent=extent)
            return lax.map(one, jax.tree.map(lambda x: x[0], parts))

        spread = jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(axes)),
            out_specs=PartitionSpec(None, axes),
            check_vma=False,  # the scans begin with zeros, which vary over no axis
        )
        images |= dict(zip(members, spread(mu, stacked(per_device))))
    return tuple(images[n] for n in range(len(cameras)))
